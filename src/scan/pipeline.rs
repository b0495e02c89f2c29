//! Processing of one job in a private working directory: downloads, hashes and decrypts the media, runs the engines,
//! replies and cleans up. A panic fails the job, not the worker.

mod verdict;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mcs_filetype::{MediaType, MimeRules};
use tokio::{
    sync::watch,
    time::{timeout, timeout_at},
};

use super::{
    cache::{CacheGeneration, CachedVerdict, ContentKey, MediaSource, ResultCache, ScannedContent},
    cached_media::{CachedMedia, MediaHeaders},
    canary::CanaryState,
    context::ScanContext,
    decisions::DecisionKeeper,
    engines::{ListedFile, Versions},
    error::{Phase, ScanError},
    job::{JobOutcome, ScanJob},
    recent::RecentScans,
    report::{AnswerObserver, EngineRunReport, JobObserver, JobReport, PlainMediaObserver},
    request::Wants,
    response::Timings,
    task::{blocking, caught},
    verdict::Verdict,
    work_dir::WorkDir,
};
use crate::{
    media::{
        Authoriser, Body, Homeservers,
        ingest::{Ingest, IngestOptions, Ingested, Plaintext, ScriptFile},
    },
    single_flight::SingleFlight,
};

/// Maximum time that a request waits for the canary's first result.
const CANARY_WAIT: Duration = Duration::from_secs(10);

/// Everything that jobs need. Does not change: a reload creates another pipeline, and jobs continue with the pipeline
/// that they were requested under.
pub struct Pipeline {
    /// Scans files.
    pub(crate) context: ScanContext,
    /// Downloads media.
    pub(crate) homeservers: Arc<Homeservers>,
    /// Asks homeservers whether a requester may access media.
    pub(crate) authoriser: Arc<Authoriser>,
    /// Latest result of the canary; nothing is scanned unless the canary has passed.
    pub(crate) canary: watch::Receiver<CanaryState>,
    pub(crate) cache: ResultCache,
    /// Operators' decisions about whole media files.
    pub(crate) decisions: DecisionKeeper,
    /// Scans in progress, by content, versions and the number of the last forget: media with the same bytes shares one scan.
    pub(crate) scans: SingleFlight<(ContentKey, Versions, u64), ScannedContent>,
    /// Receives a report of each job.
    pub(crate) job_observer: JobObserver,
    /// Receives the answers to requests without a job, if they are recorded.
    pub(crate) answer_observer: Option<AnswerObserver>,
    /// The latest verdicts, for operators.
    pub(crate) recent: Arc<RecentScans>,
    /// Receives plain media, if incidents are created.
    pub(crate) plain_media_observer: Option<PlainMediaObserver>,
}

/// A job in progress.
struct RunningJob {
    job: ScanJob,
    /// Generation at the start of the job. If the canary fails during the job, the generation changes and the job's
    /// verdict is discarded.
    generation: CacheGeneration,
    /// Created when the plaintext has to be written.
    work_dir: Option<WorkDir>,
    timings: Timings,
    /// Whether an infection was reported before its verdict was stored.
    has_reported: AtomicBool,
}

/// A downloaded and decrypted body.
struct Fetched {
    /// SHA-256 of the plaintext.
    content: [u8; 32],
    size: u64,
    /// The type of the same content, if a cached entry has it.
    detected: Option<MediaType>,
    headers: MediaHeaders,
    /// Absent if it is too large for memory and no requester needs it.
    body: Option<Body>,
    /// Whether the body may be kept as the media: see [`Download::is_granted`](crate::media::Download::is_granted).
    is_granted: bool,
}

/// Result of a job, with details for its report.
struct Scanned {
    outcome: JobOutcome,
    /// The run of the engines; `None` if this job did not run them.
    run: Option<EngineRunReport>,
}

impl RunningJob {
    /// Records that the plaintext is complete, and returns its SHA-256.
    fn set_plaintext(&mut self, plaintext: Plaintext) -> Result<[u8; 32], ScanError> {
        let hash = plaintext.hash;
        if let Some(work_dir) = &mut self.work_dir {
            work_dir.set_plaintext(plaintext)?;
        }
        Ok(hash)
    }
}

impl Pipeline {
    /// Processes a job and replies to its requesters.
    pub(super) async fn run_job(&self, job: ScanJob) {
        job.progress.started();
        let waited = job.accepted.elapsed();
        let generation = self.cache.generation().for_media(&job.key);
        let mut running = RunningJob {
            job,
            generation,
            work_dir: None,
            timings: Timings { queue: Some(waited), ..Timings::default() },
            has_reported: AtomicBool::default(),
        };
        let scanned = caught(Box::pin(self.process(&mut running))).await;
        let RunningJob { job, work_dir, timings, .. } = running;
        let report = JobReport {
            request: &job.request,
            outcome: scanned.as_ref().map(|scanned| &scanned.outcome),
            timings,
            run: scanned.as_ref().ok().and_then(|scanned| scanned.run.as_ref()),
        };
        // No request led to a clean rescan.
        let is_clean = report.outcome.is_ok_and(|outcome| is_clean(&outcome.verdict));
        if report.request.wants != Wants::Rescan || !is_clean {
            self.recent.record_job(&report);
        }
        (self.job_observer)(&report);
        // Replies before the cleanup, which requesters need not wait for. Fails when all requesters have left.
        let _ = job.reply.send(scanned.map(|scanned| scanned.outcome));
        if let Some(work_dir) = work_dir {
            work_dir.clean_up(self.context.removal_command().as_ref()).await;
        }
    }

    /// Downloads and scans.
    async fn process(&self, running: &mut RunningJob) -> Result<Scanned, ScanError> {
        let fetched = self.fetch(running).await?;
        let (scanned, run) = self.scan(running, &fetched).await;
        if !running.has_reported.load(Ordering::Relaxed) {
            self.report_plain_media(running, &fetched, &scanned).await;
        }
        let ScannedContent { detected, verdict, .. } = scanned;
        let Fetched { content, size, headers, body, is_granted, .. } = fetched;
        let detected = detected.or(fetched.detected);
        let media = Arc::new(CachedMedia::new(content, size, detected, headers));
        let is_kept = running.job.request.wants != Wants::Rescan || !is_clean(&verdict);
        if is_granted && is_kept {
            let RunningJob { job, generation, .. } = &*running;
            let source = MediaSource::from_request(&job.request);
            self.cache.store_media(job.key, &media, &source, *generation);
        }
        let body = self.keep(running, &media, body, &verdict).await?;
        let timings = running.timings;
        Ok(Scanned { outcome: JobOutcome { media, verdict, body, timings }, run })
    }

    /// Downloads the media before the deadline of the job.
    async fn fetch(&self, running: &mut RunningJob) -> Result<Fetched, ScanError> {
        let start = Instant::now();
        let deadline = running.job.deadline;
        if start >= deadline {
            return Err(ScanError::Deadline(Phase::Queued));
        }
        let fetched = timeout_at(deadline.into(), self.download(running))
            .await
            .map_err(|_elapsed| ScanError::Deadline(Phase::Downloading))??;
        running.job.demotable.set(false);
        running.timings.download = Some(start.elapsed());
        Ok(fetched)
    }

    /// Downloads, hashes and decrypts the body.
    async fn download(&self, running: &mut RunningJob) -> Result<Fetched, ScanError> {
        let job = &running.job;
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
            None => Some(self.create_work_dir(running).await?),
        };
        let job = &running.job;
        let options = IngestOptions {
            account: job.request.fetch.account(&self.context.spool),
            max_size: self.context.max_size,
            memory_limit: self.cache.max_body_size(),
            keep_large: job.request.wants == Wants::Media || cached.is_some(),
            decryption: job.request.decryption.clone(),
            script_file,
        };
        // The length of a compressed body does not limit the size of the decompressed one.
        let length = head.length.filter(|_| !head.gzip);
        let deadline = job.deadline.into();
        let ingest = Ingest::new_when_free(&self.context.spool, options, length, deadline).await?;
        let ingested = download.stream(ingest, Ingest::finish).await?;
        let Ingested { body, size, body_hash, plaintext } = ingested;

        let (content, detected) = match (plaintext, &cached) {
            (Some(plaintext), _) => (running.set_plaintext(plaintext)?, None),
            (None, Some(cached)) if cached.body_hash(&job.request) == body_hash => {
                (cached.content, cached.detected.clone())
            }
            // The body has changed since the verdict was cached.
            (None, _) => (self.rewrite_plaintext(running, body.as_ref()).await?, None),
        };
        let headers = MediaHeaders::from_head(&head);
        Ok(Fetched { content, size, detected, headers, body, is_granted })
    }

    /// Creates the working directory, with an empty file for the plaintext.
    async fn create_work_dir(&self, running: &mut RunningJob) -> Result<ScriptFile, ScanError> {
        let tenant = running.job.request.fetch.requester.tenant;
        let (created, file) = self.context.prepare_work_dir(&self.context.engines, tenant).await?;
        running.work_dir = Some(created);
        Ok(file)
    }

    /// Writes the plaintext of a body that is in memory or on the spool to a new working directory. Returns its SHA-256.
    async fn rewrite_plaintext(
        &self,
        running: &mut RunningJob,
        body: Option<&Body>,
    ) -> Result<[u8; 32], ScanError> {
        let not_found = || ScanError::Disk(std::io::ErrorKind::NotFound.into());
        let body = body.cloned().ok_or_else(not_found)?;
        let script_file = Some(self.create_work_dir(running).await?);
        let job = &running.job;
        let options = IngestOptions {
            account: job.request.fetch.account(&self.context.spool),
            max_size: self.context.max_size,
            memory_limit: 0,
            keep_large: false,
            decryption: job.request.decryption.clone(),
            script_file,
        };
        let (length, deadline) = (Some(body.len()), job.deadline.into());
        let mut ingest =
            Ingest::new_when_free(&self.context.spool, options, length, deadline).await?;
        let ingested = blocking(move || {
            body.for_each_chunk(|chunk| ingest.write(chunk))?;
            ingest.finish()
        });
        running.set_plaintext(ingested.await?.plaintext.ok_or_else(not_found)?)
    }

    /// Caches a clean body in memory, if it is small enough. Returns a clean body for the requesters.
    async fn keep(
        &self,
        running: &RunningJob,
        media: &CachedMedia,
        body: Option<Body>,
        verdict: &CachedVerdict,
    ) -> Result<Option<Body>, ScanError> {
        let is_kept = running.job.request.wants != Wants::Rescan;
        let Some(body) = body.filter(|_| is_kept && is_clean(verdict)) else {
            return Ok(None);
        };
        if body.len() > self.cache.max_body_size() {
            return Ok(Some(body));
        }
        let bytes = match body {
            Body::Memory(bytes) => bytes,
            body @ Body::File(_) => blocking(move || body.into_memory()).await?,
        };
        self.cache.store_body(media.body_hash(&running.job.request), &bytes);
        Ok(Some(Body::Memory(bytes)))
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

    /// Returns the cached verdict on this media, the lists of types included. `None` also for media of unknown type, if
    /// there are lists: the media is fetched and inspected again.
    pub(super) async fn cached_verdict(&self, media: &CachedMedia) -> Option<CachedVerdict> {
        let lists = &self.context.settings.mime;
        if let Some(detected) = &media.detected
            && !lists.allows(detected.as_str())
        {
            return Some(Ok(Verdict::TypeForbidden { detected: detected.clone() }));
        }
        let lacks_type = *lists != MimeRules::All && media.detected.is_none();
        match self.listed(&media.content) {
            Some(listed @ ListedFile::Blocked(_)) => return Some(Ok(listed.verdict())),
            Some(listed) => return (!lacks_type).then(|| Ok(listed.verdict())),
            None => {}
        }
        let identity = self.context.engines.identity().await?;
        let key = ContentKey {
            content: media.content,
            engines_fingerprint: identity.engines_fingerprint,
        };
        let verdict = self.known_scan(&key, identity.versions).await?.verdict;
        (verdict.is_err() || !lacks_type).then_some(verdict)
    }

    /// Returns the entry for a whole media file in the decisions of operators and in the lists of hashes. Blocking has
    /// precedence.
    pub(in crate::scan) fn listed(&self, content: &[u8; 32]) -> Option<ListedFile> {
        let entries =
            [self.decisions.decisions().find(content), self.context.engines.listed(content)];
        let mut entries = entries.into_iter().flatten();
        let first = entries.next()?;
        match entries.next() {
            Some(second) if first == ListedFile::Allowed => Some(second),
            _ => Some(first),
        }
    }

    /// Returns the cached result of a scan, with the lists of types applied. `None` also for a content of unknown type, if
    /// there are lists.
    fn cached_scan(&self, key: &ContentKey, versions: Versions) -> Option<ScannedContent> {
        let policies = self.context.engines.policies();
        self.with_lists(self.cache.scanned(key, &versions, policies)?)
    }

    /// Like [`cached_scan`](Self::cached_scan), from the verdict store as well. Verdicts of an earlier process need
    /// engines that have passed the canary in this one.
    async fn known_scan(&self, key: &ContentKey, versions: Versions) -> Option<ScannedContent> {
        if let Some(scanned) = self.cached_scan(key, versions) {
            return Some(scanned);
        }
        if !self.is_ready() {
            return None;
        }
        let policies = self.context.engines.policies();
        self.with_lists(self.cache.recall(key, versions, policies).await?)
    }

    /// Applies the lists of types.
    fn with_lists(&self, scanned: ScannedContent) -> Option<ScannedContent> {
        let lists = &self.context.settings.mime;
        let verdict = match (&scanned.detected, scanned.verdict) {
            (Some(detected), _) if !lists.allows(detected.as_str()) => {
                Ok(Verdict::TypeForbidden { detected: detected.clone() })
            }
            (None, Ok(_)) if *lists != MimeRules::All => return None,
            (_, verdict) => verdict,
        };
        Some(ScannedContent { verdict, ..scanned })
    }
}

fn is_clean(verdict: &CachedVerdict) -> bool {
    matches!(verdict, Ok(Verdict::Clean { .. }))
}
