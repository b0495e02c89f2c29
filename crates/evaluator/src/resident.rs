//! The resident evaluator: loads the rules once, and evaluates each media file in a child that is forked for it. The child
//! is in the sandbox, under a filter of its own, see `sandbox/src/resident`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    process,
};

use crate::{
    error::EvaluationError,
    evaluator::{evaluate_with, load_rules},
    process_limits::raise_stack_limit,
    report::{EvaluatorAnswer, MAX_ANSWER},
    unpack::{UnpackSettings, warm_up},
};

/// Exit code of an evaluator that could not start. The reason is on standard error.
const FAILED: i32 = 2;

/// First argument of an evaluator.
const COMMAND: &str = "evaluate-resident";

/// Returns the arguments that start a program whose `main` calls [`dispatch`] as a resident evaluator, for
/// [`Sandbox::start_resident`](mcs_sandbox::Sandbox::start_resident). Its data are the prepared rules, see
/// [`RuleSet::prepared`](crate::RuleSet::prepared), sealed by [`mcs_sandbox::sealed`]. The result of a job is an
/// [`EvaluatorAnswer`]. Matches of rules with one of the `ignored` names are not reported.
#[must_use]
pub fn arguments<'a>(
    ignored: impl IntoIterator<Item = &'a str>,
    settings: &UnpackSettings,
) -> Vec<OsString> {
    let ignored = ignored.into_iter().collect::<Vec<_>>().join(",");
    vec![COMMAND.into(), ignored.into(), settings.to_argument().into()]
}

/// Serves jobs and exits, if this process was started as a resident evaluator. Otherwise returns.
///
/// Must be called first in `main`, before threads or a runtime are started.
pub fn dispatch() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|argument| argument != COMMAND) {
        return;
    }
    let arguments: Vec<_> = arguments.collect();
    let code = match arguments.as_slice() {
        [ignored, settings] => match serve(ignored, settings) {
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

fn serve(ignored: &OsStr, settings: &OsStr) -> Result<(), EvaluationError> {
    let settings = settings.to_str().and_then(UnpackSettings::from_argument);
    let settings = settings.ok_or(EvaluationError::Settings)?;
    raise_stack_limit().map_err(EvaluationError::Limits)?;
    let ignored = ignored.to_string_lossy();
    let ignored: Vec<_> = ignored.split(',').collect();
    let load = |rules: File| {
        let prepared = mcs_sandbox::map_sealed(&rules)?;
        let mut visitor = load_rules(prepared, &ignored).map_err(io::Error::other)?;
        visitor.warm_up();
        warm_up();
        // Taken in each child, which is a copy of this process.
        let mut loaded = Some(visitor);
        let settings = &settings;
        Ok(move |media: &[u8]| {
            let answer = match loaded.take() {
                Some(visitor) => evaluate_with(visitor, media, settings),
                None => Err(EvaluationError::Engine("it is not loaded".to_owned())),
            };
            encode(&answer.map_or_else(
                |error| EvaluatorAnswer::Failed(error.to_string()),
                EvaluatorAnswer::Report,
            ))
        })
    };
    mcs_sandbox::serve_resident(load).map_err(EvaluationError::Service)
}

/// Serializes an answer; an answer that is too long becomes a failure.
fn encode(answer: &EvaluatorAnswer) -> Vec<u8> {
    let reason = match serde_json::to_vec(answer) {
        Ok(bytes) if bytes.len() <= MAX_ANSWER => return bytes,
        Ok(bytes) => format!("the report has {} bytes, more than {MAX_ANSWER}", bytes.len()),
        Err(error) => error.to_string(),
    };
    // A string without escapes of any kind: cannot fail.
    serde_json::to_vec(&EvaluatorAnswer::Failed(reason)).unwrap_or_default()
}
