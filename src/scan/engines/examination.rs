//! The examination of each file in a child of the resident evaluator: the inspection, which determines type and encryption
//! under any set of engines, and the rules, where they are an engine. No other process of this service parses files.

use std::sync::Arc;

use mcs_evaluator::{EvaluatorAnswer, EvaluatorTask, FileReport, Inspection};
use mcs_filetype::MediaType;
use mcs_sandbox::JobPriority;

use super::{
    error::EngineFailure,
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

/// The outcome of the rules, and further outcomes of lower precedence.
pub(super) type RulesResult = Result<Result<(Outcome, Vec<Outcome>), EngineFailure>, ScanError>;

/// The result of an examination.
pub(super) struct Examination {
    /// An error if the file could not be inspected, which fails the scan.
    pub(super) inspection: Result<FileInspection, ScanError>,
    /// `None` if the rules were not to be evaluated.
    pub(super) rules: Option<RulesResult>,
}

impl Examiner {
    pub(super) fn new(evaluator: Arc<ResidentEvaluator>, scan_slots: ScanSlots) -> Self {
        Self { evaluator, scan_slots }
    }

    /// Examines a file. If the child that evaluates the rules fails, another one inspects the file, so that the failure is
    /// one of the rules, which their `on_failure` applies to.
    pub(super) async fn examine(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        task: EvaluatorTask,
    ) -> Examination {
        let mut rules = None;
        if task != EvaluatorTask::Inspect {
            rules = Some(match caught(self.run(sample, tenant, task)).await {
                Ok(Ok((inspection, Some(answer)))) => {
                    let rules = Some(Ok(parse_answer(answer)));
                    return Examination { inspection: Ok(inspection), rules };
                }
                Ok(Ok((_, None))) => {
                    Ok(Err(EngineFailure::BadResponse("no result of the rules".to_owned())))
                }
                Ok(Err(failure)) => Ok(Err(failure)),
                Err(error) => Err(error),
            });
        }
        let inspected = caught(self.run(sample, tenant, EvaluatorTask::Inspect)).await;
        let inspection = match inspected {
            Ok(Ok((inspection, _))) => Ok(inspection),
            Ok(Err(failure)) => Err(ScanError::Inspection(failure)),
            Err(error) => Err(error),
        };
        Examination { inspection, rules }
    }

    /// Waits for a scan slot and runs a child.
    async fn run(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
        task: EvaluatorTask,
    ) -> Result<Result<(FileInspection, Option<EvaluatorAnswer>), EngineFailure>, ScanError> {
        let slot = self.scan_slots.acquire(tenant).await.ok_or(ScanError::Stopping)?;
        let media = match sample.descriptor() {
            Ok(media) => media,
            Err(error) => return Ok(Err(EngineFailure::Media(error))),
        };
        let priority = JobPriority::new();
        let report = slot.run(&priority, self.evaluator.run(media, task, &priority)).await;
        Ok(report.and_then(|report| parse_report(&report, self.evaluator.detects_types())))
    }
}

/// Parses the report of a child, which may be compromised.
///
/// # Errors
/// If the bytes are not exactly one report, or it lacks a type that is needed, or the type is none that can be detected.
fn parse_report(
    report: &[u8],
    needs_type: bool,
) -> Result<(FileInspection, Option<EvaluatorAnswer>), EngineFailure> {
    let report: FileReport = serde_json::from_slice(report).map_err(|error| {
        // Quotes the report.
        let error = single_line(&error.to_string(), MAX_FIRST_LINE);
        EngineFailure::BadResponse(format!("not a report: {error}"))
    })?;
    let FileReport { inspection: Inspection { mime, encrypted }, rules } = report;
    let detected = mime.as_deref().and_then(MediaType::from_name);
    if detected.is_none() && (needs_type || mime.is_some()) {
        return Err(untyped());
    }
    let encrypted = encrypted.map(|encryption| encryption.to_string());
    Ok((FileInspection { detected, encrypted }, rules))
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
        let plain = r#"{"inspection":{"mime":null,"encrypted":null},"rules":null}"#;
        let typed =
            r#"{"inspection":{"mime":"image/png","encrypted":"zip"},"rules":{"failed":"x"}}"#;
        let (inspection, rules) = parse_report(plain.as_bytes(), false).unwrap();
        assert!(inspection.detected.is_none() && inspection.encrypted.is_none());
        assert_eq!(rules, None);
        let (inspection, rules) = parse_report(typed.as_bytes(), true).unwrap();
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
            let error = parse_report(report.as_bytes(), true).unwrap_err();
            assert!(matches!(error, EngineFailure::BadResponse(_)), "{report}: {error}");
        }
        let error = parse_report(br#"{"\u001b[2J":1}"#, false).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
        // A name that no detection returns is not accepted either where none is needed.
        let unknown = typed.replace("image/png", "x/y");
        assert!(parse_report(unknown.as_bytes(), false).is_err());
    }
}
