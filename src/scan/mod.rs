//! From a parsed request to an answer: authorise, look up, or fetch and scan. Knows media and the
//! sandbox; knows nothing of HTTP statuses, JSON or configuration files.
//!
//! A verdict is a value, not an error, and only a finished script that exited with 0 makes one
//! clean. Whatever stops a scan is a [`ScanError`] and is never taken for a verdict.

pub mod cache;
pub mod filetype;
pub mod flight;
pub mod local;
mod once;
pub mod queue;
pub mod run_directory;
pub mod script;
pub mod worker;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use reqwest::header::HeaderValue;
use tokio::task::JoinSet;

use crate::media::{
    Body, FetchError, MediaRequest, authorise::Authoriser, decrypt::Decryption,
    homeserver::Homeservers, spool::Spool,
};
use cache::{Holding, MediaKey, ResultCache};
use filetype::{Detector, MediaType};
use flight::{Flights, Outcome, Stage};
use once::OncePerKey;
use queue::Queue;
use script::Script;
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
    /// How the answer came about, for the log.
    pub timings: Timings,
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

impl Timings {
    /// Whether nothing was fetched or scanned for this answer.
    #[must_use]
    pub fn from_cache(&self) -> bool {
        self.download.is_none() && self.scan.is_none()
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

/// The scanner: what handlers hold. Cheap to clone.
#[derive(Clone)]
pub struct Scanner {
    workshop: Arc<Workshop>,
    queue: Queue,
    flights: Flights,
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
    /// Where jobs' directories and large bodies lie.
    pub spool: Spool,
    /// Who names types.
    pub detector: Arc<Detector>,
}

impl Scanner {
    /// A scanner and its workers. The workers end after [`Scanner::close`], when all that waits is
    /// done; dropping them ends them at once, and the sandbox then kills what they ran.
    #[must_use]
    pub fn start(parts: Parts) -> (Self, JoinSet<()>) {
        let queue = Queue::new(parts.settings.queue_capacity, parts.settings.workers);
        let script = Arc::new(Script::new(&parts.settings));
        let workshop = Arc::new(Workshop {
            settings: parts.settings,
            max_media_size: parts.max_media_size,
            homeservers: parts.homeservers,
            authoriser: parts.authoriser,
            sandbox: parts.sandbox,
            spool: parts.spool,
            detector: parts.detector,
            script,
            cache: ResultCache::new(parts.cache),
            scans: OncePerKey::new(),
        });
        let workers = worker::start(&workshop, &queue);
        let flights = Flights::new(workshop.settings.deadline);
        (Self { workshop, queue, flights }, workers)
    }

    /// Lets no more jobs in.
    pub fn close(&self) {
        self.queue.close();
    }

    /// Answers one request. A requester who goes away cancels nothing that others wait for, and
    /// nothing that a worker has begun.
    ///
    /// # Errors
    /// [`ScanError`], shared with all who waited for the same job.
    pub async fn scan(&self, request: ScanRequest) -> Result<Answer, Arc<ScanError>> {
        let key = MediaKey::of(&request);
        loop {
            let held = self.workshop.cache.holding(&key);
            if let Some(holding) = &held
                && let Some(known) = self.known(&request, holding).await
            {
                self.authorise(&request, holding.etag.as_ref()).await?;
                return known;
            }
            let mut seat = self.flights.board(&self.queue, key, &request, held);
            if !seat.in_own_name {
                let etag = match seat.headers_in().await {
                    Stage::HeadersIn { etag } => etag,
                    Stage::Ended(Ok(outcome)) => outcome.holding.etag.clone(),
                    // The refusal is its sender's alone: the next token downloads.
                    Stage::Ended(Err(error)) if error.is_refusal() => continue,
                    Stage::Ended(Err(error)) => return Err(error),
                    Stage::Queued | Stage::Begun => continue,
                };
                self.authorise(&request, etag.as_ref()).await?;
            }
            let Outcome { holding, word, body, timings } = seat.ended().await?;
            let verdict = match word {
                Some(word) => word?,
                None => Verdict::TypeForbidden { detected: holding.detected.clone() },
            };
            if let Some(answer) = self.answer(&request, &holding, verdict, body, timings) {
                return Ok(answer);
            }
            // The job was for those who want a verdict alone, and the body too large to keep: the
            // next round fetches it, and need not scan it.
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
                self.workshop.cache.body(&holding.body_hash).map(Body::Memory)
            }
            _ => None,
        };
        self.answer(request, holding, verdict, body, Timings::default()).map(Ok)
    }

    /// None where the media is wanted, may be had, and is not at hand.
    fn answer(
        &self,
        request: &ScanRequest,
        holding: &Holding,
        verdict: Verdict,
        body: Option<Body>,
        timings: Timings,
    ) -> Option<Answer> {
        let media = match (&verdict, request.wants) {
            (Verdict::Clean { .. }, Wants::Media) => {
                Some(self.media(holding, body?, request.decryption.is_some()))
            }
            _ => None,
        };
        Some(Answer { verdict, media, timings })
    }

    fn media(&self, holding: &Holding, body: Body, encrypted: bool) -> Media {
        let declared = holding.content_type.as_ref();
        let essence = declared.and_then(|value| value.to_str().ok()).unwrap_or(UNDECLARED);
        // Lists that look at the content would be blind to a type that is merely claimed.
        let content_type = if encrypted || self.workshop.settings.mime.allows(essence) {
            declared.cloned()
        } else {
            HeaderValue::from_str(holding.detected.as_str()).ok()
        };
        Media {
            body,
            body_hash: holding.body_hash,
            content_type,
            disposition: holding.disposition.clone(),
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
    /// Whether a homeserver said no to this requester, and might say yes to another.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Fetch(
                FetchError::MissingToken
                    | FetchError::UnknownToken
                    | FetchError::NotFound
                    | FetchError::Refused { status: 403, .. }
            )
        )
    }
}

/// `[scan]`, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The script and the arguments before the media's path.
    pub script: std::path::PathBuf,
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
}
