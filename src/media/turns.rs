//! Turns at something scarce. Whoever stands in several lanes needs a place in each, and no lane has
//! more than a share of all places: what is slow there holds up its own lanes and nobody else. Knows
//! lanes as numbers.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(super) struct Turns {
    all: Arc<Semaphore>,
    /// Places of one lane.
    share: usize,
    /// Lanes in use.
    lanes: Mutex<HashMap<u64, Arc<Semaphore>>>,
}

/// A turn, over when it is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    lanes: Vec<u64>,
    places: Vec<OwnedSemaphorePermit>,
}

impl Turns {
    pub(super) fn new(places: usize, share: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(places)), share, lanes: Mutex::default() }
    }

    /// Waits for a place in each of these lanes, and last for one of all: who waits for their lane
    /// keeps nobody from the others. All callers give lanes of the same kinds in the same order.
    pub(super) async fn take(&self, lanes: impl IntoIterator<Item = u64>) -> Turn<'_> {
        let mut turn = Turn { turns: self, lanes: Vec::new(), places: Vec::new() };
        for lane in lanes {
            turn.lanes.push(lane);
            let places = Arc::clone(
                self.lock().entry(lane).or_insert_with(|| Arc::new(Semaphore::new(self.share))),
            );
            // None of them is ever closed.
            turn.places.extend(places.acquire_owned().await);
        }
        turn.places.extend(Arc::clone(&self.all).acquire_owned().await);
        turn
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Semaphore>>> {
        // Single inserts and removals: the map is whole at every point where a panic could strike.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut lanes = self.turns.lock();
        // Under the lock, so that of two who leave together the second finds the map's alone.
        self.places.clear();
        for lane in &self.lanes {
            if lanes.get(lane).is_some_and(|places| Arc::strong_count(places) == 1) {
                lanes.remove(lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_full_lane_holds_up_nobody_else_and_none_stays() {
        let turns = Turns::new(3, 2);
        let first = turns.take([1]).await;
        let second = turns.take([1, 7]).await;
        assert!(turns.take([1]).now_or_never().is_none(), "its share is taken");
        assert!(turns.take([7, 1]).now_or_never().is_none(), "one place of two is not enough");
        let third = turns.take([2, 7]).await;
        assert!(turns.take([3]).now_or_never().is_none(), "all places are taken");
        drop(first);
        let fourth = turns.take([1]).now_or_never().expect("a place has become free");
        drop((second, third, fourth));
        assert!(turns.lock().is_empty());
    }
}
