//! Runs one computation at a time for each key. Concurrent callers with the same key share its result.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use tokio::sync::OnceCell;

use crate::sync::Mutex;

/// Computations in progress, by key. A key takes memory only while a caller waits for it.
#[derive(Debug)]
pub(crate) struct SingleFlight<K: Eq + Hash + Clone, V> {
    cells: Mutex<HashMap<K, Arc<OnceCell<V>>>>,
}

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    #[must_use]
    pub(crate) fn new() -> Self {
        Self { cells: Mutex::new(HashMap::new()) }
    }

    /// Runs `work`, or waits for the result of a caller that already runs it for this key. A result is shared only with
    /// callers that arrived before the work completed, so no caller receives a result that is older than its call.
    ///
    /// Cancellation safe: when the caller that runs the work is dropped, the caller that has waited longest runs its
    /// own `work`.
    pub(crate) async fn run(&self, key: K, work: impl Future<Output = V>) -> V {
        let guard = CellGuard::join(self, key);
        match &guard.cell {
            Some(cell) => cell.get_or_init(|| work).await.clone(),
            // `cell` is only absent while the guard is dropped.
            None => work.await,
        }
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.cells.lock().is_empty()
    }
}

struct CellGuard<'a, K: Eq + Hash + Clone, V: Clone> {
    flights: &'a SingleFlight<K, V>,
    key: K,
    /// Taken on drop, while the map is locked.
    cell: Option<Arc<OnceCell<V>>>,
}

impl<'a, K: Eq + Hash + Clone, V: Clone> CellGuard<'a, K, V> {
    fn join(flights: &'a SingleFlight<K, V>, key: K) -> Self {
        let mut cells = flights.cells.lock();
        let cell = cells.entry(key.clone()).or_default();
        if cell.initialized() {
            // Complete, and not yet removed: too old for this caller.
            *cell = Arc::default();
        }
        let cell = Some(Arc::clone(cell));
        drop(cells);
        Self { flights, key, cell }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Drop for CellGuard<'_, K, V> {
    fn drop(&mut self) {
        let mut cells = self.flights.cells.lock();
        let Some(cell) = self.cell.take() else { return };
        if cells.get(&self.key).is_none_or(|current| !Arc::ptr_eq(current, &cell)) {
            return;
        }
        // Removed when complete, and by the last caller: this guard and the map hold the only references. Counted under
        // the lock, so that of two guards that are dropped concurrently the second one removes the entry.
        if cell.initialized() || Arc::strong_count(&cell) == 2 {
            cells.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn callers_share_one_result_and_no_entry_remains() {
        let flights = Arc::new(SingleFlight::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let (open, gate) = tokio::sync::watch::channel(false);
        let callers: Vec<_> = (0..50)
            .map(|_| {
                let (flights, runs, mut gate) =
                    (Arc::clone(&flights), Arc::clone(&runs), gate.clone());
                tokio::spawn(async move {
                    let work = async {
                        runs.fetch_add(1, Ordering::Relaxed);
                        gate.wait_for(|open| *open).await.unwrap();
                        "done"
                    };
                    flights.run(7, work).await
                })
            })
            .collect();
        // Each caller holds the cell, and so does the map.
        while Arc::strong_count(flights.cells.lock().get(&7).unwrap_or(&Arc::default())) < 51 {
            tokio::task::yield_now().await;
        }
        open.send(true).unwrap();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), "done");
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        assert!(flights.is_idle());
    }

    #[tokio::test]
    async fn next_caller_runs_its_work_when_the_first_is_cancelled() {
        let flights: Arc<SingleFlight<u8, &str>> = Arc::new(SingleFlight::new());
        let first = {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move { flights.run(1, std::future::pending()).await })
        };
        while flights.is_idle() {
            tokio::task::yield_now().await;
        }
        let second = {
            let flights = Arc::clone(&flights);
            tokio::spawn(async move { flights.run(1, async { "second" }).await })
        };
        first.abort();
        assert_eq!(second.await.unwrap(), "second");
        assert!(flights.is_idle());
    }

    #[tokio::test]
    async fn complete_result_is_not_shared_with_later_callers() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new();
        let slow_caller = CellGuard::join(&flights, 1);
        assert_eq!(flights.run(1, async { 1 }).await, 1);
        // The slow caller has not read the first result yet.
        assert_eq!(flights.run(1, async { 2 }).await, 2);
        assert_eq!(slow_caller.cell.as_ref().and_then(|cell| cell.get()), Some(&1));
        drop(slow_caller);
        assert!(flights.is_idle());
    }

    #[test]
    fn guards_dropped_concurrently_leave_no_entry() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new();
        for _ in 0..20_000 {
            let guards = [CellGuard::join(&flights, 1), CellGuard::join(&flights, 1)];
            let ready = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for guard in guards {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        drop(guard);
                    });
                }
            });
            assert!(flights.is_idle(), "a finished entry remains");
        }
    }
}
