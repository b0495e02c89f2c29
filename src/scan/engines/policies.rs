//! The operator's policies, and their application to what the engines found.
//!
//! Precedence, highest first:
//!
//! 1. Malware, then findings of an engine's own policy, unless they are only observed: not clean.
//! 2. Encrypted contents, a limit, unreadable contents, inconsistent contents, a file too large for an engine, in this
//!    order, where the policy is "refuse": not clean.
//! 3. The same, where the policy is "fail": a final error.
//! 4. Failures of engines, where the policy is "fail": an error that a retry may avoid.
//! 5. Clean, if at least one engine has finished.
//!
//! Final outcomes override failures: whatever the failed engine would find, the media is not served, so a retry, which
//! clients do after errors like those of item 4, cannot succeed.

use std::sync::Arc;

use tracing::{info, warn};

use super::{
    bounds::{Bounds, ContentPolicy, OversizePolicy, SkipPolicy},
    file_outcome::{EngineFault, FileFinding, FileOutcome},
    names::RULES,
    observation::{FindingEffect, ObservedEngines},
    outcome::{MAX_FIRST_LINE, Outcome, OutcomeText, line},
    result::{EngineResult, is_engine_failure},
    run::EngineReport,
    summary::EngineSummary,
};
use crate::{
    chain::Chain,
    config::sections::unpack,
    scan::{
        error::ScanError,
        infection::Infection,
        settings::Settings,
        verdict::{NotCleanKind, Verdict},
    },
    text::single_line,
};

/// The policies for outcomes that are neither clean nor a finding.
#[derive(Clone, Debug)]
pub struct Policies {
    on_encrypted: ContentPolicy,
    on_limit: ContentPolicy,
    on_unreadable: ContentPolicy,
    on_inconsistent: ContentPolicy,
    /// Each engine's name and policies.
    engines: Vec<(&'static str, OversizePolicy, SkipPolicy)>,
    observed: ObservedEngines,
    /// Whether findings name their location inside the file.
    report_paths: bool,
    /// Maximum length of a finding, bytes.
    max_output: usize,
}

/// Contents that were not examined.
struct Unexamined<'f> {
    text: &'f OutcomeText,
    class: UnexaminedClass,
}

/// How contents that were not examined are refused, and how they fail.
#[derive(Clone, Copy)]
struct UnexaminedClass {
    kind: NotCleanKind,
    /// Returns a finding with the engine's name for the contents.
    describe: fn(&str) -> String,
    error: fn(String) -> ScanError,
}

const ENCRYPTED: UnexaminedClass = UnexaminedClass {
    kind: NotCleanKind::Encrypted,
    describe: |name| format!("encrypted contents ({name})"),
    error: ScanError::Encrypted,
};

const LIMIT: UnexaminedClass = UnexaminedClass {
    kind: NotCleanKind::Limit,
    describe: |name| format!("limit exceeded ({name})"),
    error: ScanError::Limit,
};

const UNREADABLE: UnexaminedClass = UnexaminedClass {
    kind: NotCleanKind::Unreadable,
    describe: |name| format!("unreadable contents ({name})"),
    error: ScanError::Unreadable,
};

const INCONSISTENT: UnexaminedClass = UnexaminedClass {
    kind: NotCleanKind::Inconsistent,
    describe: |name| format!("inconsistent contents ({name})"),
    error: ScanError::Inconsistent,
};

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
    /// Not valid: the file must be scanned again, because a finding that ended the examination is only observed now.
    Unsettled,
}

impl Policies {
    /// Creates the policies of these settings. `engines` contains each engine's name and settings.
    #[must_use]
    pub fn new<'a>(
        settings: &Settings,
        engines: impl Iterator<Item = (&'static str, &'a Bounds)>,
    ) -> Self {
        let engines: Vec<_> = engines.collect();
        let on_not_clean = engines.iter().map(|(name, bounds)| (*name, bounds.on_not_clean));
        let observed = ObservedEngines::new(settings, on_not_clean);
        let policies = |(name, bounds): (_, &Bounds)| (name, bounds.on_oversize, bounds.on_failure);
        let unpack = settings.unpack.as_ref();
        // Only the engines that unpack have outcomes for which these policies are used.
        let on_unpacked = |policy: fn(&unpack::Settings) -> ContentPolicy| {
            unpack.map_or(ContentPolicy::Refuse, policy)
        };
        Self {
            on_encrypted: settings.on_encrypted,
            on_limit: settings.on_limit,
            on_unreadable: on_unpacked(|unpack| unpack.on_unreadable),
            on_inconsistent: on_unpacked(|unpack| unpack.on_inconsistent),
            engines: engines.into_iter().map(policies).collect(),
            observed,
            report_paths: unpack.is_some_and(|unpack| unpack.report_paths),
            max_output: settings.max_output_size,
        }
    }

    /// Returns the policies of the canary, which tests what an engine finds: no policy replaces a finding, and no
    /// engine is skipped or only observed.
    pub(super) fn for_canary(&self) -> Self {
        Self {
            on_encrypted: ContentPolicy::Pass,
            on_limit: ContentPolicy::Pass,
            on_unreadable: ContentPolicy::Pass,
            on_inconsistent: ContentPolicy::Pass,
            engines: Vec::new(),
            observed: ObservedEngines::default(),
            report_paths: true,
            max_output: self.max_output,
        }
    }

    /// Returns the same policies with findings that name their location, for verdicts that only the operator sees.
    pub(in crate::scan) fn with_paths(&self) -> Self {
        Self { report_paths: true, ..self.clone() }
    }

    /// Returns the engines and rules that are only observed.
    pub(super) fn observed(&self) -> &ObservedEngines {
        &self.observed
    }

    /// Returns whether any finding may count: whether not all are only observed.
    pub(in crate::scan) fn may_refuse(&self, file: &FileOutcome) -> bool {
        let mut effects = file.findings.iter().map(|finding| self.observed.effect(finding));
        effects.any(|effect| effect != FindingEffect::Observed)
    }

    /// Returns whether any malware may count: whether not all is only observed.
    pub(in crate::scan) fn has_infection(&self, file: &FileOutcome) -> bool {
        let mut infected =
            file.findings.iter().filter(|finding| finding.kind == NotCleanKind::Infected);
        infected.any(|finding| self.observed.effect(finding) != FindingEffect::Observed)
    }

    /// Returns the malware that refuses a file, if all engines finished.
    pub(in crate::scan) fn infection(&self, file: &FileOutcome) -> Option<Infection> {
        file.infection(|finding| self.observed.effect(finding) == FindingEffect::Refuses)
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
        let refuses =
            |finding: &&FileFinding| self.observed.effect(finding) == FindingEffect::Refuses;
        let findings: Vec<_> = file.findings.iter().filter(refuses).collect();
        if let Some(decision) = self.not_clean(&findings, Validity::Finding) {
            return decision;
        }
        if self.observed.needs_scan(file) {
            let findings: Vec<_> = file.findings.iter().collect();
            if let Some(decision) = self.not_clean(&findings, Validity::Unsettled) {
                return decision;
            }
        }
        if let Some(decision) = self.refusal(file) {
            return decision;
        }
        if let Some(error) = self.final_error(file) {
            return PolicyDecision::error(Arc::new(error), Validity::Examined);
        }
        let failure = file.failures.iter().find(|fault| !self.skips(fault));
        if let Some(fault) = failure {
            return PolicyDecision::error(Arc::clone(&fault.error), Validity::Failure);
        }
        if !self.observed.has_finished(file) {
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

    /// Returns the decision on a file with these findings, of which the first one is the most severe; `None` without findings.
    fn not_clean(&self, findings: &[&FileFinding], validity: Validity) -> Option<PolicyDecision> {
        let first = findings.first()?;
        // Rules that were observed during the scan are findings of their own.
        let is_same = |finding: &&&FileFinding| {
            finding.engine == Some(RULES) && finding.location == first.location
        };
        let of_rules: Vec<_> = match first.engine {
            Some(RULES) => findings.iter().filter(is_same).map(|found| &*found.output).collect(),
            _ => Vec::new(),
        };
        let (output, first_line) = if of_rules.len() > 1 {
            let names = of_rules.join(", ");
            let output = single_line(&names, self.max_output).into();
            (output, line(&names, first.location.as_deref(), MAX_FIRST_LINE))
        } else {
            (Arc::clone(&first.output), first.first_line.clone())
        };
        Some(PolicyDecision {
            verdict: Ok(Verdict::NotClean {
                kind: first.kind,
                output: self.output(&output, first.location.as_deref()),
            }),
            validity,
            // Otherwise, the verdict does not depend on the script alone.
            exit_code: first.exit_code.filter(|_| findings.len() == 1),
            first_line,
        })
    }

    /// Returns the decision if the policy "refuse" makes the file not clean.
    fn refusal(&self, file: &FileOutcome) -> Option<PolicyDecision> {
        let refused = self.unexamined(file, ContentPolicy::Refuse);
        let (kind, name, location) = if let Some(Unexamined { text, class }) = refused {
            let name = (class.describe)(&text.name);
            (class.kind, name, text.location.as_deref())
        } else {
            let engine = self.first_oversize(file, OversizePolicy::Refuse)?;
            (NotCleanKind::TooLarge, format!("too large for the engine {engine}"), None)
        };
        Some(PolicyDecision {
            first_line: line(&name, location, MAX_FIRST_LINE),
            verdict: Ok(Verdict::NotClean { kind, output: self.output(&name.into(), location) }),
            validity: Validity::Examined,
            exit_code: None,
        })
    }

    /// Returns the final error by the policy "fail".
    fn final_error(&self, file: &FileOutcome) -> Option<ScanError> {
        match self.unexamined(file, ContentPolicy::Fail) {
            Some(Unexamined { text, class }) => Some((class.error)(text.line(MAX_FIRST_LINE))),
            None => self.first_oversize(file, OversizePolicy::Fail).map(ScanError::Oversize),
        }
    }

    /// Returns the first contents that were not examined and have this policy.
    fn unexamined<'f>(
        &self,
        file: &'f FileOutcome,
        policy: ContentPolicy,
    ) -> Option<Unexamined<'f>> {
        let FileOutcome { encrypted, limit, unreadable, inconsistent, .. } = file;
        let in_order = [
            (encrypted, self.on_encrypted, ENCRYPTED),
            (limit, self.on_limit, LIMIT),
            (unreadable, self.on_unreadable, UNREADABLE),
            (inconsistent, self.on_inconsistent, INCONSISTENT),
        ];
        let mut with_policy = in_order.into_iter().filter(|(_, of_class, _)| *of_class == policy);
        with_policy.find_map(|(text, _, class)| Some(Unexamined { text: text.as_ref()?, class }))
    }

    /// Returns a finding as shown to clients.
    fn output(&self, name: &Arc<str>, location: Option<&str>) -> Arc<str> {
        match location.filter(|_| self.report_paths) {
            Some(location) => line(name, Some(location), self.max_output).into(),
            None => Arc::clone(name),
        }
    }

    fn first_oversize(&self, file: &FileOutcome, policy: OversizePolicy) -> Option<&'static str> {
        file.too_large.iter().copied().find(|engine| self.on_oversize(engine) == policy)
    }

    fn skips(&self, fault: &EngineFault) -> bool {
        fault.is_engine_failure && self.on_failure(fault.engine) == SkipPolicy::Skip
    }

    /// Returns the report of an engine whose part of the outcome this is, and logs a finding that is only observed.
    pub(super) fn report(&self, summary: EngineSummary, file: &FileOutcome) -> EngineReport {
        let is_observed = self.observed.is_only_observed(file, summary.engine);
        if is_observed {
            let (engine, finding) = (summary.engine, summary.finding.as_deref());
            info!(
                engine,
                finding, "finding of an observed engine or rule, media not refused for it"
            );
        }
        EngineReport { summary, is_observed }
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
    /// Returns the same policy for all contents that were not examined, and the same policies for all engines.
    pub(in crate::scan) fn for_test(
        content: ContentPolicy,
        on_oversize: OversizePolicy,
        on_failure: SkipPolicy,
    ) -> Self {
        let engines = ["rules", "clamd", "icap", "script"];
        let engines = engines.map(|name| (name, on_oversize, on_failure)).to_vec();
        Self {
            on_encrypted: content,
            on_limit: content,
            on_unreadable: content,
            on_inconsistent: content,
            engines,
            observed: ObservedEngines::default(),
            report_paths: false,
            max_output: 1000,
        }
    }

    /// Returns the same policies with engines and rules that are only observed.
    pub(in crate::scan) fn observing(self, engines: &[&'static str], rules: &[&str]) -> Self {
        Self { observed: ObservedEngines::for_test(engines, rules), ..self }
    }
}

#[cfg(test)]
mod tests;
