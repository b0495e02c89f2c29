//! Tracks which workers have a job, and when each job must be finished, so that readiness and the watchdog detect stuck
//! workers.

use std::time::Instant;

use parking_lot::Mutex;

/// The state of all workers.
#[derive(Debug)]
pub struct WorkerActivity {
    /// For each worker, the time by which it must have finished its job; `None` for an idle worker.
    due: Mutex<Vec<Option<Instant>>>,
}

/// Marks a worker as busy until it is dropped.
#[derive(Debug)]
pub struct BusyGuard<'p> {
    activity: &'p WorkerActivity,
    worker: usize,
}

impl WorkerActivity {
    /// Creates the state of this many idle workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { due: Mutex::new(vec![None; workers]) }
    }

    /// Marks the worker with this index as busy with a job that must be finished by `due`.
    #[must_use]
    pub fn start(&self, worker: usize, due: Instant) -> BusyGuard<'_> {
        self.set(worker, Some(due));
        BusyGuard { activity: self, worker }
    }

    /// Returns the number of busy workers.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.due.lock().iter().flatten().count()
    }

    /// Returns the number of busy workers whose job should have been finished before `now`.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> usize {
        self.due.lock().iter().flatten().filter(|due| **due < now).count()
    }

    fn set(&self, worker: usize, due: Option<Instant>) {
        if let Some(slot) = self.due.lock().get_mut(worker) {
            *slot = due;
        }
    }
}

impl Drop for BusyGuard<'_> {
    fn drop(&mut self) {
        self.activity.set(self.worker, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn worker_is_overdue_from_its_due_time_until_it_finishes() {
        let activity = WorkerActivity::new(3);
        let now = Instant::now();
        let due = now + Duration::from_secs(10);
        assert_eq!((activity.busy(), activity.overdue(due)), (0, 0));
        let first = activity.start(0, due);
        let second = activity.start(2, due + Duration::from_secs(10));
        assert_eq!((activity.busy(), activity.overdue(now), activity.overdue(due)), (2, 0, 0));
        let later = due + Duration::from_secs(1);
        assert_eq!(activity.overdue(later), 1);
        drop(first);
        assert_eq!((activity.busy(), activity.overdue(later)), (1, 0));
        drop(second);
        assert_eq!((activity.busy(), activity.overdue(later + Duration::from_secs(60))), (0, 0));
    }
}
