//! From a parsed request to an answer: authorise, look up, or fetch and scan. Knows media and the
//! sandbox; knows nothing of HTTP statuses, JSON or configuration files.
//!
//! A verdict is a value, not an error, and only a finished script that exited with 0 makes one
//! clean. Whatever stops a scan is a [`ScanError`] and is never taken for a verdict.

mod bench;
pub mod cache;
pub mod canary;
pub mod engines;
pub mod filetype;
pub mod flight;
pub mod holding;
mod lanes;
pub mod local;
mod once;
pub mod pulse;
pub mod queue;
pub mod run_directory;
pub mod script;
pub mod trial;
pub mod worker;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use tokio::{sync::watch, task::JoinSet, time::timeout};

use crate::{
    audit::Audit,
    media::{
        Body, FetchError, MediaRequest, authorise::Authoriser, decrypt::Decryption,
        homeserver::Homeservers, spool::Spool,
    },
    metrics::Metrics,
};
use cache::{MediaKey, ResultCache};
use canary::CanaryState;
use engines::{Engines, Network};
use filetype::{Detector, MediaType};
use flight::{Flights, Outcome, Seat};
use holding::Holding;
use once::OncePerKey;
use pulse::Pulse;
use queue::Queue;
use script::Removal;
use worker::Workshop;

/// One question: may this media be given out, and is it wanted too?
#[derive(Clone, Debug)]
pub struct ScanRequest {
    /// The media, its homeserver and its requester.
    pub fetch: MediaRequest,
    /// How an end-to-end encrypted media is opened; none for a plain one.
    pub decryption: Option<Arc<Decryption>>,
    /// Whether the answer needs the bytes.
    pub wants: Wants,
}

/// What a requester wants back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wants {
    /// The verdict alone (the scan routes).
    Verdict,
    /// The media, if its verdict lets it out (the download routes).
    Media,
}

/// What the scanner says.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The word on the content.
    pub verdict: Verdict,
    /// The media, where it was wanted and is clean.
    pub media: Option<Media>,
    /// Where it comes from.
    pub source: Source,
    /// How the answer came about, for the log.
    pub timings: Timings,
}

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Nothing was fetched or scanned for it.
    Memory,
    /// A job that was under way for somebody else.
    Flight,
    /// A job of its own.
    Job,
}

/// The word on a content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The script exited with 0.
    Clean {
        /// When the scan ended.
        at: SystemTime,
    },
    /// The script exited with another code.
    NotClean {
        /// What it printed on stdout: valid UTF-8, no control characters, cut at
        /// `scan.max_output_size`, without the job's path; may be empty.
        output: Arc<str>,
    },
    /// The operator's lists do not let this type out; the script may not have run.
    TypeForbidden {
        /// The detected type.
        detected: MediaType,
    },
}

/// A clean media, ready to be given out.
#[derive(Clone, Debug)]
pub struct Media {
    /// The bytes as fetched: for an encrypted media the ciphertext.
    pub body: Body,
    /// SHA-256 of `body`.
    pub body_hash: [u8; 32],
    /// The homeserver's `Content-Type`, if there was exactly one.
    pub content_type: Option<HeaderValue>,
    /// The homeserver's `Content-Disposition`, if there was exactly one.
    pub disposition: Option<HeaderValue>,
    /// The type of the plaintext, by content.
    pub detected: MediaType,
    /// Whether the body is an end-to-end encrypted media's ciphertext.
    pub encrypted: bool,
}

/// How long each part took; absent where it was not done for this answer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From acceptance to a worker.
    pub queue: Option<Duration>,
    /// Fetching, hashing and decrypting.
    pub download: Option<Duration>,
    /// The script, waiting for its turn included.
    pub scan: Option<Duration>,
}

impl Verdict {
    /// One word for it: for the log, metrics and the audit.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clean { .. } => "clean",
            Self::NotClean { .. } => "not_clean",
            Self::TypeForbidden { .. } => "type_forbidden",
        }
    }
}

/// Why there is no verdict. Shared by all who waited for it.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The media could not be fetched, or the homeserver does not let this requester have it.
    #[error("the media could not be fetched")]
    Fetch(#[source] FetchError),
    /// The ciphertext is not the one that the client's hash names.
    #[error("the ciphertext's SHA-256 is not the one given")]
    HashMismatch,
    /// The canary's last answer was wrong, or is awaited: nothing is scanned.
    #[error("the canary's answer is wrong or awaited")]
    NotReady,
    /// The queue is full.
    #[error("the queue is full")]
    Overloaded,
    /// `scan.max_spool_size` is used up.
    #[error("the spool's budget is used up")]
    SpoolFull,
    /// `scan.deadline` passed.
    #[error("the deadline passed while the job was {0}")]
    Deadline(Phase),
    /// The script ran and gave no verdict.
    #[error("the script failed")]
    Script(#[source] script::ScriptFailure),
    /// Another engine gave none.
    #[error("the engine {0} failed")]
    Engine(&'static str, #[source] engines::EngineFailure),
    /// Every engine was skipped.
    #[error("no engine had a word on the media: each was skipped")]
    NobodyAsked,
    /// The sandbox refused, or its helper died.
    #[error("the sandbox failed")]
    Sandbox(#[source] mcs_sandbox::Error),
    /// The disk failed: full, read-only, gone.
    #[error("a file could not be read or written")]
    Disk(#[source] std::io::Error),
    /// A worker panicked over this job.
    #[error("the worker panicked")]
    Panicked,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

/// Where a job was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Phase {
    Queued,
    Downloading,
    Scanning,
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queued => "queued",
            Self::Downloading => "downloading",
            Self::Scanning => "scanning",
        })
    }
}

/// The scanner: what handlers hold. Its settings do not change; after a reload there is another one, with
/// the same workers and the same memory. Cheap to clone.
#[derive(Clone)]
pub struct Scanner {
    workshop: Arc<Workshop>,
    queue: Queue,
    pulse: Arc<Pulse>,
    flights: Flights,
}

/// What outlives a scanner's settings.
struct Kept {
    queue: Queue,
    pulse: Arc<Pulse>,
    cache: ResultCache,
}

/// What a scanner has to do at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Load {
    /// Workers with a job.
    pub busy: usize,
    /// Of these, those that should have been done with it: they hang.
    pub late: usize,
    /// All workers.
    pub workers: usize,
    /// Jobs that wait for one.
    pub waiting: usize,
}

/// What a scanner holds at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Bytes of the spool's budget that are used.
    pub spool_used: u64,
    /// Bytes of the spool's budget.
    pub spool_capacity: u64,
    /// What is remembered.
    pub cache: cache::Sizes,
}

/// What a scanner is made of.
pub struct Parts {
    /// `[scan]`
    pub settings: Settings,
    /// `[result_cache]`
    pub cache: cache::Settings,
    /// `download.max_size`, bytes.
    pub max_media_size: u64,
    /// Where media come from.
    pub homeservers: Arc<Homeservers>,
    /// Who asks them whether a requester may have a media.
    pub authoriser: Arc<Authoriser>,
    /// Where scripts run.
    pub sandbox: mcs_sandbox::Sandbox,
    /// Who judges.
    pub engines: Engines,
    /// Where jobs' directories and large bodies lie.
    pub spool: Spool,
    /// Who names types.
    pub detector: Arc<Detector>,
    /// What the canary says: while that is nothing good, nothing is scanned.
    pub canary: watch::Receiver<CanaryState>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where each job's verdict is written down, if it is.
    pub audit: Option<Audit>,
}

impl Scanner {
    /// A scanner and its workers. The workers end after [`Scanner::close`], when all that waits is
    /// done; dropping them ends them at once, and the sandbox then kills what they ran.
    #[must_use]
    pub fn start(parts: Parts) -> (Self, JoinSet<()>) {
        let queue = Queue::new(parts.settings.queue_capacity, parts.settings.workers);
        let pulse = Arc::new(Pulse::new(parts.settings.workers));
        let workers = worker::start(parts.settings.workers, &queue, &pulse);
        let kept = Kept { queue, pulse, cache: ResultCache::new(parts.cache.clone()) };
        (Self::open(parts, kept), workers)
    }

    /// A scanner by other settings in the place of this one: the same queue, workers and memory. What
    /// this one has been asked, it ends. In the context of a runtime.
    #[must_use]
    pub fn renewed(&self, parts: Parts) -> Self {
        let kept = Kept {
            queue: self.queue.clone(),
            pulse: Arc::clone(&self.pulse),
            cache: self.workshop.cache.under(parts.cache.clone()),
        };
        parts.engines.turns().change(parts.settings.max_scripts);
        Self::open(parts, kept)
    }

    fn open(parts: Parts, kept: Kept) -> Self {
        let Kept { queue, pulse, cache } = kept;
        tokio::spawn(Network::keep_versions(
            Arc::downgrade(parts.engines.network()),
            parts.settings.version_interval,
        ));
        let removal = Removal::of(&parts.settings);
        let workshop = Arc::new(Workshop {
            settings: parts.settings,
            max_media_size: parts.max_media_size,
            homeservers: parts.homeservers,
            authoriser: parts.authoriser,
            sandbox: parts.sandbox,
            spool: parts.spool,
            detector: parts.detector,
            canary: parts.canary,
            metrics: parts.metrics,
            audit: parts.audit,
            engines: parts.engines,
            removal,
            cache,
            scans: OncePerKey::new(),
        });
        let in_workshop = Arc::clone(&workshop);
        let work = move |job| -> BoxFuture<'static, ()> {
            let workshop = Arc::clone(&in_workshop);
            Box::pin(async move { workshop.work(job).await })
        };
        let flights = Flights::new(workshop.settings.deadline, Arc::new(work));
        Self { workshop, queue, pulse, flights }
    }

    /// Lets no more jobs in.
    pub fn close(&self) {
        self.queue.close();
    }

    /// How much there is to do.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            busy: self.pulse.busy(),
            late: self.pulse.late(Instant::now()),
            workers: self.workshop.settings.workers,
            waiting: self.queue.len(),
        }
    }

    /// Jobs that may wait.
    #[must_use]
    pub fn queue_capacity(&self) -> usize {
        self.workshop.settings.queue_capacity
    }

    /// Where scripts run.
    #[must_use]
    pub fn sandbox(&self) -> &mcs_sandbox::Sandbox {
        &self.workshop.sandbox
    }

    /// Whether there is a canary.
    #[must_use]
    pub fn has_canary(&self) -> bool {
        self.workshop.settings.canary.is_some()
    }

    /// How much is held.
    #[must_use]
    pub fn held(&self) -> Held {
        let Workshop { spool, cache, .. } = &*self.workshop;
        let (spool_used, spool_capacity) = (spool.used(), spool.capacity());
        Held { spool_used, spool_capacity, cache: cache.sizes() }
    }

    /// Forgets every verdict: the script that gave them has been found to be wrong.
    pub fn forget_verdicts(&self) {
        self.workshop.cache.forget_verdicts();
    }

    /// Answers one request within `scan.deadline`. A requester who goes away, or whose time is over,
    /// cancels nothing that others wait for, and nothing that a worker has begun.
    ///
    /// # Errors
    /// [`ScanError`], shared with all who waited for the same job.
    pub async fn scan(&self, request: &ScanRequest) -> Result<Answer, Arc<ScanError>> {
        let mut seat = None;
        let answered = {
            // Pinned where it is made: to be handed on it would be copied from place to place.
            let rounds = pin!(self.rounds(request, &mut seat));
            timeout(self.workshop.settings.deadline, rounds).await
        };
        match answered {
            Ok(answered) => answered,
            Err(_elapsed) => {
                // Without a seat it is the homeserver that has not said yet whether they may have it.
                let phase = seat.as_ref().map_or(Phase::Downloading, Seat::phase);
                Err(Arc::new(ScanError::Deadline(phase)))
            }
        }
    }

    /// Looks up, or waits for a job, until there is an answer. Each round but the last ends with what
    /// was somebody else's alone, or with a verdict whose media the next one fetches.
    async fn rounds(
        &self,
        request: &ScanRequest,
        seat: &mut Option<Seat>,
    ) -> Result<Answer, Arc<ScanError>> {
        let key = MediaKey::of(request);
        loop {
            *seat = None;
            let held = self.workshop.cache.holding(&key);
            if let Some(holding) = &held
                && let Some(known) = self.known(request, holding).await
            {
                self.authorise(request, holding.etag().as_ref()).await?;
                return known;
            }
            if !self.workshop.is_ready()
                && !self.is_judged(held.as_ref()).await
                && !self.workshop.becomes_ready().await
            {
                return Err(Arc::new(ScanError::NotReady));
            }
            let seat = seat.insert(self.flights.board(&self.queue, key, request)?);
            if !seat.in_own_name {
                if let Some(given) = seat.given_out().await {
                    self.authorise(request, given.etag.as_ref()).await?;
                } else {
                    match seat.ended().await {
                        Err(error) if !error.is_its_senders_alone() => return Err(error),
                        _ => continue,
                    }
                }
            }
            let source = if seat.in_own_name { Source::Job } else { Source::Flight };
            let Outcome { holding, word, body, timings } = seat.ended().await?;
            let verdict = match word {
                Some(word) => word?,
                None => Verdict::TypeForbidden { detected: holding.detected.clone() },
            };
            if let Some((verdict, media)) = self.given(request, &holding, verdict, body) {
                return Ok(Answer { verdict, media, source, timings });
            }
            // The job was for those who want a verdict alone, and the body too large to keep: the
            // next round fetches it, and need not scan it.
        }
    }

    /// Whether a media needs no scan, to judge by what it held last time.
    async fn is_judged(&self, held: Option<&Holding>) -> bool {
        match held {
            Some(holding) => self.workshop.word(holding).await.is_some(),
            None => false,
        }
    }

    /// The answer from memory, if all of it is there.
    async fn known(
        &self,
        request: &ScanRequest,
        holding: &Holding,
    ) -> Option<Result<Answer, Arc<ScanError>>> {
        let verdict = if self.workshop.settings.mime.allows(holding.detected.as_str()) {
            match self.workshop.word(holding).await? {
                Ok(verdict) => verdict,
                Err(failure) => return Some(Err(failure)),
            }
        } else {
            Verdict::TypeForbidden { detected: holding.detected.clone() }
        };
        let body = match (&verdict, request.wants) {
            (Verdict::Clean { .. }, Wants::Media) => {
                self.workshop.cache.body(&holding.body_hash(request)).map(Body::Memory)
            }
            _ => None,
        };
        let (verdict, media) = self.given(request, holding, verdict, body)?;
        Some(Ok(Answer { verdict, media, source: Source::Memory, timings: Timings::default() }))
    }

    /// None where the media is wanted, may be had, and is not at hand.
    fn given(
        &self,
        request: &ScanRequest,
        holding: &Holding,
        verdict: Verdict,
        body: Option<Body>,
    ) -> Option<(Verdict, Option<Media>)> {
        let media = match (&verdict, request.wants) {
            (Verdict::Clean { .. }, Wants::Media) => Some(self.media(request, holding, body?)),
            _ => None,
        };
        Some((verdict, media))
    }

    fn media(&self, request: &ScanRequest, holding: &Holding, body: Body) -> Media {
        let encrypted = request.decryption.is_some();
        let declared = holding.content_type();
        let essence = declared.as_ref().and_then(|value| value.to_str().ok()).unwrap_or(UNDECLARED);
        // Lists that look at the content would be blind to a type that is merely claimed.
        let content_type = if encrypted || self.workshop.settings.mime.allows(essence) {
            declared
        } else {
            HeaderValue::from_str(holding.detected.as_str()).ok()
        };
        Media {
            body,
            body_hash: holding.body_hash(request),
            content_type,
            disposition: holding.disposition(),
            detected: holding.detected.clone(),
            encrypted,
        }
    }

    async fn authorise(
        &self,
        request: &ScanRequest,
        etag: Option<&HeaderValue>,
    ) -> Result<(), Arc<ScanError>> {
        let asked = self.workshop.authoriser.check(&request.fetch, etag).await;
        asked.map_err(|error| Arc::new(ScanError::from(error)))
    }
}

/// What a media without a `Content-Type` is served as.
const UNDECLARED: &str = "application/octet-stream";

impl ScanError {
    /// One word for it, of a fixed list; for metrics.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.cause(),
            Self::HashMismatch => "hash_mismatch",
            Self::NotReady => "not_ready",
            Self::Overloaded => "overloaded",
            Self::SpoolFull => "spool_full",
            Self::Deadline(Phase::Queued) => "deadline_queued",
            Self::Deadline(Phase::Downloading) => "deadline_downloading",
            Self::Deadline(Phase::Scanning) => "deadline_scanning",
            Self::Script(script::ScriptFailure::TimedOut) => "script_timeout",
            Self::Script(script::ScriptFailure::Signaled(_)) => "script_signal",
            Self::Script(script::ScriptFailure::FailureExitCode(_)) => "script_exit_code",
            Self::Engine(_, error) => error.cause(),
            Self::NobodyAsked => "nobody_asked",
            Self::Sandbox(_) => "sandbox",
            Self::Disk(_) => "disk",
            Self::Panicked => "panicked",
            Self::Stopping => "stopping",
        }
    }

    /// Whether a failure from before the homeserver gave a media out tells others nothing, so that
    /// the next of them asks in their own name.
    ///
    /// What a homeserver answers may hang on the token, the forwarded headers and `timeout_ms` of the
    /// one who asked: a 429 is theirs, so is the 500 for a token that is no text, and who waits one
    /// millisecond for an upload hears that it is not there. A place in the queue, and the time spent
    /// there, are their lane's. What is left is the same for all: nobody was there to ask, or the
    /// fault is ours.
    fn is_its_senders_alone(&self) -> bool {
        match self {
            // Not a connection that was closed on a request: the next may be more to the server's taste.
            Self::Fetch(FetchError::Unreachable(cause)) => {
                !cause.downcast_ref().is_some_and(reqwest::Error::is_connect)
            }
            Self::Fetch(FetchError::ForbiddenAddress(_))
            | Self::NotReady
            | Self::HashMismatch
            | Self::SpoolFull
            | Self::Script(_)
            | Self::Engine(..)
            | Self::NobodyAsked
            | Self::Sandbox(_)
            | Self::Disk(_)
            | Self::Panicked
            | Self::Stopping => false,
            Self::Fetch(_) | Self::Overloaded | Self::Deadline(_) => true,
        }
    }
}

/// `[scan]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who has to agree: at least one, each kind once.
    pub engines: Vec<engines::Kind>,
    /// How often engines are asked for their versions.
    pub version_interval: Duration,
    /// The script, where it is one of them, and the arguments before the media's path.
    pub script: Option<std::path::PathBuf>,
    #[expect(missing_docs, reason = "see `script`")]
    pub script_args: Vec<std::ffi::OsString>,
    /// The script's time limit.
    pub timeout: Duration,
    /// From acceptance to verdict.
    pub deadline: Duration,
    /// Jobs in progress at a time, 1..=1024.
    pub workers: usize,
    /// Scripts at a time, 1..=workers.
    pub max_scripts: usize,
    /// Jobs waiting, 1..=65536.
    pub queue_capacity: usize,
    /// Absolute; matches `[A-Za-z0-9._/-]+`, since scripts leave `$1` unquoted.
    pub temp_directory: std::path::PathBuf,
    /// Bytes on the spool over all jobs and bodies being served.
    pub max_spool_size: u64,
    /// Program and arguments; the media's path is appended.
    pub removal_command: Option<(std::path::PathBuf, Vec<std::ffi::OsString>)>,
    /// By content.
    pub mime: filetype::MimeRules,
    /// Bytes of the script's stdout that are kept.
    pub max_output_size: usize,
    /// Exit codes that are failures rather than verdicts; never contains 0.
    pub failure_exit_codes: Vec<i32>,
    /// What the script is tried with, if it is.
    pub canary: Option<canary::Settings>,
}

impl Settings {
    /// `[rules]`, where they are asked.
    #[must_use]
    pub fn rules(&self) -> Option<&engines::rules::Settings> {
        self.engines.iter().find_map(|kind| match kind {
            engines::Kind::Rules(rules) => Some(rules),
            _ => None,
        })
    }

    /// What one media may take with all engines one after the other.
    #[must_use]
    pub fn time_limits(&self) -> Duration {
        let limit = |kind: &engines::Kind| match kind {
            engines::Kind::Script(_) => self.timeout,
            engines::Kind::Rules(rules) => rules.timeout,
            engines::Kind::Clamd(clamd) => clamd.timeout,
            engines::Kind::Icap(icap) => icap.timeout,
        };
        self.engines.iter().map(limit).fold(Duration::ZERO, Duration::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(error: FetchError) -> bool {
        ScanError::Fetch(error).is_its_senders_alone()
    }

    #[test]
    fn what_a_requester_may_have_brought_about_is_theirs_alone() {
        for status in [400, 403, 429] {
            assert!(alone(FetchError::Refused { status, retry_after: None }));
        }
        assert!(alone(FetchError::MissingToken) && alone(FetchError::UnknownToken));
        assert!(alone(FetchError::NotFound) && alone(FetchError::NotYetUploaded));
        assert!(alone(FetchError::TimedOut("no answer")));
        assert!(alone(FetchError::Upstream { status: 500 }));
        // Told before who may have the media is.
        assert!(alone(FetchError::TooLarge { limit: 1 }));
        assert!(alone(FetchError::Unreachable("closed on the request".into())));
        assert!(ScanError::Overloaded.is_its_senders_alone());
        assert!(ScanError::Deadline(Phase::Queued).is_its_senders_alone());
    }

    #[test]
    fn what_metrics_count_from_the_start_are_causes() {
        let disk = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let causes = [
            ScanError::NotReady,
            ScanError::Overloaded,
            ScanError::SpoolFull,
            ScanError::Deadline(Phase::Queued),
            ScanError::Deadline(Phase::Scanning),
            ScanError::Script(script::ScriptFailure::TimedOut),
            ScanError::Script(script::ScriptFailure::Signaled(9)),
            ScanError::Script(script::ScriptFailure::FailureExitCode(2)),
            ScanError::Sandbox(mcs_sandbox::Error::Undispatched),
            ScanError::Disk(disk()),
            ScanError::Panicked,
        ];
        assert_eq!(causes.map(|error| error.cause()), crate::metrics::OUR_CAUSES);
    }

    #[tokio::test]
    async fn what_would_befall_anybody_is_told_to_all() {
        assert!(!alone(FetchError::ForbiddenAddress("10.0.0.1".to_owned())));
        assert!(!ScanError::Stopping.is_its_senders_alone());

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let closing = tokio::spawn(async move {
            loop {
                drop(listener.accept().await.unwrap());
            }
        });
        assert!(alone(unreachable(&base).await), "closed on the request");
        closing.abort();
        assert!(closing.await.unwrap_err().is_cancelled());
        assert!(!alone(unreachable(&base).await), "nobody listens");
    }

    async fn unreachable(base: &str) -> FetchError {
        let base: reqwest::Url = base.parse().unwrap();
        let settings = crate::media::Settings {
            base_homeserver_url: Some(base.clone()),
            homeservers: Vec::new(),
            proxy: None,
            additional_headers: reqwest::header::HeaderMap::new(),
            headers_to_forward: Vec::new(),
            forward_client_address: false,
            max_size: 1,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(10),
            min_rate: 0,
            allow_private_addresses: false,
            ca_certificates: None,
            authorisation_ttl: Duration::ZERO,
        };
        let homeservers = Homeservers::new(&settings, Arc::default());
        let mut request = queue::tests::request("a.example", None).fetch;
        request.origin = crate::media::Origin::Configured(Arc::new(base));
        let error = homeservers.unwrap().open(&request).await.unwrap_err();
        assert!(matches!(error, FetchError::Unreachable(_)), "{error}");
        error
    }
}
