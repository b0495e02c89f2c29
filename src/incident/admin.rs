//! What operators see and change of incidents.

use std::collections::BTreeSet;

use super::{
    entry::Incident,
    listing::{self, IncidentFilter, IncidentList},
    outbox::Outbox,
    quarantine::QuarantineClient,
    release::{ReleaseError, ReleasedMedia},
    seen::SeenIndex,
};
use crate::media::{MediaId, parse_hex};

/// What operators see and change of incidents. Cheap to clone.
#[derive(Clone)]
pub struct IncidentAdmin {
    pub(super) outbox: Outbox,
    pub(super) seen: SeenIndex,
    /// `None` if nothing is quarantined.
    pub(super) quarantine: Option<QuarantineClient>,
}

impl IncidentAdmin {
    /// Lists the waiting incidents, and those that this process has finished lately. `None` if the store cannot be read.
    pub async fn list(&self, filter: &IncidentFilter) -> Option<IncidentList> {
        listing::list(&self.outbox, filter).await
    }

    /// Returns the contents of the listed incidents about media. `None` if the store cannot be read.
    pub async fn contents_of(&self, media: &MediaId) -> Option<BTreeSet<[u8; 32]>> {
        let mxc = media.to_string();
        let mut contents = BTreeSet::new();
        let mut add = |incident: &Incident| {
            if incident.mxcs().any(|other| other == mxc) {
                contents.extend(parse_hex(&incident.content));
            }
        };
        for waiting in listing::waiting_incidents(&self.outbox).await? {
            add(&waiting.incident);
        }
        self.outbox.for_each_finished(|finished| add(&finished.incident));
        Some(contents)
    }

    /// Returns the URIs of the media that had a content; `None` if the store cannot be read.
    pub async fn media_of(&self, content: &[u8; 32]) -> Option<BTreeSet<String>> {
        let media = self.seen.media(content).await?;
        Some(media.into_iter().map(|media| media.mxc).collect())
    }

    /// Has the homeserver release media from quarantine, and checks that it does.
    ///
    /// # Errors
    /// If the media is not released, or the homeserver does not have it.
    pub async fn release(&self, media: &MediaId) -> Result<ReleasedMedia, ReleaseError> {
        let client = self.quarantine.as_ref().ok_or(ReleaseError::QuarantineOff)?;
        client.release(media).await
    }
}
