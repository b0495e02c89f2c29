//! One engine of any kind: its outcome for a file, and its size bound. Independent of the other engines and of the
//! operator's policies.

use std::sync::Arc;

use super::{
    bounds::Bounds,
    clamd::Clamd,
    error::EngineFailure,
    icap::Icap,
    outcome::{MAX_FIRST_LINE, Outcome},
    rules::Rules,
    sample::{ProgramJob, Sample},
    script::{Script, ScriptRun, ScriptVerdict},
};
use crate::{
    exhaustion::is_exhaustion,
    scan::{error::ScanError, task::caught},
    text::single_line,
};

/// Names of the engines in the configuration, metrics and messages.
pub(super) const SCRIPT: &str = "script";
pub(super) const RULES: &str = "rules";
pub(super) const CLAMD: &str = "clamd";
pub(super) const ICAP: &str = "icap";

#[derive(Clone, Debug)]
pub(super) enum Engine {
    Script(Arc<Script>, Bounds),
    Rules(Rules, Bounds),
    Clamd(Arc<Clamd>, Bounds),
    Icap(Arc<Icap>, Bounds),
}

/// The result of one engine, with details for the cache and the audit log.
pub(super) struct EngineResult {
    pub(super) engine: &'static str,
    /// An error if the engine did not finish.
    pub(super) outcome: Result<Outcome, ScanError>,
    /// The script's exit code.
    pub(super) exit_code: Option<i32>,
    /// The first line that the engine reported.
    pub(super) first_line: Option<String>,
}

/// Returns whether `on_failure` applies to an error: to failures of the engine itself, not of this process, the disk, or
/// a lack of descriptors or processes.
pub(super) fn is_engine_failure(error: &ScanError) -> bool {
    match error {
        error if is_exhaustion(error) => false,
        ScanError::Engine(_, failure) => {
            !matches!(failure, EngineFailure::Media(_) | EngineFailure::NotRun)
        }
        error => matches!(error, ScanError::Script(_) | ScanError::Sandbox(_)),
    }
}

impl Engine {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Script(..) => SCRIPT,
            Self::Rules(..) => RULES,
            Self::Clamd(..) => CLAMD,
            Self::Icap(..) => ICAP,
        }
    }

    pub(super) fn bounds(&self) -> &Bounds {
        match self {
            Self::Script(_, bounds)
            | Self::Rules(_, bounds)
            | Self::Clamd(_, bounds)
            | Self::Icap(_, bounds) => bounds,
        }
    }

    /// Returns whether the engine is a program in the sandbox, rather than a remote engine.
    pub(super) fn is_program(&self) -> bool {
        matches!(self, Self::Script(..) | Self::Rules(..))
    }

    /// Scans with a remote engine. Returns none for a program.
    pub(super) async fn scan_remote(
        &self,
        sample: &Sample,
        max_output: usize,
    ) -> Option<EngineResult> {
        if self.is_program() {
            return None;
        }
        if self.is_oversize(sample) {
            return Some(self.result(Ok(Outcome::TooLarge)));
        }
        let outcome = match self {
            Self::Script(..) | Self::Rules(..) => return None,
            Self::Clamd(clamd, _) => caught(async { Ok(clamd.scan(sample).await) }).await,
            Self::Icap(icap, _) => caught(async { Ok(icap.scan(sample).await) }).await,
        };
        Some(self.sanitized_result(outcome, max_output))
    }

    fn sanitized_result(
        &self,
        outcome: Result<Result<Outcome, EngineFailure>, ScanError>,
        max_output: usize,
    ) -> EngineResult {
        let outcome = outcome
            .and_then(|outcome| outcome.map_err(|failure| ScanError::Engine(self.name(), failure)));
        let text = outcome.as_ref().ok().and_then(Outcome::text);
        let first_line = text.map(|text| single_line(text, MAX_FIRST_LINE));
        let outcome = outcome.map(|outcome| outcome.map_text(|text| single_line(text, max_output)));
        EngineResult { first_line, ..self.result(outcome) }
    }

    /// Scans with a program in the sandbox. Returns none for a remote engine.
    pub(super) async fn scan_in_sandbox(
        &self,
        sample: &Sample,
        job: &mut ProgramJob,
        max_output: usize,
    ) -> Option<(EngineResult, Option<ScriptRun>)> {
        if !self.is_program() {
            return None;
        }
        if self.is_oversize(sample) {
            return Some((self.result(Ok(Outcome::TooLarge)), None));
        }
        let script = match self {
            Self::Script(script, _) => script,
            Self::Rules(rules, _) => {
                let outcome = caught(rules.scan(job)).await;
                return Some((self.sanitized_result(outcome, max_output), None));
            }
            Self::Clamd(..) | Self::Icap(..) => return None,
        };
        let mut run = script.run_when_slot_free(job).await;
        let result = match std::mem::replace(&mut run.outcome, Err(ScanError::Stopping)) {
            Ok(ScriptVerdict { outcome, exit_code, first_line }) => EngineResult {
                exit_code: Some(exit_code),
                first_line: Some(first_line),
                ..self.result(Ok(outcome))
            },
            Err(error) => self.result(Err(error)),
        };
        Some((result, Some(run)))
    }

    fn result(&self, outcome: Result<Outcome, ScanError>) -> EngineResult {
        EngineResult { engine: self.name(), outcome, exit_code: None, first_line: None }
    }

    /// Returns the result of an engine that was not run.
    pub(super) fn not_run(&self) -> EngineResult {
        self.result(Err(ScanError::Engine(self.name(), EngineFailure::NotRun)))
    }

    /// Returns whether the file exceeds `max_size`.
    fn is_oversize(&self, sample: &Sample) -> bool {
        self.bounds().max_size.is_some_and(|limit| sample.len() > limit)
    }
}
