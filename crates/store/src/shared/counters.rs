//! Counters of the shared store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters since the store was started, and the current number of changes that wait.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SharedCounters {
    /// Lookups that found a valid record.
    pub hits: u64,
    /// Lookups that found none, including those for which the store was not available.
    pub misses: u64,
    /// Records that were altered, moved, sealed with another secret, or restored after their expiry; and events that
    /// cannot be opened.
    pub bad_records: u64,
    /// Calls that failed: no reply in time, no connection, an error or an invalid reply. Polls for events count, too.
    pub failed_commands: u64,
    /// Changes dropped because too many waited, because a write that is not retried failed, or because the store was
    /// closed.
    pub dropped_writes: u64,
    /// Kept changes (records, deletions and events) that currently wait to be written.
    pub pending_writes: u64,
    /// Incidents among them.
    pub pending_incidents: u64,
    /// Incidents that were not created because the outbox was full.
    pub outbox_overflows: u64,
    /// How often the store was taken out of use because five commands failed in a row.
    pub breaker_openings: u64,
    /// Calls of the server by lookups, leases and writes: a pipeline of several commands is one call. Polls for events
    /// do not count.
    pub store_calls: u64,
}

/// The counters, as the store updates them.
#[derive(Default)]
pub(crate) struct SharedAtomics {
    pub(crate) hits: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) bad_records: AtomicU64,
    pub(crate) failed_commands: AtomicU64,
    pub(crate) dropped_writes: AtomicU64,
    pub(crate) pending_writes: AtomicU64,
    pub(crate) pending_incidents: AtomicU64,
    pub(crate) outbox_overflows: AtomicU64,
    pub(crate) breaker_openings: AtomicU64,
    pub(crate) store_calls: AtomicU64,
}

impl SharedAtomics {
    pub(crate) fn snapshot(&self) -> SharedCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SharedCounters {
            hits: load(&self.hits),
            misses: load(&self.misses),
            bad_records: load(&self.bad_records),
            failed_commands: load(&self.failed_commands),
            dropped_writes: load(&self.dropped_writes),
            pending_writes: load(&self.pending_writes),
            pending_incidents: load(&self.pending_incidents),
            outbox_overflows: load(&self.outbox_overflows),
            breaker_openings: load(&self.breaker_openings),
            store_calls: load(&self.store_calls),
        }
    }
}
