//! What all engines together determined about a file.

use std::{sync::Arc, time::SystemTime};

use mcs_filetype::MediaType;

use super::{
    outcome::{OutcomeText, names_bytes},
    summary::EngineSummary,
};
use crate::scan::{error::ScanError, infection::Infection, verdict::NotCleanKind};

/// Memory of an error, bytes.
const ERROR_BYTES: usize = 1024;

/// What the engines and the service found in a file. Does not depend on the operator's policies, so that a changed
/// policy applies to cached outcomes without another scan: see [`super::Policies::decide`].
#[derive(Clone, Debug)]
pub struct FileOutcome {
    /// When the scan began.
    pub scanned: SystemTime,
    /// The type by content; `None` if types are not determined.
    pub detected: Option<MediaType>,
    /// The findings of all engines, malware first, then in the configured order of the engines.
    pub(super) findings: Vec<FileFinding>,
    /// Whether others may be found: the examination by the rules or the lists of hashes ended at a finding, or, in a stored
    /// outcome, an engine failed.
    pub(super) ended_early: bool,
    /// The result of each engine that was run; empty for a stored outcome of an earlier version of the program.
    pub(super) results: Vec<EngineSummary>,
    /// Contents that need a password, detected by the service or by an engine.
    pub(super) encrypted: Option<OutcomeText>,
    /// A limit inside the file at which an engine stopped.
    pub(super) limit: Option<OutcomeText>,
    /// Contents that an engine could not read.
    pub(super) unreadable: Option<OutcomeText>,
    /// Contents that programs unpack differently.
    pub(super) inconsistent: Option<OutcomeText>,
    /// Engines that did not examine the file because of its size.
    pub(super) too_large: Vec<&'static str>,
    /// Engines that did not finish.
    pub(super) failures: Vec<EngineFault>,
    /// Whether an engine did not finish in the scan that a stored outcome is of.
    pub(super) lacked_engine: bool,
    /// Whether at least one engine examined the file, if only up to encrypted contents or a limit.
    pub(super) has_finished: bool,
    /// The script's exit code, if the script found nothing.
    pub(super) exit_code: Option<i32>,
    /// The first line of the script's output, if the script found nothing.
    pub(super) first_line: String,
}

/// A finding that makes a file not clean under all policies.
#[derive(Clone, Debug)]
pub(super) struct FileFinding {
    pub(super) kind: NotCleanKind,
    /// The engine; `None` for a stored finding of an earlier version of the program.
    pub(super) engine: Option<&'static str>,
    /// At most `scan.max_output_size` bytes.
    pub(super) output: Arc<str>,
    /// See [`OutcomeText::location`].
    pub(super) location: Option<String>,
    /// See [`OutcomeText::rules`].
    pub(super) rules: Vec<String>,
    /// The script's exit code.
    pub(super) exit_code: Option<i32>,
    pub(super) first_line: String,
}

/// The failure of one engine.
#[derive(Clone, Debug)]
pub(super) struct EngineFault {
    pub(super) engine: &'static str,
    pub(super) error: Arc<ScanError>,
    /// Whether the engine itself failed, rather than this process or the disk.
    pub(super) is_engine_failure: bool,
}

impl FileOutcome {
    /// Returns the outcome of a scan that has no results yet.
    pub(super) fn at(scanned: SystemTime) -> Self {
        Self {
            scanned,
            detected: None,
            findings: Vec::new(),
            ended_early: false,
            results: Vec::new(),
            encrypted: None,
            limit: None,
            unreadable: None,
            inconsistent: None,
            too_large: Vec::new(),
            failures: Vec::new(),
            lacked_engine: false,
            has_finished: false,
            exit_code: None,
            first_line: String::new(),
        }
    }

    /// Returns the outcome of a scan in which all engines finished and found nothing.
    #[must_use]
    pub fn clean(scanned: SystemTime, exit_code: Option<i32>) -> Self {
        Self { has_finished: true, exit_code, ..Self::at(scanned) }
    }

    /// Returns whether all engines finished and found nothing.
    pub(in crate::scan) fn is_clean(&self) -> bool {
        self.has_finished
            && self.findings.is_empty()
            && self.texts().next().is_none()
            && self.too_large.is_empty()
            && self.failures.is_empty()
    }

    /// Returns the engine with the most severe finding.
    pub(in crate::scan) fn finding_engine(&self) -> Option<&'static str> {
        self.findings.first()?.engine
    }

    /// Returns the result of each engine that was run.
    pub(in crate::scan) fn results(&self) -> &[EngineSummary] {
        &self.results
    }

    /// Returns the malware among the findings that `refuses` selects, if all engines finished.
    pub(super) fn infection(&self, refuses: impl Fn(&FileFinding) -> bool) -> Option<Infection> {
        let is_complete = self.failures.is_empty() && !self.lacked_engine;
        let mut findings = self.findings.iter().filter(|_| is_complete);
        let finding =
            findings.find(|finding| finding.kind == NotCleanKind::Infected && refuses(finding))?;
        Some(Infection {
            engine: finding.engine?,
            finding: Arc::clone(&finding.output),
            location: finding.location.clone(),
        })
    }

    /// Returns the script's exit code, if the script found nothing.
    pub(in crate::scan) fn clean_exit_code(&self) -> Option<i32> {
        self.exit_code
    }

    /// Returns the approximate memory outside of the value itself, bytes. Errors are counted with a fixed size, because
    /// their texts are bounded where they are received.
    pub(in crate::scan) fn allocated_bytes(&self) -> usize {
        let findings = self.findings.iter().map(|finding| {
            let location = finding.location.as_ref().map_or(0, String::len);
            let lines = finding.output.len() + location + finding.first_line.len();
            size_of::<FileFinding>() + lines + 2 * size_of::<usize>() + names_bytes(&finding.rules)
        });
        let results = self.results.iter();
        let results = results.map(|result| size_of::<EngineSummary>() + result.allocated_bytes());
        let texts = self.texts().map(OutcomeText::allocated_bytes);
        let engines = self.too_large.len() * size_of::<&str>();
        let failures = self.failures.len() * (size_of::<EngineFault>() + ERROR_BYTES);
        findings.chain(results).chain(texts).sum::<usize>()
            + self.first_line.len()
            + engines
            + failures
    }

    /// Returns the texts about contents that were not examined.
    fn texts(&self) -> impl Iterator<Item = &OutcomeText> {
        let Self { encrypted, limit, unreadable, inconsistent, .. } = self;
        [encrypted, limit, unreadable, inconsistent].into_iter().flatten()
    }

    /// Returns this outcome with the findings of an earlier scan, for engines and rules that are only observed: they count
    /// as soon as they are observed no longer. Whether that scan ended early does not matter, because this one did not.
    pub(in crate::scan) fn with_findings_of(mut self, earlier: &Self) -> Self {
        self.findings.extend(earlier.findings.iter().cloned());
        self.findings.sort_by_key(|finding| finding.kind != NotCleanKind::Infected);
        self
    }

    /// Returns this outcome with what another scan of the same content found, whichever of them is complete.
    pub(in crate::scan) fn merged_with(self, other: &Self) -> Self {
        let ended_early = self.ended_early || other.ended_early;
        let lacked_engine = self.lacked_engine || other.lacked_engine;
        let merged = self.with_findings_of(other);
        Self { ended_early, lacked_engine, ..merged }
    }

    /// Removes what no verdict needs: the lines for the audit log, which records each scan once.
    pub(in crate::scan) fn without_lines(mut self) -> Self {
        self.first_line = String::new();
        for finding in &mut self.findings {
            finding.first_line = String::new();
        }
        self
    }
}

#[cfg(test)]
impl FileOutcome {
    /// Combines the results of engines.
    pub(in crate::scan) fn for_test<const N: usize>(
        results: [(&'static str, Result<super::Outcome, ScanError>); N],
    ) -> Self {
        let result = |(engine, outcome)| super::result::EngineResult::new(engine, outcome);
        super::combine::combine(
            results.into_iter().map(result).collect(),
            Ok(super::examination::FileInspection::default()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::engines::{EngineFailure, Outcome};

    #[test]
    fn only_malware_found_by_a_complete_scan_is_an_infection() {
        let infected = || Ok(Outcome::Infected("Name".into()));
        let failed = || Err(ScanError::Engine("clamd", EngineFailure::NotRun));
        let infection = |other| {
            FileOutcome::for_test([("rules", infected()), ("clamd", other)]).infection(|_| true)
        };
        let expected = Infection { engine: "rules", finding: "Name".into(), location: None };
        for other in [Outcome::Clean, Outcome::Encrypted("zip".into()), Outcome::TooLarge] {
            assert_eq!(infection(Ok(other)), Some(expected.clone()));
        }
        assert_eq!(infection(failed()), None);
        let observed = FileOutcome::for_test([("rules", infected()), ("clamd", infected())]);
        let not_rules = observed.infection(|finding| finding.engine != Some("rules"));
        assert_eq!(not_rules.map(|infection| infection.engine), Some("clamd"));
        for other in [
            Outcome::Clean,
            Outcome::Refused("Macro".into()),
            Outcome::Encrypted("zip".into()),
            Outcome::Limit("depth".into()),
            Outcome::Unreadable("rar".into()),
            Outcome::Inconsistent("zip".into()),
            Outcome::TooLarge,
        ] {
            assert_eq!(FileOutcome::for_test([("rules", Ok(other))]).infection(|_| true), None);
        }
    }
}
