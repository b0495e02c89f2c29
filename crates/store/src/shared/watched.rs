//! A value whose changes tasks await.

use std::future::Future;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

/// A value whose changes tasks await. Unlike `tokio::sync::watch`, it wakes them in the order in which they began to wait,
/// so that a simulation is repeatable.
pub(crate) struct WatchedValue<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> WatchedValue<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock()
    }

    /// Calls `change`, and wakes all waiting tasks if it returns `true`. Returns its result.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let is_changed = change(&mut self.value.lock());
        if is_changed {
            self.changed.notify_waiters();
        }
        is_changed
    }

    /// Returns a future that ends at the next change after this call.
    pub(crate) fn changed(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn changes_wake_those_who_wait() {
        let value = WatchedValue::new(1);
        let missed = value.changed();
        assert!(!value.update(|_| false));
        assert_eq!(missed.now_or_never(), None);
        let changed = value.changed();
        assert!(value.update(|value| {
            *value += 1;
            true
        }));
        assert_eq!((changed.now_or_never(), *value.lock()), (Some(()), 2));
        assert_eq!(value.changed().now_or_never(), None);
    }
}
