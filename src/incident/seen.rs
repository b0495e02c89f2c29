//! Which plain media had a content: its URI and its homeserver, sealed, under the name of the content.

use std::{
    iter::once,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::{RecordKey, RecordKind, RecordName, SealError};
use serde::{Deserialize, Serialize};

use super::incident_store::IncidentStore;
use crate::{media::Origin, scan::report::PlainMedia};

/// Maximum number of media that are kept for one content.
const MAX_MEDIA: usize = 64;

/// Plain media, and the content that it had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenMedia {
    pub(super) mxc: String,
    /// Configured homeserver that the media was fetched from.
    pub(super) base_url: Option<String>,
    /// Not in the record, whose name depends on it.
    #[serde(skip)]
    pub(super) content: [u8; 32],
}

/// The kept names of media. Cheap to clone.
#[derive(Clone)]
pub(super) struct SeenIndex {
    store: IncidentStore,
    keep: Duration,
}

impl SeenMedia {
    pub(super) fn new(media: &PlainMedia<'_>) -> Self {
        let fetch = &media.request.fetch;
        let base_url = match &fetch.origin {
            Origin::Configured(url) => Some(url.to_string()),
            Origin::Discovered => None,
        };
        Self { mxc: fetch.media.to_string(), base_url, content: *media.content }
    }

    /// Returns the name of the incident about this media and content.
    pub(super) fn incident_name(&self, store: &IncidentStore) -> RecordName {
        let base_url = self.base_url.as_deref().unwrap_or_default().as_bytes();
        let parts = [&self.content[..], self.mxc.as_bytes(), base_url];
        store.secret().name(RecordKind::Incident, &parts)
    }
}

impl SeenIndex {
    pub(super) fn new(store: IncidentStore, keep: Duration) -> Self {
        Self { store, keep }
    }

    /// Returns the key of the record about media. Records about the same content differ in the version.
    fn key(&self, media: &SeenMedia) -> RecordKey {
        let name = self.store.secret().name(RecordKind::Seen, &[&media.content]);
        // Eight bytes suffice for 64 records. Without the secret, the tag cannot be computed.
        let tag = media.incident_name(&self.store).to_hex();
        let version = tag.as_bytes().first_chunk().copied();
        RecordKey { kind: RecordKind::Seen, name, version }
    }

    /// Keeps media. If the content has many already, nothing is kept.
    pub(super) async fn add(&self, media: &SeenMedia) -> Result<(), SealError> {
        let key = self.key(media);
        let records = self.store.seen(key.name).await.unwrap_or_default();
        if records.len() >= MAX_MEDIA && !records.iter().any(|(other, _)| *other == key) {
            return Ok(());
        }
        let record = serde_json::to_vec(media).unwrap_or_default();
        self.store.put(key, expiry(self.keep), &record)
    }

    /// Returns the media that had a content; `None` if the store cannot be read.
    pub(super) async fn media(&self, content: &[u8; 32]) -> Option<Vec<SeenMedia>> {
        let secrets = self.store.secrets();
        let mut found: Vec<SeenMedia> = Vec::new();
        for secret in once(secrets.current()).chain(secrets.former()) {
            let name = secret.name(RecordKind::Seen, &[content]);
            for (_, record) in self.store.seen(name).await? {
                let media = serde_json::from_slice::<SeenMedia>(&record).ok();
                let media = media.map(|media| SeenMedia { content: *content, ..media });
                found.extend(media.filter(|media| !found.contains(media)));
            }
        }
        Some(found)
    }

    /// Returns whether an incident about this media was created.
    pub(super) async fn is_marked(&self, media: &SeenMedia) -> bool {
        let name = media.incident_name(&self.store);
        let mark = RecordKey { kind: RecordKind::Incident, name, version: None };
        self.store.has_record(mark).await
    }

    /// Marks that an incident about this media was created, because it is part of another one.
    pub(super) fn mark(&self, media: &SeenMedia) -> Result<(), SealError> {
        let name = media.incident_name(&self.store);
        let mark = RecordKey { kind: RecordKind::Incident, name, version: None };
        self.store.put(mark, expiry(self.keep), &[])
    }
}

/// Returns the time after this duration, seconds since 1970.
pub(super) fn expiry(duration: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(duration).as_secs()
}
