//! The bounded queue between requests and workers, and its fairness: one mxc server name, or one
//! token, holds at most a quarter of the workers, so that a homeserver that drips or a client that
//! floods stops nobody else. What may not begin yet is set aside, in order, and still counts.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tokio::sync::{Notify, oneshot};

use super::{
    ScanError, ScanRequest,
    cache::{Holding, MediaKey},
    flight::{Outcome, Progress},
};

/// One media on its way through a worker, with its answer's address, its span and its birth time.
#[derive(Debug)]
pub struct ScanJob {
    /// What is to be fetched, and how it is opened.
    pub request: ScanRequest,
    /// The key of what it will hold.
    pub key: MediaKey,
    /// What it held last time, where that is remembered.
    pub held: Option<Holding>,
    /// Where the outcome goes; closed when nobody waits any more.
    pub reply: oneshot::Sender<Result<Outcome, ScanError>>,
    /// For telling those who wait how far it is.
    pub progress: Progress,
    /// The span of the request that began it.
    pub span: tracing::Span,
    /// When it was accepted; its deadline counts from here.
    pub accepted: Instant,
}

/// The queue is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Jobs that wait. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Queue {
    sender: async_channel::Sender<ScanJob>,
    receiver: async_channel::Receiver<ScanJob>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    capacity: usize,
    /// Workers that one server name, or one token, may hold.
    share: usize,
    hasher: RandomState,
    lanes: Mutex<Lanes>,
    /// A job that was set aside may begin.
    eased: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    busy: HashMap<Lane, usize>,
    aside: VecDeque<ScanJob>,
}

/// Whom a worker is held by. Tokens by a keyed hash: they are not kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Lane {
    Server(Arc<str>),
    Token(u64),
}

/// A job that may begin, and the places that it holds until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    job: Option<ScanJob>,
    _places: Places,
}

#[derive(Debug)]
struct Places {
    shared: Arc<Shared>,
    lanes: Vec<Lane>,
}

impl Queue {
    /// A queue of `capacity` jobs in front of `workers` workers.
    #[must_use]
    pub fn new(capacity: usize, workers: usize) -> Self {
        let (sender, receiver) = async_channel::bounded(capacity.max(1));
        let shared = Arc::new(Shared {
            capacity: capacity.max(1),
            share: (workers / 4).max(1),
            hasher: RandomState::new(),
            lanes: Mutex::default(),
            eased: Notify::new(),
        });
        Self { sender, receiver, shared }
    }

    /// Takes a job in, at once or not at all.
    ///
    /// # Errors
    /// [`Full`], where `capacity` jobs wait that somebody still wants.
    pub fn submit(&self, job: ScanJob) -> Result<(), Full> {
        let mut lanes = self.shared.lock();
        if lanes.aside.len() + self.receiver.len() >= self.shared.capacity {
            // Those whom everybody has left make room before anybody is turned away.
            while let Ok(job) = self.receiver.try_recv() {
                lanes.aside.push_back(job);
            }
            lanes.aside.retain(|job| !job.reply.is_closed());
            // What was moved aside is to be looked at by workers that wait for the channel.
            self.shared.eased.notify_one();
            if lanes.aside.len() >= self.shared.capacity {
                return Err(Full);
            }
        }
        // The channel holds as many as the queue: it is full, or closed, only if the queue is.
        self.sender.try_send(job).map_err(|_| Full)
    }

    /// The next job that may begin; none once the queue is closed and empty.
    pub async fn next(&self) -> Option<Admitted> {
        loop {
            // Registered before looking, so that no easing is missed in between.
            let mut eased = std::pin::pin!(self.shared.eased.notified());
            if let Some(admitted) = self.next_set_aside() {
                return Some(admitted);
            }
            tokio::select! {
                job = self.receiver.recv() => match job {
                    Ok(job) => {
                        let mut lanes = self.shared.lock();
                        if job.reply.is_closed() {
                            continue;
                        }
                        // Those who were set aside came before: nobody of the same lane overtakes.
                        if let Some(places) = self.admit(&mut lanes, &job) {
                            return Some(Admitted { job: Some(job), _places: places });
                        }
                        lanes.aside.push_back(job);
                    }
                    Err(_closed) if self.shared.lock().aside.is_empty() => return None,
                    Err(_closed) => eased.await,
                },
                () = &mut eased => {}
            }
        }
    }

    /// Lets nothing more in; what waits is still worked off.
    pub fn close(&self) {
        self.sender.close();
        self.shared.eased.notify_waiters();
    }

    /// Drops all that waits: their replies close.
    pub fn clear(&self) {
        while self.receiver.try_recv().is_ok() {}
        self.shared.lock().aside.clear();
        self.shared.eased.notify_waiters();
    }

    /// Jobs that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().aside.len() + self.receiver.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn next_set_aside(&self) -> Option<Admitted> {
        let mut lanes = self.shared.lock();
        lanes.aside.retain(|job| !job.reply.is_closed());
        let place = lanes.aside.iter().position(|job| self.shared.may_begin(&lanes, job))?;
        let job = lanes.aside.remove(place)?;
        let places = self.admit(&mut lanes, &job)?;
        if !lanes.aside.is_empty() {
            // One end may have made room for two, by its server and by its token.
            self.shared.eased.notify_one();
        } else if self.sender.is_closed() {
            // Nothing will ever come: who still waits may go.
            self.shared.eased.notify_waiters();
        }
        Some(Admitted { job: Some(job), _places: places })
    }

    fn admit(&self, lanes: &mut Lanes, job: &ScanJob) -> Option<Places> {
        if !self.shared.may_begin(lanes, job) {
            return None;
        }
        let held = self.shared.lanes_of(job);
        for lane in &held {
            *lanes.busy.entry(lane.clone()).or_default() += 1;
        }
        Some(Places { shared: Arc::clone(&self.shared), lanes: held })
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Lanes> {
        // Nothing that could panic runs between two halves of a change.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_begin(&self, lanes: &Lanes, job: &ScanJob) -> bool {
        let free = |lane: &Lane| lanes.busy.get(lane).is_none_or(|busy| *busy < self.share);
        self.lanes_of(job).iter().all(free)
    }

    fn lanes_of(&self, job: &ScanJob) -> Vec<Lane> {
        let fetch = &job.request.fetch;
        let token = fetch.requester.authorization.as_ref();
        std::iter::once(Lane::Server(fetch.media.server_name().into()))
            .chain(token.map(|token| Lane::Token(self.hasher.hash_one(token))))
            .collect()
    }
}

impl Admitted {
    /// The job; the places stay held. None the second time.
    pub fn take(&mut self) -> Option<ScanJob> {
        self.job.take()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        let mut lanes = self.shared.lock();
        for lane in &self.lanes {
            if let Some(busy) = lanes.busy.get_mut(lane) {
                *busy -= 1;
                if *busy == 0 {
                    lanes.busy.remove(lane);
                }
            }
        }
        if !lanes.aside.is_empty() {
            self.shared.eased.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        media::{MediaId, MediaRequest, Origin, Requester, Variant},
        scan::{Wants, flight::Flights},
    };

    struct Waiting {
        job: ScanJob,
        answer: oneshot::Receiver<Result<Outcome, ScanError>>,
    }

    fn job(server: &str, token: Option<&'static str>) -> Waiting {
        let request = ScanRequest {
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
        };
        let (reply, answer) = oneshot::channel();
        let job = ScanJob {
            key: MediaKey::of(&request),
            request,
            held: None,
            reply,
            progress: Flights::progress_of_nobody(),
            span: tracing::Span::none(),
            accepted: Instant::now(),
        };
        Waiting { job, answer }
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
        let mut waiting = Vec::new();
        for _ in 0..3 {
            let Waiting { job, answer } = job("a.example", None);
            queue.submit(job).unwrap();
            waiting.push(answer);
        }
        assert_eq!(queue.submit(job("b.example", None).job), Err(Full));
        assert_eq!(queue.len(), 3);
        waiting.pop();
        let kept = job("b.example", None);
        queue.submit(kept.job).expect("one requester has gone");
        assert_eq!(queue.submit(job("c.example", None).job), Err(Full));
        assert_eq!(server_of(&next_now(&queue).unwrap()), "a.example");
        queue.submit(job("c.example", None).job).expect("a worker has taken one");
    }

    #[tokio::test]
    async fn one_server_holds_a_quarter_of_the_workers_and_others_overtake_it() {
        let queue = Queue::new(100, 8);
        let mut answers = Vec::new();
        for server in ["slow.example", "slow.example", "slow.example", "quick.example"] {
            let Waiting { job, answer } = job(server, None);
            queue.submit(job).unwrap();
            answers.push(answer);
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
            let Waiting { job, answer } = job(server, token);
            queue.submit(job).unwrap();
            answers.push(answer);
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
        let Waiting { job: gone, answer } = job("a.example", None);
        queue.submit(gone).unwrap();
        drop(answer);
        let wanted = job("b.example", None);
        queue.submit(wanted.job).unwrap();
        assert_eq!(server_of(&next_now(&queue).unwrap()), "b.example");
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn a_closed_queue_is_worked_off_and_then_ends_for_every_worker() {
        let queue = Queue::new(100, 4);
        let mut answers = Vec::new();
        for _ in 0..5 {
            let Waiting { job, answer } = job("a.example", None);
            queue.submit(job).unwrap();
            answers.push(answer);
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
        assert_eq!(queue.submit(job("a.example", None).job), Err(Full));
    }
}
