//! Which plain media had a content: its URI and its homeserver, sealed, under the name of the content.

use std::{
    iter::once,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::{
    ListPosition, ListedRecord, RecordKey, RecordKind, RecordName, SealError, StoreSecret,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::incident_store::IncidentStore;
use crate::{
    media::{Origin, Thumbnail, Variant, hex, parse_hex},
    scan::report::PlainMedia,
};

/// Maximum number of media that are kept for one content.
const MAX_MEDIA: usize = 64;

/// Plain media, and the content that it had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SeenMedia {
    pub(super) mxc: String,
    /// Configured homeserver that the media was fetched from.
    pub(super) base_url: Option<String>,
    /// Parameters of the thumbnail; `None` for the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) thumbnail: Option<Thumbnail>,
    /// SHA-256 of the content. `None` in records of earlier versions of the program, whose name depends on it all the same.
    #[serde(default, rename = "sha256", serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub(super) content: Option<[u8; 32]>,
}

#[expect(clippy::ref_option, reason = "the type of the field, which serde passes")]
fn to_hex<S: Serializer>(content: &Option<[u8; 32]>, serializer: S) -> Result<S::Ok, S::Error> {
    content.as_ref().map(hex).serialize(serializer)
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
    let Some(digits) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    parse_hex(&digits).map(Some).ok_or_else(|| D::Error::custom("invalid digest"))
}

/// The kept names of media. Cheap to clone.
#[derive(Clone)]
pub(super) struct SeenIndex {
    store: IncidentStore,
    keep: Duration,
}

/// Media of a listing, with the key of its record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ListedMedia {
    pub(super) key: RecordKey,
    pub(super) media: SeenMedia,
}

/// Part of all seen media.
pub(super) struct SeenPage {
    pub(super) media: Vec<ListedMedia>,
    /// Start of the next part.
    pub(super) next: Option<ListPosition>,
    /// Whether media was left out.
    pub(super) is_truncated: bool,
}

impl SeenMedia {
    pub(super) fn new(media: &PlainMedia<'_>) -> Self {
        let fetch = &media.request.fetch;
        let base_url = match &fetch.origin {
            Origin::Configured(url) => Some(url.to_string()),
            Origin::Discovered => None,
        };
        let thumbnail = match fetch.variant {
            Variant::Original => None,
            Variant::Thumbnail(thumbnail) => Some(thumbnail),
        };
        let content = Some(*media.content);
        Self { mxc: fetch.media.to_string(), base_url, thumbnail, content }
    }

    /// Returns the name of the incident about this media and content.
    pub(super) fn incident_name(&self, secret: &StoreSecret) -> RecordName {
        let base_url = self.base_url.as_deref().unwrap_or_default().as_bytes();
        let parts = [self.content_bytes(), self.mxc.as_bytes(), base_url];
        secret.name(RecordKind::Incident, &parts)
    }

    fn content_bytes(&self) -> &[u8] {
        self.content.as_ref().map_or(&[], |content| &content[..])
    }
}

impl SeenIndex {
    pub(super) fn new(store: IncidentStore, keep: Duration) -> Self {
        Self { store, keep }
    }

    /// Returns the key of the record about media. Records about the same content differ in the version.
    fn key(&self, media: &SeenMedia) -> RecordKey {
        let secret = self.store.secrets().current();
        let name = secret.name(RecordKind::Seen, &[media.content_bytes()]);
        // Eight bytes suffice for 64 records. Without the secret, the tag cannot be computed.
        let tag = media.incident_name(&secret).to_hex();
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
                let media = media.map(|media| SeenMedia { content: Some(*content), ..media });
                found.extend(media.filter(|media| !found.contains(media)));
            }
        }
        Some(found)
    }

    /// Returns the next media: of a file, that which was first seen last at first. `None` if the store cannot be read.
    pub(super) async fn page(&self, after: Option<ListPosition>) -> Option<SeenPage> {
        let listed = self.store.list_seen(after).await?;
        let parse = |record: ListedRecord| {
            let media = serde_json::from_slice(&record.value).ok()?;
            Some(ListedMedia { key: record.key, media })
        };
        let media = listed.records.into_iter().filter_map(parse).collect();
        Some(SeenPage { media, next: listed.next, is_truncated: listed.is_truncated })
    }

    pub(super) fn store(&self) -> &IncidentStore {
        &self.store
    }

    /// Returns whether an incident about this media was created.
    pub(super) async fn is_marked(&self, media: &SeenMedia) -> bool {
        self.store.has_record(self.mark_key(media)).await
    }

    /// Marks that an incident about this media was created, because it is part of another one.
    pub(super) fn mark(&self, media: &SeenMedia) -> Result<(), SealError> {
        self.store.put(self.mark_key(media), expiry(self.keep), &[])
    }

    fn mark_key(&self, media: &SeenMedia) -> RecordKey {
        let name = media.incident_name(&self.store.secrets().current());
        RecordKey { kind: RecordKind::Incident, name, version: None }
    }
}

/// Returns the time after this duration, seconds since 1970.
pub(super) fn expiry(duration: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(duration).as_secs()
}
