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
pub(super) mod tests;
