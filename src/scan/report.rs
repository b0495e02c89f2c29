//! Report of a finished job. `scan` records it nowhere: an observer of the application does.

use std::{sync::Arc, time::Duration};

use super::{ScanError, ScanRequest, Timings, engines::EngineReport, job::JobOutcome};

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

/// What happened in a run of the engines.
pub struct EngineRunReport {
    /// The result of each engine: see [`EngineRun::results`](super::engines::EngineRun::results).
    pub results: Vec<EngineReport>,
    /// Duration of the script's run.
    pub script_duration: Option<Duration>,
    /// The script's exit code and the first line of the output; `None` without a verdict.
    pub verdict_details: Option<(Option<i32>, String)>,
}
