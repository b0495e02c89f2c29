//! One engine of any kind: its verdict on a file, its size bound, and the effect of its failures. Independent of the
//! other engines.

use std::sync::Arc;

use mcs_sandbox::Job;
use tracing::warn;

use super::{
    bounds::{Bounds, SkipPolicy},
    clamd::Clamd,
    error::EngineFailure,
    icap::Icap,
    outcome::{Finding, MAX_FIRST_LINE},
    rules::Rules,
    sample::Sample,
    script::{Script, ScriptRun, ScriptVerdict},
};
use crate::{
    chain::Chain,
    exhaustion::is_exhaustion,
    scan::{error::ScanError, task::caught, verdict::Verdict},
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

/// The verdict of one engine, or the reason why there is none.
pub(super) enum EngineVerdict {
    Clean,
    NotClean {
        output: Arc<str>,
        first_line: String,
    },
    /// The contents need a password.
    Encrypted {
        name: String,
    },
    Failed(ScanError),
    Skipped {
        /// Whether a failure led to the skip, rather than the file's size.
        failed: bool,
    },
}

/// The verdict of one engine, with details for the cache and the audit log.
pub(super) struct EngineResult {
    pub(super) engine: &'static str,
    pub(super) verdict: EngineVerdict,
    pub(super) exit_code: Option<i32>,
    pub(super) first_line: Option<String>,
}

impl EngineVerdict {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::NotClean { .. } => "not_clean",
            Self::Encrypted { .. } => "encrypted",
            Self::Failed(_) => "failed",
            Self::Skipped { .. } => "skipped",
        }
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

    pub(super) fn bounds_mut(&mut self) -> &mut Bounds {
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
        if let Some(verdict) = self.check_size(sample) {
            return Some(self.result(verdict));
        }
        let finding = match self {
            Self::Script(..) | Self::Rules(..) => return None,
            Self::Clamd(clamd, _) => caught(async { Ok(clamd.scan(sample).await) }).await,
            Self::Icap(icap, _) => caught(async { Ok(icap.scan(sample).await) }).await,
        };
        Some(self.result(self.verdict_from(finding, max_output)))
    }

    fn verdict_from(
        &self,
        finding: Result<Result<Finding, EngineFailure>, ScanError>,
        max_output: usize,
    ) -> EngineVerdict {
        match finding {
            Ok(Ok(Finding::Clean)) => EngineVerdict::Clean,
            Ok(Ok(Finding::NotClean { name })) => EngineVerdict::NotClean {
                output: single_line(&name, max_output).into(),
                first_line: single_line(&name, MAX_FIRST_LINE),
            },
            Ok(Ok(Finding::Encrypted { name })) => {
                EngineVerdict::Encrypted { name: single_line(&name, max_output) }
            }
            Ok(Err(failure)) => self.failure_verdict(ScanError::Engine(self.name(), failure)),
            Err(error) => self.failure_verdict(error),
        }
    }

    /// Scans with a program in the sandbox. Returns none for a remote engine.
    pub(super) async fn scan_in_sandbox(
        &self,
        sample: &Sample,
        job: &mut Job,
        max_output: usize,
    ) -> Option<(EngineResult, Option<ScriptRun>)> {
        if !self.is_program() {
            return None;
        }
        if let Some(verdict) = self.check_size(sample) {
            return Some((self.result(verdict), None));
        }
        let script = match self {
            Self::Script(script, _) => script,
            Self::Rules(rules, _) => {
                let finding = caught(rules.scan(job)).await;
                return Some((self.result(self.verdict_from(finding, max_output)), None));
            }
            Self::Clamd(..) | Self::Icap(..) => return None,
        };
        let mut run = script.run_when_slot_free(job).await;
        let mut result = self.result(EngineVerdict::Clean);
        match std::mem::replace(&mut run.outcome, Err(ScanError::Stopping)) {
            Ok(ScriptVerdict { verdict, exit_code, first_line }) => {
                result.exit_code = Some(exit_code);
                if let Verdict::NotClean { output } = verdict {
                    result.verdict = EngineVerdict::NotClean { output, first_line };
                } else {
                    result.first_line = Some(first_line);
                }
            }
            Err(error) => result.verdict = self.failure_verdict(error),
        }
        Some((result, Some(run)))
    }

    pub(super) fn result(&self, verdict: EngineVerdict) -> EngineResult {
        EngineResult { engine: self.name(), verdict, exit_code: None, first_line: None }
    }

    /// Returns the verdict of an engine that was not run.
    pub(super) fn not_run(&self) -> EngineVerdict {
        EngineVerdict::Failed(ScanError::Engine(self.name(), EngineFailure::NotRun))
    }

    /// Returns the verdict for a file that exceeds `max_size`; none for smaller files.
    fn check_size(&self, sample: &Sample) -> Option<EngineVerdict> {
        let limit = self.bounds().max_size.filter(|limit| sample.len() > *limit)?;
        Some(match self.bounds().on_oversize {
            SkipPolicy::Fail => {
                let failure = EngineFailure::TooLarge { limit };
                EngineVerdict::Failed(ScanError::Engine(self.name(), failure))
            }
            SkipPolicy::Skip => {
                let (engine, size) = (self.name(), sample.len());
                warn!(engine, size, limit, "file exceeds max_size, engine skipped");
                EngineVerdict::Skipped { failed: false }
            }
        })
    }

    /// Applies `on_failure`. It covers failures of the engine itself, not of this process or of the disk.
    fn failure_verdict(&self, error: ScanError) -> EngineVerdict {
        let is_engine_failure = match &error {
            ScanError::Engine(_, failure) => !matches!(failure, EngineFailure::Media(_)),
            error => matches!(error, ScanError::Script(_) | ScanError::Sandbox(_)),
        };
        let is_engine_failure = is_engine_failure && !is_exhaustion(&error);
        if is_engine_failure && self.bounds().on_failure == SkipPolicy::Skip {
            warn!(engine = self.name(), cause = %Chain(&error), "engine failed and was skipped");
            return EngineVerdict::Skipped { failed: true };
        }
        EngineVerdict::Failed(error)
    }
}
