//! One at a time for each key, and all who waited share what it gave. Whoever is working may be
//! dropped at any moment: the next who waits begins anew.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

/// Work under way, by key. Holds nothing beyond the last who is interested.
#[derive(Debug)]
pub(super) struct OncePerKey<K: Eq + Hash + Copy, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Eq + Hash + Copy, V: Clone> OncePerKey<K, V> {
    /// Nothing under way.
    #[must_use]
    pub(super) fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// Does `work`, or waits for the same work that somebody else is doing.
    pub(super) async fn run(&self, key: K, work: impl Future<Output = V>) -> V {
        let seat = Seat::take(self, key);
        match &seat.cell {
            Some(cell) => cell.get_or_init(|| work).await.clone(),
            // Only while it is being dropped.
            None => work.await,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Arc<OnceCell<V>>>> {
        // The map is whole at every point where a panic could strike.
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Seat<'a, K: Eq + Hash + Copy, V: Clone> {
    all: &'a OncePerKey<K, V>,
    key: K,
    /// Taken when the seat is given up, under the lock.
    cell: Option<Arc<OnceCell<V>>>,
}

impl<'a, K: Eq + Hash + Copy, V: Clone> Seat<'a, K, V> {
    fn take(all: &'a OncePerKey<K, V>, key: K) -> Self {
        let cell = Some(Arc::clone(all.lock().entry(key).or_default()));
        Self { all, key, cell }
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Drop for Seat<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.all.lock();
        // Given up under the lock: of two who leave together, the second finds the map's alone. Given up
        // after it, both would find the other's, and the finished work would stay for who comes next.
        drop(self.cell.take());
        if cells.get(&self.key).is_some_and(|cell| Arc::strong_count(cell) == 1) {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn those_who_wait_share_the_result_and_nothing_stays() {
        let all = Arc::new(OncePerKey::new());
        let count = Arc::new(AtomicUsize::new(0));
        let (open, gate) = tokio::sync::watch::channel(false);
        let tasks: Vec<_> = (0..50)
            .map(|_| {
                let (all, count, mut gate) = (Arc::clone(&all), Arc::clone(&count), gate.clone());
                tokio::spawn(async move {
                    all.run(7, async {
                        count.fetch_add(1, Ordering::Relaxed);
                        gate.wait_for(|open| *open).await.unwrap();
                        "done"
                    })
                    .await
                })
            })
            .collect();
        // All are seated once each task holds its cell.
        while Arc::strong_count(all.lock().get(&7).unwrap_or(&Arc::default())) < 51 {
            tokio::task::yield_now().await;
        }
        open.send(true).unwrap();
        for task in tasks {
            assert_eq!(task.await.unwrap(), "done");
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(all.lock().is_empty());
    }

    #[tokio::test]
    async fn a_worker_who_is_dropped_is_followed_by_the_next() {
        let all: Arc<OncePerKey<u8, &str>> = Arc::new(OncePerKey::new());
        let stuck = {
            let all = Arc::clone(&all);
            tokio::spawn(async move { all.run(1, std::future::pending()).await })
        };
        while all.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        let next = {
            let all = Arc::clone(&all);
            tokio::spawn(async move { all.run(1, async { "mine" }).await })
        };
        stuck.abort();
        assert_eq!(next.await.unwrap(), "mine");
        assert!(all.lock().is_empty());
    }

    #[test]
    fn those_who_leave_together_leave_nothing() {
        let all: OncePerKey<u8, u8> = OncePerKey::new();
        for _ in 0..20_000 {
            let seats = [Seat::take(&all, 1), Seat::take(&all, 1)];
            let ready = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for seat in seats {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        drop(seat);
                    });
                }
            });
            assert!(all.lock().is_empty(), "a finished cell stays");
        }
    }
}
