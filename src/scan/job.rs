//! A scan job, its progress and its result.

use std::{fmt, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;
use reqwest::header::HeaderValue;
use tokio::sync::{oneshot, watch};

use super::{
    cache::{CachedVerdict, MediaKey},
    cached_media::CachedMedia,
    error::{Phase, ScanError},
    request::ScanRequest,
    response::Timings,
};
use crate::{media::Body, tenancy::Demotable};

/// Runs a job under the settings that were in force when it was requested.
pub type Work = Arc<dyn Fn(ScanJob) -> BoxFuture<'static, ()> + Send + Sync>;

/// One media file to fetch and scan.
pub struct ScanJob {
    /// Runs the job.
    pub work: Work,
    /// The media and its decryption.
    pub request: ScanRequest,
    /// Cache key of the media.
    pub key: MediaKey,
    /// Receives the outcome. Closed when all requesters have left.
    pub reply: oneshot::Sender<Result<JobOutcome, ScanError>>,
    /// Whether the job may be demoted: from its start until the download is complete, while it mostly waits for the
    /// network.
    pub(crate) demotable: Demotable,
    /// Reports the job's stage to the waiting requesters.
    pub progress: Progress,
    /// Span of the request that started the job.
    pub span: tracing::Span,
    /// When the job was accepted.
    pub accepted: Instant,
    /// `accepted` plus `scan.deadline`.
    pub deadline: Instant,
}

impl fmt::Debug for ScanJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScanJob").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Result of a job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct JobOutcome {
    /// The content.
    pub media: Arc<CachedMedia>,
    /// The verdict.
    pub verdict: CachedVerdict,
    /// The body, unless it was too large to keep for requesters that need the verdict alone.
    pub body: Option<Body>,
    /// Durations of the job's parts.
    pub timings: Timings,
}

/// Progress of a job. Stages only advance, in this order.
#[derive(Clone, Debug)]
pub enum Stage {
    /// No worker has taken the job.
    Queued,
    /// A worker has taken the job.
    Started,
    /// The homeserver has granted the initiator access to the media.
    HeadersReceived(MediaGranted),
    /// The body is complete. The grant is absent if the response may be from a login page.
    Scanning(Option<MediaGranted>),
    /// The job has ended. Keeps the grant, if there was one before.
    Ended(Option<MediaGranted>, Result<JobOutcome, Arc<ScanError>>),
}

/// The homeserver granted the initiator access to the media.
#[derive(Clone, Debug)]
pub struct MediaGranted {
    /// The homeserver's `ETag`, for authorising the other waiters.
    pub etag: Option<HeaderValue>,
}

impl Stage {
    /// Returns the grant, if the homeserver has granted access to the media.
    pub(super) fn media_granted(&self) -> Option<&MediaGranted> {
        match self {
            Self::Queued | Self::Started => None,
            Self::HeadersReceived(granted) => Some(granted),
            Self::Scanning(granted) | Self::Ended(granted, _) => granted.as_ref(),
        }
    }

    /// Returns the phase that a waiter reports when its deadline passes. After the end of the job, the waiter waits for
    /// its own authorisation request.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Queued => Phase::Queued,
            Self::Started | Self::HeadersReceived(_) | Self::Ended(..) => Phase::Downloading,
            Self::Scanning(_) => Phase::Scanning,
        }
    }
}

/// Reports a job's stage; held by the worker.
#[derive(Clone, Debug)]
pub struct Progress(Arc<watch::Sender<Stage>>);

impl Progress {
    pub(super) fn new(sender: Arc<watch::Sender<Stage>>) -> Self {
        Self(sender)
    }

    /// Creates a progress without waiters.
    #[cfg(test)]
    pub(super) fn detached() -> Self {
        Self::new(Arc::new(watch::channel(Stage::Queued).0))
    }

    /// Reports that a worker has taken the job.
    pub fn started(&self) {
        // A job that is taken at its deadline may have ended already.
        self.0.send_if_modified(|stage| {
            let is_queued = matches!(stage, Stage::Queued);
            if is_queued {
                *stage = Stage::Started;
            }
            is_queued
        });
    }

    /// Reports that the homeserver granted access to the media.
    pub fn headers_received(&self, etag: Option<HeaderValue>) {
        self.0.send_replace(Stage::HeadersReceived(MediaGranted { etag }));
    }

    /// Reports that the body is complete and its scan starts.
    pub fn scanning(&self) {
        self.0.send_modify(|stage| *stage = Stage::Scanning(stage.media_granted().cloned()));
    }
}

/// Returns a work function that does nothing.
#[cfg(test)]
pub(super) fn no_work() -> Work {
    Arc::new(|_| Box::pin(async {}))
}
