//! Callers with the same key, some of which are cancelled at some await point.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
};

use crate::{Gauge, cancel_after, single_flight::SingleFlight, yield_some};

const CALLERS: usize = 5;

pub(crate) fn model() {
    block_on(async {
        let flights: Arc<SingleFlight<u8, usize>> = Arc::new(SingleFlight::new());
        // For each key, how many computations are complete.
        let complete: [Arc<AtomicUsize>; 2] = Default::default();
        // One gauge for each key: at most one computation of a key at one time.
        let running = [Gauge::new(1), Gauge::new(1)];
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let key = thread_rng().gen_range(0..2_u8);
                let cancelled = thread_rng().gen_bool(0.4);
                let polls = if cancelled { thread_rng().gen_range(0..4) } else { usize::MAX };
                let (flights, running) = (Arc::clone(&flights), running[usize::from(key)].clone());
                let complete = Arc::clone(&complete[usize::from(key)]);
                spawn(async move {
                    for _ in 0..2 {
                        let before = complete.load(Ordering::SeqCst);
                        let work = async {
                            let _running = running.enter();
                            yield_some(3).await;
                            complete.fetch_add(1, Ordering::SeqCst) + 1
                        };
                        let result = cancel_after(polls, flights.run(key, work)).await;
                        assert!(cancelled || result.is_some(), "a caller got no answer");
                        let is_new = result.is_none_or(|number| number > before);
                        assert!(is_new, "a result is older than the call");
                    }
                })
            })
            .collect();
        // A caller that is never woken is a deadlock, which the explorer reports.
        for caller in callers {
            caller.await.unwrap();
        }
    });
}
