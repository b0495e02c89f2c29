//! What is remembered, and for how long: what an mxc holds, what was said of a content, and small
//! clean bodies. Bounded in entries and in bytes. Knows no requester: who may see what is remembered
//! is asked of the homeserver before this is read.
//!
//! An entry's age is looked at when it is read, by the settings that are in force then; what nobody
//! reads any more is pushed out by what is newer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};
use sha2::{Digest, Sha256};

use super::{
    ScanError, ScanRequest, Verdict,
    engines::{Fingerprint, Judgement, Versions},
    holding::Holding,
};

/// `[result_cache]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Entries: verdicts, and what media hold, each.
    pub max_size: usize,
    /// How long an entry is valid.
    pub ttl: Duration,
    /// Largest body kept in memory, bytes; 0 keeps none.
    pub max_file_size: u64,
    /// All bodies kept in memory, bytes.
    pub max_total_size: u64,
    /// Verdicts by these exit codes are not remembered; may contain 0.
    pub exit_codes_to_ignore: Vec<i32>,
    /// How long a failure of the script is remembered.
    pub failure_ttl: Duration,
}

/// One media, by all that makes it one and nothing else: homeserver, mxc, thumbnail parameters,
/// decryption data. A digest, so that neither keys nor long names are held.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MediaKey([u8; 32]);

impl MediaKey {
    /// The key of a request's media.
    #[must_use]
    pub fn of(request: &ScanRequest) -> Self {
        let mut hash = Sha256::new();
        request.fetch.feed_key(|part| hash.update(part));
        if let Some(decryption) = &request.decryption {
            decryption.feed(|part| hash.update(part));
        }
        Self(hash.finalize().into())
    }
}

/// A content, and the engines that judge it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentKey {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Who gave, or will give, the verdict.
    pub judges: Fingerprint,
}

/// What became of a content's scan: a verdict, or a failure that all who ask within a few seconds
/// share, so that retries don't run the script again and again.
pub type Word = Result<Verdict, Arc<ScanError>>;

/// All that is remembered, as these settings see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ResultCache {
    settings: Arc<Settings>,
    store: Arc<Store>,
}

#[derive(Debug)]
struct Store {
    holdings: Cache<MediaKey, Since<Holding>>,
    words: Cache<ContentKey, Since<Said>>,
    bodies: Cache<[u8; 32], Bytes, ByLength>,
    /// How often verdicts were forgotten.
    forgotten: AtomicU64,
    /// What moments are counted from.
    begun: Instant,
}

/// What is believed of those who judge, from one moment on: until verdicts are forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trust(u64);

/// Entries of each kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// What media hold.
    pub media: usize,
    /// What was said of contents.
    pub verdicts: usize,
    /// Small clean bodies.
    pub bodies: usize,
    /// What the bodies count for, bytes.
    pub body_bytes: u64,
}

/// An entry, and when it was made: how long it is valid is for who reads it to say.
#[derive(Clone, Debug)]
struct Since<T> {
    value: T,
    made: Moment,
}

/// Nanoseconds since the store was made, in half the memory of an [`Instant`]: enough for centuries. No clock that
/// is set moves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Moment(u64);

impl Moment {
    fn after(begun: Instant) -> Self {
        Self(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn until(self, now: Self) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.0))
    }
}

/// What became of a scan: a verdict, what it rests on, and the versions of those who gave it. Small, since there may be
/// a hundred thousand of them, and nearly all clean.
#[derive(Clone, Debug)]
enum Said {
    Clean {
        at: Second,
        exit_code: Option<u8>,
        without_some: bool,
        by: Versions,
    },
    /// Another verdict.
    Verdict {
        verdict: Arc<Verdict>,
        exit_code: Option<u8>,
        without_some: bool,
    },
    Failure(Arc<ScanError>),
}

impl Said {
    fn of(judgement: &Judgement, by: Versions) -> Self {
        let Judgement { verdict, exit_code, without_some, .. } = judgement;
        // There are no others: wait(2).
        let exit_code = exit_code.and_then(|code| u8::try_from(code).ok());
        let without_some = *without_some;
        match verdict {
            Verdict::Clean { at } => {
                Self::Clean { at: Second::of(*at), exit_code, without_some, by }
            }
            verdict => {
                Self::Verdict { verdict: Arc::new(verdict.clone()), exit_code, without_some }
            }
        }
    }
}

/// A time of day, to the second as it is told, from 1970 to 2106; what is beyond counts as the nearer end.
#[derive(Clone, Copy, Debug)]
struct Second(u32);

impl Second {
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }

    fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.into())
    }
}

#[derive(Clone, Debug)]
struct ByLength;

impl Weighter<[u8; 32], Bytes> for ByLength {
    fn weight(&self, _: &[u8; 32], body: &Bytes) -> u64 {
        // An empty body takes its entry's place all the same; weight 0 would be held for ever.
        body.len() as u64 + BODY_OVERHEAD
    }
}

/// What a kept body costs beyond its bytes, roughly.
const BODY_OVERHEAD: u64 = 128;

/// Entries that there is a place for from the start.
const RESERVED: usize = 1 << 17;

impl ResultCache {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        // The crate makes as many shards as leave 32 of these items in each, so that a body of the
        // largest size fits into its shard.
        let largest = settings.max_file_size.saturating_add(BODY_OVERHEAD);
        let items = usize::try_from(settings.max_total_size / largest).unwrap_or(usize::MAX);
        let (holdings, words) = (Cache::new(settings.max_size), Cache::new(settings.max_size));
        // Growing, they would leave the smaller pieces behind. It is memory when there is something in it.
        holdings.reserve(settings.max_size.min(RESERVED));
        words.reserve(settings.max_size.min(RESERVED));
        let store = Arc::new(Store {
            holdings,
            words,
            bodies: Cache::with_weighter(items.max(1), settings.max_total_size, ByLength),
            forgotten: AtomicU64::new(0),
            begun: Instant::now(),
        });
        Self { settings: Arc::new(settings), store }
    }

    /// The same store under other settings, for what is in it already too. Its sizes stay as they
    /// were made.
    #[must_use]
    pub fn under(&self, settings: Settings) -> Self {
        Self { settings: Arc::new(settings), store: Arc::clone(&self.store) }
    }

    /// How much is remembered, entries whose time is over included.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            media: self.store.holdings.len(),
            verdicts: self.store.words.len(),
            bodies: self.store.bodies.len(),
            body_bytes: self.store.bodies.weight(),
        }
    }

    /// Bodies up to this size are kept, bytes.
    #[must_use]
    pub fn max_body_size(&self) -> u64 {
        self.settings.max_file_size
    }

    /// What a media held, if that is known.
    #[must_use]
    pub fn holding(&self, key: &MediaKey) -> Option<Holding> {
        self.store.valid(&self.store.holdings, key, |_| Some(self.settings.ttl))
    }

    /// What was said of a content, and holds now that the engines are of these versions.
    #[must_use]
    pub fn word(&self, key: &ContentKey, versions: &Versions) -> Option<Word> {
        let good_for = |said: &Said| self.is_good_for(said, *versions);
        Some(match self.store.valid(&self.store.words, key, good_for)? {
            Said::Clean { at, .. } => Ok(Verdict::Clean { at: at.time() }),
            Said::Verdict { verdict, .. } => Ok(Verdict::clone(&verdict)),
            Said::Failure(failure) => Err(failure),
        })
    }

    fn is_good_for(&self, said: &Said, versions: Versions) -> Option<Duration> {
        let (exit_code, without_some) = match said {
            // New signatures may know more; what old ones knew stays known.
            Said::Clean { by, .. } if *by != versions => return None,
            Said::Clean { exit_code, without_some, .. }
            | Said::Verdict { exit_code, without_some, .. } => (exit_code, without_some),
            Said::Failure(_) => return Some(self.settings.failure_ttl),
        };
        if exit_code.is_some_and(|code| self.settings.exit_codes_to_ignore.contains(&code.into())) {
            return None;
        }
        let ttl = self.settings.ttl;
        Some(if *without_some { ttl.min(self.settings.failure_ttl) } else { ttl })
    }

    /// A body by its own hash.
    #[must_use]
    pub fn body(&self, body_hash: &[u8; 32]) -> Option<Bytes> {
        self.store.bodies.get(body_hash)
    }

    /// Remembers what a media holds.
    pub fn remember_holding(&self, key: MediaKey, value: Holding) {
        self.store.holdings.insert(key, self.store.since_now(value));
    }

    /// What is believed from now on.
    #[must_use]
    pub fn trust(&self) -> Trust {
        Trust(self.store.forgotten.load(Ordering::SeqCst))
    }

    /// Remembers a verdict by engines that had these versions when they were asked, unless the exit
    /// code that gave it is one to ignore, or verdicts have been forgotten since `trust`.
    pub fn remember_verdict(
        &self,
        key: ContentKey,
        judgement: &Judgement,
        versions: Versions,
        trust: Trust,
    ) {
        let said = Said::of(judgement, versions);
        if self.is_good_for(&said, versions).is_none() {
            return;
        }
        self.store.words.insert(key, self.store.since_now(said));
        // It may have come in after the others were forgotten.
        if self.trust() != trust {
            self.store.words.remove(&key);
        }
    }

    /// Forgets what was said of any content, by scans that are under way too.
    pub fn forget_verdicts(&self) {
        self.store.forgotten.fetch_add(1, Ordering::SeqCst);
        self.store.words.clear();
    }

    /// Remembers for a few seconds that a scan failed.
    pub fn remember_failure(&self, key: ContentKey, failure: Arc<ScanError>) {
        self.store.words.insert(key, self.store.since_now(Said::Failure(failure)));
    }

    /// Keeps a clean body, if it is small enough.
    pub fn remember_body(&self, body_hash: [u8; 32], body: &Bytes) {
        if body.len() as u64 <= self.settings.max_file_size {
            self.store.bodies.insert(body_hash, body.clone());
        }
    }
}

impl Store {
    fn since_now<T>(&self, value: T) -> Since<T> {
        Since { value, made: Moment::after(self.begun) }
    }

    /// `good_for`: how long such an entry is valid, if at all.
    fn valid<K, V>(
        &self,
        cache: &Cache<K, Since<V>>,
        key: &K,
        good_for: impl Fn(&V) -> Option<Duration>,
    ) -> Option<V>
    where
        K: Eq + std::hash::Hash,
        V: Clone,
    {
        let holds = |entry: &Since<V>| {
            let age = entry.made.until(Moment::after(self.begun));
            good_for(&entry.value).is_some_and(|it| age < it)
        };
        let entry = cache.get(key)?;
        if holds(&entry) {
            return Some(entry.value);
        }
        // Another thread may have renewed it in between: only what has ended goes.
        cache.remove_if(key, |entry| !holds(entry));
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::{engines::Fingerprint, filetype::Detector};

    const KEY: ContentKey = ContentKey { content: [1; 32], judges: Fingerprint(2) };
    const BY: Versions = Versions(3);

    fn settings() -> Settings {
        Settings {
            max_size: 100,
            ttl: Duration::from_secs(3600),
            max_file_size: 0,
            max_total_size: 0,
            exit_codes_to_ignore: vec![],
            failure_ttl: Duration::ZERO,
        }
    }

    fn judgement(verdict: Verdict) -> Judgement {
        Judgement { verdict, exit_code: Some(255), first_line: String::new(), without_some: false }
    }

    #[test]
    fn entries_are_small() {
        assert_eq!(size_of::<Since<Holding>>(), 16);
        assert_eq!(size_of::<Since<Said>>(), 24);
        assert_eq!(size_of::<ContentKey>(), 40);
    }

    #[test]
    fn verdicts_come_back_as_they_were_given() {
        let cache = ResultCache::new(settings());
        let detected = Detector::new().unwrap().detect_bytes(b"text");
        for verdict in [
            Verdict::Clean { at: UNIX_EPOCH + Duration::from_secs(1_700_000_000) },
            Verdict::NotClean { output: "Eicar".into() },
            Verdict::TypeForbidden { detected },
        ] {
            cache.remember_verdict(KEY, &judgement(verdict.clone()), BY, cache.trust());
            assert_eq!(cache.word(&KEY, &BY).unwrap().unwrap(), verdict);
            let others = ContentKey { judges: Fingerprint(4), ..KEY };
            assert!(cache.word(&others, &BY).is_none(), "others judge");
            let newer = cache.word(&KEY, &Versions(4));
            assert_eq!(newer.is_none(), matches!(verdict, Verdict::Clean { .. }), "{newer:?}");
        }
        let ignoring = cache.under(Settings { exit_codes_to_ignore: vec![255], ..settings() });
        assert!(ignoring.word(&KEY, &BY).is_none());
    }

    #[test]
    fn age_is_counted_from_when_an_entry_was_made() {
        let second = |n: u64| Moment(n * 1_000_000_000);
        assert_eq!(second(5).until(second(65)), Duration::from_secs(60));
        assert_eq!(second(5).until(second(5)), Duration::ZERO);
        // By another processor's clock it may have been a moment later.
        assert_eq!(second(5).until(second(4)), Duration::ZERO);
        assert_eq!(Moment(0).until(Moment(u64::MAX)), Duration::from_nanos(u64::MAX));

        let cache = ResultCache::new(settings());
        let clean = judgement(Verdict::Clean { at: SystemTime::now() });
        cache.remember_verdict(KEY, &clean, BY, cache.trust());
        assert!(cache.word(&KEY, &BY).is_some());
        let made = Instant::now();
        while made.elapsed() < Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        let shorter = Settings { ttl: Duration::from_millis(2), ..settings() };
        assert!(cache.under(shorter).word(&KEY, &BY).is_none());
        assert!(cache.word(&KEY, &BY).is_none(), "what has ended is gone");
    }

    #[test]
    fn a_clock_that_is_set_changes_no_entrys_age() {
        let cache = ResultCache::new(settings());
        let (long_ago, far) = (Duration::from_secs(1 << 31), Duration::from_secs(1 << 33));
        for (at, told) in [
            (UNIX_EPOCH - long_ago, UNIX_EPOCH),
            (UNIX_EPOCH, UNIX_EPOCH),
            (UNIX_EPOCH + far, UNIX_EPOCH + Duration::from_secs(u32::MAX.into())),
            (UNIX_EPOCH + Duration::from_millis(1999), UNIX_EPOCH + Duration::from_secs(1)),
        ] {
            let clean = judgement(Verdict::Clean { at });
            cache.remember_verdict(KEY, &clean, BY, cache.trust());
            assert_eq!(cache.word(&KEY, &BY).unwrap().unwrap(), Verdict::Clean { at: told });
        }
    }
}
