//! Response of the scanner.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderValue;

use super::{cached_media::CachedMedia, verdict::Verdict};
use crate::media::Body;

/// Result of a request.
#[derive(Clone, Debug)]
pub struct ScanResponse {
    /// The verdict on the content.
    pub verdict: Verdict,
    /// The media, if it was requested and is clean.
    pub media: Option<Media>,
    /// How the response was obtained.
    pub source: ResponseSource,
    /// Durations, for the log.
    pub timings: Timings,
}

impl ScanResponse {
    /// Sets the time of a clean verdict to that of the first answer for this entry.
    pub(super) fn for_entry(mut self, entry: &CachedMedia) -> Self {
        if let Verdict::Clean { at } = &mut self.verdict {
            *at = entry.first_answered(SystemTime::now());
        }
        self
    }
}

/// How a response was obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResponseSource {
    /// From the cache, without a download or a scan.
    Cache,
    /// From a job that another request had started.
    SharedJob,
    /// From a job that this request started.
    OwnJob,
}

/// Clean media, ready to be served.
#[derive(Clone, Debug)]
pub struct Media {
    /// The bytes as downloaded: for encrypted media the ciphertext.
    pub body: Body,
    /// SHA-256 of `body`.
    pub body_hash: [u8; 32],
    /// The homeserver's `Content-Type`, if there was exactly one.
    pub content_type: Option<HeaderValue>,
    /// The homeserver's `Content-Disposition`, if there was exactly one.
    pub disposition: Option<HeaderValue>,
    /// Whether the body is the ciphertext of end-to-end encrypted media.
    pub encrypted: bool,
}

/// Duration of each part; `None` for a part that was not done for this response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// From acceptance until a worker took the job.
    pub queue: Option<Duration>,
    /// Downloading, hashing and decrypting.
    pub download: Option<Duration>,
    /// Running the engines, including the wait for a scan slot.
    pub scan: Option<Duration>,
}
