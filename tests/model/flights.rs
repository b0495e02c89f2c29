//! Callers with the same key, some of which are cancelled at some await point.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
};

use crate::{
    Gauge, cancel_after,
    single_flight::{Accepts, SingleFlight, Started},
    yield_some,
};

const CALLERS: usize = 5;

/// Accepts every result, results of computations that started after the call, or none.
const ACCEPTS: [Accepts<usize>; 3] =
    [|_, _| true, |_, started| started == Started::AfterCall, |_, _| false];

pub(crate) fn model() {
    block_on(async {
        let flights: Arc<SingleFlight<u8, usize>> = Arc::new(SingleFlight::new());
        // For each key, the number of the latest computation that has started, and of the latest that has answered a
        // caller.
        let latest: [Arc<(AtomicUsize, AtomicUsize)>; 2] = Default::default();
        // One gauge for each key: at most one computation of a key at one time.
        let running = [Gauge::new(1), Gauge::new(1)];
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                let key = thread_rng().gen_range(0..2_u8);
                let cancelled = thread_rng().gen_bool(0.4);
                let polls = if cancelled { thread_rng().gen_range(0..4) } else { usize::MAX };
                let (flights, running) = (Arc::clone(&flights), running[usize::from(key)].clone());
                let latest = Arc::clone(&latest[usize::from(key)]);
                let policy = thread_rng().gen_range(0..ACCEPTS.len());
                spawn(async move {
                    let (started, answered) = &*latest;
                    for _ in 0..2 {
                        let before =
                            (started.load(Ordering::SeqCst), answered.load(Ordering::SeqCst));
                        let mut own = None;
                        let work = async {
                            let _running = running.enter();
                            let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                            yield_some(3).await;
                            own = Some(number);
                            number
                        };
                        let result = cancel_after(polls, flights.run(key, ACCEPTS[policy], work));
                        let result = result.await;
                        assert!(cancelled || result.is_some(), "a caller got no answer");
                        let Some(result) = result else { continue };
                        answered.fetch_max(result, Ordering::SeqCst);
                        assert!(result > before.1, "a result is older than the call");
                        let is_fresh = result > before.0;
                        assert!(policy == 0 || is_fresh, "the computation started before the call");
                        assert!(policy < 2 || own == Some(result), "not the caller's own result");
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
