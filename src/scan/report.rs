//! Report of a finished job. `scan` records it nowhere: an observer of the application does.

use std::{pin::Pin, sync::Arc, time::Duration};

use super::{
    ResponseSource, ScanError, ScanRequest, Timings, Verdict,
    cached_media::{CachedMedia, MediaHeaders},
    engines::EngineReport,
    infection::Infection,
    job::JobOutcome,
};

/// Receives the report of each job when the job ends, before its requesters are answered.
pub type JobObserver = Arc<dyn Fn(&JobReport<'_>) + Send + Sync>;

/// What happened to a job.
pub struct JobReport<'a> {
    /// The request that started the job.
    pub request: &'a ScanRequest,
    /// Its result.
    pub outcome: Result<&'a JobOutcome, &'a ScanError>,
    /// Durations of the completed parts.
    pub timings: Timings,
    /// The run of the engines; `None` if the job did not run them.
    pub run: Option<&'a EngineRunReport>,
}

/// Receives each verdict that answers a request without a job of its own, after the homeserver has authorised the requester.
pub type AnswerObserver = Arc<dyn Fn(&AnswerReport<'_>) + Send + Sync>;

/// Answer to a request that started no job.
pub struct AnswerReport<'a> {
    pub request: &'a ScanRequest,
    pub media: &'a CachedMedia,
    pub verdict: &'a Verdict,
    pub source: ResponseSource,
}

/// Receives all plain media that a job has downloaded with the homeserver's consent, before anything about it is stored:
/// what the observer has requested of the same store is written first, at the latest when the returned future ends. May
/// receive the same media several times.
pub type PlainMediaObserver =
    Arc<dyn Fn(&PlainMedia<'_>) -> Option<PlainMediaRecorded> + Send + Sync>;

/// Future that a job awaits before anything about the media is stored.
pub type PlainMediaRecorded = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Plain media and its content.
pub struct PlainMedia<'a> {
    /// The request that started the job.
    pub request: &'a ScanRequest,
    /// SHA-256 of the content.
    pub content: &'a [u8; 32],
    /// Headers of the homeserver's response.
    pub headers: &'a MediaHeaders,
    /// The malware in the content, if that is the reason why the media is not clean.
    pub infection: Option<&'a Infection>,
}

/// What happened in a run of the engines.
pub struct EngineRunReport {
    /// The result of each engine: see [`EngineRun::results`](super::engines::EngineRun::results).
    pub results: Vec<EngineReport>,
    /// Duration of the script's run.
    pub script_duration: Option<Duration>,
    /// The script's exit code and the first line of the output; `None` without a verdict.
    pub verdict_details: Option<(Option<i32>, String)>,
}
