//! Release of media from quarantine, by the admin API of the homeserver.

use std::time::Duration;

use reqwest::Method;

use super::{quarantine::QuarantineClient, step::StepResult};
use crate::{config::sections::quarantine::QuarantineApi, media::MediaId};

/// Media that the homeserver serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReleasedMedia {
    /// Whether the media was in quarantine before.
    pub was_quarantined: bool,
}

/// Reason why media is not released.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReleaseError {
    #[error("no homeserver quarantines media: quarantine.at is \"off\"")]
    QuarantineOff,
    #[error(
        "matrix-media-repo has no API that releases media: its database has to be changed (see docs/incidents.md)"
    )]
    NotSupported,
    #[error("the homeserver does not have this media")]
    UnknownMedia,
    #[error("the homeserver is busy: try again in {} s", .0.as_secs())]
    Busy(Duration),
    #[error("the media is not released: {0}")]
    Failed(String),
    #[error(
        "the homeserver accepted the request, but the media is still in quarantine: check its log"
    )]
    StillQuarantined,
}

impl QuarantineClient {
    /// Has media released, and checks that it is.
    pub(super) async fn release(&self, media: &MediaId) -> Result<ReleasedMedia, ReleaseError> {
        if self.api != QuarantineApi::Synapse {
            return Err(ReleaseError::NotSupported);
        }
        let token = self.token.read().await.map_err(ReleaseError::Failed)?;
        let id = [media.server_name(), media.media_id()];
        // Synapse responds with 200 for media that it does not have.
        let was_quarantined = self.media_info(&id, &token).await?.quarantined_by.is_some();
        let path = [&["_synapse", "admin", "v1", "media", "unquarantine"], &id[..]].concat();
        let response = self.send(Method::POST, &path, &token).await?;
        if response.status != 200 {
            return Err(self.refusal(&response).into());
        }
        if self.media_info(&id, &token).await?.quarantined_by.is_some() {
            return Err(ReleaseError::StillQuarantined);
        }
        Ok(ReleasedMedia { was_quarantined })
    }
}

impl From<StepResult> for ReleaseError {
    fn from(result: StepResult) -> Self {
        match result {
            StepResult::NotNeeded(_) => Self::UnknownMedia,
            StepResult::Wait(delay) => Self::Busy(delay),
            StepResult::Refused(cause) => Self::Failed(cause.to_owned()),
            StepResult::Failed(cause) => Self::Failed(cause),
            StepResult::Done => Self::StillQuarantined,
        }
    }
}
