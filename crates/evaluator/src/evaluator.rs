//! The evaluator: a process that unpacks one file and evaluates the rules on it, in the sandbox. Its standard output is
//! the result, a [`EvaluationReport`]. Any termination other than exit code 0, such as a panic or a signal, is a failure.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    process,
};

use crate::{
    error::EvaluationError,
    prepared::restore,
    report::{EvaluationReport, MAX_REPORT},
    rule_visitor::RuleVisitor,
    unpack::{UnpackSettings, unpack},
};

/// Exit code of an evaluator that failed. The reason is on standard error.
const FAILED: i32 = 2;

/// First argument of an evaluator.
const COMMAND: &str = "evaluate-rules";

/// Returns the arguments that start a program whose `main` calls [`dispatch`] as an evaluator. The path of the file
/// must follow them.
///
/// Standard input must be a file with the prepared rules, see [`RuleSet::prepared`](crate::RuleSet::prepared), sealed
/// by [`mcs_sandbox::sealed`]. It is mapped rather than read, because evaluators that share its descriptor also share
/// its offset. Matches of rules with one of the `ignored` names are not reported.
#[must_use]
pub fn arguments<'a>(
    ignored: impl IntoIterator<Item = &'a str>,
    settings: &UnpackSettings,
) -> Vec<OsString> {
    let ignored = ignored.into_iter().collect::<Vec<_>>().join(",");
    vec![COMMAND.into(), ignored.into(), settings.to_argument().into()]
}

/// Evaluates the rules and exits, if this process was started as an evaluator. Otherwise returns.
///
/// Must be called first in `main`, before threads or a runtime are started.
pub fn dispatch() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != COMMAND) {
        return;
    }
    let arguments: Vec<_> = arguments.collect();
    let code = match arguments.as_slice() {
        [ignored, settings, media] => match run(ignored, settings, media) {
            Ok(()) => 0,
            Err(error) => {
                // If standard error is closed, the exit code still reports the failure.
                let _closed = writeln!(io::stderr(), "{error}");
                FAILED
            }
        },
        _ => FAILED,
    };
    process::exit(code)
}

fn run(ignored: &OsStr, settings: &OsStr, media: &OsStr) -> Result<(), EvaluationError> {
    let prepared = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let prepared =
        prepared.and_then(|file| mcs_sandbox::map_sealed(&file)).map_err(EvaluationError::Rules)?;
    let settings = settings.to_str().and_then(UnpackSettings::from_argument);
    let settings = settings.ok_or(EvaluationError::Settings)?;
    // Read rather than mapped: the server has the file open for writing.
    let bytes = fs::read(media).map_err(EvaluationError::Media)?;
    let ignored = ignored.to_string_lossy();
    let ignored: Vec<_> = ignored.split(',').collect();
    let report = evaluate(prepared, &bytes, &ignored, &settings)?;
    let report = serde_json::to_vec(&report).map_err(io::Error::from);
    let write = |report: Vec<u8>| match report.len() {
        0..=MAX_REPORT => io::stdout().write_all(&report),
        length => Err(io::Error::other(format!("{length} bytes are too many"))),
    };
    report.and_then(write).map_err(EvaluationError::Output)
}

/// Unpacks a file and evaluates the prepared rules on all objects in it, up to the first one in which rules match.
///
/// # Errors
/// If rules cannot be restored or evaluated and no other rules match.
pub(crate) fn evaluate(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
    settings: &UnpackSettings,
) -> Result<EvaluationReport, EvaluationError> {
    let rules = restore(prepared).map_err(EvaluationError::Rules)?;
    let mut visitor = RuleVisitor::new(rules, ignored);
    let notes = unpack(bytes, settings, &mut visitor);
    let (finding, limit) = visitor.into_result()?;
    let mut report = EvaluationReport { finding, notes };
    report
        .notes
        .extend(limit.filter(|limit| report.notes.iter().all(|note| note.kind != limit.kind)));
    Ok(report)
}
