//! Verdicts that survive a restart, in a file. Infected outcomes are valid for all versions of the engines and of the
//! program; other finished outcomes only for the versions that determined them. Operators' policies apply when a request
//! is answered. The file also maps media to the SHA-256 of their contents, so that a verdict needs no download.

mod operators;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mcs_store::{FileStore, RecordKey, RecordKind, StoreCounters, VersionTag};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::{debug, error, info, warn};

use super::{
    keys::{ContentKey, MediaKey},
    known::MediaSource,
    media_record,
};
use crate::{
    chain::Chain,
    scan::{
        cached_media::CachedMedia,
        engines::{FileOutcome, Versions},
    },
};

/// Maximum time that a request waits for the file. After that time, the content is scanned.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(250);

/// Time for which the store is not read after a lookup timed out.
const PAUSE: Duration = Duration::from_secs(5);

/// Time between attempts to remove all records.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum time by which a record may be from the future, because clocks are adjusted.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Stored outcomes. Cheap to clone; clones share the file.
#[derive(Clone)]
pub struct VerdictRecords {
    file: Arc<FileStore>,
    not_clean_ttl: Duration,
    /// Digest of the program, whose code decides what engines' responses mean.
    program: [u8; 32],
    use_state: Arc<Mutex<UseState>>,
}

/// Whether records may be read and written.
#[derive(Default)]
struct UseState {
    /// Number of removals of all records that are not on disk yet.
    removals: u32,
    is_stopped: bool,
    paused_until: Option<Instant>,
}

impl UseState {
    /// Returns whether records are written: also while lookups pause.
    fn is_written(&self) -> bool {
        !self.is_stopped && self.removals == 0
    }
}

impl fmt::Debug for VerdictRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictRecords").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl VerdictRecords {
    /// Creates the records in a file. Infected contents are kept for `not_clean_ttl`. Other records are valid for the
    /// program with this digest.
    #[must_use]
    pub fn new(file: FileStore, not_clean_ttl: Duration, program: [u8; 32]) -> Self {
        Self { file: Arc::new(file), not_clean_ttl, program, use_state: Arc::default() }
    }

    /// Returns the counters of the file.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        self.file.counters()
    }

    /// Returns whether records are read and written.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        let state = self.use_state.lock();
        let is_paused = state.paused_until.is_some_and(|until| Instant::now() < until);
        state.is_written() && !is_paused
    }

    /// Ends the use of the records in this process.
    pub fn stop(&self) {
        self.use_state.lock().is_stopped = true;
    }

    /// Writes what is queued and closes the file. If all records had to be removed and still are in the file, removes the
    /// file. Blocks for some seconds at most.
    pub fn close(&self) {
        self.stop();
        if !self.has_pending_removal() {
            self.file.close();
        } else if let Err(error) = self.file.close_and_remove() {
            error!(error = %Chain(&error), "wrong verdicts cannot be removed");
        }
    }

    pub(super) fn has_pending_removal(&self) -> bool {
        self.use_state.lock().removals > 0
    }

    /// Returns what an earlier scan determined, and its age. An infection has precedence over the other outcome.
    pub(super) async fn find(
        &self,
        key: &ContentKey,
        versions: Versions,
    ) -> Option<(FileOutcome, Duration)> {
        let mut keys = vec![self.content_key(key, RecordKind::NotClean, versions)];
        // Without its version, an engine may be another one than at the time of the scan.
        if versions.are_known() {
            keys.push(self.content_key(key, RecordKind::Finished, versions));
        }
        let (kind, record) = self.look_up(|file| file.get_first(keys)).await?;
        let outcome = FileOutcome::from_record(&record)
            .inspect_err(|error| debug!(%error, "a stored verdict is of another version"))
            .ok()?;
        let age = age(outcome.scanned)?;
        let is_valid = if outcome.is_infected() {
            kind == RecordKind::NotClean && age < self.not_clean_ttl
        } else {
            kind == RecordKind::Finished
        };
        is_valid.then_some((outcome, age))
    }

    /// Stores an outcome in the background: an infection for `not_clean_ttl`, any other one for `ttl`.
    pub(super) fn add(
        &self,
        key: &ContentKey,
        outcome: &FileOutcome,
        versions: Versions,
        ttl: Duration,
    ) {
        let Some(record) = outcome.to_record(&key.content) else { return };
        let finished = self.content_key(key, RecordKind::Finished, versions);
        if outcome.is_infected() {
            let infected = self.content_key(key, RecordKind::NotClean, versions);
            self.put(infected, self.not_clean_ttl, &record);
            // An earlier outcome must not decide again when this one has expired. Removed even if the future is dropped.
            drop(self.file.delete(finished.kind, finished.name));
        } else if versions.are_known() {
            self.put(finished, ttl, &record);
        }
    }

    /// Finds a media entry, and its age.
    pub(super) async fn find_media(&self, key: &MediaKey) -> Option<(CachedMedia, Duration)> {
        let record = self.look_up(|file| file.get(self.media_key(key))).await?;
        let (media, downloaded) = media_record::decode(&record)
            .inspect_err(|error| debug!(%error, "a stored media entry is of another version"))
            .ok()?;
        Some((media, age(downloaded)?))
    }

    /// Stores a media entry for `ttl`, and a reference to it under its URI, in the background.
    pub(super) fn add_media(
        &self,
        key: &MediaKey,
        media: &CachedMedia,
        source: &MediaSource,
        ttl: Duration,
    ) {
        if let Some(record) = media_record::encode(media, source, SystemTime::now()) {
            self.put(self.media_key(key), ttl, &record);
            self.add_reference(key, media, source, ttl);
        }
    }

    /// Removes all records. None is used until they are removed, and the removal is repeated until it succeeds, in a task
    /// whose end can be awaited.
    pub(super) fn clear(&self) -> JoinHandle<()> {
        self.use_state.lock().removals += 1;
        let records = self.clone();
        tokio::spawn(async move {
            let mut has_failed = false;
            while let Err(error) = records.file.clear().await {
                if records.use_state.lock().is_stopped {
                    return;
                }
                if !has_failed {
                    error!(%error, "stored verdicts cannot be removed, not using them until they are");
                }
                has_failed = true;
                sleep(RETRY).await;
            }
            records.use_state.lock().removals -= 1;
            info!("removed all stored verdicts");
        })
    }

    /// Looks something up. `lookup` queues the lookup, so it is called only if the file is in use.
    pub(super) async fn look_up<T, F: Future<Output = Option<T>>>(
        &self,
        lookup: impl FnOnce(&FileStore) -> F,
    ) -> Option<T> {
        if !self.is_in_use() {
            return None;
        }
        let Ok(found) = timeout(LOOKUP_TIMEOUT, lookup(&self.file)).await else {
            self.use_state.lock().paused_until = Some(Instant::now() + PAUSE);
            warn!("a lookup in the verdict store timed out, not reading it for some seconds");
            return None;
        };
        // All records may have become invalid meanwhile.
        found.filter(|_| self.is_in_use())
    }

    fn put(&self, key: RecordKey, ttl: Duration, record: &[u8]) {
        if !self.use_state.lock().is_written() {
            return;
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if let Err(error) = self.file.put(key, now.saturating_add(ttl).as_secs(), record) {
            warn!(%error, "a record is not stored");
        }
    }

    fn media_key(&self, key: &MediaKey) -> RecordKey {
        let name = self.file.secret().name(RecordKind::Media, &[key.digest()]);
        RecordKey { kind: RecordKind::Media, name, version: Some(self.tag(&[])) }
    }

    fn content_key(&self, key: &ContentKey, kind: RecordKind, versions: Versions) -> RecordKey {
        let engines = key.engines_fingerprint.0.to_le_bytes();
        RecordKey {
            kind,
            name: self.file.secret().name(kind, &[&key.content, &engines]),
            version: (kind == RecordKind::Finished).then(|| self.tag(&versions.to_bytes())),
        }
    }

    /// Returns the tag of records that depend on the program and on these versions.
    fn tag(&self, versions: &[u8]) -> VersionTag {
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.program).chain_update(versions).finalize().into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}

/// Returns how long ago a time was; `None` if the clock was wrong then, or is wrong now.
fn age(time: SystemTime) -> Option<Duration> {
    match SystemTime::now().duration_since(time) {
        Ok(age) => Some(age),
        Err(ahead) => (ahead.duration() <= MAX_CLOCK_DIFFERENCE).then_some(Duration::ZERO),
    }
}
