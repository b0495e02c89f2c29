//! The operator's policies, and their application to what the engines found.
//!
//! Precedence, highest first:
//!
//! 1. Malware, then findings of an engine's own policy: not clean.
//! 2. Encrypted contents, a limit, a file too large for an engine, where the policy is "refuse": not clean.
//! 3. The same, where the policy is "fail": a final error.
//! 4. Failures of engines, where the policy is "fail": an error that a retry may avoid.
//! 5. Clean, if at least one engine has finished.
//!
//! Final outcomes override failures: whatever the failed engine would find, the media is not served, so a retry, which
//! clients do after errors like those of item 4, cannot succeed.

use std::sync::Arc;

use tracing::warn;

use super::{
    bounds::{Bounds, ContentPolicy, OversizePolicy, SkipPolicy},
    file_outcome::{EngineFault, FileOutcome},
    outcome::{MAX_FIRST_LINE, Outcome},
    result::{EngineResult, is_engine_failure},
};
use crate::{
    chain::Chain,
    scan::{
        error::ScanError,
        verdict::{NotCleanKind, Verdict},
    },
    text::single_line,
};

/// The policies for outcomes that are neither clean nor a finding.
#[derive(Clone, Debug)]
pub struct Policies {
    on_encrypted: ContentPolicy,
    on_limit: ContentPolicy,
    /// Each engine's name and policies.
    engines: Vec<(&'static str, OversizePolicy, SkipPolicy)>,
}

/// The verdict on a file under the policies in force, and details for the cache and the audit log.
#[derive(Clone, Debug)]
pub struct PolicyDecision {
    /// The verdict; an error where the policy requires one or an engine failed.
    pub verdict: Result<Verdict, Arc<ScanError>>,
    /// How long the decision is valid.
    pub validity: Validity,
    /// The script's exit code, if the verdict depends on it.
    pub exit_code: Option<i32>,
    /// The first line of the script's output, or the finding of another engine.
    pub first_line: String,
}

/// How long a decision is valid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Validity {
    /// For `result_cache.ttl`, also with newer signatures.
    Finding,
    /// For `result_cache.ttl`, with the same versions of the engines: newer ones may find or examine more.
    Examined,
    /// Like `Examined`, but at most for `result_cache.failure_ttl`, because an engine failed and was skipped.
    Partial,
    /// For `result_cache.failure_ttl`.
    Failure,
}

impl Policies {
    /// Creates the policies. `engines` contains each engine's name and settings.
    #[must_use]
    pub fn new<'a>(
        on_encrypted: ContentPolicy,
        on_limit: ContentPolicy,
        engines: impl Iterator<Item = (&'static str, &'a Bounds)>,
    ) -> Self {
        let engines = engines.map(|(name, bounds)| (name, bounds.on_oversize, bounds.on_failure));
        Self { on_encrypted, on_limit, engines: engines.collect() }
    }

    /// Returns the policies of the canary, which tests what an engine finds: no policy replaces a finding, and no
    /// engine is skipped.
    pub(super) fn for_canary() -> Self {
        Self {
            on_encrypted: ContentPolicy::Pass,
            on_limit: ContentPolicy::Pass,
            engines: Vec::new(),
        }
    }

    pub(super) fn on_oversize(&self, engine: &str) -> OversizePolicy {
        let engine = self.engines.iter().find(|(name, ..)| *name == engine);
        engine.map_or(OversizePolicy::Fail, |(_, policy, _)| *policy)
    }

    pub(super) fn on_failure(&self, engine: &str) -> SkipPolicy {
        let engine = self.engines.iter().find(|(name, ..)| *name == engine);
        engine.map_or(SkipPolicy::Fail, |(_, _, policy)| *policy)
    }

    /// Applies the policies.
    #[must_use]
    pub fn decide(&self, file: &FileOutcome) -> PolicyDecision {
        if let Some(finding) = &file.finding {
            return PolicyDecision {
                verdict: Ok(Verdict::NotClean {
                    kind: finding.kind,
                    output: Arc::clone(&finding.output),
                }),
                validity: Validity::Finding,
                exit_code: finding.exit_code,
                first_line: finding.first_line.clone(),
            };
        }
        if let Some((kind, output)) = self.refusal(file) {
            let first_line = single_line(&output, MAX_FIRST_LINE);
            let verdict = Verdict::NotClean { kind, output: output.into() };
            let validity = Validity::Examined;
            return PolicyDecision { verdict: Ok(verdict), validity, exit_code: None, first_line };
        }
        if let Some(error) = self.final_error(file) {
            return PolicyDecision::error(Arc::new(error), Validity::Examined);
        }
        let failure = file.failures.iter().find(|fault| !self.skips(fault));
        if let Some(fault) = failure {
            return PolicyDecision::error(Arc::clone(&fault.error), Validity::Failure);
        }
        if !file.has_finished {
            return match file.too_large.first() {
                // A retry changes nothing, unless an engine failed.
                Some(engine) if file.failures.is_empty() => {
                    PolicyDecision::error(Arc::new(ScanError::Oversize(engine)), Validity::Examined)
                }
                _ => PolicyDecision::error(Arc::new(ScanError::NoEngine), Validity::Failure),
            };
        }
        PolicyDecision {
            verdict: Ok(Verdict::Clean { at: file.scanned }),
            validity: if file.failures.is_empty() { Validity::Examined } else { Validity::Partial },
            exit_code: file.exit_code,
            first_line: file.first_line.clone(),
        }
    }

    /// Returns what makes the file not clean by the policy "refuse".
    fn refusal(&self, file: &FileOutcome) -> Option<(NotCleanKind, String)> {
        if let (Some(name), ContentPolicy::Refuse) = (&file.encrypted, self.on_encrypted) {
            return Some((NotCleanKind::Encrypted, format!("encrypted contents ({name})")));
        }
        if let (Some(name), ContentPolicy::Refuse) = (&file.limit, self.on_limit) {
            return Some((NotCleanKind::Limit, format!("limit exceeded ({name})")));
        }
        let engine = self.first_oversize(file, OversizePolicy::Refuse)?;
        Some((NotCleanKind::TooLarge, format!("too large for the engine {engine}")))
    }

    /// Returns the final error by the policy "fail".
    fn final_error(&self, file: &FileOutcome) -> Option<ScanError> {
        if let (Some(name), ContentPolicy::Fail) = (&file.encrypted, self.on_encrypted) {
            return Some(ScanError::Encrypted(name.clone()));
        }
        if let (Some(name), ContentPolicy::Fail) = (&file.limit, self.on_limit) {
            return Some(ScanError::Limit(name.clone()));
        }
        self.first_oversize(file, OversizePolicy::Fail).map(ScanError::Oversize)
    }

    fn first_oversize(&self, file: &FileOutcome, policy: OversizePolicy) -> Option<&'static str> {
        file.too_large.iter().copied().find(|engine| self.on_oversize(engine) == policy)
    }

    fn skips(&self, fault: &EngineFault) -> bool {
        fault.is_engine_failure && self.on_failure(fault.engine) == SkipPolicy::Skip
    }

    /// Returns the metrics label for the result of an engine, and logs a skipped engine.
    pub(super) fn record(&self, result: &EngineResult) -> &'static str {
        let EngineResult { engine, outcome, .. } = result;
        match outcome {
            Ok(Outcome::TooLarge) if self.on_oversize(engine) == OversizePolicy::Skip => {
                warn!(engine, "file too large for the engine, engine skipped");
                "skipped"
            }
            Ok(outcome) => outcome.name(),
            Err(error)
                if is_engine_failure(error) && self.on_failure(engine) == SkipPolicy::Skip =>
            {
                warn!(engine, cause = %Chain(error), "engine failed and was skipped");
                "skipped"
            }
            Err(_) => "failed",
        }
    }
}

impl PolicyDecision {
    fn error(error: Arc<ScanError>, validity: Validity) -> Self {
        Self { verdict: Err(error), validity, exit_code: None, first_line: String::new() }
    }
}

#[cfg(test)]
impl Policies {
    /// Returns the same policy for encrypted contents and limits, and the same policies for all engines.
    pub(in crate::scan) fn for_test(
        content: ContentPolicy,
        on_oversize: OversizePolicy,
        on_failure: SkipPolicy,
    ) -> Self {
        let engines = ["rules", "clamd", "icap", "script"];
        let engines = engines.map(|name| (name, on_oversize, on_failure)).to_vec();
        Self { on_encrypted: content, on_limit: content, engines }
    }
}

#[cfg(test)]
mod tests;
