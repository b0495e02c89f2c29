//! Processing of one job in a private working directory: downloads, hashes and decrypts the media, detects the type,
//! runs the engines, replies and cleans up. A panic fails the job, not the worker.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mcs_filetype::{Detector, MediaType};
use mcs_sandbox::Sandbox;
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};

use super::{
    cache::{CacheGeneration, CachedVerdict, ContentKey, ResultCache},
    cached_media::{CachedMedia, CachedMediaParts, MediaHeaders},
    canary::CanaryState,
    detection::finish_and_detect,
    engines::{EngineIdentity, EngineRun, Engines, Versions},
    error::{Phase, ScanError},
    job::{JobOutcome, ScanJob},
    removal::RemovalCommand,
    request::Wants,
    response::Timings,
    settings::Settings,
    task::{blocking, caught},
    verdict::{NotCleanKind, Verdict},
    work_dir::WorkDir,
};
use crate::{
    audit::{AuditLog, AuditRecord},
    exhaustion::is_exhaustion,
    media::{
        Authoriser, Body, Homeservers, Variant,
        ingest::{Ingest, IngestOptions, Ingested, Plaintext, ScriptFile},
        spool::Spool,
    },
    metrics::{CacheHit, Metrics},
    single_flight::SingleFlight,
};

/// Maximum time that a request waits for the canary's first result.
const CANARY_WAIT: Duration = Duration::from_secs(10);

/// Everything that jobs need. Does not change: a reload creates another context, and jobs continue with the context
/// that they were requested under.
pub(super) struct ScanContext {
    pub(super) settings: Settings,
    pub(super) max_media_size: u64,
    pub(super) homeservers: Arc<Homeservers>,
    pub(super) authoriser: Arc<Authoriser>,
    pub(super) sandbox: Sandbox,
    pub(super) spool: Spool,
    pub(super) detector: Arc<Detector>,
    /// Latest result of the canary; nothing is scanned unless the canary has passed.
    pub(super) canary: watch::Receiver<CanaryState>,
    pub(super) engines: Engines,
    pub(super) removal_command: Option<RemovalCommand>,
    pub(super) cache: ResultCache,
    /// Scans in progress, by content: media with the same bytes shares one scan.
    pub(super) scans: SingleFlight<(ContentKey, Versions), CachedVerdict>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Option<AuditLog>,
}

/// A downloaded and decrypted body.
struct Fetched {
    media: CachedMedia,
    /// Absent if it is too large for memory and no requester needs it.
    body: Option<Body>,
    /// Whether the body may be kept as the media: see [`Download::is_granted`](crate::media::Download::is_granted).
    is_granted: bool,
}

/// The scan of a downloaded body.
struct ScanTask<'a> {
    job: &'a ScanJob,
    work_dir: &'a mut Option<WorkDir>,
    body: Option<&'a Body>,
    run: &'a mut Option<EngineRunTrace>,
    /// Generation at the start of the job. If the canary fails during the job, the generation changes and the job's
    /// verdict is discarded.
    generation: CacheGeneration,
}

/// Measurements of a job, complete up to the point where the job ended.
#[derive(Default)]
struct JobTrace {
    timings: Timings,
    /// The run of the engines; none if this job did not run them.
    run: Option<EngineRunTrace>,
}

/// Measurements of a run of the engines.
struct EngineRunTrace {
    script_duration: Option<Duration>,
    /// The script's exit code and the first line of the output; none without a verdict.
    verdict_details: Option<(Option<i32>, String)>,
}

impl ScanContext {
    /// Processes a job and replies to its requesters.
    pub(super) async fn run_job(&self, job: ScanJob) {
        job.progress.started();
        let waited = job.accepted.elapsed();
        self.metrics.record_job_start(waited);
        let mut work_dir = None;
        let mut trace = JobTrace::default();
        trace.timings.queue = Some(waited);
        let outcome = caught(Box::pin(self.process(&job, &mut work_dir, &mut trace))).await;
        self.record(&job, &trace, &outcome);
        // Replies before the cleanup, which requesters need not wait for. Fails when all requesters have left.
        let _ = job.reply.send(outcome);
        if let Some(work_dir) = work_dir {
            work_dir.clean_up(self.removal_command.as_ref()).await;
        }
    }

    /// Records a finished job in the metrics and its verdict in the audit log.
    fn record(&self, job: &ScanJob, trace: &JobTrace, outcome: &Result<JobOutcome, ScanError>) {
        let JobTrace { timings, run } = trace;
        let verdict = match outcome {
            Ok(JobOutcome { verdict: None, .. }) => Some("type_forbidden"),
            Ok(JobOutcome { verdict: Some(Ok(verdict)), .. }) => Some(verdict.name()),
            Ok(JobOutcome { verdict: Some(Err(_)), .. }) | Err(_) => None,
        };
        let kind = match outcome {
            Ok(JobOutcome { verdict: Some(Ok(verdict)), .. }) => verdict.not_clean_kind(),
            _ => None,
        };
        let result = verdict.unwrap_or("no_verdict");
        let script_duration = run.as_ref().and_then(|run| run.script_duration);
        self.metrics.record_job_end(result, timings.download, timings.scan, script_duration);
        let (Some(verdict), Ok(outcome)) = (verdict, outcome) else { return };
        let details = run.as_ref().and_then(|run| run.verdict_details.as_ref());
        if outcome.verdict.is_some() && details.is_none() {
            self.metrics.record_cache_hit(CacheHit::Verdict);
        }
        if let Some(audit) = &self.audit {
            let fetch = &job.request.fetch;
            audit.record(&AuditRecord {
                time: SystemTime::now(),
                media: &fetch.media,
                origin: &fetch.origin,
                thumbnail: fetch.variant != Variant::Original,
                encrypted: job.request.decryption.is_some(),
                sha256: &outcome.media.content,
                size: outcome.media.size,
                detected: outcome.media.detected.as_str(),
                verdict,
                not_clean: kind.map(NotCleanKind::name),
                exit_code: details.and_then(|(code, _)| *code),
                first_line: details.map(|(_, line)| line.as_str()),
                took: script_duration,
            });
        }
    }

    /// Downloads and scans.
    async fn process(
        &self,
        job: &ScanJob,
        work_dir: &mut Option<WorkDir>,
        trace: &mut JobTrace,
    ) -> Result<JobOutcome, ScanError> {
        let start = Instant::now();
        let generation = self.cache.generation();
        let deadline = job.deadline;
        if start >= deadline {
            return Err(ScanError::Deadline(Phase::Queued));
        }
        let Fetched { media, body, is_granted } =
            timeout_at(deadline.into(), self.fetch(job, work_dir))
                .await
                .map_err(|_elapsed| ScanError::Deadline(Phase::Downloading))??;
        job.demotable.set(false);
        if is_granted {
            self.cache.store_media(job.key, media.clone());
        }
        trace.timings.download = Some(start.elapsed());
        if !self.settings.mime.allows(media.detected.as_str()) {
            return Ok(JobOutcome { media, verdict: None, body: None, timings: trace.timings });
        }
        let scan_start = Instant::now();
        job.progress.scanning();
        let task = ScanTask { job, work_dir, body: body.as_ref(), run: &mut trace.run, generation };
        let verdict = self.find_verdict(task, &media, deadline).await;
        trace.timings.scan = Some(scan_start.elapsed());
        let body = match &verdict {
            Ok(Verdict::Clean { .. }) => self.cache_body(job, &media, body).await?,
            _ => None,
        };
        Ok(JobOutcome { media, verdict: Some(verdict), body, timings: trace.timings })
    }

    /// Downloads, hashes and decrypts the body and detects the type of the plaintext.
    async fn fetch(
        &self,
        job: &ScanJob,
        work_dir: &mut Option<WorkDir>,
    ) -> Result<Fetched, ScanError> {
        let download = self.homeservers.open(&job.request.fetch).await?;
        let (head, is_granted) = (download.head.clone(), download.is_granted);
        // Without a grant, the other requesters wait for the end of the job and then download for themselves.
        if is_granted {
            job.progress.headers_received(head.etag.clone());
            self.authoriser.grant(&job.request.fetch);
        }

        // If the verdict is cached, which may have happened while the job was queued, only the body is needed: the
        // plaintext is not written.
        let cached = match self.cache.cached_media(&job.key) {
            Some(cached) => self.cached_verdict(&cached).await.is_some().then_some(cached),
            None => None,
        };
        let script_file = match cached {
            Some(_) => None,
            None => Some(self.create_work_dir(job, work_dir).await?),
        };
        let options = IngestOptions {
            account: job.request.fetch.account(&self.spool),
            max_size: self.max_media_size,
            memory_limit: self.cache.max_body_size(),
            keep_large: job.request.wants == Wants::Media || cached.is_some(),
            decryption: job.request.decryption.clone(),
            script_file,
        };
        // The length of a compressed body does not limit the size of the decompressed one.
        let length = head.length.filter(|_| !head.gzip);
        let deadline = job.deadline.into();
        let ingest = Ingest::new_when_free(&self.spool, options, length, deadline).await?;
        let detector = Arc::clone(&self.detector);
        let ingested =
            download.stream(ingest, move |ingest| finish_and_detect(ingest, &detector)).await?;
        let (Ingested { body, size, body_hash, plaintext }, detected) = ingested;

        let (plaintext, detected) = match (plaintext.zip(detected), &cached) {
            (Some(plaintext_and_type), _) => plaintext_and_type,
            (None, Some(cached)) if cached.body_hash(&job.request) == body_hash => {
                let media = CachedMediaParts {
                    content: cached.content,
                    size,
                    detected: cached.detected.clone(),
                    headers: MediaHeaders::from_head(&head),
                };
                return Ok(Fetched { media: media.into(), body, is_granted });
            }
            // The body has changed since the verdict was cached.
            (None, _) => self.rewrite_plaintext(job, work_dir, body.as_ref()).await?,
        };
        let content = plaintext.hash;
        if let Some(work_dir) = work_dir {
            work_dir.set_plaintext(plaintext)?;
        }
        let headers = MediaHeaders::from_head(&head);
        let media = CachedMediaParts { content, size, detected, headers };
        Ok(Fetched { media: media.into(), body, is_granted })
    }

    /// Returns the verdict on a content: from the cache, from a scan of the same content in progress, or from a new
    /// scan.
    async fn find_verdict(
        &self,
        mut task: ScanTask<'_>,
        media: &CachedMedia,
        deadline: Instant,
    ) -> CachedVerdict {
        let timed_out = || Arc::new(ScanError::Deadline(Phase::Scanning));
        let Some(identity) = self.engines.identity().await else {
            // The script's file cannot be examined. Running the script yields an error that names the cause. Nothing is
            // cached, because there is no cache key without an identity.
            let run = timeout_at(deadline.into(), self.run_engines(&mut task)).await;
            let outcome = run.map_err(|_elapsed| timed_out())?.outcome?;
            return self.engines.policies().decide(&outcome).verdict;
        };
        let key = ContentKey {
            content: media.content,
            engines_fingerprint: identity.engines_fingerprint,
        };
        let start = Instant::now();
        let scan = self.scan_and_cache(key, &identity, &mut task);
        let shared = self.scans.run((key, identity.versions), scan);
        match timeout_at(deadline.into(), shared).await {
            Ok(verdict) => verdict,
            Err(_elapsed) => {
                let error = timed_out();
                // Another scan of this content would most likely time out as well. This does not hold if a slow
                // download took most of the time: its failure must not be shared with other media that has the same
                // bytes.
                if start.elapsed() > self.settings.deadline / 2 {
                    self.cache.store_failure(key, Arc::clone(&error));
                }
                Err(error)
            }
        }
    }

    /// Runs the engines, unless another scan has stored a verdict in the meantime, and stores the result.
    async fn scan_and_cache(
        &self,
        key: ContentKey,
        identity: &EngineIdentity,
        task: &mut ScanTask<'_>,
    ) -> CachedVerdict {
        let (versions, policies) = (identity.versions, self.engines.policies());
        if let Some(verdict) = self.cache.verdict(&key, &versions, policies) {
            return verdict;
        }
        let run = self.run_engines(task).await;
        // The result of a run is cached, even a failure: its cause is the content, or would recur at once. A failure
        // before the run, such as a full disk, is not cached.
        let is_cacheable = run.matches_identity(identity);
        let outcome = run.outcome?;
        let verdict = policies.decide(&outcome).verdict;
        // A lack of resources passes, and its cause is not the content.
        let is_exhausted = verdict.as_ref().is_err_and(|error| is_exhaustion(&**error));
        if is_cacheable && !is_exhausted {
            self.cache.store_outcome(key, outcome, versions, policies, task.generation);
        }
        verdict
    }

    /// Runs the engines on the plaintext.
    async fn run_engines(&self, task: &mut ScanTask<'_>) -> EngineRun {
        let ScanTask { job, work_dir, body, run: trace, generation } = task;
        if !self.is_ready() || self.cache.generation() != *generation {
            return EngineRun::prevented(ScanError::NotReady);
        }
        if work_dir.is_none() {
            // The verdict was cached when the download started, and has expired since.
            match self.rewrite_plaintext(job, work_dir, *body).await {
                Ok((plaintext, _)) => {
                    if let Some(work_dir) = &mut **work_dir
                        && let Err(error) = work_dir.set_plaintext(plaintext)
                    {
                        return EngineRun::prevented(error);
                    }
                }
                Err(error) => return EngineRun::prevented(error),
            }
        }
        let Some(sample) = work_dir.as_mut().and_then(WorkDir::sample_access) else {
            return EngineRun::prevented(ScanError::Stopping);
        };
        let run = Box::pin(self.engines.scan(sample)).await;
        for (engine, result) in &run.results {
            self.metrics.record_engine_result(engine, result);
        }
        let decision =
            run.outcome.as_ref().ok().map(|outcome| self.engines.policies().decide(outcome));
        let verdict_details = decision
            .filter(|decision| decision.verdict.is_ok())
            .map(|decision| (decision.exit_code, decision.first_line));
        **trace = Some(EngineRunTrace { script_duration: run.script_duration(), verdict_details });
        if self.cache.generation() != *generation {
            return EngineRun::prevented(ScanError::NotReady);
        }
        run
    }

    /// Returns whether the canary has passed.
    pub(super) fn is_ready(&self) -> bool {
        *self.canary.borrow() == CanaryState::Passed
    }

    /// Waits for the canary's first result, at most [`CANARY_WAIT`], and returns whether the canary has passed.
    pub(super) async fn wait_until_ready(&self) -> bool {
        let mut canary = self.canary.clone();
        let first_result = canary.wait_for(|state| *state != CanaryState::Pending);
        // The state is read below, whether or not the wait timed out.
        let _ = timeout(CANARY_WAIT, first_result).await;
        self.is_ready()
    }

    /// Returns the cached verdict on the content of this media.
    pub(super) async fn cached_verdict(&self, media: &CachedMedia) -> Option<CachedVerdict> {
        let identity = self.engines.identity().await?;
        let key = ContentKey {
            content: media.content,
            engines_fingerprint: identity.engines_fingerprint,
        };
        self.cache.verdict(&key, &identity.versions, self.engines.policies())
    }

    /// Creates the working directory, with an empty file for the plaintext.
    async fn create_work_dir(
        &self,
        job: &ScanJob,
        work_dir: &mut Option<WorkDir>,
    ) -> Result<ScriptFile, ScanError> {
        let needs_sandbox = self.engines.needs_sandbox() || self.removal_command.is_some();
        let sandbox = needs_sandbox.then_some(&self.sandbox);
        let (created, file) =
            WorkDir::prepare(sandbox, &self.spool, job.request.fetch.requester.tenant).await?;
        *work_dir = Some(created);
        Ok(file)
    }

    /// Writes the plaintext of a body that is in memory or on the spool to a new working directory.
    async fn rewrite_plaintext(
        &self,
        job: &ScanJob,
        work_dir: &mut Option<WorkDir>,
        body: Option<&Body>,
    ) -> Result<(Plaintext, MediaType), ScanError> {
        let not_found = || ScanError::Disk(std::io::ErrorKind::NotFound.into());
        let body = body.cloned().ok_or_else(not_found)?;
        let options = IngestOptions {
            account: job.request.fetch.account(&self.spool),
            max_size: self.max_media_size,
            memory_limit: 0,
            keep_large: false,
            decryption: job.request.decryption.clone(),
            script_file: Some(self.create_work_dir(job, work_dir).await?),
        };
        let (length, deadline) = (Some(body.len()), job.deadline.into());
        let mut ingest = Ingest::new_when_free(&self.spool, options, length, deadline).await?;
        let detector = Arc::clone(&self.detector);
        let ingested = blocking(move || {
            body.for_each_chunk(|chunk| ingest.write(chunk))?;
            finish_and_detect(ingest, &detector)
        });
        let (ingested, detected) = ingested.await?;
        ingested.plaintext.zip(detected).ok_or_else(not_found)
    }

    /// Caches a clean body in memory, if it is small enough.
    async fn cache_body(
        &self,
        job: &ScanJob,
        media: &CachedMedia,
        body: Option<Body>,
    ) -> Result<Option<Body>, ScanError> {
        let Some(body) = body else { return Ok(None) };
        if body.len() > self.cache.max_body_size() {
            return Ok(Some(body));
        }
        let bytes = match body {
            Body::Memory(bytes) => bytes,
            body @ Body::File(_) => blocking(move || body.into_memory()).await?,
        };
        self.cache.store_body(media.body_hash(&job.request), &bytes);
        Ok(Some(Body::Memory(bytes)))
    }
}
