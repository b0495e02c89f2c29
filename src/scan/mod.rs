//! From a parsed request to an answer: authorise, look up, or fetch and scan. Knows media and the
//! sandbox; knows nothing of HTTP statuses, JSON or configuration files.
//!
//! A verdict is a value, not an error, and only a finished script that exited with 0 makes one
//! clean. Whatever stops a scan is a [`ScanError`] and is never taken for a verdict.

mod bench;
pub mod cache;
pub mod canary;
pub mod encrypted;
pub mod engines;
pub mod error;
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
pub mod settings;
pub mod trial;
pub mod worker;

pub use error::{Phase, ScanError};
pub use settings::Settings;

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
        Body, MediaRequest, authorise::Authoriser, decrypt::Decryption, homeserver::Homeservers,
        spool::Spool,
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
