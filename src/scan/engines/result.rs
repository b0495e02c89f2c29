//! The result of one engine, the same for all engines.

use std::time::Duration;

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, Outcome},
    script_run::ScriptRun,
};
use crate::scan::error::ScanError;

/// The result of one engine, with details for the cache and the audit log.
pub(super) struct EngineResult {
    pub(super) engine: &'static str,
    /// An error if the engine did not finish.
    pub(super) outcome: Result<Outcome, ScanError>,
    /// Outcomes that the rules or an ICAP server reported besides, of lower precedence.
    pub(super) others: Vec<Outcome>,
    /// The script's exit code.
    pub(super) exit_code: Option<i32>,
    /// The first line that the engine reported.
    pub(super) first_line: Option<String>,
    /// The run of the script, also one that could not start; `None` for other engines, and for a file that exceeds the
    /// script's size bound.
    pub(super) script_run: Option<ScriptRun>,
    /// See [`EngineSummary::duration`](super::EngineSummary::duration).
    pub(super) duration: Option<Duration>,
    /// Whether the examination ended at a finding, so that what follows in the file was not examined.
    pub(super) ended_early: bool,
}

impl EngineResult {
    /// Returns a result without details.
    pub(super) fn new(engine: &'static str, outcome: Result<Outcome, ScanError>) -> Self {
        Self {
            engine,
            outcome,
            others: Vec::new(),
            exit_code: None,
            first_line: None,
            script_run: None,
            duration: None,
            ended_early: false,
        }
    }

    /// Returns the result of an engine whose texts for its outcome and further outcomes are untrusted: they are sanitized,
    /// and cut after `max_output` bytes.
    pub(super) fn sanitized(
        engine: &'static str,
        outcomes: Result<Result<(Outcome, Vec<Outcome>), EngineFailure>, ScanError>,
        max_output: usize,
    ) -> Self {
        let failed = |failure| ScanError::Engine(engine, failure);
        match outcomes.and_then(|outcomes| outcomes.map_err(failed)) {
            Ok((outcome, others)) => {
                let sanitize = |outcome: Outcome| outcome.sanitized(max_output);
                Self {
                    first_line: outcome.text().map(|text| text.line(MAX_FIRST_LINE)),
                    others: others.into_iter().map(sanitize).collect(),
                    ..Self::new(engine, Ok(sanitize(outcome)))
                }
            }
            Err(error) => Self::new(engine, Err(error)),
        }
    }
}

/// Returns whether `on_failure` applies to an error: to failures of the engine itself, not of this process, the disk, a
/// lack of descriptors or processes, or a momentary overload of the engine.
pub(super) fn is_engine_failure(error: &ScanError) -> bool {
    !error.is_overload()
        && match error {
            ScanError::Engine(_, EngineFailure::Media(_) | EngineFailure::NotRun) => false,
            error => {
                matches!(
                    error,
                    ScanError::Engine(..) | ScanError::Script(_) | ScanError::Sandbox(_)
                )
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_engine_itself_may_be_skipped() {
        let failure = |failure| ScanError::Engine("clamd", failure);
        assert!(is_engine_failure(&failure(EngineFailure::TimedOut)));
        for error in [
            failure(EngineFailure::Busy),
            failure(EngineFailure::NotRun),
            failure(EngineFailure::Media(std::io::ErrorKind::NotFound.into())),
            failure(EngineFailure::Unreachable(std::io::Error::from_raw_os_error(
                nix::libc::EMFILE,
            ))),
            ScanError::Stopping,
        ] {
            assert!(!is_engine_failure(&error), "{error:?}");
        }
    }
}
