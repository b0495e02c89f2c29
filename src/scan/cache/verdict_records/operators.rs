//! Reading and removing of records for operators.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcs_store::{ListPosition, ListedRecord, RecordKey, RecordKind};
use serde::{Deserialize, Serialize};

use super::{VerdictRecords, expiry};
use crate::{
    media::{MediaId, hex, parse_hex},
    scan::{
        cache::{
            forgotten_record,
            keys::{ContentKey, MediaKey, MediaTag},
            known::{KnownMedia, OperatorStoreError, StoredOutcome, StoredPage},
            media_record,
            operator_records::NotWritten,
            record_names::RecordNames,
            record_store::OutcomeKeys,
            store_message::StoreMessage,
        },
        cached_media::CachedMedia,
        engines::{FileOutcome, Versions},
    },
};

/// Refers to a media record, and to the content that the media had. Digests are in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReferenceRecord {
    media: String,
    content: String,
}

/// A media record and its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
        mxc: &MediaId,
        ttl: Duration,
    ) {
        let record = ReferenceRecord { media: hex(key.digest()), content: hex(&media.content) };
        let Ok(record) = serde_json::to_vec(&record) else { return };
        let version = key.digest().first_chunk().copied();
        let reference = RecordKey { version, ..self.names().references(mxc) };
        self.store.put(reference, expiry(ttl.max(self.settings.not_clean_ttl)), &record);
    }

    /// Returns the outcomes for a content: in a file, of all versions of the present engines; in a shared store, of these
    /// versions.
    pub(in crate::scan::cache) async fn outcomes(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Result<Vec<StoredOutcome>, OperatorStoreError> {
        let mut outcomes = Vec::new();
        for names in self.all_names() {
            let OutcomeKeys { infected, finished, .. } = names.outcome(key, versions);
            for key in [infected, finished] {
                let records = self.all(key).await?;
                outcomes.extend(records.iter().filter_map(decode_outcome));
            }
        }
        Ok(outcomes)
    }

    /// Returns when operators had the verdicts on a content forgotten.
    pub(in crate::scan::cache) async fn forgotten_at(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Result<Option<SystemTime>, OperatorStoreError> {
        let mut latest = None;
        for names in self.all_names() {
            let records = self.all(names.outcome(key, versions).forgotten).await?;
            let times = records.iter().map(|record| forgotten_record::decode(&record.value));
            latest = times.fold(latest, Option::max);
        }
        Ok(latest)
    }

    /// Returns whether a stored outcome is valid for these engines and versions.
    pub(in crate::scan::cache) fn is_valid(
        &self,
        stored: &StoredOutcome,
        key: &ContentKey,
        versions: Versions,
    ) -> bool {
        let kind = stored.key.kind;
        let is_of_kind = kind == RecordKind::Finished || stored.decoded.outcome.is_infected();
        let are_known = kind == RecordKind::NotClean || versions.are_known();
        let has_key = |names: &RecordNames| {
            let OutcomeKeys { infected, finished, .. } = names.outcome(key, versions);
            [infected, finished].contains(&stored.key)
        };
        is_of_kind && are_known && self.all_names().iter().any(has_key)
    }

    /// Returns references to the media entries of a URI.
    pub(in crate::scan::cache) async fn references(
        &self,
        mxc: &MediaId,
    ) -> Result<Vec<MediaReference>, OperatorStoreError> {
        let mut found: Vec<MediaReference> = Vec::new();
        for names in self.all_names() {
            for record in self.all(names.references(mxc)).await? {
                let reference = MediaReference::decode(&record.value);
                found.extend(reference.filter(|reference| !found.contains(reference)));
            }
        }
        Ok(found)
    }

    /// Returns the media entry that a reference names.
    pub(in crate::scan::cache) async fn referenced(
        &self,
        reference: &MediaReference,
    ) -> Result<Option<KnownMedia>, OperatorStoreError> {
        for names in self.all_names() {
            let records = self.all(names.media(&reference.media)).await?;
            if let Some(media) = records.iter().find_map(decode_media) {
                return Ok(Some(media));
            }
        }
        Ok(None)
    }

    /// Returns the outcomes or media entries of one part of the store, and the start of the next part.
    pub(in crate::scan::cache) async fn page(
        &self,
        kinds: &[RecordKind],
        after: Option<ListPosition>,
    ) -> Result<(StoredPage, Option<ListPosition>), OperatorStoreError> {
        if !self.has_records()? {
            return Ok((StoredPage::default(), None));
        }
        let listed = self.store.page(kinds, after).await.ok_or(OperatorStoreError::Read)?;
        let mut page = StoredPage { is_truncated: listed.is_truncated, ..StoredPage::default() };
        for record in &listed.records {
            match record.key.kind {
                RecordKind::NotClean | RecordKind::Finished => {
                    page.outcomes.extend(decode_outcome(record));
                }
                RecordKind::Media => page.media.extend(decode_media(record)),
                RecordKind::Forgotten
                | RecordKind::Reference
                | RecordKind::Decisions
                | RecordKind::Seen
                | RecordKind::Incident
                | RecordKind::Outbox
                | RecordKind::Rescan => {}
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
    ) -> Result<usize, OperatorStoreError> {
        if !self.has_records()? {
            return Ok(0);
        }
        let count = match self.outcomes(key, versions).await {
            Ok(outcomes) => outcomes.len(),
            // Written as soon as the store is available.
            Err(_) if self.shared_store().is_some() => 0,
            Err(error) => return Err(error),
        };
        let expiry = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let expiry = expiry.saturating_add(ttl.max(self.settings.not_clean_ttl)).as_secs();
        // The time under former secrets is for replicas without the current one.
        for names in self.all_names() {
            let (store, keys) =
                (self.store.with_secret(&names.secret), names.outcome(key, versions));
            let forgotten = store.forget(&keys, expiry, &forgotten_record::encode(now)).await;
            forgotten.map_err(|NotWritten| OperatorStoreError::Write)?;
        }
        // After the records, so that replicas do not find them again.
        self.publish(&StoreMessage::Forgotten { content: key.content });
        Ok(count)
    }

    /// Removes the media entry that a reference names.
    pub(in crate::scan::cache) async fn forget_media(
        &self,
        reference: &MediaReference,
    ) -> Result<(), OperatorStoreError> {
        for names in self.all_names() {
            self.delete(names.media(&reference.media)).await?;
        }
        Ok(())
    }

    /// Removes the references to the media entries of a URI.
    pub(in crate::scan::cache) async fn forget_references(
        &self,
        mxc: &MediaId,
    ) -> Result<(), OperatorStoreError> {
        self.publish(&StoreMessage::MediaForgotten { tag: MediaTag::from_media(mxc).0 });
        for names in self.all_names() {
            self.delete(names.references(mxc)).await?;
        }
        Ok(())
    }

    /// Removes all outcomes for a content in the background.
    pub(in crate::scan::cache) fn remove_outcomes(&self, key: &ContentKey, versions: Versions) {
        for names in self.all_names() {
            let OutcomeKeys { infected, finished, .. } = names.outcome(key, versions);
            self.store.delete(infected);
            self.store.delete(finished);
        }
    }

    /// Removes a media entry in the background.
    pub(in crate::scan::cache) fn remove_media(&self, key: &MediaKey) {
        for names in self.all_names() {
            self.store.delete(names.media(key));
        }
    }

    /// Removes all records with the name of a key.
    async fn delete(&self, key: RecordKey) -> Result<(), OperatorStoreError> {
        if !self.has_records()? {
            return Ok(());
        }
        self.store.remove(key).await.map_err(|NotWritten| OperatorStoreError::Write)
    }

    /// Returns all records with the name of a key.
    async fn all(&self, key: RecordKey) -> Result<Vec<ListedRecord>, OperatorStoreError> {
        if !self.has_records()? {
            return Ok(Vec::new());
        }
        self.store.all(key).await.ok_or(OperatorStoreError::Read)
    }

    /// Returns whether there are records: none while all are being removed.
    fn has_records(&self) -> Result<bool, OperatorStoreError> {
        let state = self.use_state.lock();
        if state.is_stopped { Err(OperatorStoreError::Closed) } else { Ok(state.removals == 0) }
    }
}

fn decode_outcome(record: &ListedRecord) -> Option<StoredOutcome> {
    let decoded = FileOutcome::from_record(&record.value).ok()?;
    let expires = expires(record);
    Some(StoredOutcome { key: record.key, decoded, expires })
}

fn decode_media(record: &ListedRecord) -> Option<KnownMedia> {
    media_record::decode_known(&record.value, expires(record)).ok()
}

fn expires(record: &ListedRecord) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(record.expiry?))
}
