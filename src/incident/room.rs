//! Notifications in a Matrix room.

use std::time::Duration;

use reqwest::{Method, Url};
use sha2::{Digest as _, Sha256};

use super::{message::Notice, secret_source::SecretSource, step::StepResult};
use crate::{
    chain::Chain,
    media::{
        hex,
        service_client::{ServiceClient, ServiceRequest, bearer, below},
    },
};

/// Delay after a 429 that names none.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// A room, and the sender.
#[derive(Clone, Debug)]
pub(super) struct NoticeRoom {
    pub(super) room: String,
    pub(super) homeserver: Url,
    pub(super) token: SecretSource,
    pub(super) client: ServiceClient,
}

impl NoticeRoom {
    pub(super) async fn send(&self, notice: &Notice<'_>, personal_data: bool) -> StepResult {
        let token = match self.token.read().await {
            Ok(token) => token,
            Err(error) => return StepResult::Failed(error),
        };
        let transaction = transaction(notice);
        let path = [
            "_matrix",
            "client",
            "v3",
            "rooms",
            &self.room,
            "send",
            "m.room.message",
            &transaction,
        ];
        let request = ServiceRequest {
            method: Method::PUT,
            url: below(&self.homeserver, &path),
            headers: bearer(&token),
            body: Some(notice.to_message(personal_data)),
        };
        match self.client.send(request).await {
            Ok(response) => match response.status {
                200 => StepResult::Done,
                429 => StepResult::Wait(response.retry_after.unwrap_or(DEFAULT_WAIT)),
                status @ (401 | 403) => StepResult::Failed(format!(
                    "status {status}: the sender needs a valid token and must be a member of the room"
                )),
                status => StepResult::Failed(format!("status {status}")),
            },
            Err(error) => StepResult::Failed(Chain(&error).to_string()),
        }
    }
}

/// Returns the transaction ID, which makes a homeserver store a message once, however often it is sent.
fn transaction(notice: &Notice<'_>) -> String {
    match notice {
        Notice::Single(incident) => format!("mcs-{}", incident.id),
        Notice::Summary(incidents) => {
            let mut digest = Sha256::new();
            incidents.iter().for_each(|incident| digest.update(&incident.id));
            format!("mcs-summary-{}", hex(&digest.finalize().into()))
        }
    }
}
