//! Verdicts in a file, which survive a restart: infected contents under any versions of the engines, and all other finished
//! outcomes under the versions that determined them. Operators' policies apply when a request is answered. Also the
//! contents of media, so that a verdict needs no download.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use mcs_store::{FileStore, RecordKey, RecordKind, StoreCounters};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{
    keys::{ContentKey, MediaKey},
    media_record,
};
use crate::scan::{
    cached_media::CachedMedia,
    engines::{FileOutcome, Versions},
};

/// Maximum time that a request waits for the file. A scan takes its place afterwards.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(250);

/// Stored outcomes. Cheap to clone; clones share the file.
#[derive(Clone)]
pub struct VerdictRecords {
    file: Arc<FileStore>,
    not_clean_ttl: Duration,
}

impl std::fmt::Debug for VerdictRecords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VerdictRecords").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl VerdictRecords {
    /// Creates the records in a file. Infected contents are kept for `not_clean_ttl`.
    #[must_use]
    pub fn new(file: Arc<FileStore>, not_clean_ttl: Duration) -> Self {
        Self { file, not_clean_ttl }
    }

    /// Returns the counters of the file.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        self.file.counters()
    }

    /// Returns what an earlier scan determined. An infection has precedence over the other outcome.
    pub(super) async fn find(&self, key: &ContentKey, versions: Versions) -> Option<FileOutcome> {
        let keys = vec![
            self.record_key(key, RecordKind::NotClean, versions),
            self.record_key(key, RecordKind::Finished, versions),
        ];
        let found = timeout(LOOKUP_TIMEOUT, self.file.get_first(keys)).await;
        let (kind, record) = found.ok().flatten()?;
        match FileOutcome::from_record(&record) {
            Ok(outcome) => {
                (outcome.is_infected() == (kind == RecordKind::NotClean)).then_some(outcome)
            }
            Err(error) => {
                debug!(%error, "a stored verdict is of another version");
                None
            }
        }
    }

    /// Stores an outcome in the background: an infection for `not_clean_ttl`, any other one for `ttl`.
    pub(super) fn add(
        &self,
        key: &ContentKey,
        outcome: &FileOutcome,
        versions: Versions,
        ttl: Duration,
    ) {
        let Some(record) = outcome.to_record() else { return };
        let (kind, ttl) = if outcome.is_infected() {
            (RecordKind::NotClean, self.not_clean_ttl)
        } else {
            (RecordKind::Finished, ttl)
        };
        self.put(self.record_key(key, kind, versions), ttl, &record);
    }

    /// Finds a media entry, and when it was downloaded.
    pub(super) async fn find_media(&self, key: &MediaKey) -> Option<(CachedMedia, SystemTime)> {
        let found = timeout(LOOKUP_TIMEOUT, self.file.get(self.media_key(key))).await;
        match media_record::decode(&found.ok().flatten()?) {
            Ok(found) => Some(found),
            Err(error) => {
                debug!(%error, "a stored media entry is of another version");
                None
            }
        }
    }

    /// Stores a media entry for `ttl`, in the background.
    pub(super) fn add_media(&self, key: &MediaKey, media: &CachedMedia, ttl: Duration) {
        let now = SystemTime::now();
        let Some(record) = media_record::encode(media, now) else { return };
        self.put(self.media_key(key), ttl, &record);
    }

    fn media_key(&self, MediaKey(digest): &MediaKey) -> RecordKey {
        let name = self.file.secret().name(RecordKind::Media, &[digest]);
        RecordKey { kind: RecordKind::Media, name, version: None }
    }

    fn put(&self, key: RecordKey, ttl: Duration, record: &[u8]) {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Err(error) = self.file.put(key, now.saturating_add(ttl).as_secs(), record) {
            warn!(%error, "a record is not stored");
        }
    }

    /// Removes all records in the background.
    pub(super) fn clear(&self) {
        // Removed even if the future is dropped.
        drop(self.file.clear());
    }

    /// Removes what is stored about a content, in the background.
    pub(super) fn remove(&self, key: &ContentKey) {
        for kind in [RecordKind::NotClean, RecordKind::Finished] {
            let name = self.record_key(key, kind, Versions(0)).name;
            drop(self.file.delete(kind, name));
        }
    }

    fn record_key(&self, key: &ContentKey, kind: RecordKind, versions: Versions) -> RecordKey {
        let engines = key.engines_fingerprint.0.to_le_bytes();
        RecordKey {
            kind,
            name: self.file.secret().name(kind, &[&key.content, &engines]),
            version: (kind == RecordKind::Finished).then(|| versions.0.to_le_bytes()),
        }
    }
}
