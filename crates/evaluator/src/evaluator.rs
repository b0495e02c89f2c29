//! The evaluator: a process for one media, in the sandbox. It says by its exit code what it found, and prints the names of
//! the rules that match; whatever else it does, a panic and a signal among it, is no verdict.

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

/// The exit code of an evaluator that found nothing.
pub const CLEAN: i32 = 0;
/// The exit code of one that found something, and printed it.
pub const NOT_CLEAN: i32 = 1;
/// The exit code of one that could not tell; the reason is on standard error.
const FAILED: i32 = 2;

/// The first argument of an evaluator.
const NAME: &str = "evaluate-rules";

/// Names that are printed: a media that matches more is refused as well.
const MAX_NAMES: usize = 16;

/// Returns the arguments that make a program whose `main` calls [`dispatch`] an evaluator; the media's path comes after them.
/// Standard input is a file with the prepared rules, see [`RuleSet::prepared`](crate::RuleSet::prepared): it is mapped, so that
/// evaluators which share its descriptor share no offset. Rules with one of the `ignored` names refuse nothing.
#[must_use]
pub fn arguments<'a>(ignored: impl IntoIterator<Item = &'a str>) -> Vec<OsString> {
    let ignored = ignored.into_iter().collect::<Vec<_>>().join(",");
    vec![NAME.into(), ignored.into()]
}

/// Evaluates and exits, if this process was started for that; else returns at once.
///
/// To be called first thing in `main`, before any thread or runtime.
pub fn dispatch() {
    let mut arguments = env::args_os().skip(1);
    if arguments.next().is_none_or(|name| name != NAME) {
        return;
    }
    let rest: Vec<_> = arguments.collect();
    let code = match rest.as_slice() {
        [ignored, media] => evaluate(ignored, media).unwrap_or_else(|why| {
            // Where nobody hears it the exit code is left.
            let _unheard = writeln!(io::stderr(), "{why}");
            FAILED
        }),
        _ => FAILED,
    };
    process::exit(code)
}

fn evaluate(ignored: &OsStr, media: &OsStr) -> Result<i32, Failure> {
    let prepared = io::stdin().as_fd().try_clone_to_owned().map(File::from);
    let prepared =
        prepared.and_then(|file| mcs_sandbox::map_file(&file)).map_err(Failure::Rules)?;
    let media = File::open(media).map_err(Failure::Media)?;
    let bytes = mcs_sandbox::map_file(&media).map_err(Failure::Media)?;
    let ignored = ignored.to_string_lossy();
    let found = matches(prepared, bytes, &ignored.split(',').collect::<Vec<_>>())?;
    if found.is_empty() {
        return Ok(CLEAN);
    }
    // Without a name it would be no finding: the server counts that as a failure.
    writeln!(io::stdout(), "{}", found.join(", ")).map_err(Failure::Output)?;
    Ok(NOT_CLEAN)
}

/// Returns the names of the prepared rules that match, each once.
///
/// # Errors
/// A part that cannot be restored or evaluated, unless rules of other parts match.
pub(crate) fn matches(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    let mut failure = None;
    for part in restore(prepared).map_err(Failure::Rules)? {
        let evaluated = part
            .map_err(Failure::Rules)
            .and_then(|part| matches_of_part(part, bytes, ignored, &mut found));
        if found.len() >= MAX_NAMES {
            break;
        }
        failure = failure.or(evaluated.err());
    }
    match failure {
        Some(failure) if found.is_empty() => Err(failure),
        _ => Ok(found),
    }
}

fn matches_of_part(
    mut scanner: Scanner,
    bytes: &[u8],
    ignored: &[&str],
    found: &mut Vec<String>,
) -> Result<(), Failure> {
    let events = CallbackEvents::RULE_MATCH | CallbackEvents::STRING_REACHED_MATCH_LIMIT;
    scanner.set_scan_params(scanner.scan_params().clone().callback_events(events));
    let mut crowded = None;
    let ended = scanner.scan_mem_with_callback(bytes, |event| {
        match event {
            ScanEvent::RuleMatch(rule)
                if !ignored.contains(&rule.name) && !found.iter().any(|name| name == rule.name) =>
            {
                found.push(rule.name.to_owned());
            }
            ScanEvent::StringReachedMatchLimit(string) => {
                crowded = Some(format!("{} of rule {}", string.string_name, string.rule_name));
            }
            _ => {}
        }
        if found.len() < MAX_NAMES {
            ScanCallbackResult::Continue
        } else {
            ScanCallbackResult::Abort
        }
    });
    match (ended, crowded) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(string)) => Err(Failure::Crowded(string)),
        (Err(why), _) => Err(Failure::Scan(why.to_string())),
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the prepared rules cannot be used: {0}")]
    Rules(#[source] io::Error),
    #[error("the media cannot be read: {0}")]
    Media(#[source] io::Error),
    #[error("what was found cannot be told: {0}")]
    Output(#[source] io::Error),
    #[error("{0} is found more often than can be looked at")]
    Crowded(String),
    #[error("the scan broke off: {0}")]
    Scan(String),
}
