//! A bounded cache whose entries expire. At most one computation runs for each key at a time.

use std::{borrow::Borrow, hash::Hash, time::Duration};

use quick_cache::sync::Cache;
use tokio::time::Instant;

use crate::single_flight::SingleFlight;

/// See the module. Expired entries stay until they are looked up, or until others need their place.
pub(super) struct ExpiringCache<K: Eq + Hash + Clone, V: Clone, R> {
    entries: Cache<K, (V, Instant)>,
    /// Computations in progress. `R` is what concurrent callers share.
    pub(super) in_flight: SingleFlight<K, R>,
}

impl<K: Eq + Hash + Clone, V: Clone, R: Clone> ExpiringCache<K, V, R> {
    /// Creates an empty cache of at most `capacity` entries.
    pub(super) fn new(capacity: usize) -> Self {
        Self { entries: Cache::new(capacity), in_flight: SingleFlight::new() }
    }

    /// Returns the value of a key that has not expired.
    pub(super) fn get<Q>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let (value, expires) = self.entries.get(key)?;
        if Instant::now() < expires {
            return Some(value);
        }
        // Another thread may have renewed the entry in between: removes it only if it has expired.
        self.entries.remove_if(key, |(_, expires)| *expires <= Instant::now());
        None
    }

    /// Stores a value for `ttl`. A time to live of zero, or one beyond the clock's range, stores nothing.
    pub(super) fn insert(&self, key: K, value: V, ttl: Duration) {
        let expires = Instant::now().checked_add(ttl).filter(|_| !ttl.is_zero());
        if let Some(expires) = expires {
            self.entries.insert(key, (value, expires));
        }
    }
}
