//! Concurrency limit for programs in the sandbox.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Scan slots: the places for programs that run in the sandbox concurrently. Shared across reloads. Cheap to clone;
/// clones share the slots.
#[derive(Clone, Debug)]
pub struct ScanSlots {
    semaphore: Arc<Semaphore>,
    count: Arc<Mutex<usize>>,
}

impl ScanSlots {
    /// Allows `count` programs to run concurrently.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(count)), count: Arc::new(Mutex::new(count)) }
    }

    /// Changes the number of slots. Programs beyond a lower number finish first.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub fn change(&self, count: usize) {
        let mut current = self.count.lock();
        self.semaphore.add_permits(count.saturating_sub(*current));
        for _ in count..*current {
            let semaphore = Arc::clone(&self.semaphore);
            tokio::spawn(async move {
                if let Ok(slot) = semaphore.acquire().await {
                    slot.forget();
                }
            });
        }
        *current = count;
    }

    /// Waits for a slot. Always returns one, because the semaphore is never closed.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.semaphore.acquire().await.ok()
    }
}
