//! Counters of the store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the store was opened, and the current number of records.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct StoreCounters {
    /// Lookups that found a valid record.
    pub hits: u64,
    /// Lookups that found none, including lookups dropped because too many were queued.
    pub misses: u64,
    /// Records that were altered, moved, sealed with another secret, or restored after their expiry. Each is removed.
    pub bad_records: u64,
    /// Records found after their expiry, before they were removed as expired.
    pub expired: u64,
    /// Lookups that failed because the file could not be read.
    pub failed_reads: u64,
    /// Records dropped because too many were queued, or because the store was closed.
    pub dropped_writes: u64,
    /// Changes whose transaction failed. A not-clean record counts in each attempt.
    pub failed_writes: u64,
    /// Records in the file, whether expired or not.
    pub entries: u64,
    /// Records removed because they expired, or because there were too many.
    pub evicted: u64,
    /// Replacements of the file because it was damaged while in use.
    pub replacements: u64,
    /// Incidents that were not created because the outbox was full.
    pub outbox_overflows: u64,
}

/// The counters, as the threads of the store update them.
#[derive(Default)]
pub(crate) struct AtomicCounters {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) bad_records: AtomicU64,
    pub(crate) expired: AtomicU64,
    pub(crate) failed_reads: AtomicU64,
    pub(crate) dropped_writes: AtomicU64,
    pub(crate) failed_writes: AtomicU64,
    pub(crate) entries: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) replacements: AtomicU64,
    pub(crate) outbox_overflows: AtomicU64,
}

impl AtomicCounters {
    pub(crate) fn snapshot(&self) -> StoreCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        StoreCounters {
            hits: load(&self.hits),
            misses: load(&self.misses),
            bad_records: load(&self.bad_records),
            expired: load(&self.expired),
            failed_reads: load(&self.failed_reads),
            dropped_writes: load(&self.dropped_writes),
            failed_writes: load(&self.failed_writes),
            entries: load(&self.entries),
            evicted: load(&self.evicted),
            replacements: load(&self.replacements),
            outbox_overflows: load(&self.outbox_overflows),
        }
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, number: u64) {
    counter.fetch_add(number, Ordering::Relaxed);
}
