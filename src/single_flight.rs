//! Runs one computation at a time for each key. Concurrent callers with the same key share its result, if the result
//! applies to them.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

use tokio::sync::oneshot;

use crate::sync::Mutex;

/// Computations in progress, by key. A key takes memory only while a caller waits for it.
pub(crate) struct SingleFlight<K: Eq + Hash + Clone, V>(Mutex<Computations<K, V>>);

/// When a computation started, relative to the call of a caller that waits for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Started {
    BeforeCall,
    AfterCall,
}

/// Returns whether a caller accepts the result of another caller's computation.
pub(crate) type Accepts<V> = fn(&V, Started) -> bool;

struct Computations<K, V> {
    /// Number of the next caller. Callers of all keys are numbered in order of arrival.
    next: u64,
    by_key: HashMap<K, Computation<V>>,
}

/// The computation of one key, and the callers that wait.
struct Computation<V> {
    /// The caller that runs the computation, or that has been selected to run the next one.
    runner: u64,
    /// Callers with a lower number arrived before the computation started.
    first_later: u64,
    /// In order of arrival.
    waiting: VecDeque<WaitingCaller<V>>,
}

struct WaitingCaller<V> {
    number: u64,
    accepts: Accepts<V>,
    reply: oneshot::Sender<Turn<V>>,
}

/// Outcome of a caller's wait.
enum Turn<V> {
    /// The result of another caller's computation.
    Result(V),
    /// The caller runs its own computation.
    Run,
}

/// A caller in progress. Dropping it withdraws the call; if the caller is the runner, the caller that has waited
/// longest becomes the runner.
struct Caller<'a, K: Eq + Hash + Clone, V: Clone> {
    single_flight: &'a SingleFlight<K, V>,
    key: K,
    number: u64,
    /// Whether the caller is neither running nor waiting any more.
    is_settled: bool,
}

impl<K: Eq + Hash + Clone, V: Clone> SingleFlight<K, V> {
    #[must_use]
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Computations { next: 0, by_key: HashMap::new() }))
    }

    /// Runs `work`, or waits for the result of a caller that already runs it for this key.
    ///
    /// The result is offered, in order of arrival, to the callers that wait when the computation ends, and ends
    /// the wait of those whose `accepts` returns true. The first of the others runs its own `work` next; that
    /// computation starts after all of them arrived. So a caller that accepts every result of a computation that starts
    /// after its call waits for at most two computations.
    ///
    /// Cancellation safe: when the caller that runs the work is dropped, the caller that has waited longest runs its
    /// own `work`.
    pub(crate) async fn run(
        &self,
        key: K,
        accepts: Accepts<V>,
        work: impl Future<Output = V>,
    ) -> V {
        let (mut caller, turn) = Caller::join(self, key, accepts);
        if let Some(turn) = turn {
            // The sender is dropped unsent only together with the caller.
            if let Ok(Turn::Result(value)) = turn.await {
                caller.is_settled = true;
                return value;
            }
            caller.start();
        }
        let value = work.await;
        caller.finish(&value);
        value
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().by_key.is_empty()
    }
}

impl<V: Clone> Computation<V> {
    /// Replies to the callers that accept the result, in order of arrival. The others continue to wait.
    fn share(&mut self, value: &V) {
        for caller in std::mem::take(&mut self.waiting) {
            let is_later = caller.number >= self.first_later;
            let started = if is_later { Started::BeforeCall } else { Started::AfterCall };
            if (caller.accepts)(value, started) {
                // Fails if the caller is being dropped.
                let _ = caller.reply.send(Turn::Result(value.clone()));
            } else {
                self.waiting.push_back(caller);
            }
        }
    }

    /// Selects the caller that has waited longest as the next runner. Returns false if no caller waits.
    fn select_next(&mut self, next: u64) -> bool {
        while let Some(caller) = self.waiting.pop_front() {
            (self.runner, self.first_later) = (caller.number, next);
            // Fails if the caller is being dropped.
            if caller.reply.send(Turn::Run).is_ok() {
                return true;
            }
        }
        false
    }
}

impl<'a, K: Eq + Hash + Clone, V: Clone> Caller<'a, K, V> {
    /// Becomes the runner, or waits for a reply.
    fn join(
        single_flight: &'a SingleFlight<K, V>,
        key: K,
        accepts: Accepts<V>,
    ) -> (Self, Option<oneshot::Receiver<Turn<V>>>) {
        let mut state = single_flight.0.lock();
        let number = state.next;
        state.next += 1;
        let turn = if let Some(computation) = state.by_key.get_mut(&key) {
            let (reply, turn) = oneshot::channel();
            computation.waiting.push_back(WaitingCaller { number, accepts, reply });
            Some(turn)
        } else {
            let first =
                Computation { runner: number, first_later: number + 1, waiting: VecDeque::new() };
            state.by_key.insert(key.clone(), first);
            None
        };
        drop(state);
        (Self { single_flight, key, number, is_settled: false }, turn)
    }

    /// Records that the computation of the selected runner starts: callers have arrived since the selection.
    fn start(&self) {
        let mut state = self.single_flight.0.lock();
        let next = state.next;
        if let Some(computation) = state.by_key.get_mut(&self.key)
            && computation.runner == self.number
        {
            computation.first_later = next;
        }
    }

    /// Shares the result and selects the next runner.
    fn finish(mut self, value: &V) {
        self.leave(Some(value));
    }

    fn leave(&mut self, result: Option<&V>) {
        self.is_settled = true;
        let mut state = self.single_flight.0.lock();
        let next = state.next;
        let Some(computation) = state.by_key.get_mut(&self.key) else { return };
        if computation.runner == self.number {
            if let Some(value) = result {
                computation.share(value);
            }
            if !computation.select_next(next) {
                state.by_key.remove(&self.key);
            }
        } else if let Ok(index) =
            computation.waiting.binary_search_by_key(&self.number, |caller| caller.number)
        {
            computation.waiting.remove(index);
        }
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Drop for Caller<'_, K, V> {
    fn drop(&mut self) {
        if !self.is_settled {
            self.leave(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
    };

    use futures_util::FutureExt;

    use super::*;

    const ANY: Accepts<usize> = |_, _| true;
    /// Accepts results of computations that started after the call.
    const FRESH: Accepts<usize> = |_, started| started == Started::AfterCall;

    type PendingCall<'a> = Pin<Box<dyn Future<Output = usize> + 'a>>;

    /// Calls that return the number of the computation that answered them. A computation ends when the test allows it.
    struct RunFixture {
        single_flight: SingleFlight<u8, usize>,
        started: AtomicUsize,
        may_end: tokio::sync::Semaphore,
    }

    impl RunFixture {
        fn new() -> Self {
            let may_end = tokio::sync::Semaphore::new(0);
            Self { single_flight: SingleFlight::new(), started: AtomicUsize::new(0), may_end }
        }

        /// Makes a call. The caller waits or runs its computation when this returns.
        fn call(&self, accepts: Accepts<usize>) -> PendingCall<'_> {
            let work = async {
                let number = self.started.fetch_add(1, Ordering::Relaxed) + 1;
                self.may_end.acquire().await.unwrap().forget();
                number
            };
            let mut call: PendingCall<'_> = Box::pin(self.single_flight.run(7, accepts, work));
            assert_eq!((&mut call).now_or_never(), None);
            call
        }

        /// Lets the running computation end and polls the calls in the order of `order`. Returns the index and the
        /// answer of those that return, in this order.
        fn end_one(
            &self,
            calls: &mut [Option<PendingCall<'_>>],
            order: impl Iterator<Item = usize>,
        ) -> Vec<(usize, usize)> {
            self.may_end.add_permits(1);
            let mut answers = Vec::new();
            for index in order {
                if let Some(answer) = calls[index].as_mut().and_then(FutureExt::now_or_never) {
                    calls[index] = None;
                    answers.push((index, answer));
                }
            }
            answers
        }
    }

    #[tokio::test]
    async fn callers_share_one_result_and_no_entry_remains() {
        let fixture = RunFixture::new();
        let mut calls: Vec<_> = (0..50).map(|_| Some(fixture.call(ANY))).collect();
        let answers = fixture.end_one(&mut calls, 0..50);
        assert!(answers.iter().all(|&(_, answer)| answer == 1));
        assert_eq!((answers.len(), fixture.started.load(Ordering::Relaxed)), (50, 1));
        assert!(fixture.single_flight.is_idle());
    }

    #[tokio::test]
    async fn caller_waits_for_at_most_two_computations_and_shares_the_second() {
        let fixture = RunFixture::new();
        let mut calls: Vec<_> = (0..10).map(|_| Some(fixture.call(FRESH))).collect();
        assert_eq!(fixture.end_one(&mut calls, 0..1), [(0, 1)]);
        // Arrive after the next runner has been selected, and before its computation starts.
        calls.extend((0..10).map(|_| Some(fixture.call(FRESH))));
        // Whichever callers run first, the one that has waited longest starts the computation.
        assert_eq!(fixture.end_one(&mut calls, (1..20).rev().chain([1])), [(1, 2)]);
        // Arrive after the second computation has ended.
        calls.extend((0..10).map(|_| Some(fixture.call(ANY))));
        let answers = fixture.end_one(&mut calls, (2..20).rev().chain(20..30));
        let (second, later): (Vec<_>, Vec<_>) = answers.iter().partition(|(index, _)| *index < 20);
        assert!(second.iter().all(|(_, answer)| *answer == 2), "{second:?}");
        assert_eq!((second.len(), later.len()), (18, 10), "{later:?}");
        assert!(later.iter().all(|(_, answer)| *answer == 3), "{later:?}");
        assert!(fixture.single_flight.is_idle());
    }

    #[tokio::test]
    async fn callers_are_answered_in_order_of_arrival() {
        const CALLERS: usize = 20;
        let flights: Arc<SingleFlight<u8, usize>> = Arc::new(SingleFlight::new());
        let (answered, mut order) = tokio::sync::mpsc::unbounded_channel();
        let (open, gate) = tokio::sync::watch::channel(false);
        for caller in 0..CALLERS {
            let (flights, answered, mut gate) =
                (Arc::clone(&flights), answered.clone(), gate.clone());
            tokio::spawn(async move {
                let work = async {
                    gate.wait_for(|open| *open).await.unwrap();
                    caller
                };
                // Every third caller accepts no result of others, and runs its own work in its turn.
                let accepts: Accepts<usize> = if caller % 3 == 0 { |_, _| false } else { FRESH };
                let runner = flights.run(1, accepts, work).await;
                answered.send((caller, runner)).unwrap();
            });
        }
        drop(answered);
        let waiting = || flights.0.lock().by_key.get(&1).map_or(0, |flight| flight.waiting.len());
        while waiting() < CALLERS - 1 {
            tokio::task::yield_now().await;
        }
        open.send(true).unwrap();
        let mut answers = Vec::new();
        while let Some(answer) = order.recv().await {
            answers.push(answer);
        }
        // The first computation started before the others arrived. Caller 1 runs the second one, which answers all
        // but every third caller.
        let shared = (1..CALLERS).filter(|caller| caller % 3 != 0).map(|caller| (caller, 1));
        let alone = (3..CALLERS).step_by(3).map(|caller| (caller, caller));
        assert_eq!(answers, [(0, 0)].into_iter().chain(shared).chain(alone).collect::<Vec<_>>());
        assert!(flights.is_idle());
    }

    #[tokio::test]
    async fn next_caller_runs_its_work_when_the_runner_is_cancelled() {
        let fixture = RunFixture::new();
        let mut calls: Vec<_> = (0..4).map(|_| Some(fixture.call(ANY))).collect();
        // The runner, the caller that would be next, and that caller's successor after its selection.
        calls[1] = None;
        calls[0] = None;
        calls[2] = None;
        assert_eq!(calls[3].as_mut().and_then(FutureExt::now_or_never), None);
        assert_eq!(fixture.end_one(&mut calls, 0..4), [(3, 2)]);
        assert!(fixture.single_flight.is_idle());
    }

    #[tokio::test]
    async fn complete_result_is_not_shared_with_later_callers() {
        let flights: SingleFlight<u8, u8> = SingleFlight::new();
        let gate = tokio::sync::Semaphore::new(0);
        let mut runner = Box::pin(flights.run(1, |_, _| true, async {
            gate.acquire().await.unwrap().forget();
            1
        }));
        assert_eq!((&mut runner).now_or_never(), None);
        let mut slow_caller = Box::pin(flights.run(1, |_, _| true, async { 3 }));
        assert_eq!((&mut slow_caller).now_or_never(), None);
        gate.add_permits(1);
        assert_eq!(runner.await, 1);
        // The slow caller has not read the first result yet.
        assert_eq!(flights.run(1, |_, _| true, async { 2 }).await, 2);
        assert_eq!(slow_caller.await, 1);
        assert!(flights.is_idle());
    }

    #[test]
    fn callers_dropped_concurrently_leave_no_entry() {
        let flights: SingleFlight<u8, usize> = SingleFlight::new();
        for _ in 0..20_000 {
            let callers = [Caller::join(&flights, 1, ANY), Caller::join(&flights, 1, ANY)];
            let ready = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                for caller in callers {
                    let ready = &ready;
                    scope.spawn(move || {
                        ready.wait();
                        drop(caller);
                    });
                }
            });
            assert!(flights.is_idle(), "a finished entry remains");
        }
    }
}
