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
    time::{Duration, Instant},
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
    made: Instant,
}

/// What became of a scan.
#[derive(Clone, Debug)]
enum Said {
    /// A verdict, what it rests on, and the versions of those who gave it.
    Verdict {
        verdict: Verdict,
        exit_code: Option<i32>,
        without_some: bool,
        by: Versions,
    },
    Failure(Arc<ScanError>),
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

impl ResultCache {
    /// An empty cache.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        // The crate makes as many shards as leave 32 of these items in each, so that a body of the
        // largest size fits into its shard.
        let largest = settings.max_file_size.saturating_add(BODY_OVERHEAD);
        let items = usize::try_from(settings.max_total_size / largest).unwrap_or(usize::MAX);
        let store = Arc::new(Store {
            holdings: Cache::new(settings.max_size),
            words: Cache::new(settings.max_size),
            bodies: Cache::with_weighter(items.max(1), settings.max_total_size, ByLength),
            forgotten: AtomicU64::new(0),
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
        valid(&self.store.holdings, key, |_| Some(self.settings.ttl))
    }

    /// What was said of a content, and holds now that the engines are of these versions.
    #[must_use]
    pub fn word(&self, key: &ContentKey, versions: &Versions) -> Option<Word> {
        let said = valid(&self.store.words, key, |said| self.is_good_for(said, versions))?;
        Some(match said {
            Said::Verdict { verdict, .. } => Ok(verdict),
            Said::Failure(failure) => Err(failure),
        })
    }

    fn is_good_for(&self, said: &Said, versions: &Versions) -> Option<Duration> {
        let Said::Verdict { verdict, exit_code, without_some, by } = said else {
            return Some(self.settings.failure_ttl);
        };
        if exit_code.is_some_and(|code| self.settings.exit_codes_to_ignore.contains(&code)) {
            return None;
        }
        match verdict {
            // New signatures may know more; what old ones knew stays known.
            Verdict::Clean { .. } if by != versions => None,
            _ if *without_some => Some(self.settings.failure_ttl.min(self.settings.ttl)),
            _ => Some(self.settings.ttl),
        }
    }

    /// A body by its own hash.
    #[must_use]
    pub fn body(&self, body_hash: &[u8; 32]) -> Option<Bytes> {
        self.store.bodies.get(body_hash)
    }

    /// Remembers what a media holds.
    pub fn remember_holding(&self, key: MediaKey, value: Holding) {
        self.store.holdings.insert(key, Since { value, made: Instant::now() });
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
        let Judgement { verdict, exit_code, without_some, .. } = judgement.clone();
        let said = Said::Verdict { verdict, exit_code, without_some, by: versions };
        if self.is_good_for(&said, &versions).is_none() {
            return;
        }
        self.store.words.insert(key, Since { value: said, made: Instant::now() });
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
        let value = Said::Failure(failure);
        self.store.words.insert(key, Since { value, made: Instant::now() });
    }

    /// Keeps a clean body, if it is small enough.
    pub fn remember_body(&self, body_hash: [u8; 32], body: &Bytes) {
        if body.len() as u64 <= self.settings.max_file_size {
            self.store.bodies.insert(body_hash, body.clone());
        }
    }
}

/// `good_for`: how long such an entry is valid, if at all.
fn valid<K, V>(
    cache: &Cache<K, Since<V>>,
    key: &K,
    good_for: impl Fn(&V) -> Option<Duration>,
) -> Option<V>
where
    K: Eq + std::hash::Hash,
    V: Clone,
{
    let holds =
        |entry: &Since<V>| good_for(&entry.value).is_some_and(|it| entry.made.elapsed() < it);
    let entry = cache.get(key)?;
    if holds(&entry) {
        return Some(entry.value);
    }
    // Another thread may have renewed it in between: only what has ended goes.
    cache.remove_if(key, |entry| !holds(entry));
    None
}
