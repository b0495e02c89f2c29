//! Counters of the shared store.

/// Counters since the store was started, and the current number of changes that wait.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct SharedCounters {
    /// Keys of lookups for which a valid record was found.
    pub hits: u64,
    /// Keys of lookups for which none was found. Keys count here as well if the store was not available.
    pub misses: u64,
    /// Records that were altered, moved, sealed with another secret, or restored after their expiry; and events that
    /// cannot be opened.
    pub bad_records: u64,
    /// Commands that failed: no reply in time, no connection, an error or an invalid reply.
    pub failed_commands: u64,
    /// Changes dropped because too many waited, because a write that is not retried failed, or because the store was
    /// closed.
    pub dropped_writes: u64,
    /// Kept changes (records, deletions and events) that currently wait to be written.
    pub pending_writes: u64,
    /// How often the store was taken out of use because five commands failed in a row.
    pub breaker_openings: u64,
    /// Calls of the server by lookups, leases and writes: a pipeline of several commands is one call. Polls for events
    /// do not count.
    pub store_calls: u64,
}
