//! Verdicts that survive a restart, in a file or in a store that replicas share. Infected outcomes are valid for all
//! versions of the engines and of the program; other finished outcomes only for the versions that determined them.
//! Operators' policies apply when a request is answered. The store also maps media to the SHA-256 of their contents, so
//! that a verdict needs no download.

mod lookups;
mod operators;

use std::{
    fmt,
    iter::once,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::{
    FileStore, LeaseResult, NotDurable, SharedStore, StoreCounters, StoreUnavailable, VersionTag,
};
use parking_lot::Mutex;
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::sleep,
};
use tracing::{error, info};

use super::{
    clock,
    found::FoundOutcome,
    keys::{ContentKey, MediaKey},
    known::MediaSource,
    media_record,
    record_names::RecordNames,
    record_store::{FileRecords, Precedence, RecordStore},
    store_message::StoreMessage,
};
use crate::{
    chain::Chain,
    scan::{
        cached_media::CachedMedia,
        engines::{FileOutcome, Versions},
    },
};

/// Time between attempts to remove all records.
const RETRY: Duration = Duration::from_secs(1);

/// Maximum time of one attempt. The next one continues, because what was removed is not found again.
const REMOVAL_TIME: Duration = Duration::from_secs(60);

/// Maximum time for the removal of all records at the end of the process.
const LAST_REMOVAL: Duration = Duration::from_secs(2);

/// Maximum time by which a record may be from the future, because clocks are adjusted, and differ between replicas.
pub const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(60);

/// Stored outcomes. Cheap to clone; clones share the store.
#[derive(Clone)]
pub struct VerdictRecords {
    store: RecordStore,
    settings: RecordSettings,
    use_state: Arc<Mutex<UseState>>,
    /// Number of different request keys of the replicas; 0 if it is unknown.
    replica_keys: Arc<AtomicU64>,
    /// Seconds by which the clock differs from that of the shared store; `None` if it is unknown.
    clock_difference: Arc<Mutex<Option<u64>>>,
}

/// Settings of stored outcomes.
#[derive(Clone, Copy, Debug)]
pub struct RecordSettings {
    /// How long infected contents are kept.
    pub not_clean_ttl: Duration,
    /// Digest of the program, whose code decides what engines' responses mean. Other records than those of infected
    /// contents are valid for this program only.
    pub program: [u8; 32],
    /// How long a job waits for the scan of the same content by another replica.
    pub wait: Duration,
}

/// Whether records may be read and written.
#[derive(Default)]
struct UseState {
    /// Number of removals of all records that are not done yet.
    removals: u32,
    /// Number of records that they have removed from a shared store.
    removed: u64,
    is_stopped: bool,
}

impl UseState {
    fn is_in_use(&self) -> bool {
        !self.is_stopped && self.removals == 0
    }
}

impl fmt::Debug for VerdictRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictRecords").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl VerdictRecords {
    /// Creates the records in a file.
    #[must_use]
    pub fn in_file(file: FileStore, settings: RecordSettings) -> Self {
        Self::new(RecordStore::File(FileRecords::new(file)), settings)
    }

    /// Creates the records in a store that replicas share.
    #[must_use]
    pub fn in_shared_store(store: SharedStore, settings: RecordSettings) -> Self {
        Self::new(RecordStore::Shared(store), settings)
    }

    fn new(store: RecordStore, settings: RecordSettings) -> Self {
        Self {
            store,
            settings,
            use_state: Arc::default(),
            replica_keys: Arc::default(),
            clock_difference: Arc::default(),
        }
    }

    /// Returns the counters of the file; `None` if the records are in another store.
    #[must_use]
    pub fn file_counters(&self) -> Option<StoreCounters> {
        match &self.store {
            RecordStore::File(records) => Some(records.file().counters()),
            RecordStore::Shared(_) => None,
        }
    }

    /// Returns the file, if the records are in one.
    #[must_use]
    pub fn file_store(&self) -> Option<&Arc<FileStore>> {
        match &self.store {
            RecordStore::File(records) => Some(records.file()),
            RecordStore::Shared(_) => None,
        }
    }

    /// Returns the store that replicas share, if the records are in one.
    #[must_use]
    pub fn shared_store(&self) -> Option<&SharedStore> {
        match &self.store {
            RecordStore::File(_) => None,
            RecordStore::Shared(store) => Some(store),
        }
    }

    /// Returns the number of different request keys of the replicas, if it is known.
    #[must_use]
    pub fn replica_keys(&self) -> Option<u64> {
        Some(self.replica_keys.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }

    /// Sets the number of different request keys of the replicas.
    pub fn set_replica_keys(&self, number: Option<u64>) {
        self.replica_keys.store(number.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Returns by how many seconds the clock differs from that of the shared store, if it is known.
    #[must_use]
    pub fn clock_difference(&self) -> Option<u64> {
        *self.clock_difference.lock()
    }

    /// Sets by how many seconds the clock differs from that of the shared store.
    pub fn set_clock_difference(&self, seconds: Option<u64>) {
        *self.clock_difference.lock() = seconds;
    }

    /// Returns how long a job waits for the scan of another replica.
    pub(super) fn wait(&self) -> Duration {
        self.settings.wait
    }

    /// Returns whether records are read and written.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.use_state.lock().is_in_use() && self.store.is_available()
    }

    /// Ends the use of the records in this process.
    pub(super) fn stop(&self) {
        self.use_state.lock().is_stopped = true;
    }

    /// Writes what is queued and closes the store. If all records had to be removed and still are in the file, removes the
    /// file. Takes some seconds at most.
    pub async fn close(&self) {
        self.stop();
        match &self.store {
            RecordStore::Shared(store) => {
                if self.has_pending_removal() {
                    remove_at_last(store).await;
                }
                store.close().await;
            }
            RecordStore::File(records) => {
                let (records, has_pending_removal) = (records.clone(), self.has_pending_removal());
                // The file bounds the time itself. A panic was logged.
                let _closed =
                    spawn_blocking(move || close_file(records.file(), has_pending_removal)).await;
            }
        }
    }

    pub(super) fn has_pending_removal(&self) -> bool {
        self.use_state.lock().removals > 0
    }

    /// Stores an outcome: an infection for `not_clean_ttl`, any other one for `ttl`. Returns the infection that another
    /// replica has found. Does not wait for a file.
    ///
    /// `has_infection`: whether malware was found that is not only observed. A shared store keeps malware that is only
    /// observed like outcomes without malware, because it must not replace what other replicas have found.
    ///
    /// # Errors
    /// If a shared store is not available. An infection is stored as soon as it is.
    pub(super) async fn add(
        &self,
        key: &ContentKey,
        outcome: &FileOutcome,
        has_infection: bool,
        versions: Versions,
        ttl: Duration,
    ) -> Result<Option<FoundOutcome>, StoreUnavailable> {
        let is_shared = self.shared_store().is_some();
        let is_infection = has_infection || (outcome.is_infected() && !is_shared);
        if !self.use_state.lock().is_in_use() {
            // Without the store, nothing is known about other replicas.
            return if is_shared { Err(StoreUnavailable) } else { Ok(None) };
        }
        let keys = self.names().outcome(key, versions);
        let record = outcome.to_record(&key.content, self.scan_tag(versions));
        let Some(record) = record.filter(|_| is_infection || versions.are_known()) else {
            // Not stored, but compared.
            return if is_shared {
                self.find_outcome(key, versions, Precedence::Infected).await
            } else {
                Ok(None)
            };
        };
        if is_infection {
            self.add_infection(key, versions, &record).await;
            return Ok(None);
        }
        let found = self.store.put_finished(&keys, expiry(ttl), &record).await?;
        if !is_shared {
            return Ok(None);
        }
        let infection = self.find_infection(key, versions, found).await?;
        if infection.is_some() {
            // Must not decide when the infection has expired.
            self.store.delete(keys.finished);
        }
        Ok(infection)
    }

    /// Stores an infection, in a shared store under former secrets as well, for replicas without the current one.
    async fn add_infection(&self, key: &ContentKey, versions: Versions, record: &[u8]) {
        let expiry = expiry(self.settings.not_clean_ttl);
        let is_shared = self.shared_store().is_some();
        for (index, names) in self.all_names().iter().enumerate() {
            let keys = names.outcome(key, versions);
            let store = self.store.with_secret(&names.secret);
            if index == 0 || is_shared {
                store.put_infected(keys.infected, expiry, record).await;
            }
            // An earlier outcome must not decide again when this one has expired.
            store.delete(keys.finished);
        }
        // After the record, so that replicas find it.
        let engines = key.engines_fingerprint.0;
        self.publish(&StoreMessage::Infected { content: key.content, engines });
    }

    /// Stores a media entry for `ttl`, and a reference to it under its URI, in the background.
    pub(super) fn add_media(
        &self,
        key: &MediaKey,
        media: &CachedMedia,
        source: &MediaSource,
        ttl: Duration,
    ) {
        if self.use_state.lock().is_in_use()
            && let Some(record) = media_record::encode(media, source, clock::now())
        {
            self.store.put(self.names().media(key), expiry(ttl), &record);
            self.add_reference(key, media, &source.mxc, ttl);
        }
    }

    /// As [`clear`](Self::clear), unless a removal is in progress.
    pub(super) fn clear_once(&self) {
        if !self.has_pending_removal() {
            drop(self.clear());
        }
    }

    /// Removes all records. None is used until they are removed, and the removal is repeated until it succeeds, in a task
    /// whose end can be awaited.
    pub(super) fn clear(&self) -> JoinHandle<()> {
        {
            let mut state = self.use_state.lock();
            if state.removals == 0 {
                state.removed = 0;
            }
            state.removals += 1;
        }
        let records = self.clone();
        tokio::spawn(async move {
            let mut has_failed = false;
            while let Err(error) = records.remove_records().await {
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
            records.publish(&StoreMessage::AllRemoved);
            info!("removed all stored verdicts");
        })
    }

    /// Tries to remove all records.
    async fn remove_records(&self) -> Result<(), NotDurable> {
        match &self.store {
            RecordStore::File(records) => records.file().clear().await,
            RecordStore::Shared(store) => {
                let count = |number| {
                    self.use_state.lock().removed += number;
                };
                store.remove_all(REMOVAL_TIME, count).await
            }
        }
    }

    /// Returns the number of records that were removed from a shared store since the removal of all began.
    pub(super) fn removed(&self) -> u64 {
        self.use_state.lock().removed
    }

    /// Asks for the right to scan a content, so that only one replica does.
    pub(super) async fn acquire_lease(&self, key: &ContentKey, versions: Versions) -> LeaseResult {
        if !versions.are_known() || !self.is_in_use() {
            return LeaseResult::Unavailable;
        }
        self.store.acquire_lease(self.names().outcome(key, versions).finished).await
    }

    /// Tells the other replicas, if the store is shared.
    fn publish(&self, message: &StoreMessage) {
        if let RecordStore::Shared(store) = &self.store {
            store.publish(&message.encode());
        }
    }

    /// Returns the names of records under the current secret.
    fn names(&self) -> RecordNames {
        let secret = self.store.secrets().current();
        RecordNames { secret, program: self.settings.program }
    }

    /// Returns the names of records under former secrets, which are still read.
    fn former_names(&self) -> impl Iterator<Item = RecordNames> + use<> {
        let program = self.settings.program;
        let secrets = self.store.secrets().former().into_iter();
        secrets.map(move |secret| RecordNames { secret, program })
    }

    /// Returns the names of records under all secrets, the current one first.
    fn all_names(&self) -> Vec<RecordNames> {
        once(self.names()).chain(self.former_names()).collect()
    }

    /// Returns the tag of a scan by engines of these versions, if they are known.
    pub(super) fn scan_tag(&self, versions: Versions) -> Option<VersionTag> {
        versions.are_known().then(|| self.names().tag(&versions.to_bytes()))
    }
}

/// Tries once more to remove all records, because an engine gave a wrong result to the canary.
async fn remove_at_last(store: &SharedStore) {
    if store.remove_all(LAST_REMOVAL, |_| {}).await.is_err() {
        error!(
            "wrong verdicts may remain in the shared store: run `store forget --all` when it can be reached"
        );
    }
}

/// Closes the file, and removes it if all records had to be removed and still are in it.
fn close_file(file: &FileStore, has_pending_removal: bool) {
    if !has_pending_removal {
        file.close();
    } else if let Err(error) = file.close_and_remove() {
        error!(error = %Chain(&error), "wrong verdicts cannot be removed");
    }
}

/// Returns the time at which a record expires, seconds since 1970.
fn expiry(ttl: Duration) -> u64 {
    let now = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_add(ttl).as_secs()
}

/// Returns how long ago a time was; `None` if the clock was wrong then, or is wrong now.
fn age(time: SystemTime) -> Option<Duration> {
    match clock::now().duration_since(time) {
        Ok(age) => Some(age),
        Err(ahead) => (ahead.duration() <= MAX_CLOCK_DIFFERENCE).then_some(Duration::ZERO),
    }
}
