//! The evaluator: a process that evaluates the rules on one file, in the sandbox. Its exit code is the result, and its
//! standard output has the names of the rules that match. Any other termination, such as a panic or a signal, is a
//! failure.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write},
    os::fd::AsFd,
    process,
};

use boreal::{
    Scanner,
    scanner::{CallbackEvents, ScanCallbackResult, ScanEvent},
};

use crate::{
    kind::{RuleKind, rule_kind},
    prepared::restore,
};

/// Exit code of an evaluator when no rule matches.
pub const CLEAN: i32 = 0;
/// Exit code of an evaluator when rules match, at least one of them of kind "malware". The names of the matching rules
/// are on standard output, those of malware first.
pub const MALWARE: i32 = 1;
/// Exit code of an evaluator that failed. The reason is on standard error.
const FAILED: i32 = 2;
/// Exit code of an evaluator when only rules of kind "policy" match. Their names are on standard output.
pub const POLICY: i32 = 3;
/// Exit code of an evaluator that stopped at a limit inside the file. The limit is on standard output.
pub const LIMIT: i32 = 4;

/// First argument of an evaluator.
const COMMAND: &str = "evaluate-rules";

/// Maximum number of reported names of each kind. The evaluation stops at this number of malware rules. Matches of policy
/// rules do not stop the evaluation, because a malware rule that matches changes the result.
pub(crate) const MAX_NAMES: usize = 16;

/// Returns the arguments that start a program whose `main` calls [`dispatch`] as an evaluator. The path of the file
/// must follow them.
///
/// Standard input must be a file with the prepared rules, see [`RuleSet::prepared`](crate::RuleSet::prepared), sealed
/// by [`mcs_sandbox::sealed`]. It is mapped rather than read, because evaluators that share its descriptor also share
/// its offset. Matches of rules with one of the `ignored` names are not reported.
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
        prepared.and_then(|file| mcs_sandbox::map_sealed(&file)).map_err(EvaluationError::Rules)?;
    // Read rather than mapped: the server has the file open for writing.
    let bytes = fs::read(media).map_err(EvaluationError::Media)?;
    let ignored = ignored.to_string_lossy();
    let ignored: Vec<_> = ignored.split(',').collect();
    let (code, report) = match matches(prepared, &bytes, &ignored) {
        Ok(matches) => match matches.kind() {
            None => return Ok(CLEAN),
            Some(RuleKind::Malware) => (MALWARE, matches.names().join(", ")),
            Some(RuleKind::Policy) => (POLICY, matches.names().join(", ")),
        },
        Err(limit @ EvaluationError::MatchLimit(_)) => (LIMIT, limit.to_string()),
        Err(error) => return Err(error),
    };
    // The service rejects these exit codes without a report, so a failed write must not exit with them.
    writeln!(io::stdout(), "{report}").map_err(EvaluationError::Output)?;
    Ok(code)
}

/// Names of matching rules by kind, each name once in the list of its kind.
#[derive(Default, Debug)]
pub(crate) struct Matches {
    malware: Vec<String>,
    policy: Vec<String>,
}

impl Matches {
    /// Returns the most severe kind of the matching rules; `None` if no rule matches.
    pub(crate) fn kind(&self) -> Option<RuleKind> {
        let malware = self.malware.first().map(|_| RuleKind::Malware);
        malware.or_else(|| self.policy.first().map(|_| RuleKind::Policy))
    }

    /// Returns the distinct names, those of malware first, at most [`MAX_NAMES`].
    pub(crate) fn names(&self) -> Vec<&str> {
        let is_new = |name: &&String| !self.malware.contains(name);
        let names = self.malware.iter().chain(self.policy.iter().filter(is_new));
        names.map(String::as_str).take(MAX_NAMES).collect()
    }

    fn add(&mut self, kind: RuleKind, name: &str) {
        let names = match kind {
            RuleKind::Malware => &mut self.malware,
            RuleKind::Policy => &mut self.policy,
        };
        if names.len() < MAX_NAMES && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }

    /// Returns whether further matches change nothing.
    fn is_complete(&self) -> bool {
        self.malware.len() >= MAX_NAMES
    }
}

/// Returns the names of the prepared rules that match.
///
/// # Errors
/// If a part cannot be restored or evaluated and no rule of another part matches.
pub(crate) fn matches(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
) -> Result<Matches, EvaluationError> {
    let mut matches = Matches::default();
    let mut first_error = None;
    for part in restore(prepared).map_err(EvaluationError::Rules)? {
        let result = part
            .map_err(EvaluationError::Rules)
            .and_then(|scanner| add_matches_of_part(scanner, bytes, ignored, &mut matches));
        if matches.is_complete() {
            break;
        }
        // A failed part may succeed at the next attempt. A limit is reached again at each attempt, because it depends
        // only on the file.
        if let Err(error) = result
            && matches!(first_error, None | Some(EvaluationError::MatchLimit(_)))
        {
            first_error = Some(error);
        }
    }
    match first_error {
        Some(error) if matches.kind().is_none() => Err(error),
        _ => Ok(matches),
    }
}

fn add_matches_of_part(
    mut scanner: Scanner,
    bytes: &[u8],
    ignored: &[&str],
    matches: &mut Matches,
) -> Result<(), EvaluationError> {
    let events = CallbackEvents::RULE_MATCH | CallbackEvents::STRING_REACHED_MATCH_LIMIT;
    scanner.set_scan_params(scanner.scan_params().clone().callback_events(events));
    // Shares the rules with `scanner`, and resolves their metadata.
    let symbols = scanner.clone();
    let mut limited_string = None;
    let result = scanner.scan_mem_with_callback(bytes, |event| {
        match event {
            ScanEvent::RuleMatch(rule) if !ignored.contains(&rule.name) => {
                // The service has checked the kinds of all rules.
                let kind = rule_kind(&symbols, rule.metadatas).unwrap_or(RuleKind::Malware);
                matches.add(kind, rule.name);
            }
            ScanEvent::StringReachedMatchLimit(string) => {
                limited_string =
                    Some(format!("{} of rule {}", string.string_name, string.rule_name));
            }
            _ => {}
        }
        if matches.is_complete() { ScanCallbackResult::Abort } else { ScanCallbackResult::Continue }
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
