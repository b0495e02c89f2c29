//! State of the outbox for metrics, and changes of the secret of the store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::outbox::{Outbox, now_ms};

/// State of the outbox, for metrics and changes of the secret of the store.
#[derive(Clone)]
pub struct OutboxStatus {
    pub(super) outbox: Outbox,
    pub(super) shared: SharedStatus,
}

/// What the process has last read of a shared outbox. Clones share it.
#[derive(Clone, Default)]
pub(super) struct SharedStatus(Arc<SharedNumbers>);

#[derive(Default)]
struct SharedNumbers {
    length: AtomicU64,
    /// When the oldest entry was added, seconds since 1970; 0 if there is none.
    oldest: AtomicU64,
}

impl SharedStatus {
    /// `oldest`: when the oldest entry was added, seconds since 1970.
    pub(super) fn set(&self, length: usize, oldest: Option<u64>) {
        self.0.length.store(length as u64, Ordering::Relaxed);
        self.0.oldest.store(oldest.unwrap_or(0), Ordering::Relaxed);
    }
}

impl OutboxStatus {
    /// Returns the number of incidents with steps that are not done, and the age of the oldest one, seconds. With a shared
    /// store, those of all replicas, and those that wait in this process for the store.
    #[must_use]
    pub fn length_and_age(&self) -> (u64, u64) {
        let (mut length, mut oldest) = self.outbox.length_and_oldest();
        if let Some(store) = self.outbox.store().shared() {
            let shared = &self.shared.0;
            let stored = shared.oldest.load(Ordering::Relaxed);
            let is_owned = self.outbox.is_owned();
            length = if is_owned { length } else { 0 }.max(shared.length.load(Ordering::Relaxed));
            length += store.counters().pending_incidents;
            let own = oldest.filter(|_| is_owned);
            oldest = own.or((stored > 0).then_some(stored.saturating_mul(1000)));
        }
        let age = oldest.map_or(0, |oldest| now_ms().saturating_sub(oldest) / 1000);
        (length, age)
    }

    /// Returns whether this process does the steps of incidents.
    #[must_use]
    pub fn is_owner(&self) -> bool {
        self.outbox.is_owned()
    }

    /// Stores all incidents again after a change of the secret of the store.
    pub fn store_again(&self) {
        self.outbox.save_all();
    }

    /// Returns the number of incidents that were not created because the outbox was full.
    #[must_use]
    pub fn overflows(&self) -> u64 {
        self.outbox.store().overflows()
    }
}
