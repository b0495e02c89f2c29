//! The embedded engine: YARA rules. The rules are compiled once. The resident evaluator, a second process of this program in
//! the sandbox, loads them once and forks a child for each file, which unpacks and scans that file, because it parses
//! untrusted data. The child's answer is a report. Every end other than exit code 0 with exactly one answer is a failure.

pub use crate::config::sections::rules::Settings;

use std::sync::Arc;

use mcs_evaluator::{EvaluationReport, EvaluatorAnswer, Note, NoteKind, RuleFinding, RuleKind};
use mcs_sandbox::JobPriority;

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, MAX_LOCATION, Outcome, OutcomeText},
    resident::{Evaluator, EvaluatorEnv, ResidentEvaluator},
    sample::Sample,
    slots::ScanSlots,
};
use crate::{scan::error::ScanError, tenancy::TenantGroup, text::single_line};

/// Separates the names of a location.
const SEPARATOR: &str = " > ";

/// Stands for names of a location that are omitted.
const ELLIPSIS: &str = "…";

/// The rules engine.
#[derive(Clone, Debug)]
pub struct Rules {
    evaluator: Arc<ResidentEvaluator>,
    scan_slots: ScanSlots,
}

impl Rules {
    /// Creates the engine. The evaluator of `env` must have been prepared from the rules of `settings`.
    #[must_use]
    pub fn new(
        settings: &Settings,
        env: &EvaluatorEnv,
        scan_slots: ScanSlots,
        jobs: usize,
    ) -> Self {
        Self { evaluator: Evaluator::resident(env, settings, jobs), scan_slots }
    }

    /// Waits for a scan slot and evaluates the rules on the file. Returns the outcome, and further outcomes of lower
    /// precedence.
    pub(super) async fn scan(
        &self,
        sample: &Sample,
        tenant: &TenantGroup,
    ) -> Result<Result<(Outcome, Vec<Outcome>), EngineFailure>, ScanError> {
        let slot = self.scan_slots.acquire(tenant).await.ok_or(ScanError::Stopping)?;
        let media = match sample.descriptor() {
            Ok(media) => media,
            Err(error) => return Ok(Err(EngineFailure::Media(error))),
        };
        let priority = JobPriority::new();
        let answer = slot.run(&priority, self.evaluator.evaluate(media, &priority)).await;
        Ok(answer.and_then(|answer| parse_answer(&answer)))
    }
}

/// Returns the outcomes of an evaluator's answer.
///
/// # Errors
/// If the evaluation failed, or the bytes are not exactly one answer.
fn parse_answer(answer: &[u8]) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    let answer: EvaluatorAnswer = serde_json::from_slice(answer).map_err(|error| {
        // Quotes the answer.
        let error = single_line(&error.to_string(), MAX_FIRST_LINE);
        EngineFailure::BadResponse(format!("not an answer: {error}"))
    })?;
    match answer {
        EvaluatorAnswer::Report(report) => outcomes(report),
        EvaluatorAnswer::Failed(reason) => {
            Err(EngineFailure::Reported(single_line(&reason, MAX_FIRST_LINE)))
        }
    }
}

/// Returns the outcomes that an evaluator reports: the finding first, then the notes, as the operator's policies apply to
/// each.
///
/// # Errors
/// If the report contradicts itself.
fn outcomes(report: EvaluationReport) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    let finding = report.finding.map(parse_finding).transpose()?;
    let mut outcomes = finding.into_iter().chain(report.notes.into_iter().map(parse_note));
    Ok((outcomes.next().unwrap_or(Outcome::Clean), outcomes.collect()))
}

fn parse_finding(finding: RuleFinding) -> Result<Outcome, EngineFailure> {
    let RuleFinding { kind, rules, path } = finding;
    if rules.iter().all(String::is_empty) {
        return Err(EngineFailure::BadResponse("a finding without rules".to_owned()));
    }
    let text = OutcomeText { name: rules.join(", "), location: location(&path) };
    Ok(match kind {
        RuleKind::Malware => Outcome::Infected(text),
        RuleKind::Policy => Outcome::Refused(text),
    })
}

fn parse_note(note: Note) -> Outcome {
    let Note { kind, reason, path } = note;
    let text = OutcomeText { name: reason, location: location(&path) };
    match kind {
        NoteKind::Encrypted => Outcome::Encrypted(text),
        NoteKind::Limit => Outcome::Limit(text),
        NoteKind::Unreadable => Outcome::Unreadable(text),
        NoteKind::Inconsistent => Outcome::Inconsistent(text),
    }
}

/// Returns the last names of a path that fit into [`MAX_LOCATION`], since these are the most specific ones. `None` for
/// the media file itself.
fn location(path: &[String]) -> Option<String> {
    let mut location = String::new();
    for name in path.iter().rev() {
        if location.is_empty() {
            location = single_line(name, MAX_LOCATION - ELLIPSIS.len() - SEPARATOR.len());
        } else if location.len() + name.len() + ELLIPSIS.len() + 2 * SEPARATOR.len() > MAX_LOCATION
        {
            return Some([ELLIPSIS, &location].join(SEPARATOR));
        } else {
            location = [name, &*location].join(SEPARATOR);
        }
    }
    (!path.is_empty()).then_some(location)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(output: &str) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
        parse_answer(format!(r#"{{"report":{output}}}"#).as_bytes())
    }

    fn note(kind: &str, path: &str) -> String {
        format!(r#"{{"kind":"{kind}","reason":"reason","path":[{path}]}}"#)
    }

    fn text(name: &str, location: Option<&str>) -> OutcomeText {
        OutcomeText { name: name.to_owned(), location: location.map(str::to_owned) }
    }

    #[test]
    fn each_part_of_a_report_is_an_outcome() {
        let path = r#""invoice.iso","setup.exe""#;
        let at = Some("invoice.iso > setup.exe");
        for (finding, notes, expected) in [
            ("null".to_owned(), vec![], vec![Outcome::Clean]),
            (
                format!(r#"{{"kind":"malware","rules":["A","B"],"path":[{path}]}}"#),
                vec![],
                vec![Outcome::Infected(text("A, B", at))],
            ),
            // A finding counts before notes.
            (
                r#"{"kind":"policy","rules":["A"],"path":[]}"#.to_owned(),
                vec![note("limit", "")],
                vec![Outcome::Refused(text("A", None)), Outcome::Limit(text("reason", None))],
            ),
            (
                "null".to_owned(),
                vec![
                    note("encrypted", path),
                    note("limit", ""),
                    note("unreadable", ""),
                    note("inconsistent", ""),
                ],
                vec![
                    Outcome::Encrypted(text("reason", at)),
                    Outcome::Limit(text("reason", None)),
                    Outcome::Unreadable(text("reason", None)),
                    Outcome::Inconsistent(text("reason", None)),
                ],
            ),
        ] {
            let report = format!(r#"{{"finding":{finding},"notes":[{}]}}"#, notes.join(","));
            let (first, others) = parse(&report).unwrap();
            assert_eq!([vec![first], others].concat(), expected, "{report}");
        }
    }

    #[test]
    fn other_output_is_a_failure() {
        let valid = r#"{"finding":null,"notes":[]}"#;
        assert_eq!(parse(valid).unwrap(), (Outcome::Clean, vec![]));
        let failed = parse_answer(br#"{"failed":"reason"}"#).unwrap_err();
        assert!(matches!(&failed, EngineFailure::Reported(reason) if reason == "reason"));
        let answer = format!(r#"{{"report":{valid}}}"#);
        for length in 0..answer.len() {
            let error = parse_answer(&answer.as_bytes()[..length]).unwrap_err();
            assert!(matches!(error, EngineFailure::BadResponse(_)), "{length}: {error}");
        }
        let mut outputs: Vec<_> =
            (0..valid.len()).map(|length| valid[..length].to_owned()).collect();
        outputs.push(valid.repeat(2));
        for output in [
            "clean",
            "null",
            r#"{"notes":[],"finding":null,"more":1}"#,
            r#"{"finding":null}"#,
            r#"{"finding":{"kind":"malware","rules":[],"path":[]},"notes":[]}"#,
            r#"{"finding":{"kind":"malware","rules":[""],"path":[]},"notes":[]}"#,
            r#"{"finding":{"kind":"clean","rules":["A"],"path":[]},"notes":[]}"#,
            r#"{"finding":null,"notes":[{"kind":"clean","reason":"","path":[]}]}"#,
            r#"{"finding":null,"notes":[{"kind":"limit","path":[]}]}"#,
        ] {
            outputs.push(output.to_owned());
        }
        for output in outputs {
            let error = parse(&output).unwrap_err();
            assert!(matches!(error, EngineFailure::BadResponse(_)), "{output}: {error}");
        }
        let error = parse(r#"{"\u001b[2J":1}"#).unwrap_err().to_string();
        assert!(!error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn location_keeps_the_last_names() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(location(&[]), None);
        assert_eq!(location(&names(&["a"])).unwrap(), "a");
        assert_eq!(location(&names(&["a", "b", "c"])).unwrap(), "a > b > c");
        let long = "x".repeat(300);
        let kept = location(&names(&["a", &long, &long, &long, "b"])).unwrap();
        assert_eq!(kept, format!("… > {long} > {long} > b"));
        let longest = location(&[long.repeat(4)]).unwrap();
        assert!(longest.len() < MAX_LOCATION, "{longest}");
    }
}
