//! The bounded queue between requests and workers, and its fairness. A request puts its job on a bounded
//! channel; the workers take the jobs off it into one list, and from that whoever may begin. One server, or one token, holds
//! at most a quarter of the workers and a quarter of the places, so that a homeserver that drips or a
//! client that floods stops nobody else. Within that, whoever has least goes first: a job of the token
//! that holds the fewest workers begins first, and where there is no place left, the token with the
//! most jobs gives up its youngest to one that has fewer.

use std::{
    collections::VecDeque,
    fmt,
    hash::RandomState,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures_util::future::BoxFuture;
use tokio::sync::{Notify, oneshot};

use super::{
    ScanError, ScanRequest,
    cache::MediaKey,
    flight::{Outcome, Progress},
    lanes::{Lanes, Loads, token_of},
};
use crate::media::Requester;

/// How a job is done: by the settings that were in force when it was asked for, whatever comes after.
pub type Work = Arc<dyn Fn(ScanJob) -> BoxFuture<'static, ()> + Send + Sync>;

/// One media on its way through a worker, with its answer's address, its span and its birth time.
pub struct ScanJob {
    /// What a worker does with it.
    pub work: Work,
    /// What is to be fetched, and how it is opened.
    pub request: ScanRequest,
    /// The key of what it will hold.
    pub key: MediaKey,
    /// Where the outcome goes; closed when nobody waits any more.
    pub reply: oneshot::Sender<Result<Outcome, ScanError>>,
    /// For telling those who wait how far it is.
    pub progress: Progress,
    /// The span of the request that began it.
    pub span: tracing::Span,
    /// When it was accepted.
    pub accepted: Instant,
    /// When its time is over: `scan.deadline` after that.
    pub deadline: Instant,
}

impl fmt::Debug for ScanJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanJob").field("request", &self.request).finish_non_exhaustive()
    }
}

/// There is no place for this job: none at all, or none for its server or its token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Jobs that wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    shared: Arc<Shared>,
    /// Where jobs come in. Emptied into the list whenever the list is looked at, under its lock.
    door: async_channel::Sender<Waiting>,
    inbox: async_channel::Receiver<Waiting>,
}

#[derive(Debug)]
struct Shared {
    capacity: usize,
    /// Places that one server, or one token, may fill.
    places: usize,
    /// Workers that one server, or one token, may hold.
    workers: usize,
    hasher: RandomState,
    state: Mutex<State>,
    /// A job that had to wait may begin. One call wakes one worker, and who finds work while more
    /// waits wakes the next: one end may let two begin, by its server and by its token.
    eased: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    loads: Loads,
}

#[derive(Debug)]
struct Waiting {
    job: ScanJob,
    lanes: Lanes,
}

/// A job that may begin, and the worker's place in its lanes until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    job: Option<ScanJob>,
    _place: Place,
}

#[derive(Debug)]
struct Place {
    shared: Arc<Shared>,
    lanes: Lanes,
}

/// What there is for a worker to do.
enum Next {
    Begin(Box<Admitted>),
    Wait,
    End,
}

impl Queue {
    /// A queue of `capacity` jobs in front of `workers` workers.
    #[must_use]
    pub fn new(capacity: usize, workers: usize) -> Self {
        let capacity = capacity.max(1);
        let (door, inbox) = async_channel::bounded(capacity);
        let shared = Arc::new(Shared {
            capacity,
            places: (capacity / 4).max(1),
            workers: (workers / 4).max(1),
            hasher: RandomState::new(),
            state: Mutex::default(),
            eased: Notify::new(),
        });
        Self { shared, door, inbox }
    }

    /// Takes a job in, at once or not at all. A job of another token may be turned away for it.
    ///
    /// # Errors
    /// [`Full`], where neither those whom everybody has left nor those who have more make room; and
    /// once the queue is closed.
    pub fn submit(&self, job: ScanJob) -> Result<(), Full> {
        let lanes = Lanes::of(&job.request.fetch, &self.shared.hasher);
        let mut state = self.whole();
        let mut turned_away = None;
        if !self.shared.has_room(&state, &lanes) {
            state.drop_unwanted();
        }
        if !self.shared.has_room(&state, &lanes) {
            turned_away = Some(self.shared.turn_away(&mut state, &lanes).ok_or(Full)?);
        }
        // The channel has just been emptied: it is full to nobody, and refuses only once it is closed.
        let sent = self.door.try_send(Waiting { job, lanes: lanes.clone() });
        if sent.is_ok() {
            state.loads.change(&lanes, |load| load.waiting += 1);
        }
        drop(state);
        if let Some(job) = turned_away {
            let _nobody_waits = job.reply.send(Err(ScanError::Overloaded));
        }
        sent.map_err(|_closed| Full)
    }

    /// The next job that may begin; none once the queue is closed and empty.
    pub async fn next(&self) -> Option<Admitted> {
        loop {
            // Made before looking, so that no easing is missed in between.
            let mut eased = pin!(self.shared.eased.notified());
            match self.look() {
                Next::Begin(admitted) => return Some(*admitted),
                Next::Wait => {}
                Next::End => return None,
            }
            tokio::select! {
                came = self.inbox.recv() => match came {
                    Ok(waiting) => self.shared.lock().waiting.push_back(waiting),
                    // What is left waits for others of its lanes.
                    Err(_closed) => eased.await,
                },
                () = &mut eased => {}
            }
        }
    }

    /// Lets nothing more in; what waits is still worked off.
    pub fn close(&self) {
        self.door.close();
        self.shared.eased.notify_waiters();
    }

    /// Jobs that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.whole().waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `newcomer` is better off with a job of their own than behind one of `other`, whose token
    /// has more jobs here than it may hold workers. They are if they have fewer than half as many: then
    /// each who asks for what many ask for at once adds half of what the one before did at the most,
    /// and all together hardly more than the first.
    #[must_use]
    pub fn overtakes(&self, newcomer: &Requester, other: &Requester) -> bool {
        let state = self.whole();
        let jobs = |requester| {
            let token = token_of(requester, &self.shared.hasher);
            let load = state.loads.of_token(token.as_ref());
            load.waiting + load.busy
        };
        self.shared.workers < jobs(other) && 2 * jobs(newcomer) < jobs(other)
    }

    fn look(&self) -> Next {
        let mut state = self.whole();
        state.drop_unwanted();
        let found = self.shared.first_to_begin(&state).and_then(|place| state.remove(place));
        let over = state.waiting.is_empty() && self.door.is_closed();
        if over {
            // Nothing will ever come: all who still wait may go.
            self.shared.eased.notify_waiters();
        } else if found.is_some() && !state.waiting.is_empty() {
            self.shared.eased.notify_one();
        }
        match found {
            Some(Waiting { job, lanes }) => {
                state.loads.change(&lanes, |load| load.busy += 1);
                let place = Place { shared: Arc::clone(&self.shared), lanes };
                Next::Begin(Box::new(Admitted { job: Some(job), _place: place }))
            }
            None if over => Next::End,
            None => Next::Wait,
        }
    }

    /// The list, with all that has come in.
    fn whole(&self) -> MutexGuard<'_, State> {
        let mut state = self.shared.lock();
        while let Ok(came) = self.inbox.try_recv() {
            state.waiting.push_back(came);
            // The channel has woken a worker for it, who will find nothing there.
            self.shared.eased.notify_one();
        }
        state
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs between two halves of a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_room(&self, state: &State, lanes: &Lanes) -> bool {
        state.waiting.len() < self.capacity
            && lanes.iter().all(|lane| state.loads.of(lane).waiting < self.places)
    }

    fn first_to_begin(&self, state: &State) -> Option<usize> {
        let may_begin =
            |lanes: &Lanes| lanes.iter().all(|lane| state.loads.of(lane).busy < self.workers);
        let all = state.waiting.iter().enumerate();
        all.filter(|(_, waiting)| may_begin(&waiting.lanes))
            // The first of those that have the least.
            .min_by_key(|(_, waiting)| state.loads.of_token(waiting.lanes.token.as_ref()).busy)
            .map(|(place, _)| place)
    }

    /// Takes a job out whose place is one for these lanes: the youngest of the token that has the
    /// most, if that is still the one with no fewer afterwards.
    fn turn_away(&self, state: &mut State, lanes: &Lanes) -> Option<ScanJob> {
        let jobs = |lanes: &Lanes| state.loads.of_token(lanes.token.as_ref()).waiting;
        if jobs(lanes) >= self.places {
            return None;
        }
        let of_server = state.loads.of(&lanes.server).waiting >= self.places;
        let all = state.waiting.iter().enumerate();
        let (place, most) = all
            .filter(|(_, waiting)| !of_server || waiting.lanes.server == lanes.server)
            .map(|(place, waiting)| (place, jobs(&waiting.lanes)))
            // The last of those that have the most.
            .max_by_key(|(_, jobs)| *jobs)?;
        if most <= jobs(lanes) + 1 {
            return None;
        }
        state.remove(place).map(|waiting| waiting.job)
    }
}

impl State {
    fn remove(&mut self, place: usize) -> Option<Waiting> {
        let waiting = self.waiting.remove(place)?;
        self.loads.change(&waiting.lanes, |load| load.waiting -= 1);
        Some(waiting)
    }

    /// Drops those whom everybody has left.
    fn drop_unwanted(&mut self) {
        let Self { waiting, loads, .. } = self;
        waiting.retain(|Waiting { job, lanes }| {
            let wanted = !job.reply.is_closed();
            if !wanted {
                loads.change(lanes, |load| load.waiting -= 1);
            }
            wanted
        });
    }
}

impl Admitted {
    /// The job; the place stays held. None the second time.
    pub fn take(&mut self) -> Option<ScanJob> {
        self.job.take()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.loads.change(&self.lanes, |load| load.busy -= 1);
        if !state.waiting.is_empty() {
            self.shared.eased.notify_one();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        media::{MediaId, MediaRequest, Origin, Variant},
        scan::{Wants, flight::Flights},
    };

    type Answer = oneshot::Receiver<Result<Outcome, ScanError>>;

    pub(in crate::scan) fn request(server: &str, token: Option<&'static str>) -> ScanRequest {
        ScanRequest {
            fetch: MediaRequest {
                media: MediaId::parse(server, "abc").unwrap(),
                variant: Variant::Original,
                timeout_ms: None,
                origin: Origin::Discovered,
                requester: Requester {
                    authorization: token.map(reqwest::header::HeaderValue::from_static),
                    ..Requester::default()
                },
            },
            decryption: None,
            wants: Wants::Verdict,
        }
    }

    /// Does nothing.
    pub(in crate::scan) fn idle() -> Work {
        Arc::new(|_| Box::pin(async {}))
    }

    /// Submits a job; gives its requester's end.
    fn submit(queue: &Queue, server: &str, token: Option<&'static str>) -> Result<Answer, Full> {
        let request = request(server, token);
        let (reply, answer) = oneshot::channel();
        let submitted = queue.submit(ScanJob {
            work: idle(),
            key: MediaKey::of(&request),
            request,
            reply,
            progress: Flights::progress_of_nobody(),
            span: tracing::Span::none(),
            accepted: Instant::now(),
            deadline: Instant::now(),
        });
        submitted.map(|()| answer)
    }

    fn server_of(admitted: &Admitted) -> &str {
        admitted.job.as_ref().unwrap().request.fetch.media.server_name()
    }

    /// What may begin now, without waiting.
    fn next_now(queue: &Queue) -> Option<Admitted> {
        use futures_util::FutureExt;
        queue.next().now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_full_queue_says_so_until_a_worker_or_a_requester_makes_room() {
        let queue = Queue::new(3, 8);
        let _first = submit(&queue, "a.example", None).unwrap();
        let _second = submit(&queue, "b.example", None).unwrap();
        let third = submit(&queue, "c.example", None).unwrap();
        assert_eq!(submit(&queue, "d.example", None).unwrap_err(), Full);
        assert_eq!(queue.len(), 3);
        drop(third);
        let _kept = submit(&queue, "d.example", None).expect("one requester has gone");
        assert_eq!(submit(&queue, "e.example", None).unwrap_err(), Full);
        assert_eq!(server_of(&next_now(&queue).unwrap()), "a.example");
        let _last = submit(&queue, "e.example", None).expect("a worker has taken one");
    }

    #[tokio::test]
    async fn the_smallest_queue_takes_one_job() {
        let queue = Queue::new(1, 1);
        let answer = submit(&queue, "a.example", Some("one")).unwrap();
        assert_eq!(submit(&queue, "b.example", Some("two")).unwrap_err(), Full);
        drop(answer);
        let _answer = submit(&queue, "b.example", Some("two")).expect("nobody wants the other");
        assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
    }

    #[tokio::test]
    async fn one_server_and_one_token_fill_a_quarter_of_the_places() {
        let queue = Queue::new(16, 4);
        let of_server: Vec<_> =
            (0..16).map_while(|_| submit(&queue, "flood.example", None).ok()).collect();
        assert_eq!(of_server.len(), 4);
        let servers = ["a.example", "b.example", "c.example", "d.example", "e.example"];
        let mut of_token: Vec<_> =
            servers.iter().map_while(|server| submit(&queue, server, Some("one")).ok()).collect();
        assert_eq!(of_token.len(), 4);
        let _other = submit(&queue, "other.example", Some("two")).expect("a place for others");
        // Whose requester has gone makes room in the lane, though there is room in the queue.
        of_token.pop();
        let _again = submit(&queue, "e.example", Some("one")).expect("a place of its own");
        assert_eq!(queue.len(), 9);
    }

    #[tokio::test]
    async fn letters_and_ports_make_no_other_server() {
        let queue = Queue::new(4, 4);
        let _one = submit(&queue, "Flood.Example", None).unwrap();
        for spelling in ["flood.example", "flood.example:443", "FLOOD.example:8448"] {
            assert_eq!(submit(&queue, spelling, None).unwrap_err(), Full, "{spelling}");
        }
        let _other = submit(&queue, "example", None).expect("another server");
    }

    #[tokio::test]
    async fn who_has_most_gives_way_to_who_has_less() {
        // Of one server, which is where all media of a flood may lie.
        let queue = Queue::new(16, 4);
        let mut flood: Vec<_> =
            (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
        let _honest = submit(&queue, "home.example", Some("honest")).expect("a place");
        let turned_away = flood.pop().unwrap().await.expect("an answer");
        assert!(matches!(turned_away, Err(ScanError::Overloaded)));
        assert!(flood.iter_mut().all(|answer| answer.try_recv().is_err()), "the youngest alone");
        let _second = submit(&queue, "home.example", Some("honest")).expect("two and two");
        assert_eq!(submit(&queue, "home.example", Some("honest")).unwrap_err(), Full);
        assert_eq!(submit(&queue, "home.example", Some("flood")).unwrap_err(), Full);
        assert_eq!(queue.len(), 4);
    }

    #[tokio::test]
    async fn who_holds_no_worker_goes_before_who_holds_one() {
        let queue = Queue::new(100, 8);
        let _flood: Vec<_> =
            (0..4).map(|_| submit(&queue, "home.example", Some("flood")).unwrap()).collect();
        let first = next_now(&queue).unwrap();
        let _second = next_now(&queue).unwrap();
        let _honest = submit(&queue, "home.example", Some("honest")).unwrap();
        assert!(next_now(&queue).is_none(), "the server's workers are held");
        drop(first);
        let mut next = next_now(&queue).unwrap();
        let job = next.take().unwrap();
        assert_eq!(job.request.fetch.requester.authorization.unwrap(), "honest");
    }

    #[tokio::test]
    async fn every_way_out_is_counted() {
        let queue = Queue::new(4, 4);
        let answers = [
            submit(&queue, "a.example", Some("one")).unwrap(),
            submit(&queue, "b.example", Some("two")).unwrap(),
            submit(&queue, "c.example", Some("three")).unwrap(),
        ];
        let admitted = next_now(&queue).unwrap();
        drop(answers);
        assert!(next_now(&queue).is_none());
        assert!(queue.is_empty());
        assert!(!queue.shared.lock().loads.is_empty(), "one is with a worker");
        drop(admitted);
        assert!(queue.shared.lock().loads.is_empty());
    }

    #[tokio::test]
    async fn workers_of_a_closed_queue_end_when_the_last_requester_goes() {
        let queue = Queue::new(16, 4);
        let _begun = submit(&queue, "a.example", None).unwrap();
        let admitted = next_now(&queue).unwrap();
        let held_up = submit(&queue, "a.example", None).unwrap();
        let wait = || {
            let queue = queue.clone();
            tokio::spawn(async move { queue.next().await.is_none() })
        };
        let workers = [wait(), wait(), wait()];
        tokio::task::yield_now().await;
        queue.close();
        tokio::task::yield_now().await;
        drop(held_up);
        drop(admitted);
        for worker in workers {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
            assert!(ended.await.expect("a worker waits for what will never come").unwrap());
        }
    }

    #[tokio::test]
    async fn a_job_that_somebody_counted_is_still_found_by_a_worker() {
        let queue = Queue::new(16, 4);
        let worker = {
            let queue = queue.clone();
            tokio::spawn(async move { server_of(&queue.next().await.unwrap()).to_owned() })
        };
        tokio::task::yield_now().await;
        let _answer = submit(&queue, "a.example", None).unwrap();
        assert_eq!(queue.len(), 1);
        let begun = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
        assert_eq!(begun.await.expect("the worker is told").unwrap(), "a.example");
    }

    #[tokio::test]
    async fn one_server_holds_a_quarter_of_the_workers_and_others_overtake_it() {
        let queue = Queue::new(100, 8);
        let mut answers = Vec::new();
        for server in ["slow.example", "slow.example", "slow.example", "quick.example"] {
            answers.push(submit(&queue, server, None).unwrap());
        }
        let first = next_now(&queue).unwrap();
        let second = next_now(&queue).unwrap();
        assert_eq!((server_of(&first), server_of(&second)), ("slow.example", "slow.example"));
        let third = next_now(&queue).unwrap();
        assert_eq!(server_of(&third), "quick.example");
        assert!(next_now(&queue).is_none(), "the third of the slow one waits");
        assert_eq!(queue.len(), 1);
        let waiter = {
            let queue = queue.clone();
            tokio::spawn(async move { server_of(&queue.next().await.unwrap()).to_owned() })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert_eq!(waiter.await.unwrap(), "slow.example");
    }

    #[tokio::test]
    async fn one_token_holds_a_quarter_of_the_workers_and_no_token_is_none() {
        let queue = Queue::new(100, 4);
        let mut answers = Vec::new();
        let jobs = [
            ("a.example", Some("one")),
            ("b.example", Some("one")),
            ("c.example", None),
            ("d.example", None),
        ];
        for (server, token) in jobs {
            answers.push(submit(&queue, server, token).unwrap());
        }
        let begun: Vec<_> = std::iter::from_fn(|| next_now(&queue)).collect();
        let servers: Vec<_> = begun.iter().map(server_of).collect();
        assert_eq!(servers, ["a.example", "c.example", "d.example"]);
        drop(begun);
        assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
    }

    #[tokio::test]
    async fn jobs_that_nobody_wants_any_more_are_not_begun() {
        let queue = Queue::new(100, 4);
        drop(submit(&queue, "a.example", None).unwrap());
        let _wanted = submit(&queue, "b.example", None).unwrap();
        assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_is_worked_off_and_then_ends_for_every_worker() {
        let queue = Queue::new(100, 4);
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(submit(&queue, "a.example", None).unwrap());
        }
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    let mut done = 0;
                    while let Some(admitted) = queue.next().await {
                        tokio::task::yield_now().await;
                        drop(admitted);
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        queue.close();
        let mut done = 0;
        for worker in workers {
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), worker);
            done += ended.await.expect("a worker waits for what will never come").unwrap();
        }
        assert_eq!(done, 5);
        assert_eq!(submit(&queue, "a.example", None).unwrap_err(), Full);
    }
}
