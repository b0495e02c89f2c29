//! The fixed set of workers. A worker takes a job from top to bottom in the job's own private
//! directory: open, prepare, take in, name the type, ask the engines; replies; and only then cleans up.
//! A worker that panics answers its job with an error and lives on.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::FutureExt;
use mcs_sandbox::Sandbox;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{timeout, timeout_at},
};
use tracing::{Instrument, error};

use super::{
    Phase, ScanError, Settings, Timings, Verdict, Wants,
    bench::Bench,
    cache::{ContentKey, ResultCache, Trust, Word},
    canary::CanaryState,
    engines::{Engines, Judgement, Run, Versions},
    filetype::{Detector, MediaType},
    flight::Outcome,
    holding::{Holding, HoldingParts, KeptHeaders},
    once::OncePerKey,
    pulse::Pulse,
    queue::{Queue, ScanJob},
    script::{REMOVAL_TIME_LIMIT, Removal},
};
use crate::{
    audit::{Audit, Entry},
    media::{
        Body, FetchError, Variant,
        authorise::Authoriser,
        homeserver::Homeservers,
        intake::{Intake, IntakeError, Plaintext, Plan, ScriptFile, Taken},
        spool::Spool,
    },
    metrics::{CacheHit, Metrics},
};

/// The media's name in the job's directory: shell-safe, and the same for all.
pub const MEDIA_NAME: &str = "media";

/// What a worker may take for a job beyond `scan.deadline`: to keep a body, and to clean up.
const SLACK: Duration = Duration::from_secs(60).saturating_add(REMOVAL_TIME_LIMIT);

/// How long what needs a scan waits for the canary's first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// What jobs are done with. It does not change: a reload makes another, and jobs that were asked for
/// before it end in the one that they were asked for in.
pub struct Workshop {
    pub(super) settings: Settings,
    pub(super) max_media_size: u64,
    pub(super) homeservers: Arc<Homeservers>,
    pub(super) authoriser: Arc<Authoriser>,
    pub(super) sandbox: Sandbox,
    pub(super) spool: Spool,
    pub(super) detector: Arc<Detector>,
    /// Whether the canary lets anything be scanned.
    pub(super) canary: watch::Receiver<CanaryState>,
    pub(super) engines: Engines,
    pub(super) removal: Option<Removal>,
    pub(super) cache: ResultCache,
    /// Scans under way, by content: two media with the same bytes share one.
    pub(super) scans: OncePerKey<(ContentKey, Versions), Word>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) audit: Option<Audit>,
}

/// Starts `count` workers. They end when the queue is closed and empty.
#[must_use]
pub fn start(count: usize, queue: &Queue, pulse: &Arc<Pulse>) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for worker in 0..count {
        let (queue, pulse) = (queue.clone(), Arc::clone(pulse));
        workers.spawn(async move {
            while let Some(mut admitted) = queue.next().await {
                if let Some(job) = admitted.take() {
                    let span = job.span.clone();
                    // One that has waited beyond its deadline takes no time.
                    let due = Instant::now().max(job.deadline) + SLACK;
                    let _at_work = pulse.begin(worker, due);
                    // A panic is caught where there is still somebody to answer; what is caught here
                    // came after the answer.
                    let work = Arc::clone(&job.work)(job).instrument(span);
                    let work = AssertUnwindSafe(work).catch_unwind();
                    if work.await.is_err() {
                        error!("a worker panicked while it cleaned up");
                    }
                }
            }
        });
    }
    workers
}

/// A job whose media is in, on its way to the engines.
struct Task<'a> {
    job: &'a ScanJob,
    bench: &'a mut Option<Bench>,
    body: Option<&'a Body>,
    run: &'a mut Option<RunNotes>,
    /// From before the job was begun: a canary that has failed since speaks against its verdict.
    trust: Trust,
}

/// What is seen of a job on its way, however it ends.
#[derive(Default)]
struct Notes {
    timings: Timings,
    /// The engines' run for this job, if it came to one.
    run: Option<RunNotes>,
}

/// What is seen of a run of the engines.
struct RunNotes {
    script_took: Option<Duration>,
    /// Where it gave a verdict: the script's exit code, and the first line of what was said.
    judged: Option<(Option<i32>, String)>,
}

impl Workshop {
    pub(super) async fn work(&self, job: ScanJob) {
        job.progress.begun();
        let waited = job.accepted.elapsed();
        self.metrics.job_begins(waited);
        let mut bench = None;
        let mut notes = Notes::default();
        notes.timings.queue = Some(waited);
        let outcome = caught(Box::pin(self.process(&job, &mut bench, &mut notes))).await;
        self.note(&job, &notes, &outcome);
        // The requester need not wait for the cleaning up.
        let _nobody_waits = job.reply.send(outcome);
        if let Some(bench) = bench {
            bench.clear(self.removal.as_ref()).await;
        }
    }

    /// Counts the job, and writes its verdict down.
    fn note(&self, job: &ScanJob, notes: &Notes, outcome: &Result<Outcome, ScanError>) {
        let Notes { timings, run } = notes;
        let verdict = match outcome {
            Ok(Outcome { word: None, .. }) => Some("type_forbidden"),
            Ok(Outcome { word: Some(Ok(verdict)), .. }) => Some(verdict.name()),
            Ok(Outcome { word: Some(Err(_)), .. }) | Err(_) => None,
        };
        let result = verdict.unwrap_or("no_verdict");
        let script = run.as_ref().and_then(|run| run.script_took);
        self.metrics.job_ended(result, timings.download, timings.scan, script);
        let (Some(verdict), Ok(Outcome { holding, word, .. })) = (verdict, outcome) else { return };
        let judged = run.as_ref().and_then(|run| run.judged.as_ref());
        if word.is_some() && judged.is_none() {
            self.metrics.cache_hit(CacheHit::Verdict);
        }
        if let Some(audit) = &self.audit {
            let fetch = &job.request.fetch;
            audit.record(&Entry {
                time: SystemTime::now(),
                media: &fetch.media,
                origin: &fetch.origin,
                thumbnail: fetch.variant != Variant::Original,
                encrypted: job.request.decryption.is_some(),
                sha256: &holding.content,
                size: holding.size,
                detected: holding.detected.as_str(),
                verdict,
                exit_code: judged.and_then(|(code, _)| *code),
                first_line: judged.map(|(_, line)| line.as_str()),
                took: script,
            });
        }
    }

    async fn process(
        &self,
        job: &ScanJob,
        bench: &mut Option<Bench>,
        notes: &mut Notes,
    ) -> Result<Outcome, ScanError> {
        let begun = Instant::now();
        let trust = self.cache.trust();
        let deadline = job.deadline;
        if begun >= deadline {
            return Err(ScanError::Deadline(Phase::Queued));
        }
        let (holding, body) = timeout_at(deadline.into(), self.fetch(job, bench))
            .await
            .map_err(|_elapsed| ScanError::Deadline(Phase::Downloading))??;
        self.cache.remember_holding(job.key, holding.clone());
        notes.timings.download = Some(begun.elapsed());
        if !self.settings.mime.allows(holding.detected.as_str()) {
            return Ok(Outcome { holding, word: None, body: None, timings: notes.timings });
        }
        let scanning = Instant::now();
        job.progress.scanning();
        let task = Task { job, bench, body: body.as_ref(), run: &mut notes.run, trust };
        let word = self.judge(task, &holding, deadline).await;
        notes.timings.scan = Some(scanning.elapsed());
        let body = match &word {
            Ok(Verdict::Clean { .. }) => self.keep(job, &holding, body).await?,
            _ => None,
        };
        Ok(Outcome { holding, word: Some(word), body, timings: notes.timings })
    }

    /// From the first request to the homeserver until the body is in, whole, and its type known.
    async fn fetch(
        &self,
        job: &ScanJob,
        bench: &mut Option<Bench>,
    ) -> Result<(Holding, Option<Body>), ScanError> {
        let opened = self.homeservers.open(&job.request.fetch).await?;
        let head = opened.head.clone();
        job.progress.headers_in(head.etag.clone());
        self.authoriser.grant(&job.request.fetch);

        // Where its verdict is known, it is fetched for its bytes alone: no script, no decryption. It may
        // have become known while this job waited.
        let known = match self.cache.holding(&job.key) {
            Some(before) => self.word(&before).await.is_some().then_some(before),
            None => None,
        };
        let script_file = match known {
            Some(_) => None,
            None => Some(self.prepare(bench).await?),
        };
        let plan = Plan {
            account: job.request.fetch.account(&self.spool),
            max_size: self.max_media_size,
            memory_limit: self.cache.max_body_size(),
            keep_large: job.request.wants == Wants::Media || known.is_some(),
            decryption: job.request.decryption.clone(),
            script_file,
        };
        // A zipped body's length says nothing of what comes out of it.
        let length = head.length.filter(|_| !head.gzip);
        let intake = Intake::begin(&self.spool, plan, length)?;
        let detector = Arc::clone(&self.detector);
        let taken = opened.stream(intake, move |intake| finish(intake, &detector)).await?;
        let (Taken { body, size, body_hash, plaintext }, detected) = taken;

        let (plaintext, detected) = match (plaintext.zip(detected), &known) {
            (Some(told), _) => told,
            (None, Some(before)) if before.body_hash(&job.request) == body_hash => {
                let holding = HoldingParts {
                    content: before.content,
                    size,
                    detected: before.detected.clone(),
                    headers: KeptHeaders::of(&head),
                };
                return Ok((holding.into(), body));
            }
            // Not the bytes that the verdict was about.
            (None, _) => self.lay_out(job, bench, body.as_ref()).await?,
        };
        let content = plaintext.hash;
        if let Some(bench) = bench {
            bench.hold(plaintext)?;
        }
        let holding = HoldingParts { content, size, detected, headers: KeptHeaders::of(&head) };
        Ok((holding.into(), body))
    }

    /// What is said of a content: known, or being found out for another media with the same bytes, or
    /// found out here.
    async fn judge(&self, mut task: Task<'_>, holding: &Holding, deadline: Instant) -> Word {
        let late = || Arc::new(ScanError::Deadline(Phase::Scanning));
        let Some(identity) = self.engines.identity().await else {
            // The script cannot even be looked at. Running it says why, and nothing is remembered: there
            // is nothing to remember it by, and the next is right as soon as the script is.
            let run = timeout_at(deadline.into(), self.run_engines(&mut task)).await;
            return run.map_err(|_elapsed| late())?.outcome.map(|it| it.verdict).map_err(Arc::new);
        };
        let key = ContentKey { content: holding.content, judges: identity.judges };
        let versions = identity.versions;
        let scan = async {
            // Another may have ended since it was looked for.
            if let Some(word) = self.cache.word(&key, &versions) {
                return word;
            }
            let run = self.run_engines(&mut task).await;
            // What came of a run is remembered, a failure too: it lies with the content, or would come
            // again in a moment. What came before a run, a full disk above all, does not.
            let remember = run.is_of(&identity);
            match run.outcome {
                Ok(judgement) => {
                    if remember {
                        self.cache.remember_verdict(key, &judgement, versions, task.trust);
                    }
                    Ok(judgement.verdict)
                }
                Err(error) => {
                    let error = Arc::new(error);
                    if remember {
                        self.cache.remember_failure(key, Arc::clone(&error));
                    }
                    Err(error)
                }
            }
        };
        let begun = Instant::now();
        match timeout_at(deadline.into(), self.scans.run((key, versions), scan)).await {
            Ok(word) => word,
            Err(_elapsed) => {
                let error = late();
                // The next would be late again, unless this one's time went by elsewhere: a download that
                // drips must not speak for all media with the same bytes.
                if begun.elapsed() > self.settings.deadline / 2 {
                    self.cache.remember_failure(key, Arc::clone(&error));
                }
                Err(error)
            }
        }
    }

    async fn run_engines(&self, task: &mut Task<'_>) -> Run {
        let Task { job, bench, body, run: note, trust } = task;
        if !self.is_ready() || self.cache.trust() != *trust {
            return Run::prevented(ScanError::NotReady);
        }
        if bench.is_none() {
            // It was fetched for its bytes alone, and its verdict has ended since.
            match self.lay_out(job, bench, *body).await {
                Ok((plaintext, _)) => {
                    if let Some(bench) = &mut **bench
                        && let Err(error) = bench.hold(plaintext)
                    {
                        return Run::prevented(error);
                    }
                }
                Err(error) => return Run::prevented(error),
            }
        }
        let Some(media) = bench.as_mut().and_then(Bench::expose) else {
            return Run::prevented(ScanError::Stopping);
        };
        let run = Box::pin(self.engines.judge(media)).await;
        for (engine, result) in &run.results {
            self.metrics.engine(engine, result);
        }
        let judged = |it: &Judgement| (it.exit_code, it.first_line.clone());
        let judged = run.outcome.as_ref().ok().map(judged);
        **note = Some(RunNotes { script_took: run.script_took, judged });
        if self.cache.trust() != *trust {
            return Run::prevented(ScanError::NotReady);
        }
        run
    }

    pub(super) fn is_ready(&self) -> bool {
        *self.canary.borrow() == CanaryState::Passed
    }

    /// [`Workshop::is_ready`], once there is a first answer: a good script's is here in a moment.
    pub(super) async fn becomes_ready(&self) -> bool {
        let mut canary = self.canary.clone();
        let answered = canary.wait_for(|state| *state != CanaryState::Awaited);
        let _told_or_late = timeout(FIRST_ANSWER, answered).await;
        self.is_ready()
    }

    /// What is remembered of a content.
    pub(super) async fn word(&self, holding: &Holding) -> Option<Word> {
        let identity = self.engines.identity().await?;
        let key = ContentKey { content: holding.content, judges: identity.judges };
        self.cache.word(&key, &identity.versions)
    }

    /// The media's place, with an empty file for the plaintext.
    async fn prepare(&self, bench: &mut Option<Bench>) -> Result<ScriptFile, ScanError> {
        let for_programs = self.engines.need_sandbox() || self.removal.is_some();
        let sandbox = for_programs.then_some(&self.sandbox);
        let (made, file) = Bench::prepare(sandbox, &self.spool).await?;
        *bench = Some(made);
        Ok(file)
    }

    /// Takes a body that is on the spool, or in memory, in once more, for the script.
    async fn lay_out(
        &self,
        job: &ScanJob,
        bench: &mut Option<Bench>,
        body: Option<&Body>,
    ) -> Result<(Plaintext, MediaType), ScanError> {
        let nothing = || ScanError::Disk(std::io::ErrorKind::NotFound.into());
        let body = body.cloned().ok_or_else(nothing)?;
        let plan = Plan {
            account: job.request.fetch.account(&self.spool),
            max_size: self.max_media_size,
            memory_limit: 0,
            keep_large: false,
            decryption: job.request.decryption.clone(),
            script_file: Some(self.prepare(bench).await?),
        };
        let mut intake = Intake::begin(&self.spool, plan, Some(body.len()))?;
        let detector = Arc::clone(&self.detector);
        let taken = blocking(move || {
            body.read_all(|piece| intake.write(piece))?;
            finish(intake, &detector)
        });
        let (taken, detected) = taken.await?;
        taken.plaintext.zip(detected).ok_or_else(nothing)
    }

    /// Keeps a clean body in memory, if it is small enough.
    async fn keep(
        &self,
        job: &ScanJob,
        holding: &Holding,
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
        self.cache.remember_body(holding.body_hash(&job.request), &bytes);
        Ok(Some(Body::Memory(bytes)))
    }
}

/// Ends a media's way in, and looks into it: its type, where there is a plaintext. Blocking.
pub(super) fn finish(
    intake: Intake,
    detector: &Detector,
) -> Result<(Taken, Option<MediaType>), IntakeError> {
    let taken = intake.finish()?;
    let detect = |plaintext: &Plaintext| match &taken.body {
        // The plaintext itself: what is in memory need not be read back.
        Some(Body::Memory(bytes)) if taken.body_hash == plaintext.hash => {
            Ok(detector.detect_bytes(bytes))
        }
        _ => detector.detect(&plaintext.file),
    };
    let detected = taken.plaintext.as_ref().map(detect).transpose();
    Ok((taken, detected.map_err(IntakeError::Disk)?))
}

/// A panic is an answer too: an error, and the worker lives on. Nothing that it may have left half done
/// is used again: the job's directory is only closed.
pub(super) async fn caught<T>(
    work: impl Future<Output = Result<T, ScanError>>,
) -> Result<T, ScanError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(ScanError::Panicked))
}

/// Runs what blocks, or computes for long, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IntakeError> + Send + 'static,
) -> Result<T, ScanError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ScanError::from),
        Err(_panicked_or_stopping) => Err(ScanError::Panicked),
    }
}

impl From<IntakeError> for ScanError {
    fn from(error: IntakeError) -> Self {
        match error {
            IntakeError::HashMismatch => Self::HashMismatch,
            IntakeError::CounterWraps { limit } => Self::CounterWraps { limit },
            IntakeError::SpoolFull => Self::SpoolFull,
            IntakeError::Disk(error) => Self::Disk(error),
            IntakeError::TooLarge { limit } => Self::Fetch(FetchError::TooLarge { limit }),
        }
    }
}

impl From<FetchError> for ScanError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Intake(error) => error.into(),
            error => Self::Fetch(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_over_a_job_is_that_jobs_error_wherever_it_strikes() {
        let here = caught::<()>(async { panic!("of a test") }).await;
        assert!(matches!(here, Err(ScanError::Panicked)));
        let there = caught(blocking::<()>(|| panic!("of a test"))).await;
        assert!(matches!(there, Err(ScanError::Panicked)));
        assert!(matches!(caught(async { Ok(1) }).await, Ok(1)));
    }
}
