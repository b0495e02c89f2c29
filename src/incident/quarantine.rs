//! Quarantine at the homeserver, by its admin API.

use std::time::Duration;

use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::Value;

use super::{secret_source::SecretSource, step::StepResult};
use crate::{
    chain::Chain,
    config::sections::quarantine::QuarantineApi,
    media::{
        MediaId,
        service_client::{ServiceClient, ServiceRequest, ServiceResponse, bearer, below},
    },
};

/// Delay after a 429 that names none.
const DEFAULT_WAIT: Duration = Duration::from_secs(10);

/// The admin API of one homeserver.
#[derive(Clone, Debug)]
pub(super) struct QuarantineClient {
    pub(super) api: QuarantineApi,
    pub(super) base_url: Url,
    pub(super) token: SecretSource,
    pub(super) client: ServiceClient,
}

/// Response of Synapse about media (admin API, "Query a piece of media by ID").
#[derive(Deserialize)]
struct SynapseMedia {
    media_info: SynapseMediaInfo,
}

#[derive(Deserialize)]
pub(super) struct SynapseMediaInfo {
    pub(super) quarantined_by: Option<String>,
    /// A boolean, a number where the database has no booleans, or null.
    #[serde(default)]
    safe_from_quarantine: Value,
}

/// Response of matrix-media-repo.
#[derive(Deserialize)]
struct QuarantinedCount {
    num_quarantined: u64,
}

#[derive(Deserialize)]
struct AdminApiError {
    errcode: String,
}

impl QuarantineClient {
    /// Quarantines media, and checks that it is.
    pub(super) async fn quarantine(&self, mxc: &str) -> StepResult {
        let Ok(media) = MediaId::from_mxc(mxc) else {
            return StepResult::Refused("the URI is invalid");
        };
        let token = match self.token.read().await {
            Ok(token) => token,
            Err(error) => return StepResult::Failed(error),
        };
        let id = [media.server_name(), media.media_id()];
        let path: &[&str] = match self.api {
            QuarantineApi::Synapse => &["_synapse", "admin", "v1", "media", "quarantine"],
            // Of 1.3 and later (its admin documentation, "Media quarantine").
            QuarantineApi::MediaRepo => {
                &["_matrix", "media", "unstable", "admin", "quarantine", "media"]
            }
        };
        let response = match self.send(Method::POST, &[path, &id].concat(), &token).await {
            Ok(response) if response.status == 200 => response,
            Ok(response) => return self.refusal(&response),
            Err(failed) => return failed,
        };
        match self.api {
            QuarantineApi::MediaRepo => match parse(&response) {
                Some(QuarantinedCount { num_quarantined: 0 }) => NOT_THERE,
                Some(_) => StepResult::Done,
                None => StepResult::Failed("the homeserver sent no number of media".to_owned()),
            },
            QuarantineApi::Synapse => self.check(&id, &token).await,
        }
    }

    /// Asks Synapse whether media is quarantined, because it responds with 200 for media that it does not have.
    async fn check(&self, id: &[&str; 2], token: &str) -> StepResult {
        let media_info = match self.media_info(id, token).await {
            Ok(media_info) => media_info,
            Err(failed) => return failed,
        };
        if media_info.quarantined_by.is_some() {
            return StepResult::Done;
        }
        match media_info.safe_from_quarantine {
            Value::Bool(true) => PROTECTED,
            Value::Number(number) if number.as_i64() != Some(0) => PROTECTED,
            _ => StepResult::Failed("the homeserver has not quarantined it".to_owned()),
        }
    }

    /// Asks Synapse for the state of media.
    pub(super) async fn media_info(
        &self,
        id: &[&str; 2],
        token: &str,
    ) -> Result<SynapseMediaInfo, StepResult> {
        let path = [&["_synapse", "admin", "v1", "media"], &id[..]].concat();
        let response = self.send(Method::GET, &path, token).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let media = parse(&response).map(|SynapseMedia { media_info }| media_info);
        media.ok_or_else(|| {
            StepResult::Failed("the homeserver sent no state of the media".to_owned())
        })
    }

    /// Returns what another status than 200 means.
    pub(super) fn refusal(&self, response: &ServiceResponse) -> StepResult {
        let errcode = parse::<AdminApiError>(response).map(|error| error.errcode);
        match (response.status, errcode.as_deref()) {
            // matrix-media-repo responds so for paths that it does not know.
            (404, Some("M_NOT_FOUND")) if self.api == QuarantineApi::Synapse => NOT_THERE,
            (429, _) => StepResult::Wait(response.retry_after.unwrap_or(DEFAULT_WAIT)),
            (404, _) => StepResult::Failed(format!(
                "status 404, so {} has no such admin API: check quarantine.at and quarantine.base_url",
                self.base_url
            )),
            (status @ (401 | 403), _) => StepResult::Failed(format!(
                "status {status}: quarantine.token_path needs the token of an administrator"
            )),
            (status, _) => StepResult::Failed(format!("status {status}")),
        }
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &[&str],
        token: &str,
    ) -> Result<ServiceResponse, StepResult> {
        let body = (method == Method::POST).then(|| b"{}".to_vec());
        let url = below(&self.base_url, path);
        let request = ServiceRequest { method, url, headers: bearer(token), body };
        let sent = self.client.send(request).await;
        sent.map_err(|error| StepResult::Failed(Chain(&error).to_string()))
    }
}

const PROTECTED: StepResult = StepResult::Refused("an administrator protects it from quarantine");

const NOT_THERE: StepResult = StepResult::NotNeeded("the homeserver does not have it");

/// Reads the body of a response.
fn parse<T: for<'de> Deserialize<'de>>(response: &ServiceResponse) -> Option<T> {
    serde_json::from_slice(response.body.as_deref()?).ok()
}
