//! The embedded engine: YARA rules. The rules are compiled once. An evaluator, a second process of this program,
//! unpacks and scans each file in the sandbox, because it parses untrusted data. Its output is a report. Every
//! termination other than exit code 0 and every other output, such as an incomplete report, is a failure.

pub use crate::config::sections::rules::Settings;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcs_evaluator::{EvaluationReport, MAX_REPORT, Note, NoteKind, RuleFinding, RuleKind, RuleSet};
use mcs_sandbox::{Command, Termination};

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, MAX_LOCATION, Outcome, OutcomeText},
    sample::ProgramJob,
    slots::ScanSlots,
};
use crate::{scan::error::ScanError, text::single_line};

/// Separates the names of a location.
const SEPARATOR: &str = " > ";

/// Stands for names of a location that are omitted.
const ELLIPSIS: &str = "…";

/// The program and the prepared rules that evaluators are started with. Evaluators read the rules from standard
/// input, a sealed memory file. It has no path, so that no other user can replace it.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: File,
}

/// The rules engine.
#[derive(Clone, Debug)]
pub struct Rules {
    evaluator: Arc<Evaluator>,
    args: Vec<OsString>,
    timeout: Duration,
    scan_slots: ScanSlots,
}

impl Evaluator {
    /// Copies the rules to a sealed memory file.
    pub fn prepare(program: PathBuf, rules: &RuleSet) -> io::Result<Self> {
        let prepared = mcs_sandbox::sealed("rules", rules.prepared())?;
        Ok(Self { program, prepared })
    }

    /// Returns the file with the prepared rules.
    #[must_use]
    pub fn prepared(&self) -> &File {
        &self.prepared
    }

    /// Returns the path of this program, determined at startup.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Rules {
    /// Creates the engine. `evaluator` must have been prepared from the rules of `settings`.
    #[must_use]
    pub fn new(settings: &Settings, evaluator: Arc<Evaluator>, scan_slots: ScanSlots) -> Self {
        let ignored = settings.ignore.iter().map(String::as_str);
        let args = mcs_evaluator::arguments(ignored, &settings.unpack.limits);
        Self { evaluator, args, timeout: settings.timeout, scan_slots }
    }

    /// Waits for a scan slot and evaluates the rules on the job's file. Returns the outcome, and further outcomes of
    /// lower precedence.
    pub(super) async fn scan(
        &self,
        job: &mut ProgramJob,
    ) -> Result<Result<(Outcome, Vec<Outcome>), EngineFailure>, ScanError> {
        let ProgramJob { job, tenant } = job;
        let slot = self.scan_slots.acquire(tenant).await.ok_or(ScanError::Stopping)?;
        let mut args = self.args.clone();
        args.push(job.media_path().into());
        let command = Command { program: self.evaluator.program.clone(), args };
        let input = self.evaluator.prepared.as_fd();
        let priority = job.priority();
        // A longer output is cut, and then not a complete report.
        let run = job.run_with_input(&command, input, self.timeout, MAX_REPORT);
        let exit = slot.run(&priority, run).await.map_err(ScanError::Sandbox)?;
        Ok(match exit.termination {
            Termination::Exited(0) => parse_report(&exit.stdout),
            Termination::Exited(code) => {
                let reason = String::from_utf8_lossy(&exit.stderr);
                let reason = single_line(&reason, MAX_FIRST_LINE);
                Err(EngineFailure::Reported(format!("exit code {code}: {reason}")))
            }
            Termination::Signaled(signal) => {
                Err(EngineFailure::Reported(format!("signal {signal}")))
            }
            Termination::TimedOut => Err(EngineFailure::TimedOut),
        })
    }
}

/// Returns the outcomes that an evaluator reports: the finding first, then the notes, as the operator's policies apply to
/// each.
///
/// # Errors
/// If the output is not exactly one report.
fn parse_report(output: &[u8]) -> Result<(Outcome, Vec<Outcome>), EngineFailure> {
    let report: EvaluationReport = serde_json::from_slice(output).map_err(|error| {
        // Quotes the output.
        let error = single_line(&error.to_string(), MAX_FIRST_LINE);
        EngineFailure::BadResponse(format!("not a report: {error}"))
    })?;
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
        parse_report(output.as_bytes())
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
