//! The evaluator: a process that evaluates the rules on one file, in the sandbox. Its exit code is the result, and its
//! standard output has the names of the rules that match. Any other termination, such as a panic or a signal, is a
//! failure.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    process,
};

use boreal::{
    Scanner,
    scanner::{CallbackEvents, ScanCallbackResult, ScanEvent},
};

use crate::prepared::restore;

/// Exit code of an evaluator when no rule matches.
pub const CLEAN: i32 = 0;
/// Exit code of an evaluator when rules match. Their names are on standard output.
pub const NOT_CLEAN: i32 = 1;
/// Exit code of an evaluator that failed. The reason is on standard error.
const FAILED: i32 = 2;

/// First argument of an evaluator.
const COMMAND: &str = "evaluate-rules";

/// Maximum number of reported names. The evaluation stops there, because the file is already refused.
pub(crate) const MAX_NAMES: usize = 16;

/// Returns the arguments that start a program whose `main` calls [`dispatch`] as an evaluator. The path of the file
/// must follow them.
///
/// Standard input must be a file with the prepared rules, see [`RuleSet::prepared`](crate::RuleSet::prepared). It is
/// mapped rather than read, because evaluators that share its descriptor also share its offset. Matches of rules with
/// one of the `ignored` names are not reported.
#[must_use]
pub fn arguments<'a>(ignored: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    let ignored = ignored.into_iter().collect::<Vec<_>>().join(",");
    vec![COMMAND.into(), ignored.into()]
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
        [ignored, media] => evaluate(ignored, media).unwrap_or_else(|error| {
            // If standard error is closed, the exit code still reports the failure.
            let _closed = writeln!(io::stderr(), "{error}");
            FAILED
        }),
        _ => FAILED,
    };
    process::exit(code)
}

fn evaluate(ignored: &OsStr, media: &OsStr) -> Result<i32, EvaluationError> {
    let prepared = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let prepared =
        prepared.and_then(|file| mcs_sandbox::map_file(&file)).map_err(EvaluationError::Rules)?;
    let media = File::open(media).map_err(EvaluationError::Media)?;
    let bytes = mcs_sandbox::map_file(&media).map_err(EvaluationError::Media)?;
    let ignored = ignored.to_string_lossy();
    let names = matches(prepared, bytes, &ignored.split(',').collect::<Vec<_>>())?;
    if names.is_empty() {
        return Ok(CLEAN);
    }
    // The service rejects this exit code without a name, so a failed write must not exit with it.
    writeln!(io::stdout(), "{}", names.join(", ")).map_err(EvaluationError::Output)?;
    Ok(NOT_CLEAN)
}

/// Returns the distinct names of the prepared rules that match, at most [`MAX_NAMES`].
///
/// # Errors
/// If a part cannot be restored or evaluated and no rule of another part matches.
pub(crate) fn matches(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
) -> Result<Vec<String>, EvaluationError> {
    let mut names = Vec::new();
    let mut first_error = None;
    for part in restore(prepared).map_err(EvaluationError::Rules)? {
        let result = part
            .map_err(EvaluationError::Rules)
            .and_then(|scanner| add_matches_of_part(scanner, bytes, ignored, &mut names));
        if names.len() >= MAX_NAMES {
            break;
        }
        first_error = first_error.or(result.err());
    }
    match first_error {
        Some(error) if names.is_empty() => Err(error),
        _ => Ok(names),
    }
}

fn add_matches_of_part(
    mut scanner: Scanner,
    bytes: &[u8],
    ignored: &[&str],
    names: &mut Vec<String>,
) -> Result<(), EvaluationError> {
    let events = CallbackEvents::RULE_MATCH | CallbackEvents::STRING_REACHED_MATCH_LIMIT;
    scanner.set_scan_params(scanner.scan_params().clone().callback_events(events));
    let mut limited_string = None;
    let result = scanner.scan_mem_with_callback(bytes, |event| {
        match event {
            ScanEvent::RuleMatch(rule)
                if !ignored.contains(&rule.name) && !names.iter().any(|name| name == rule.name) =>
            {
                names.push(rule.name.to_owned());
            }
            ScanEvent::StringReachedMatchLimit(string) => {
                limited_string =
                    Some(format!("{} of rule {}", string.string_name, string.rule_name));
            }
            _ => {}
        }
        if names.len() < MAX_NAMES {
            ScanCallbackResult::Continue
        } else {
            ScanCallbackResult::Abort
        }
    });
    match (result, limited_string) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(string)) => Err(EvaluationError::MatchLimit(string)),
        (Err(error), _) => Err(EvaluationError::Engine(error.to_string())),
    }
}

/// Reason why an evaluation has no result. The service reports the message to operators.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EvaluationError {
    #[error("cannot load the prepared rules: {0}")]
    Rules(#[source] io::Error),
    #[error("cannot read the media: {0}")]
    Media(#[source] io::Error),
    #[error("cannot write the names of matching rules: {0}")]
    Output(#[source] io::Error),
    #[error("string {0} has too many matches in the file")]
    MatchLimit(String),
    #[error("the rule engine failed: {0}")]
    Engine(String),
}
