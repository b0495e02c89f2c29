//! The examination of each file in a child of the resident evaluator: the inspection, which determines type and encryption
//! under any set of engines, and the rules, where they are an engine. No other process of this service parses files.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mcs_evaluator::{EvaluatorAnswer, EvaluatorTask, FileReport, HashReport, Inspection};
use mcs_filetype::MediaType;
use mcs_sandbox::JobPriority;

use super::{
    error::EngineFailure,
    hashes::parse_hash_report,
    outcome::{MAX_FIRST_LINE, Outcome},
    resident::ResidentEvaluator,
    rules::parse_answer,
    sample::Sample,
    slots::ScanSlots,
};
use crate::{
    scan::{error::ScanError, task::caught},
    tenancy::TenantGroup,
    text::single_line,
};

/// Examines files, each in a scan slot: an inspection takes a slot as well, so that the slots bound all processes.
#[derive(Clone, Debug)]
pub(super) struct Examiner {
    evaluator: Arc<ResidentEvaluator>,
    scan_slots: ScanSlots,
}

/// What a file is, without the operator's rules.
#[derive(Clone, Default, Debug)]
pub(super) struct FileInspection {
    /// The type by content; `None` if types are not determined.
    pub(super) detected: Option<MediaType>,
    /// What is encrypted, if the headers show it.
    pub(super) encrypted: Option<String>,
}

/// The outcome of the rules or of the lists of hashes, and further outcomes of lower precedence.
pub(super) type Outcomes = Result<Result<(Outcome, Vec<Outcome>), EngineFailure>, ScanError>;

/// What an examination by the rules or with the lists of hashes determined.
pub(super) struct Evaluated {
    pub(super) outcomes: Outcomes,
    /// Duration without the wait for a slot; `None` if no child was started.
    pub(super) duration: Option<Duration>,
    /// Whether it ended at a finding.
    pub(super) ended_early: bool,
}

/// The result of an examination.
pub(super) struct Examination {
    /// An error if the file could not be inspected, which fails the scan.
    pub(super) inspection: Result<FileInspection, ScanError>,
    /// `None` if the rules were not to be evaluated, or if the lists of hashes have a finding.
    pub(super) rules: Option<Evaluated>,
    /// `None` if the lists of hashes were not to be searched, or the inspection failed.
    pub(super) hashes: Option<Evaluated>,
}

/// The valid report of a child.
#[derive(Debug)]
struct ChildReport {
    inspection: FileInspection,
    rules: Option<EvaluatorAnswer>,
    hashes: Option<HashReport>,
}

impl Examiner {
    pub(super) fn new(evaluator: Arc<ResidentEvaluator>, scan_slots: ScanSlots) -> Self {
        Self { evaluator, scan_slots }
    }

    /// Examines a file. If the child that evaluates the rules fails, another child does the rest of the task, so that the
    /// failure counts as a failure of the rules, to which `rules.on_failure` applies.
    pub(super) async fn examine(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        task: EvaluatorTask,
    ) -> Examination {
        let mut rules = None;
        if task.evaluates_rules {
            rules = Some(match caught(self.run(sample, tenant, task)).await {
                Ok((Ok(report), duration)) => return self.examination(report, duration),
                Ok((Err(failure), duration)) => Evaluated::failed(Ok(Err(failure)), duration),
                Err(error) => Evaluated::failed(Err(error), None),
            });
        }
        let task = EvaluatorTask { evaluates_rules: false, limits_types: false, ..task };
        match caught(self.run(sample, tenant, task)).await {
            Ok((Ok(report), duration)) => {
                Examination { rules, ..self.examination(report, duration) }
            }
            Ok((Err(failure), _)) => Examination::failed(rules, ScanError::Inspection(failure)),
            Err(error) => Examination::failed(rules, error),
        }
    }

    /// Waits for a scan slot and runs a child. Returns its report and its run time.
    async fn run(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        task: EvaluatorTask,
    ) -> Result<(Result<ChildReport, EngineFailure>, Option<Duration>), ScanError> {
        let slot = self.scan_slots.acquire(tenant).await.ok_or(ScanError::Stopping)?;
        let media = match sample.descriptor() {
            Ok(media) => media,
            Err(error) => return Ok((Err(EngineFailure::Media(error)), None)),
        };
        let (priority, start) = (JobPriority::new(), Instant::now());
        let report = slot.run(&priority, self.evaluator.run(media, task, &priority)).await;
        let needs_type = self.evaluator.detects_types();
        let duration = Some(start.elapsed());
        Ok((report.and_then(|report| parse_report(&report, task, needs_type)), duration))
    }
}

impl Examination {
    fn failed(rules: Option<Evaluated>, error: ScanError) -> Self {
        Self { inspection: Err(error), rules, hashes: None }
    }
}

impl Evaluated {
    fn failed(outcomes: Outcomes, duration: Option<Duration>) -> Self {
        Self { outcomes, duration, ended_early: false }
    }
}

impl Examiner {
    fn examination(&self, report: ChildReport, duration: Option<Duration>) -> Examination {
        let ChildReport { inspection, rules, hashes } = report;
        Examination {
            inspection: Ok(inspection),
            rules: rules.map(|answer| Evaluated {
                ended_early: answer.has_finding(),
                outcomes: Ok(parse_answer(answer)),
                duration,
            }),
            hashes: hashes.map(|report| Evaluated {
                ended_early: report.finding.is_some() && !self.evaluator.observes_hashes(),
                outcomes: Ok(parse_hash_report(report)),
                duration,
            }),
        }
    }
}

/// Parses the report of a child, which may be compromised.
///
/// # Errors
/// If the bytes are not exactly one report, or it lacks a type or a result that is needed, or the type is not one that
/// the inspection can detect.
fn parse_report(
    report: &[u8],
    task: EvaluatorTask,
    needs_type: bool,
) -> Result<ChildReport, EngineFailure> {
    let report: FileReport = serde_json::from_slice(report).map_err(|error| {
        // Quotes the report.
        let error = single_line(&error.to_string(), MAX_FIRST_LINE);
        EngineFailure::BadResponse(format!("not a report: {error}"))
    })?;
    let FileReport { inspection: Inspection { mime, encrypted }, rules, hashes } = report;
    let is_blocked = hashes.as_ref().is_some_and(|hashes| hashes.finding.is_some());
    if task.evaluates_rules && rules.is_none() && !is_blocked {
        return Err(EngineFailure::BadResponse("no result of the rules".to_owned()));
    }
    if rules.is_some() && !task.evaluates_rules {
        return Err(EngineFailure::BadResponse("a result of rules that do not apply".to_owned()));
    }
    if task.searches_hashes != hashes.is_some() {
        return Err(EngineFailure::BadResponse("no result of the lists of hashes".to_owned()));
    }
    let detected = mime.as_deref().and_then(MediaType::from_name);
    if detected.is_none() && (needs_type || mime.is_some()) {
        return Err(untyped());
    }
    let encrypted = encrypted.map(|encryption| encryption.to_string());
    Ok(ChildReport { inspection: FileInspection { detected, encrypted }, rules, hashes })
}

/// Returns the failure of an inspection without a type that is needed.
pub(super) fn untyped() -> EngineFailure {
    EngineFailure::BadResponse("no type of the file".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_than_one_report_are_a_failure() {
        let plain = r#"{"inspection":{"mime":null,"encrypted":null},"rules":null,"hashes":null}"#;
        let typed = r#"{"inspection":{"mime":"image/png","encrypted":"zip"},"rules":{"failed":"x"},"hashes":null}"#;
        let inspect = EvaluatorTask::INSPECT;
        let ChildReport { inspection, rules, .. } =
            parse_report(plain.as_bytes(), inspect, false).unwrap();
        assert!(inspection.detected.is_none() && inspection.encrypted.is_none());
        assert_eq!(rules, None);
        let with_rules = EvaluatorTask { evaluates_rules: true, ..inspect };
        let ChildReport { inspection, rules, .. } =
            parse_report(typed.as_bytes(), with_rules, true).unwrap();
        assert_eq!(inspection.detected.unwrap().as_str(), "image/png");
        assert_eq!(inspection.encrypted.unwrap(), "zip");
        assert_eq!(rules, Some(EvaluatorAnswer::Failed("x".to_owned())));
        let mut invalid: Vec<_> =
            (0..typed.len()).map(|length| typed[..length].to_owned()).collect();
        invalid.extend([
            plain.to_owned(),
            typed.repeat(2),
            "null".to_owned(),
            typed.replace("image/png", "image/x-not-a-type"),
            typed.replace("\"zip\"", "\"other\""),
            typed.replace("\"zip\"", "\"zip\",\"more\":1"),
            typed.replace("failed", "passed"),
        ]);
        for report in invalid {
            let error = parse_report(report.as_bytes(), with_rules, true).unwrap_err();
            assert!(matches!(error, EngineFailure::BadResponse(_)), "{report}: {error}");
        }
        let error = parse_report(br#"{"\u001b[2J":1}"#, with_rules, false).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
        // A name that no detection returns is not accepted either where none is needed.
        let unknown = typed.replace("image/png", "x/y");
        assert!(parse_report(unknown.as_bytes(), with_rules, false).is_err());
    }

    #[test]
    fn missing_results_are_a_failure() {
        let report = |rules: &str, hashes: &str| {
            format!(
                r#"{{"inspection":{{"mime":null,"encrypted":null}},"rules":{rules},"hashes":{hashes}}}"#
            )
        };
        let clean = r#"{"report":{"finding":null,"notes":[]}}"#;
        let found = r#"{"finding":{"name":"A","path":[]},"notes":[]}"#;
        let none = r#"{"finding":null,"notes":[]}"#;
        for (evaluates_rules, searches_hashes, rules, hashes, is_valid) in [
            (true, false, clean, "null", true),
            (true, false, "null", "null", false),
            (true, false, "null", found, false),
            (true, true, clean, none, true),
            (true, true, "null", found, true),
            (true, true, "null", none, false),
            (true, true, clean, "null", false),
            (false, true, "null", none, true),
            (false, true, "null", "null", false),
            (false, false, "null", found, false),
            (false, false, clean, "null", false),
            (false, true, clean, none, false),
        ] {
            let task = EvaluatorTask { evaluates_rules, limits_types: false, searches_hashes };
            let report = report(rules, hashes);
            let parsed = parse_report(report.as_bytes(), task, false);
            assert_eq!(parsed.is_ok(), is_valid, "{task:?} {report}");
        }
    }
}
