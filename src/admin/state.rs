//! What requests use, and how changes are read.

use std::time::Duration;

use axum::{body::Body, extract::Request, http::Response};
use serde::de::DeserializeOwned;

use super::{error::AdminError, guard};
use crate::{
    http::{CurrentState, Peer, body},
    scan::Scanner,
    telemetry::audit::AuditLog,
};

/// Maximum size of the body of a change, bytes.
const MAX_BODY: usize = 4096;

/// Maximum time to receive the body of a change.
const BODY_TIME: Duration = Duration::from_secs(5);

pub(super) type AdminResult = Result<Response<Body>, AdminError>;

/// What requests use.
#[derive(Clone)]
pub(super) struct AdminState {
    pub(super) current: CurrentState,
    pub(super) audit: AuditLog,
}

impl AdminState {
    pub(super) fn scanner(&self) -> Scanner {
        self.current.load().scanner.clone()
    }
}

/// Reads the body of a change. Returns it with the peer that sent it.
pub(super) async fn read_change<T: DeserializeOwned>(
    request: Request,
) -> Result<(Peer, T), AdminError> {
    let peer = request.extensions().get::<Peer>().copied().unwrap_or(Peer::Local { uid: None });
    let (head, body) = request.into_parts();
    if !guard::has_json(&head) {
        return Err(AdminError::ContentType);
    }
    let body = body::read(body, &head.headers, MAX_BODY, BODY_TIME).await?;
    let request = serde_json::from_slice(&body)
        .map_err(|error| AdminError::Invalid(format!("the body is not as expected: {error}")))?;
    Ok((peer, request))
}
