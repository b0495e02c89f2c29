//! Jobs in progress. Concurrent requests for the same media share one job, which belongs to no single request: the
//! initiator may disconnect while others wait. A job is dropped only when its last waiter leaves before a worker has
//! taken it.
//!
//! A requester that would wait behind a flood of another tenant starts a job of its own; later requests join the newest
//! job.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};
use tracing::debug;

use super::{
    cache::{CacheGeneration, MediaKey, ResultCache},
    error::{Phase, ScanError},
    job::{JobOutcome, MediaGranted, Progress, ScanJob, Stage, Work},
    queue::Queue,
    request::ScanRequest,
};
use crate::{media::Requester, tenancy::Demotable};

/// The jobs in progress under the same settings.
#[derive(Clone)]
pub struct InFlightScans {
    /// The newest job of each key. Bypassed jobs continue for their waiters.
    by_key: Arc<Mutex<HashMap<MediaKey, InFlightScan>>>,
    /// States what operators have had forgotten.
    cache: ResultCache,
    /// Time from acceptance to verdict, and so the longest wait for a worker.
    deadline: Duration,
    /// Runs the jobs.
    work: Work,
}

#[derive(Debug)]
struct InFlightScan {
    stage: Arc<watch::Sender<Stage>>,
    /// The requester whose token the download uses.
    initiator: Requester,
    /// Generation of the cache when the job was requested.
    generation: CacheGeneration,
}

/// A requester's share of a job in progress.
#[derive(Debug)]
pub struct Waiter {
    stage: watch::Receiver<Stage>,
    /// Whether the download uses this requester's token. Its result then applies to this requester without a separate
    /// authorisation, even if the homeserver rejects the request.
    pub is_initiator: bool,
    /// Whether this request started the job.
    pub has_started: bool,
    /// Whether the tenant of this requester uses the space and the place in the queue that the job takes.
    pub is_own_tenant: bool,
}

impl InFlightScans {
    /// Creates an empty set of jobs. `work` runs each job and must finish within `deadline`.
    #[must_use]
    pub fn new(deadline: Duration, work: Work, cache: ResultCache) -> Self {
        Self { by_key: Arc::default(), cache, deadline, work }
    }

    /// Joins the job for this key, or starts one. A job that was requested before operators had its media or any content
    /// forgotten is not joined.
    ///
    /// # Errors
    /// [`ScanError::Overloaded`] when there is no job to join and the queue has no room.
    pub fn join_or_start(
        &self,
        queue: &Queue,
        key: MediaKey,
        request: &ScanRequest,
    ) -> Result<Waiter, Arc<ScanError>> {
        let newcomer = &request.fetch.requester;
        let generation = self.cache.generation().for_media(&key);
        let mut scans = self.lock();
        let joinable = scans.get(&key).filter(|scan| self.cache.may_be_joined(scan.generation));
        let joined = joinable.map(|scan| {
            // Headers that have arrived answer only the requests that arrived before them.
            let unanswered = matches!(*scan.stage.borrow(), Stage::Queued | Stage::Started);
            let is_initiator = unanswered && scan.initiator.is_equivalent(newcomer);
            let is_own_tenant = scan.initiator.tenant.tenant == newcomer.tenant.tenant;
            let is_queued = matches!(*scan.stage.borrow(), Stage::Queued);
            let bypasses = is_queued && queue.should_bypass(newcomer, &scan.initiator);
            let stage = scan.stage.subscribe();
            (Waiter { stage, is_initiator, has_started: false, is_own_tenant }, bypasses)
        });
        if let Some((waiter, false)) = joined {
            debug!("joined a job in progress for the same media");
            return Ok(waiter);
        }
        let (sender, stage) = watch::channel(Stage::Queued);
        let sender = Arc::new(sender);
        let (reply, outcome) = oneshot::channel();
        let accepted = Instant::now();
        let submitted = queue.submit(ScanJob {
            work: Arc::clone(&self.work),
            request: request.clone(),
            key,
            reply,
            demotable: Demotable::new(true),
            progress: Progress::new(Arc::clone(&sender)),
            span: tracing::Span::current(),
            accepted,
            deadline: accepted + self.deadline,
        });
        if submitted.is_err() {
            // Waiting behind a flood is better than an error.
            return match joined {
                Some((waiter, _)) => Ok(waiter),
                None => Err(Arc::new(ScanError::Overloaded)),
            };
        }
        let (stage_of_scan, initiator) = (Arc::clone(&sender), newcomer.clone());
        let scan = InFlightScan { stage: stage_of_scan, initiator, generation };
        scans.insert(key, scan);
        drop(scans);
        tokio::spawn(self.clone().drive(key, sender, outcome));
        Ok(Waiter { stage, is_initiator: true, has_started: true, is_own_tenant: true })
    }

    /// Follows a job to its end, whichever requesters leave.
    async fn drive(
        self,
        key: MediaKey,
        sender: Arc<watch::Sender<Stage>>,
        mut outcome: oneshot::Receiver<Result<JobOutcome, ScanError>>,
    ) {
        tokio::select! {
            outcome = &mut outcome => return self.finish(key, &sender, outcome),
            () = self.wait_until_abandoned(key, &sender) => {}
            () = self.expire(key, &sender) => return,
        }
        // All waiters have left. If no worker has taken the job, dropping `outcome` removes it from the queue.
        if !matches!(*sender.borrow(), Stage::Queued) {
            let outcome = outcome.await;
            self.finish(key, &sender, outcome);
        }
    }

    /// Waits until the job has no waiters, and then removes it if it has not started.
    async fn wait_until_abandoned(&self, key: MediaKey, sender: &Arc<watch::Sender<Stage>>) {
        loop {
            sender.closed().await;
            let mut scans = self.lock();
            // Joining takes the same lock, so no waiter can arrive in between.
            if sender.receiver_count() == 0 {
                if matches!(*sender.borrow(), Stage::Queued) {
                    remove(&mut scans, key, sender);
                }
                return;
            }
        }
    }

    /// Waits for the deadline of a job that no worker has taken, and ends the job. Does not return if a worker has
    /// taken it: the worker then observes the deadline.
    async fn expire(&self, key: MediaKey, sender: &Arc<watch::Sender<Stage>>) {
        sleep(self.deadline).await;
        let expired = {
            // Under the lock, so that no request joins an ended job.
            let mut scans = self.lock();
            let expired = sender.send_if_modified(|stage| {
                let is_queued = matches!(stage, Stage::Queued);
                if is_queued {
                    let error = ScanError::Deadline(Phase::Queued);
                    *stage = Stage::Ended(None, Err(Arc::new(error)));
                }
                is_queued
            });
            if expired {
                remove(&mut scans, key, sender);
            }
            expired
        };
        if !expired {
            std::future::pending::<()>().await;
        }
    }

    fn finish(
        &self,
        key: MediaKey,
        sender: &Arc<watch::Sender<Stage>>,
        outcome: Result<Result<JobOutcome, ScanError>, oneshot::error::RecvError>,
    ) {
        // The reply is dropped unsent when the job's worker is stopped.
        let outcome = outcome.unwrap_or(Err(ScanError::Stopping)).map_err(Arc::new);
        remove(&mut self.lock(), key, sender);
        sender.send_modify(|stage| *stage = Stage::Ended(stage.media_granted().cloned(), outcome));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<MediaKey, InFlightScan>> {
        self.by_key.lock()
    }
}

/// Removes this job from the map, unless a newer one has taken its place.
fn remove(
    scans: &mut HashMap<MediaKey, InFlightScan>,
    key: MediaKey,
    sender: &Arc<watch::Sender<Stage>>,
) {
    if scans.get(&key).is_some_and(|scan| Arc::ptr_eq(&scan.stage, sender)) {
        scans.remove(&key);
    }
}

impl Waiter {
    /// Waits until the homeserver has granted the initiator access to the media. Returns `None` when the job ended
    /// before that. A grant is returned even if the job has ended since.
    pub async fn media_granted(&mut self) -> Option<MediaGranted> {
        let is_decided =
            |stage: &Stage| stage.media_granted().is_some() || matches!(stage, Stage::Ended(..));
        self.stage.wait_for(is_decided).await.ok()?.media_granted().cloned()
    }

    /// Waits for the end of the job.
    ///
    /// # Errors
    /// The error of the job, which all waiters share.
    pub async fn ended(&mut self) -> Result<JobOutcome, Arc<ScanError>> {
        let stage = self.stage.wait_for(|stage| matches!(stage, Stage::Ended(..))).await;
        match stage.as_deref() {
            Ok(Stage::Ended(_, outcome)) => outcome.clone(),
            // The job's task is gone, which happens when the runtime shuts down.
            _ => Err(Arc::new(ScanError::Stopping)),
        }
    }

    /// Returns the phase that the waiter waits in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.stage.borrow().phase()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::{
        config::Config,
        media::FetchError,
        scan::{
            engines::{EngineFingerprint, EngineIdentity, Versions},
            job::no_work,
            queue::AdmittedJob,
        },
        tenancy::TenantGroup,
    };

    const DAY: Duration = Duration::from_secs(86_400);

    fn next_now(queue: &Queue) -> Option<AdmittedJob> {
        queue.next().now_or_never().flatten()
    }

    fn token_of(job: &ScanJob) -> &str {
        job.request.fetch.requester.authorization.as_ref().unwrap().to_str().unwrap()
    }

    /// Jobs and their queue with one worker.
    struct ScansFixture {
        scans: InFlightScans,
        queue: Queue,
    }

    impl ScansFixture {
        fn new() -> Self {
            Self::with_queue(Queue::new(16, 1))
        }

        fn with_queue(queue: Queue) -> Self {
            let cache = ResultCache::new(Config::for_test().result_cache);
            Self { scans: InFlightScans::new(DAY, no_work(), cache), queue }
        }

        fn join_or_start(&self, server: &str, token: &'static str) -> Waiter {
            let request = ScanRequest::for_test(server, Some(token));
            self.scans
                .join_or_start(&self.queue, MediaKey::from_request(&request), &request)
                .unwrap()
        }

        fn start_next(&self) -> (AdmittedJob, ScanJob) {
            let mut admitted = next_now(&self.queue).expect("a startable job");
            let job = admitted.take().unwrap();
            job.progress.started();
            (admitted, job)
        }

        fn count(&self) -> usize {
            self.scans.lock().len()
        }
    }

    #[tokio::test]
    async fn requester_bypasses_a_flood_of_another_token() {
        let fixture = ScansFixture::new();
        let _flood = fixture.join_or_start("a.example", "flood");
        let (_busy, _first) = fixture.start_next();
        let mut flooded = fixture.join_or_start("b.example", "flood");
        assert!(next_now(&fixture.queue).is_none(), "the job waits for the other one of its token");

        let mut honest = fixture.join_or_start("b.example", "honest");
        assert!(honest.is_initiator);
        let joined = fixture.join_or_start("b.example", "third");
        assert!(!joined.is_initiator, "one bypass is enough");
        let (_slot, job) = fixture.start_next();
        assert_eq!(token_of(&job), "honest");
        job.reply.send(Err(ScanError::Panicked)).unwrap();
        assert!(honest.ended().await.is_err());
        // The first requester still waits for its own job.
        assert!(flooded.ended().now_or_never().is_none());
    }

    /// The job would wait until no client does.
    #[tokio::test]
    async fn client_does_not_wait_for_a_background_job_in_the_queue() {
        let fixture = ScansFixture::new();
        let mut request = ScanRequest::for_test("a.example", Some("service"));
        request.fetch.requester.tenant = TenantGroup::background();
        let key = MediaKey::from_request(&request);
        let _rescan = fixture.scans.join_or_start(&fixture.queue, key, &request).unwrap();
        let client = fixture.join_or_start("a.example", "client");
        assert!(client.is_initiator);
        assert_eq!(token_of(&fixture.start_next().1), "client");
        let rescan = fixture.scans.join_or_start(&fixture.queue, key, &request).unwrap();
        assert!(!rescan.is_initiator, "a rescan joins the job of a client");
    }

    #[tokio::test]
    async fn bypassed_job_does_not_remove_the_newer_one() {
        let fixture = ScansFixture::with_queue(Queue::new(16, 8));
        let _flood = [
            fixture.join_or_start("a.example", "flood"),
            fixture.join_or_start("c.example", "flood"),
        ];
        let (busy, _first) = fixture.start_next();
        let (_second_slot, _second) = fixture.start_next();
        let mut flooded = fixture.join_or_start("b.example", "flood");
        let _honest = fixture.join_or_start("b.example", "honest");
        assert_eq!(fixture.count(), 3);
        // Workers have both jobs, and the older one ends first.
        let (_slot, newer) = fixture.start_next();
        assert_eq!(token_of(&newer), "honest");
        drop(busy);
        let (_other_slot, older) = fixture.start_next();
        assert_eq!(token_of(&older), "flood");
        older.reply.send(Err(ScanError::Panicked)).unwrap();
        assert!(flooded.ended().await.is_err());
        assert_eq!(fixture.count(), 3);
        assert!(
            !fixture.join_or_start("b.example", "third").is_initiator,
            "the newer job can be joined"
        );
    }

    #[tokio::test]
    async fn requests_without_a_flood_share_one_job() {
        let fixture = ScansFixture::new();
        let _waiter = fixture.join_or_start("a.example", "one");
        for token in ["two", "three"] {
            let waiter = fixture.join_or_start("a.example", token);
            assert!(!waiter.is_initiator && !waiter.is_own_tenant);
        }
        let waiter = fixture.join_or_start("a.example", "one");
        assert!(waiter.is_initiator && waiter.is_own_tenant);
        assert_eq!(fixture.queue.len(), 1);
    }

    #[tokio::test]
    async fn request_after_a_forget_starts_a_job() {
        let fixture = ScansFixture::new();
        let mut before = fixture.join_or_start("a.example", "one");
        let media = ScanRequest::for_test("a.example", None).fetch.media;
        let engines = EngineIdentity::for_test(EngineFingerprint(1), Versions::new(1, true));
        fixture.scans.cache.forget_media(&media, &engines).await.unwrap();
        let mut after = fixture.join_or_start("a.example", "two");
        assert!(after.is_initiator, "a job of its own");
        assert!(!fixture.join_or_start("a.example", "three").is_initiator, "joins the new job");
        let (_slot, job) = fixture.start_next();
        job.reply.send(Err(ScanError::Panicked)).unwrap();
        assert!(before.ended().await.is_err());
        assert!(after.ended().now_or_never().is_none());
        fixture.scans.cache.forget_content([1; 32], &engines).await.unwrap();
        assert!(fixture.join_or_start("a.example", "four").is_initiator);
    }

    #[tokio::test]
    async fn full_queue_joins_an_existing_job_or_rejects() {
        let fixture = ScansFixture::with_queue(Queue::new(1, 1));
        let _flood = fixture.join_or_start("a.example", "flood");
        let (_busy, _first) = fixture.start_next();
        let _flooded = fixture.join_or_start("b.example", "flood");
        let full = ScanRequest::for_test("b.example", Some("honest"));
        let waiter =
            fixture.scans.join_or_start(&fixture.queue, MediaKey::from_request(&full), &full);
        assert!(!waiter.expect("a waiter of the flood's job").is_initiator);
        let full = ScanRequest::for_test("d.example", Some("honest"));
        let error = fixture
            .scans
            .join_or_start(&fixture.queue, MediaKey::from_request(&full), &full)
            .unwrap_err();
        assert!(matches!(*error, ScanError::Overloaded));
        assert_eq!(fixture.count(), 2, "a rejected job is not in the map");
    }

    #[tokio::test]
    async fn grant_is_reported_after_the_job_has_ended() {
        let fixture = ScansFixture::new();
        let _initiator = fixture.join_or_start("a.example", "one");
        let mut waiter = fixture.join_or_start("a.example", "two");
        let (_slot, job) = fixture.start_next();
        job.progress.headers_received(Some(HeaderValue::from_static("tag")));
        job.progress.scanning();
        job.reply.send(Err(ScanError::Panicked)).unwrap();
        // Only after the end, when the watch channel has the last stage alone.
        assert!(waiter.ended().await.is_err());
        let granted = waiter.media_granted().await.expect("the media was granted");
        assert_eq!(granted.etag.unwrap(), "tag");
    }

    #[tokio::test]
    async fn no_grant_is_reported_when_the_media_was_refused() {
        let fixture = ScansFixture::new();
        let _initiator = fixture.join_or_start("a.example", "one");
        let mut waiter = fixture.join_or_start("a.example", "two");
        let (_slot, job) = fixture.start_next();
        job.reply.send(Err(ScanError::Fetch(FetchError::NotFound))).unwrap();
        assert!(waiter.media_granted().await.is_none());
        assert_eq!(fixture.count(), 0);
    }

    #[tokio::test]
    async fn abandoned_job_makes_room_for_the_next() {
        let fixture = ScansFixture::new();
        drop(fixture.join_or_start("a.example", "one"));
        while fixture.count() != 0 {
            tokio::task::yield_now().await;
        }
        assert!(fixture.join_or_start("a.example", "two").is_initiator);
        let (_slot, job) = fixture.start_next();
        assert_eq!(token_of(&job), "two");
    }
}
