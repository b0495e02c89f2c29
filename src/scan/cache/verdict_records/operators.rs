//! Reading and removing of records for operators.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcs_store::{ListPosition, ListedRecord, RecordKey, RecordKind};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::VerdictRecords;
use crate::{
    media::{MediaId, hex, parse_hex},
    scan::{
        cache::{
            forgotten_record,
            keys::{ContentKey, MediaKey},
            known::{KnownMedia, MediaSource, StoreUnavailable, StoredOutcome, StoredPage},
            media_record,
        },
        cached_media::CachedMedia,
        engines::{FileOutcome, Versions},
    },
};

/// Maximum time for one lookup or change of the store.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Refers to a media record, and to the content that the media had. Digests are in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceRecord {
    media: String,
    content: String,
}

/// A media record and its content.
#[derive(Clone, Copy, Debug)]
pub(in crate::scan::cache) struct MediaReference {
    media: MediaKey,
    pub(in crate::scan::cache) content: [u8; 32],
}

impl MediaReference {
    fn decode(record: &[u8]) -> Option<Self> {
        let ReferenceRecord { media, content } = serde_json::from_slice(record).ok()?;
        let media = MediaKey::from_digest(parse_hex(&media)?);
        Some(Self { media, content: parse_hex(&content)? })
    }
}

impl VerdictRecords {
    /// Stores a reference to a media entry under its URI. It lives as long as the verdict on the content may.
    pub(super) fn add_reference(
        &self,
        key: &MediaKey,
        media: &CachedMedia,
        source: &MediaSource,
        ttl: Duration,
    ) {
        let record = ReferenceRecord { media: hex(key.digest()), content: hex(&media.content) };
        let Ok(record) = serde_json::to_vec(&record) else { return };
        let version = key.digest().first_chunk().copied();
        let reference = RecordKey { version, ..self.reference_key(&source.mxc) };
        self.put(reference, ttl.max(self.not_clean_ttl), &record);
    }

    fn reference_key(&self, mxc: &MediaId) -> RecordKey {
        let kind = RecordKind::Reference;
        let name = self.file.secret().name(kind, &[mxc.to_string().as_bytes()]);
        RecordKey { kind, name, version: None }
    }

    /// Returns the outcomes for a content of all versions of the present engines.
    pub(in crate::scan::cache) async fn outcomes(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Result<Vec<StoredOutcome>, StoreUnavailable> {
        let mut outcomes = Vec::new();
        for kind in [RecordKind::NotClean, RecordKind::Finished] {
            let records = self.all(self.content_key(key, kind, versions)).await?;
            outcomes.extend(records.iter().filter_map(decode_outcome));
        }
        Ok(outcomes)
    }

    /// Returns when operators had the verdicts on a content forgotten.
    pub(in crate::scan::cache) async fn forgotten_at(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Result<Option<SystemTime>, StoreUnavailable> {
        let records = self.all(self.content_key(key, RecordKind::Forgotten, versions)).await?;
        Ok(records.iter().filter_map(|record| forgotten_record::decode(&record.value)).max())
    }

    /// Returns whether a stored outcome is valid for these engines and versions.
    pub(in crate::scan::cache) fn is_valid(
        &self,
        stored: &StoredOutcome,
        key: &ContentKey,
        versions: Versions,
    ) -> bool {
        let kind = stored.key.kind;
        let is_of_kind = stored.outcome.is_infected() == (kind == RecordKind::NotClean);
        let are_known = kind == RecordKind::NotClean || versions.are_known();
        is_of_kind && are_known && stored.key == self.content_key(key, kind, versions)
    }

    /// Returns references to the media entries of a URI.
    pub(in crate::scan::cache) async fn references(
        &self,
        mxc: &MediaId,
    ) -> Result<Vec<MediaReference>, StoreUnavailable> {
        let records = self.all(self.reference_key(mxc)).await?;
        Ok(records.iter().filter_map(|record| MediaReference::decode(&record.value)).collect())
    }

    /// Returns the media entry that a reference names.
    pub(in crate::scan::cache) async fn referenced(
        &self,
        reference: &MediaReference,
    ) -> Result<Option<KnownMedia>, StoreUnavailable> {
        let records = self.all(self.media_key(&reference.media)).await?;
        Ok(records.iter().find_map(decode_media))
    }

    /// Returns the outcomes or media entries of one part of the store, and the start of the next part.
    pub(in crate::scan::cache) async fn page(
        &self,
        kinds: &[RecordKind],
        after: Option<ListPosition>,
    ) -> Result<(StoredPage, Option<ListPosition>), StoreUnavailable> {
        if !self.use_state.lock().is_written() {
            return Ok((StoredPage::default(), None));
        }
        let listed = timeout(STEP_TIMEOUT, self.file.list(kinds, after)).await;
        let listed = listed.ok().flatten().ok_or(StoreUnavailable::Read)?;
        let mut page = StoredPage::default();
        for record in &listed.records {
            match record.key.kind {
                RecordKind::NotClean | RecordKind::Finished => {
                    page.outcomes.extend(decode_outcome(record));
                }
                RecordKind::Media => page.media.extend(decode_media(record)),
                RecordKind::Forgotten | RecordKind::Reference => {}
            }
        }
        Ok((page, listed.next))
    }

    /// Removes all outcomes for a content, and records the time. Returns the number of outcomes.
    pub(in crate::scan::cache) async fn forget_outcomes(
        &self,
        key: &ContentKey,
        versions: Versions,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<usize, StoreUnavailable> {
        if !self.use_state.lock().is_written() {
            return Ok(0);
        }
        let count = self.outcomes(key, versions).await?.len();
        let forgotten = self.content_key(key, RecordKind::Forgotten, versions);
        let expiry = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = expiry.saturating_add(ttl.max(self.not_clean_ttl)).as_secs();
        let written = self.file.put_durable(forgotten, expiry, &forgotten_record::encode(now));
        let written = written.map_err(|_| StoreUnavailable::Write)?;
        // Queued before the first is awaited, so that one transaction writes all.
        let [infected, finished] = [RecordKind::NotClean, RecordKind::Finished]
            .map(|kind| self.file.delete(kind, forgotten.name));
        let changed = async { (written.await, infected.await, finished.await) };
        match timeout(STEP_TIMEOUT, changed).await {
            Ok((Ok(()), Ok(()), Ok(()))) => Ok(count),
            _ => Err(StoreUnavailable::Write),
        }
    }

    /// Removes the media entry that a reference names.
    pub(in crate::scan::cache) async fn forget_media(
        &self,
        reference: &MediaReference,
    ) -> Result<(), StoreUnavailable> {
        self.delete(self.media_key(&reference.media)).await
    }

    /// Removes the references to the media entries of a URI.
    pub(in crate::scan::cache) async fn forget_references(
        &self,
        mxc: &MediaId,
    ) -> Result<(), StoreUnavailable> {
        self.delete(self.reference_key(mxc)).await
    }

    /// Removes all outcomes for a content in the background.
    pub(in crate::scan::cache) fn remove_outcomes(&self, key: &ContentKey, versions: Versions) {
        for kind in [RecordKind::NotClean, RecordKind::Finished] {
            // Removed even if the future is dropped.
            drop(self.file.delete(kind, self.content_key(key, kind, versions).name));
        }
    }

    /// Removes a media entry in the background.
    pub(in crate::scan::cache) fn remove_media(&self, key: &MediaKey) {
        drop(self.file.delete(RecordKind::Media, self.media_key(key).name));
    }

    /// Removes all records with the name of a key.
    async fn delete(&self, key: RecordKey) -> Result<(), StoreUnavailable> {
        if !self.use_state.lock().is_written() {
            return Ok(());
        }
        match timeout(STEP_TIMEOUT, self.file.delete(key.kind, key.name)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(StoreUnavailable::Write),
        }
    }

    /// Returns all records with the name of a key.
    async fn all(&self, key: RecordKey) -> Result<Vec<ListedRecord>, StoreUnavailable> {
        if !self.use_state.lock().is_written() {
            return Ok(Vec::new());
        }
        let found = timeout(STEP_TIMEOUT, self.file.get_all(key.kind, key.name)).await;
        found.ok().flatten().ok_or(StoreUnavailable::Read)
    }
}

fn decode_outcome(record: &ListedRecord) -> Option<StoredOutcome> {
    let (outcome, content) = FileOutcome::from_named_record(&record.value).ok()?;
    let expires = expires(record)?;
    Some(StoredOutcome { key: record.key, content, outcome, expires })
}

fn decode_media(record: &ListedRecord) -> Option<KnownMedia> {
    media_record::decode_known(&record.value, expires(record)?).ok()
}

fn expires(record: &ListedRecord) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(record.expiry))
}
