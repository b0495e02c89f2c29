//! Concurrent requests for the same media share one job. A flight is that job and all who wait for
//! it; it belongs to none of them: who began it may hang up, and it goes on for the others. Only when
//! the last has gone before a worker took it is it dropped.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::header::HeaderValue;
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};

use super::{
    Phase, ScanError, ScanRequest, Timings,
    cache::{Holding, MediaKey, Word},
    queue::{Queue, ScanJob},
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
    HeadersIn {
        /// For asking on behalf of the others.
        etag: Option<HeaderValue>,
    },
    /// It is over.
    Ended(Result<Outcome, Arc<ScanError>>),
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
        self.0.send_replace(Stage::HeadersIn { etag });
    }
}

/// All flights under way.
#[derive(Clone, Debug)]
pub struct Flights {
    flights: Arc<Mutex<HashMap<MediaKey, Flight>>>,
    /// From acceptance to verdict: how long one may wait for a worker.
    deadline: Duration,
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
    /// How far it is.
    pub stage: watch::Receiver<Stage>,
    /// Whether the download is made in this requester's name, so that it authorises them, and its
    /// refusal is theirs.
    pub in_own_name: bool,
}

impl Flights {
    /// None yet; each may take as long as this.
    #[must_use]
    pub fn new(deadline: Duration) -> Self {
        Self { flights: Arc::default(), deadline }
    }

    #[cfg(test)]
    pub(super) fn progress_of_nobody() -> Progress {
        Progress(Arc::new(watch::channel(Stage::Queued).0))
    }

    /// Joins the flight for this key, or begins one.
    pub fn board(
        &self,
        queue: &Queue,
        key: MediaKey,
        request: &ScanRequest,
        held: Option<Holding>,
    ) -> Seat {
        let mut flights = self.lock();
        if let Some(flight) = flights.get(&key) {
            // Once the headers are in, the homeserver has spoken for those who had asked by then.
            let unanswered = matches!(*flight.stage.borrow(), Stage::Queued | Stage::Begun);
            let in_own_name = unanswered && flight.pilot.is_same(&request.fetch.requester);
            return Seat { stage: flight.stage.subscribe(), in_own_name };
        }
        let (sender, stage) = watch::channel(Stage::Queued);
        let sender = Arc::new(sender);
        let pilot = request.fetch.requester.clone();
        flights.insert(key, Flight { stage: Arc::clone(&sender), pilot });
        drop(flights);
        let (reply, answer) = oneshot::channel();
        let submitted = queue.submit(ScanJob {
            request: request.clone(),
            key,
            held,
            reply,
            progress: Progress(Arc::clone(&sender)),
            span: tracing::Span::current(),
            accepted: Instant::now(),
        });
        match submitted {
            Ok(()) => {
                tokio::spawn(self.clone().fly(key, sender, answer));
            }
            Err(_full) => self.end(key, &sender, Err(Arc::new(ScanError::Overloaded))),
        }
        Seat { stage, in_own_name: true }
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
    async fn abandoned(&self, key: MediaKey, sender: &watch::Sender<Stage>) {
        loop {
            sender.closed().await;
            let mut flights = self.lock();
            // Joining takes the same lock: nobody can have come in between.
            if sender.receiver_count() == 0 {
                if matches!(*sender.borrow(), Stage::Queued) {
                    flights.remove(&key);
                }
                return;
            }
        }
    }

    /// Until this flight's time is over before a worker has taken it: all who wait are told so. Later
    /// than that the worker keeps the time.
    async fn overdue(&self, key: MediaKey, sender: &watch::Sender<Stage>) {
        sleep(self.deadline).await;
        let waited = sender.send_if_modified(|stage| {
            let waits = matches!(stage, Stage::Queued);
            if waits {
                *stage = Stage::Ended(Err(Arc::new(ScanError::Deadline(Phase::Queued))));
            }
            waits
        });
        if waited {
            self.lock().remove(&key);
        } else {
            std::future::pending::<()>().await;
        }
    }

    fn land(
        &self,
        key: MediaKey,
        sender: &watch::Sender<Stage>,
        outcome: Result<Result<Outcome, ScanError>, oneshot::error::RecvError>,
    ) {
        // A reply that was dropped unsent: the queue was cleared, or its worker stopped.
        let outcome = outcome.unwrap_or(Err(ScanError::Stopping));
        self.end(key, sender, outcome.map_err(Arc::new));
    }

    fn end(
        &self,
        key: MediaKey,
        sender: &watch::Sender<Stage>,
        outcome: Result<Outcome, Arc<ScanError>>,
    ) {
        self.lock().remove(&key);
        sender.send_replace(Stage::Ended(outcome));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MediaKey, Flight>> {
        // Single inserts and removals: the map is whole at every point where a panic could strike.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Waits until the homeserver has given the media out, or the flight is over.
    pub async fn headers_in(&mut self) -> Stage {
        self.wait(|stage| matches!(stage, Stage::HeadersIn { .. } | Stage::Ended(_))).await
    }

    /// Waits for the flight's end.
    ///
    /// # Errors
    /// The job's, shared.
    pub async fn ended(&mut self) -> Result<Outcome, Arc<ScanError>> {
        match self.wait(|stage| matches!(stage, Stage::Ended(_))).await {
            Stage::Ended(outcome) => outcome,
            _ => Err(Arc::new(ScanError::Stopping)),
        }
    }

    async fn wait(&mut self, until: impl FnMut(&Stage) -> bool) -> Stage {
        match self.stage.wait_for(until).await {
            Ok(stage) => stage.clone(),
            // Its task is gone, which happens when the runtime goes.
            Err(_) => Stage::Ended(Err(Arc::new(ScanError::Stopping))),
        }
    }
}
