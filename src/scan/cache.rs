//! The cache: the content of an mxc URI, verdicts by content, and small clean bodies. Bounded in entries and in bytes.
//! Requesters are authorised before anything from the cache is returned to them; the cache itself has no requesters.
//!
//! The age of an entry is checked when it is read, under the settings in force at that time. Newer entries evict
//! entries that are not read.

mod clock;
mod entry;
mod forget;
mod forgotten_record;
mod found;
mod generation;
mod inspect;
mod keys;
mod known;
mod media_record;
mod operator_records;
mod record_names;
mod record_store;
mod replicas;
mod store_message;
pub mod turn;
mod unconfirmed;
mod verdict_records;

pub use crate::config::sections::result_cache::Settings;
pub use entry::{CachedVerdict, ENTRY_WEIGHT, ScannedContent};
pub use generation::CacheGeneration;
pub use keys::{ContentKey, MediaKey, MediaTag};
pub use known::{
    ForgetReport, KnownContent, KnownMedia, KnownVerdict, MediaSource, OperatorStoreError,
    VerdictFilter, VerdictList,
};
pub(in crate::scan) use store_message::StoreMessage;
pub use verdict_records::{MAX_CLOCK_DIFFERENCE, RecordSettings, VerdictRecords};

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use quick_cache::{Weighter, sync::Cache};

use entry::{Timed, VerdictEntry, WeighEntry};
use found::FoundOutcome;
use generation::Invalidations;
use unconfirmed::UnconfirmedVerdicts;

use super::{
    cached_media::CachedMedia,
    engines::{FileOutcome, Policies, Validity, Versions},
    error::ScanError,
};

impl Settings {
    /// Returns the maximum weight of the media entries, and of the verdicts, bytes each.
    #[must_use]
    pub fn entries_capacity(&self) -> u64 {
        (self.max_size as u64).saturating_mul(ENTRY_WEIGHT)
    }
}

/// The cached entries, under certain settings. Cheap to clone; clones share the entries.
#[derive(Clone, Debug)]
pub struct ResultCache {
    settings: Arc<Settings>,
    tables: Arc<CacheTables>,
}

#[derive(Debug)]
struct CacheTables {
    media: Cache<MediaKey, Timed<Arc<CachedMedia>>, WeighEntry>,
    /// Locked while a media entry replaces another, so that both show the same time of the first answer.
    replacing: Mutex<()>,
    verdicts: Cache<ContentKey, Timed<VerdictEntry>, WeighEntry>,
    bodies: Cache<[u8; 32], Bytes, WeighByLength>,
    invalidations: Invalidations,
    /// Verdicts that survive a restart, and that replicas share.
    records: Option<VerdictRecords>,
    unconfirmed: Mutex<UnconfirmedVerdicts>,
}

/// Numbers and weights of entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CacheSizes {
    /// Media entries.
    pub media: usize,
    /// Weight of the media entries, bytes.
    pub media_bytes: u64,
    /// Verdicts and failures.
    pub verdicts: usize,
    /// Weight of the verdicts and failures, bytes.
    pub verdict_bytes: u64,
    /// Small clean bodies.
    pub bodies: usize,
    /// Weight of the bodies, bytes.
    pub body_bytes: u64,
}

/// A media entry from the store.
#[derive(Clone, Debug)]
pub struct RecalledMedia(Timed<Arc<CachedMedia>>);

impl RecalledMedia {
    /// Returns the entry.
    #[must_use]
    pub fn media(&self) -> &CachedMedia {
        &self.0.value
    }
}

#[derive(Clone, Debug)]
struct WeighByLength;

impl Weighter<[u8; 32], Bytes> for WeighByLength {
    fn weight(&self, _: &[u8; 32], body: &Bytes) -> u64 {
        // The cache never evicts an entry of weight 0, so an empty body has a weight as well.
        body.len() as u64 + BODY_OVERHEAD
    }
}

/// Approximate memory of a body's entry, bytes.
const BODY_OVERHEAD: u64 = 128;

/// Maximum number of lookups in the store for one request, while other replicas change verdicts.
const MAX_LOOKUPS: usize = 4;

/// Maximum number of entries to reserve room for at the start.
const RESERVED: usize = 1 << 17;

impl ResultCache {
    /// An empty cache, with verdicts in memory only.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::with_records(settings, None)
    }

    /// An empty cache above records in a store.
    #[must_use]
    pub fn with_records(settings: Settings, records: Option<VerdictRecords>) -> Self {
        // The crate chooses the number of shards such that each holds 32 of these items, so a body of the maximum size
        // fits into its shard.
        let largest = settings.max_file_size.saturating_add(BODY_OVERHEAD);
        let items = usize::try_from(settings.max_total_size / largest).unwrap_or(usize::MAX);
        let (entries, capacity) = (settings.max_size, settings.entries_capacity());
        let media = Cache::with_weighter(entries, capacity, WeighEntry);
        let verdicts = Cache::with_weighter(entries, capacity, WeighEntry);
        // Reserved, because growing tables would fragment the heap. Untouched pages take no memory.
        media.reserve(settings.max_size.min(RESERVED));
        verdicts.reserve(settings.max_size.min(RESERVED));
        let tables = Arc::new(CacheTables {
            media,
            replacing: Mutex::new(()),
            verdicts,
            bodies: Cache::with_weighter(items.max(1), settings.max_total_size, WeighByLength),
            invalidations: Invalidations::default(),
            records,
            unconfirmed: Mutex::default(),
        });
        Self { settings: Arc::new(settings), tables }
    }

    /// Returns the same tables under other settings, which apply to existing entries as well. The tables' capacities do
    /// not change.
    #[must_use]
    pub fn with_settings(&self, settings: Settings) -> Self {
        Self { settings: Arc::new(settings), tables: Arc::clone(&self.tables) }
    }

    /// Returns the numbers of entries, expired ones included.
    #[must_use]
    pub fn sizes(&self) -> CacheSizes {
        CacheSizes {
            media: self.tables.media.len(),
            media_bytes: self.tables.media.weight(),
            verdicts: self.tables.verdicts.len(),
            verdict_bytes: self.tables.verdicts.weight(),
            bodies: self.tables.bodies.len(),
            body_bytes: self.tables.bodies.weight(),
        }
    }

    /// Returns the maximum size of a kept body, bytes.
    #[must_use]
    pub fn max_body_size(&self) -> u64 {
        self.settings.max_file_size
    }

    /// Returns the content of an mxc URI at its latest download.
    #[must_use]
    pub fn cached_media(&self, key: &MediaKey) -> Option<Arc<CachedMedia>> {
        valid_entry(&self.tables.media, key, |_| Some(self.settings.ttl))
    }

    /// Returns the result for a content under these policies, if it is valid for these versions of the engines.
    #[must_use]
    pub fn scanned(
        &self,
        key: &ContentKey,
        versions: &Versions,
        policies: &Policies,
    ) -> Option<ScannedContent> {
        let time_to_live = |entry: &VerdictEntry| self.time_to_live(entry, *versions, policies);
        let entry = valid_entry(&self.tables.verdicts, key, time_to_live)?;
        let detected = entry.detected().cloned();
        let infection = entry.infection(policies).map(Arc::new);
        Some(ScannedContent { detected, verdict: entry.decide(policies).0, infection })
    }

    /// Returns the time to live of an entry; `None` if the entry is invalid under the current settings and versions.
    fn time_to_live(
        &self,
        entry: &VerdictEntry,
        versions: Versions,
        policies: &Policies,
    ) -> Option<Duration> {
        let (_, validity, exit_code, stored) = entry.decide(policies);
        if exit_code.is_some_and(|code| self.settings.exit_codes_to_ignore.contains(&code)) {
            return None;
        }
        let Settings { ttl, failure_ttl, .. } = *self.settings;
        match validity {
            Validity::Failure => Some(failure_ttl),
            Validity::Unsettled => None,
            // Newer signatures may detect more than older ones. Findings of older ones remain valid.
            Validity::Examined | Validity::Partial if stored != Some(versions) => None,
            Validity::Finding | Validity::Examined => Some(ttl),
            Validity::Partial => Some(ttl.min(failure_ttl)),
        }
    }

    /// Returns the body with this SHA-256.
    #[must_use]
    pub fn body(&self, body_hash: &[u8; 32]) -> Option<Bytes> {
        self.tables.bodies.get(body_hash)
    }

    /// Stores the content of an mxc URI, unless the URI has been forgotten since `generation`. The time of the first answer
    /// remains that of the entry that is replaced, unless the content has changed.
    pub fn store_media(
        &self,
        key: MediaKey,
        value: &Arc<CachedMedia>,
        source: &MediaSource,
        generation: CacheGeneration,
    ) {
        let invalidations = &self.tables.invalidations;
        if !invalidations.keeps_media(generation) {
            return;
        }
        let replacing = self.tables.replacing.lock();
        if let Some(previous) = self.cached_media(&key)
            && previous.content == value.content
        {
            value.continue_from(&previous, clock::now());
        }
        self.tables.media.insert(key, Timed::now(Arc::clone(value)));
        drop(replacing);
        if let Some(records) = &self.tables.records {
            records.add_media(&key, value, source, self.settings.ttl);
        }
        // The entry may have been inserted after it was forgotten.
        if !invalidations.keeps_media(generation) {
            self.tables.media.remove(&key);
            if let Some(records) = &self.tables.records {
                records.remove_media(&key);
            }
        }
    }

    /// Returns the content of an mxc URI at its latest download from the store. It is not taken over: the requester must be
    /// authorised before, so that others cannot fill the memory.
    pub async fn recall_media(&self, key: &MediaKey) -> Option<RecalledMedia> {
        let records = self.tables.records.as_ref()?;
        let generation = self.generation().for_media(key);
        let found = records.find_media(key).await.filter(|found| found.age < self.settings.ttl)?;
        if records.renew_media(key, &found, self.settings.ttl)
            // The entry may have been forgotten before it was stored again.
            && !self.tables.invalidations.keeps_media(generation)
        {
            records.remove_media(key);
            return None;
        }
        let stored = Instant::now().checked_sub(found.age)?;
        Some(RecalledMedia(Timed { value: Arc::new(found.media), stored }))
    }

    /// Takes over a media entry from the store.
    pub fn admit_media(&self, key: MediaKey, RecalledMedia(entry): RecalledMedia) {
        let _replacing = self.tables.replacing.lock();
        // The media may have been downloaded again meanwhile.
        if self.cached_media(&key).is_none() {
            self.tables.media.insert(key, entry);
        }
    }

    /// Returns the current generation.
    #[must_use]
    pub fn generation(&self) -> CacheGeneration {
        self.tables.invalidations.current()
    }

    /// Returns whether no verdicts have been invalidated since a scan began, except those that operators had forgotten.
    #[must_use]
    pub fn is_current(&self, generation: CacheGeneration) -> bool {
        self.tables.invalidations.is_current(generation)
    }

    /// Stores the outcome of engines that had these versions at the start of the scan. Stores nothing for an exit code
    /// that is to be ignored under `policies`, or if the verdict has been invalidated or forgotten since `generation`.
    ///
    /// Returns the infection that another replica has found in the content: its signatures may be newer than those of this
    /// replica, so it has precedence.
    pub async fn store_outcome(
        &self,
        key: ContentKey,
        outcome: FileOutcome,
        versions: Versions,
        policies: &Policies,
        generation: CacheGeneration,
    ) -> Option<ScannedContent> {
        let record = self.tables.records.as_ref().map(|records| (records, outcome.clone()));
        let entry = VerdictEntry::new(outcome, Some(versions));
        let invalidations = &self.tables.invalidations;
        self.time_to_live(&entry, versions, policies)?;
        if !invalidations.keeps_content(generation, &key.content) {
            return None;
        }
        self.tables.verdicts.insert(key, Timed::now(entry));
        // The entry may have been inserted after the invalidation.
        if !invalidations.keeps_content(generation, &key.content) {
            self.tables.verdicts.remove(&key);
            return None;
        }
        let (records, outcome) = record?;
        let (cache, records, scanned) = (self.clone(), records.clone(), (outcome, versions));
        let shared_policies = policies.clone();
        let shared = records.shared_store().is_some();
        // After the insertion, so that an infection found later by another replica removes the entry.
        let compared = async move {
            cache.compare(&records, key, scanned, &shared_policies, generation).await
        };
        let infection = if shared {
            // In a task, so that a deadline of the request does not lose the outcome.
            tokio::spawn(compared).await.ok().flatten()?
        } else {
            compared.await?
        };
        Some(ScannedContent::new(&infection, policies))
    }

    /// Stores an outcome that is in memory. Returns the infection that another replica has found, unless it is only observed,
    /// and keeps it in memory instead.
    async fn compare(
        &self,
        records: &VerdictRecords,
        key: ContentKey,
        (outcome, versions): (FileOutcome, Versions),
        policies: &Policies,
        generation: CacheGeneration,
    ) -> Option<FileOutcome> {
        let has_infection = policies.has_infection(&outcome);
        let infection =
            records.add(&key, &outcome, has_infection, versions, self.settings.ttl).await;
        if !self.tables.invalidations.keeps_content(generation, &key.content) {
            self.tables.verdicts.remove(&key);
            if self.is_current(generation) {
                records.remove_outcomes(&key, versions);
            } else {
                records.clear();
            }
            return None;
        }
        if let Ok(infection) = infection {
            let FoundOutcome { outcome: infection, versions: scanned_by, .. } = infection?;
            let decides = policies.may_refuse(&infection);
            let (kept, versions) = if decides {
                (infection.clone(), scanned_by)
            } else {
                // The own scan decides while the infection is only observed.
                (outcome.with_findings_of(&infection), Some(versions))
            };
            let entry = VerdictEntry::new(kept, versions);
            self.tables.verdicts.insert(key, Timed::now(entry));
            return decides.then_some(infection);
        }
        self.tables.unconfirmed.lock().add(key);
        None
    }

    /// Takes the outcome for a content over from the store, and returns the result as [`scanned`](Self::scanned).
    pub async fn recall(
        &self,
        key: &ContentKey,
        versions: Versions,
        policies: &Policies,
    ) -> Option<ScannedContent> {
        for _ in 0..MAX_LOOKUPS {
            let changes = self.tables.invalidations.changes();
            let found = self.recall_once(key, versions, policies).await;
            if self.tables.invalidations.changes() == changes {
                return found;
            }
            // The lookup may have ended before a change that another replica has announced since.
            self.tables.verdicts.remove(key);
        }
        None
    }

    async fn recall_once(
        &self,
        key: &ContentKey,
        versions: Versions,
        policies: &Policies,
    ) -> Option<ScannedContent> {
        let generation = self.generation();
        let records = self.tables.records.as_ref()?;
        let found = records.find(key, versions).await?;
        if self.tables.invalidations.forgotten_at(&key.content) >= Some(found.outcome.scanned) {
            return None;
        }
        if found.is_former {
            let has_infection = policies.has_infection(&found.outcome);
            records.renew_outcome(key, versions, &found, has_infection, self.settings.ttl);
        }
        let FoundOutcome { outcome, age, is_former, versions: scanned_by, .. } = found;
        // The store has another time to live for infections that decide.
        let may_refuse = policies.may_refuse(&outcome);
        let age = if outcome.is_infected() && may_refuse { Duration::ZERO } else { age };
        let stored = Instant::now().checked_sub(age)?;
        // A scan may have ended meanwhile. An infection has precedence over its outcome, unless it is only observed.
        if outcome.is_infected() && may_refuse || self.scanned(key, &versions, policies).is_none() {
            let value = VerdictEntry::new(outcome, scanned_by);
            self.tables.verdicts.insert(*key, Timed { value, stored });
        }
        if !self.tables.invalidations.keeps_content(generation, &key.content) {
            self.tables.verdicts.remove(key);
            if is_former {
                records.remove_outcomes(key, versions);
            }
        }
        self.scanned(key, &versions, policies)
    }

    /// Invalidates all verdicts, those of scans in progress included.
    pub fn invalidate_verdicts(&self) {
        // First, so that none is recalled under the next generation.
        if let Some(records) = &self.tables.records {
            records.clear_once();
        }
        self.tables.invalidations.invalidate_all();
        self.tables.verdicts.clear();
    }

    /// Returns the stored verdicts, if there is a store.
    #[must_use]
    pub fn records(&self) -> Option<&VerdictRecords> {
        self.tables.records.as_ref()
    }

    /// Stores the failure of a scan for `failure_ttl`.
    pub fn store_failure(&self, key: ContentKey, failure: Arc<ScanError>) {
        self.tables.verdicts.insert(key, Timed::now(VerdictEntry::Failure(failure)));
    }

    /// Stores a clean body, if it is small enough.
    pub fn store_body(&self, body_hash: [u8; 32], body: &Bytes) {
        if body.len() as u64 <= self.settings.max_file_size {
            self.tables.bodies.insert(body_hash, body.clone());
        }
    }
}

/// Returns a valid entry. `time_to_live` returns `None` for an invalid value.
fn valid_entry<K, V>(
    cache: &Cache<K, Timed<V>, WeighEntry>,
    key: &K,
    time_to_live: impl Fn(&V) -> Option<Duration>,
) -> Option<V>
where
    K: Eq + std::hash::Hash,
    V: Clone,
    WeighEntry: Weighter<K, Timed<V>>,
{
    let is_valid = |entry: &Timed<V>| {
        time_to_live(&entry.value).is_some_and(|ttl| entry.stored.elapsed() < ttl)
    };
    let entry = cache.get(key)?;
    if is_valid(&entry) {
        return Some(entry.value);
    }
    // Another thread may have renewed the entry in between: removes it only if it is invalid.
    cache.remove_if(key, |entry| !is_valid(entry));
    None
}

#[cfg(test)]
mod tests;
