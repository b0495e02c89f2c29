//! Who of the workers is at work, and until when at the latest: so that somebody can see whether the workers live. Knows
//! nothing of jobs.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Of all workers.
#[derive(Debug)]
pub struct Pulse {
    /// A place for each worker; when it has to be done with what it has, if it has anything.
    due: Mutex<Vec<Option<Instant>>>,
}

/// One worker at work, until this is dropped.
#[derive(Debug)]
pub struct AtWork<'p> {
    pulse: &'p Pulse,
    worker: usize,
}

impl Pulse {
    /// Of this many workers, none of them at work.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { due: Mutex::new(vec![None; workers]) }
    }

    /// The worker at this place begins what cannot take beyond `due`.
    #[must_use]
    pub fn begin(&self, worker: usize, due: Instant) -> AtWork<'_> {
        self.set(worker, Some(due));
        AtWork { pulse: self, worker }
    }

    /// How many are at work.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.lock().iter().flatten().count()
    }

    /// How many of these are late.
    #[must_use]
    pub fn late(&self, now: Instant) -> usize {
        self.lock().iter().flatten().filter(|due| **due < now).count()
    }

    fn set(&self, worker: usize, due: Option<Instant>) {
        if let Some(place) = self.lock().get_mut(worker) {
            *place = due;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.pulse.set(self.worker, None);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_is_late_from_its_due_time_until_it_is_done() {
        let pulse = Pulse::new(3);
        let now = Instant::now();
        let due = now + Duration::from_secs(10);
        assert_eq!((pulse.busy(), pulse.late(due)), (0, 0));
        let first = pulse.begin(0, due);
        let second = pulse.begin(2, due + Duration::from_secs(10));
        assert_eq!((pulse.busy(), pulse.late(now), pulse.late(due)), (2, 0, 0));
        let later = due + Duration::from_secs(1);
        assert_eq!(pulse.late(later), 1);
        drop(first);
        assert_eq!((pulse.busy(), pulse.late(later)), (1, 0));
        drop(second);
        assert_eq!((pulse.busy(), pulse.late(later + Duration::from_secs(60))), (0, 0));
    }
}
