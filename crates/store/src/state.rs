//! State that the threads of the store share.

use std::{fs::File, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    counters::AtomicCounters, queue::WriteQueue, secret_ring::SecretRing, store_path::StorePath,
};

/// Returns the current time in seconds since the Unix epoch.
pub(crate) type Now = Arc<dyn Fn() -> u64 + Send + Sync>;

/// State that the threads of the store share.
pub(crate) struct StoreState {
    pub(crate) path: StorePath,
    pub(crate) secrets: SecretRing,
    pub(crate) max_entries: u64,
    pub(crate) retry_pause: Duration,
    pub(crate) now: Now,
    pub(crate) queue: WriteQueue,
    pub(crate) counters: AtomicCounters,
    /// Number of the current file; incremented when the file is replaced. Locked while the file is replaced or opened.
    pub(crate) epoch: Mutex<u64>,
    /// File with the lock of the store, held as long as a thread may use the database.
    pub(crate) lock: File,
}

/// Unlocks instead of only closing the file: a process that another thread has just forked may have it open, too.
impl Drop for StoreState {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}
