//! Concurrent requests for the same media share one job. A flight is that job and all who wait for
//! it; it belongs to none of them: who began it may hang up, and it goes on for the others. Only when
//! the last has gone before a worker took it is it dropped.
//!
//! Who would wait behind somebody else's flood does not join: they begin a flight of their own, and
//! the newest is the one that others find.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use reqwest::header::HeaderValue;
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};
use tracing::debug;

use super::{
    Phase, ScanError, ScanRequest, Timings,
    cache::{MediaKey, Word},
    holding::Holding,
    queue::{Queue, ScanJob, Work},
};
use crate::media::{Body, Requester};

/// What a job brought. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the media holds.
    pub holding: Holding,
    /// What was said of it; none where its type is not let out and nothing was said yet.
    pub word: Option<Word>,
    /// The body, unless it was too large to keep for those who want no more than the verdict.
    pub body: Option<Body>,
    /// How long it took.
    pub timings: Timings,
}

/// How far a flight is. Only ever moves down this list.
#[derive(Clone, Debug)]
pub enum Stage {
    /// No worker has taken it.
    Queued,
    /// A worker has taken it.
    Begun,
    /// The homeserver gives the media out to the one who began.
    HeadersIn(GivenOut),
    /// The media is in.
    Scanning(GivenOut),
    /// It is over. Kept with it: what the homeserver gave out, if it got so far.
    Ended(Option<GivenOut>, Result<Outcome, Arc<ScanError>>),
}

/// That the homeserver gave a media out to the one who began.
#[derive(Clone, Debug)]
pub struct GivenOut {
    /// For asking on behalf of the others.
    pub etag: Option<HeaderValue>,
}

impl Stage {
    /// What the homeserver gave out by now.
    fn given_out(&self) -> Option<&GivenOut> {
        match self {
            Self::Queued | Self::Begun => None,
            Self::HeadersIn(given) | Self::Scanning(given) => Some(given),
            Self::Ended(given, _) => given.as_ref(),
        }
    }

    /// What who waits is waiting for; after the end that is a homeserver.
    fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Begun | Self::HeadersIn(_) | Self::Ended(..) => Phase::Downloading,
            Self::Scanning(_) => Phase::Scanning,
        }
    }
}

/// The worker's side of a flight: says how far it is.
#[derive(Clone, Debug)]
pub struct Progress(Arc<watch::Sender<Stage>>);

impl Progress {
    /// A worker has taken the job.
    pub fn begun(&self) {
        // A job that is taken at the end of its time may have been answered already.
        self.0.send_if_modified(|stage| {
            let waits = matches!(stage, Stage::Queued);
            if waits {
                *stage = Stage::Begun;
            }
            waits
        });
    }

    /// The homeserver gives the media out.
    pub fn headers_in(&self, etag: Option<HeaderValue>) {
        self.0.send_replace(Stage::HeadersIn(GivenOut { etag }));
    }

    /// The media is in, and its scan begins.
    pub fn scanning(&self) {
        self.0.send_if_modified(|stage| {
            let given = stage.given_out().cloned();
            let given_out = given.is_some();
            if let Some(given) = given {
                *stage = Stage::Scanning(given);
            }
            given_out
        });
    }
}

/// All flights under way by the same settings.
#[derive(Clone)]
pub struct Flights {
    /// Of each key the newest: those that were overtaken go on for who is in them.
    by_key: Arc<Mutex<HashMap<MediaKey, Flight>>>,
    /// From acceptance to verdict: how long one may wait for a worker.
    deadline: Duration,
    /// How their jobs are done.
    work: Work,
}

#[derive(Debug)]
struct Flight {
    stage: Arc<watch::Sender<Stage>>,
    /// Whose token the download uses.
    pilot: Requester,
}

/// A place in a flight.
#[derive(Debug)]
pub struct Seat {
    stage: watch::Receiver<Stage>,
    /// Whether the download is made in this requester's name, so that it authorises them, and its
    /// refusal is theirs.
    pub in_own_name: bool,
}

impl Flights {
    /// None yet; each may take as long as this, and its job is done so.
    #[must_use]
    pub fn new(deadline: Duration, work: Work) -> Self {
        Self { by_key: Arc::default(), deadline, work }
    }

    #[cfg(test)]
    pub(super) fn progress_of_nobody() -> Progress {
        Progress(Arc::new(watch::channel(Stage::Queued).0))
    }

    /// Joins the flight for this key, or begins one.
    ///
    /// # Errors
    /// [`ScanError::Overloaded`], where there is none to join and no place in the queue.
    pub fn board(
        &self,
        queue: &Queue,
        key: MediaKey,
        request: &ScanRequest,
    ) -> Result<Seat, Arc<ScanError>> {
        let newcomer = &request.fetch.requester;
        let mut flights = self.lock();
        let joined = flights.get(&key).map(|flight| {
            // Once the headers are in, the homeserver has spoken for those who had asked by then.
            let unanswered = matches!(*flight.stage.borrow(), Stage::Queued | Stage::Begun);
            let in_own_name = unanswered && flight.pilot.is_same(newcomer);
            let queued = matches!(*flight.stage.borrow(), Stage::Queued);
            let held_up = queued && queue.overtakes(newcomer, &flight.pilot);
            (Seat { stage: flight.stage.subscribe(), in_own_name }, held_up)
        });
        if let Some((seat, false)) = joined {
            debug!("waits with others for the same media");
            return Ok(seat);
        }
        let (sender, stage) = watch::channel(Stage::Queued);
        let sender = Arc::new(sender);
        let (reply, answer) = oneshot::channel();
        let accepted = Instant::now();
        let submitted = queue.submit(ScanJob {
            work: Arc::clone(&self.work),
            request: request.clone(),
            key,
            reply,
            progress: Progress(Arc::clone(&sender)),
            span: tracing::Span::current(),
            accepted,
            deadline: accepted + self.deadline,
        });
        if submitted.is_err() {
            // To wait behind a flood is better than to be turned away.
            return match joined {
                Some((seat, _)) => Ok(seat),
                None => Err(Arc::new(ScanError::Overloaded)),
            };
        }
        let flight = Flight { stage: Arc::clone(&sender), pilot: newcomer.clone() };
        flights.insert(key, flight);
        drop(flights);
        tokio::spawn(self.clone().fly(key, sender, answer));
        Ok(Seat { stage, in_own_name: true })
    }

    /// Sees a flight to its end, whoever leaves it.
    async fn fly(
        self,
        key: MediaKey,
        sender: Arc<watch::Sender<Stage>>,
        mut answer: oneshot::Receiver<Result<Outcome, ScanError>>,
    ) {
        tokio::select! {
            outcome = &mut answer => return self.land(key, &sender, outcome),
            () = self.abandoned(key, &sender) => {}
            () = self.overdue(key, &sender) => return,
        }
        // Nobody waits. If no worker had taken it, dropping `answer` takes it out of the queue.
        if !matches!(*sender.borrow(), Stage::Queued) {
            let outcome = answer.await;
            self.land(key, &sender, outcome);
        }
    }

    /// Until nobody waits for this flight; it is then out of the map if it had not begun.
    async fn abandoned(&self, key: MediaKey, sender: &Arc<watch::Sender<Stage>>) {
        loop {
            sender.closed().await;
            let mut flights = self.lock();
            // Joining takes the same lock: nobody can have come in between.
            if sender.receiver_count() == 0 {
                if matches!(*sender.borrow(), Stage::Queued) {
                    remove(&mut flights, key, sender);
                }
                return;
            }
        }
    }

    /// Until this flight's time is over before a worker has taken it: all who wait are told so. Later
    /// than that the worker keeps the time.
    async fn overdue(&self, key: MediaKey, sender: &Arc<watch::Sender<Stage>>) {
        sleep(self.deadline).await;
        let waited = {
            // Under the lock, so that nobody joins what is over.
            let mut flights = self.lock();
            let waited = sender.send_if_modified(|stage| {
                let waits = matches!(stage, Stage::Queued);
                if waits {
                    let late = ScanError::Deadline(Phase::Queued);
                    *stage = Stage::Ended(None, Err(Arc::new(late)));
                }
                waits
            });
            if waited {
                remove(&mut flights, key, sender);
            }
            waited
        };
        if !waited {
            std::future::pending::<()>().await;
        }
    }

    fn land(
        &self,
        key: MediaKey,
        sender: &Arc<watch::Sender<Stage>>,
        outcome: Result<Result<Outcome, ScanError>, oneshot::error::RecvError>,
    ) {
        // A reply that was dropped unsent: its worker was stopped.
        let outcome = outcome.unwrap_or(Err(ScanError::Stopping)).map_err(Arc::new);
        remove(&mut self.lock(), key, sender);
        sender.send_modify(|stage| *stage = Stage::Ended(stage.given_out().cloned(), outcome));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MediaKey, Flight>> {
        // Single inserts and removals: the map is whole at every point where a panic could strike.
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes this flight out of the map, unless another has overtaken it there.
fn remove(
    flights: &mut HashMap<MediaKey, Flight>,
    key: MediaKey,
    sender: &Arc<watch::Sender<Stage>>,
) {
    if flights.get(&key).is_some_and(|flight| Arc::ptr_eq(&flight.stage, sender)) {
        flights.remove(&key);
    }
}

impl Seat {
    /// Waits until the homeserver has given the media out. None where the flight ended before that.
    /// However late this looks, what was given out before an end is told first.
    pub async fn given_out(&mut self) -> Option<GivenOut> {
        let told = |stage: &Stage| stage.given_out().is_some() || matches!(stage, Stage::Ended(..));
        self.stage.wait_for(told).await.ok()?.given_out().cloned()
    }

    /// Waits for the flight's end.
    ///
    /// # Errors
    /// The job's, shared.
    pub async fn ended(&mut self) -> Result<Outcome, Arc<ScanError>> {
        let stage = self.stage.wait_for(|stage| matches!(stage, Stage::Ended(..))).await;
        match stage.as_deref() {
            Ok(Stage::Ended(_, outcome)) => outcome.clone(),
            // Its task is gone, which happens when the runtime goes.
            _ => Err(Arc::new(ScanError::Stopping)),
        }
    }

    /// What this flight is at.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.stage.borrow().phase()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::{
        media::FetchError,
        scan::queue::{
            Admitted,
            tests::{idle, request},
        },
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn next_now(queue: &Queue) -> Option<Admitted> {
        queue.next().now_or_never().flatten()
    }

    fn token_of(job: &ScanJob) -> &str {
        job.request.fetch.requester.authorization.as_ref().unwrap().to_str().unwrap()
    }

    /// Flights in front of a queue; of four workers, one is for each token.
    struct Field {
        flights: Flights,
        queue: Queue,
    }

    impl Field {
        fn new() -> Self {
            Self { flights: Flights::new(DAY, idle()), queue: Queue::new(16, 4) }
        }

        fn board(&self, server: &str, token: &'static str) -> Seat {
            let request = request(server, Some(token));
            self.flights.board(&self.queue, MediaKey::of(&request), &request).unwrap()
        }

        fn begin(&self) -> (Admitted, ScanJob) {
            let mut admitted = next_now(&self.queue).expect("a job that may begin");
            let job = admitted.take().unwrap();
            job.progress.begun();
            (admitted, job)
        }

        fn flights(&self) -> usize {
            self.flights.lock().len()
        }
    }

    #[tokio::test]
    async fn who_comes_after_a_flood_does_not_wait_behind_it() {
        let field = Field::new();
        let _flood = field.board("a.example", "flood");
        let (_busy, _first) = field.begin();
        let mut flooded = field.board("b.example", "flood");
        assert!(next_now(&field.queue).is_none(), "it waits for the other of its token");

        let mut honest = field.board("b.example", "honest");
        assert!(honest.in_own_name);
        let joined = field.board("b.example", "third");
        assert!(!joined.in_own_name, "one way past the flood is enough");
        let (_place, job) = field.begin();
        assert_eq!(token_of(&job), "honest");
        job.reply.send(Err(ScanError::Panicked)).unwrap();
        assert!(honest.ended().await.is_err());
        // Who was there first still waits for their own.
        assert!(flooded.ended().now_or_never().is_none());
    }

    #[tokio::test]
    async fn an_overtaken_flight_leaves_the_newer_one_on_the_map() {
        let field = Field { flights: Flights::new(DAY, idle()), queue: Queue::new(16, 8) };
        let _flood = [field.board("a.example", "flood"), field.board("c.example", "flood")];
        let (busy, _first) = field.begin();
        let (_busy_too, _second) = field.begin();
        let mut flooded = field.board("b.example", "flood");
        let _honest = field.board("b.example", "honest");
        assert_eq!(field.flights(), 3);
        // Both jobs are with workers, and the older ends first.
        let (_place, newer) = field.begin();
        assert_eq!(token_of(&newer), "honest");
        drop(busy);
        let (_other_place, older) = field.begin();
        assert_eq!(token_of(&older), "flood");
        older.reply.send(Err(ScanError::Panicked)).unwrap();
        assert!(flooded.ended().await.is_err());
        assert_eq!(field.flights(), 3);
        assert!(!field.board("b.example", "third").in_own_name, "the newer is there to be joined");
    }

    #[tokio::test]
    async fn those_who_are_no_flood_share_a_flight() {
        let field = Field::new();
        let _seat = field.board("a.example", "one");
        for token in ["two", "three"] {
            assert!(!field.board("a.example", token).in_own_name);
        }
        assert!(field.board("a.example", "one").in_own_name);
        assert_eq!(field.queue.len(), 1);
    }

    #[tokio::test]
    async fn who_finds_no_place_joins_where_there_is_somebody_to_join() {
        let field = Field { flights: Flights::new(DAY, idle()), queue: Queue::new(2, 4) };
        let _flood = field.board("a.example", "flood");
        let (_busy, _first) = field.begin();
        let _flooded = field.board("b.example", "flood");
        let full = request("b.example", Some("honest"));
        let seat = field.flights.board(&field.queue, MediaKey::of(&full), &full);
        assert!(!seat.expect("a seat in the flood's flight").in_own_name);
        let _other = field.board("c.example", "other");
        let full = request("d.example", Some("honest"));
        let error = field.flights.board(&field.queue, MediaKey::of(&full), &full).unwrap_err();
        assert!(matches!(*error, ScanError::Overloaded));
        assert_eq!(field.flights(), 3, "what could not begin is not on the map");
    }

    #[tokio::test]
    async fn who_looks_late_hears_first_what_was_given_out() {
        let field = Field::new();
        let _pilot = field.board("a.example", "one");
        let mut seat = field.board("a.example", "two");
        let (_place, job) = field.begin();
        job.progress.headers_in(Some(HeaderValue::from_static("tag")));
        job.progress.scanning();
        job.reply.send(Err(ScanError::Panicked)).unwrap();
        // Not before all is over: a watch keeps the last word alone.
        assert!(seat.ended().await.is_err());
        let given = seat.given_out().await.expect("it was given out");
        assert_eq!(given.etag.unwrap(), "tag");
    }

    #[tokio::test]
    async fn what_was_never_given_out_is_told_so() {
        let field = Field::new();
        let _pilot = field.board("a.example", "one");
        let mut seat = field.board("a.example", "two");
        let (_place, job) = field.begin();
        job.reply.send(Err(ScanError::Fetch(FetchError::NotFound))).unwrap();
        assert!(seat.given_out().await.is_none());
        assert_eq!(field.flights(), 0);
    }

    #[tokio::test]
    async fn a_flight_that_all_have_left_makes_room_for_the_next() {
        let field = Field::new();
        drop(field.board("a.example", "one"));
        while field.flights() != 0 {
            tokio::task::yield_now().await;
        }
        assert!(field.board("a.example", "two").in_own_name);
        let (_place, job) = field.begin();
        assert_eq!(token_of(&job), "two");
    }
}
