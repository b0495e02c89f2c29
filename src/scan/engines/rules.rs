//! The embedded engine: YARA rules. The rules are compiled once. The resident evaluator loads them once, and its child for a
//! file unpacks and scans that file. This module reads the child's answer.

pub use crate::config::sections::rules::Settings;

use mcs_evaluator::{EvaluationReport, EvaluatorAnswer, Note, NoteKind, RuleFinding, RuleKind};

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, MAX_LOCATION, Outcome, OutcomeText},
};
use crate::text::single_line;

/// Separates the names of a location.
const SEPARATOR: &str = " > ";

/// Stands for names of a location that are omitted.
const ELLIPSIS: &str = "…";

/// Returns the outcome that an evaluator reports, and further outcomes of lower precedence.
///
/// # Errors
/// If the evaluation failed, or the answer contradicts itself.
pub(super) fn parse_answer(
    answer: EvaluatorAnswer,
) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    match answer {
        EvaluatorAnswer::Report(report) => outcomes(report),
        EvaluatorAnswer::Failed(reason) => {
            Err(EngineFailure::Reported(single_line(&reason, MAX_FIRST_LINE)))
        }
    }
}

/// Returns the outcomes that an evaluator reports: the finding first, then those of observed rules and the notes, as the
/// operator's policies apply to each.
///
/// # Errors
/// If the report contradicts itself.
fn outcomes(report: EvaluationReport) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    let finding = report.finding.map(parse_finding).transpose()?;
    let observed = report.observed.into_iter().map(parse_finding);
    let observed = observed.collect::<Result<Vec<_>, _>>()?;
    let notes = report.notes.into_iter().map(parse_note);
    let mut outcomes = finding.into_iter().chain(observed).chain(notes);
    Ok((outcomes.next().unwrap_or(Outcome::Clean), outcomes.collect()))
}

fn parse_finding(finding: RuleFinding) -> Result<Outcome, EngineFailure> {
    let RuleFinding { kind, rules, path } = finding;
    if rules.iter().all(String::is_empty) {
        return Err(EngineFailure::BadResponse("a finding without rules".to_owned()));
    }
    let text = OutcomeText { name: rules.join(", "), location: location(&path), rules };
    Ok(match kind {
        RuleKind::Malware => Outcome::Infected(text),
        RuleKind::Policy => Outcome::Refused(text),
        RuleKind::Type => Outcome::Refused(OutcomeText { rules: Vec::new(), ..text }),
    })
}

pub(super) fn parse_note(note: Note) -> Outcome {
    let Note { kind, reason, path } = note;
    let text = OutcomeText { location: location(&path), ..OutcomeText::from(reason) };
    match kind {
        NoteKind::Encrypted => Outcome::Encrypted(text),
        NoteKind::Limit => Outcome::Limit(text),
        NoteKind::Unreadable => Outcome::Unreadable(text),
        NoteKind::Inconsistent => Outcome::Inconsistent(text),
    }
}

/// Returns the last names of a path that fit into [`MAX_LOCATION`], since these are the most specific ones. `None` for
/// the media file itself.
pub(super) fn location(path: &[String]) -> Option<String> {
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

    fn parse(report: &str) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
        parse_answer(serde_json::from_str(&format!(r#"{{"report":{report}}}"#)).unwrap())
    }

    fn note(kind: &str, path: &str) -> String {
        format!(r#"{{"kind":"{kind}","reason":"reason","path":[{path}]}}"#)
    }

    fn text(name: &str, location: Option<&str>) -> OutcomeText {
        OutcomeText { location: location.map(str::to_owned), ..OutcomeText::from(name) }
    }

    fn rules(names: &[&str], location: Option<&str>) -> OutcomeText {
        let rules = names.iter().map(|&name| name.to_owned()).collect();
        OutcomeText { rules, ..text(&names.join(", "), location) }
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
                vec![Outcome::Infected(rules(&["A", "B"], at))],
            ),
            // A finding counts before notes.
            (
                r#"{"kind":"policy","rules":["A"],"path":[]}"#.to_owned(),
                vec![note("limit", "")],
                vec![Outcome::Refused(rules(&["A"], None)), Outcome::Limit(text("reason", None))],
            ),
            (
                r#"{"kind":"type","rules":["file type a/b is not allowed"],"path":[]}"#.to_owned(),
                vec![],
                vec![Outcome::Refused(text("file type a/b is not allowed", None))],
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
    fn each_observed_rule_is_an_outcome() {
        let (first, others) = parse(
            r#"{"finding":{"kind":"policy","rules":["A"],"path":[]},"observed":[
                {"kind":"malware","rules":["B"],"path":["c"]}],"notes":[]}"#,
        )
        .unwrap();
        assert_eq!(first, Outcome::Refused(rules(&["A"], None)));
        assert_eq!(others, [Outcome::Infected(rules(&["B"], Some("c")))]);
        let nameless =
            r#"{"finding":null,"observed":[{"kind":"malware","rules":[],"path":[]}],"notes":[]}"#;
        assert!(matches!(parse(nameless), Err(EngineFailure::BadResponse(_))));
    }

    #[test]
    fn failures_are_not_clean() {
        let failed = parse_answer(EvaluatorAnswer::Failed("\u{1b}reason".into())).unwrap_err();
        assert!(matches!(&failed, EngineFailure::Reported(reason) if reason.trim() == "reason"));
        for rules in ["[]", r#"[""]"#] {
            let finding = format!(r#"{{"kind":"malware","rules":{rules},"path":[]}}"#);
            let error = parse(&format!(r#"{{"finding":{finding},"notes":[]}}"#)).unwrap_err();
            assert!(matches!(error, EngineFailure::BadResponse(_)), "{error}");
        }
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
