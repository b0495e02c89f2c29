//! What requests use, and how changes are read.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, extract::Request, http::Response};
use serde::de::DeserializeOwned;

use super::{error::AdminError, guard, token::TokenIdentity};
use crate::{
    http::{CurrentState, Peer, body},
    incident::IncidentAdmin,
    scan::Scanner,
    telemetry::audit::AuditLog,
};

/// Maximum size of the body of a change, bytes.
pub(super) const MAX_BODY: usize = 4096;

/// Maximum time to receive the body of a change.
pub(super) const BODY_TIME: Duration = Duration::from_secs(5);

pub(super) type AdminResult = Result<Response<Body>, AdminError>;

/// What requests use.
pub(super) struct AdminState {
    pub(super) current: CurrentState,
    pub(super) audit: AuditLog,
    /// `None` if no incidents are created.
    pub(super) incidents: Option<IncidentAdmin>,
}

impl AdminState {
    pub(super) fn scanner(&self) -> Scanner {
        self.current.load().scanner.clone()
    }

    pub(super) fn incidents(&self) -> Result<&IncidentAdmin, AdminError> {
        self.incidents.as_ref().ok_or(AdminError::IncidentsOff)
    }
}

/// Who makes a change, for the audit log.
#[derive(Clone, Debug)]
pub(super) struct Operator {
    /// Name of the token.
    pub(super) token_name: Arc<str>,
    /// Address or user.
    pub(super) peer: String,
    /// "token", or "session" on the operator page.
    pub(super) access: &'static str,
}

/// Returns the peer of a request.
pub(super) fn peer_of(request: &Request) -> Peer {
    request.extensions().get::<Peer>().copied().unwrap_or(Peer::Local { uid: None })
}

/// Reads the body of a change. Returns it with the operator who sent it.
pub(super) async fn read_change<T: DeserializeOwned>(
    request: Request,
) -> Result<(Operator, T), AdminError> {
    // Each request to the API has one.
    let token = request.extensions().get::<TokenIdentity>().ok_or(AdminError::Unauthorized)?;
    let operator = Operator {
        token_name: Arc::clone(&token.name),
        peer: guard::describe(peer_of(&request)),
        access: "token",
    };
    let (head, body) = request.into_parts();
    if !guard::has_json(&head) {
        return Err(AdminError::ContentType);
    }
    let body = body::read(body, &head.headers, MAX_BODY, BODY_TIME).await?;
    let request = serde_json::from_slice(&body)
        .map_err(|error| AdminError::Invalid(format!("the body is not as expected: {error}")))?;
    Ok((operator, request))
}
