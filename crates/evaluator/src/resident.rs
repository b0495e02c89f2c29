//! The resident evaluator: loads the rules once, and examines each media file in a child that is forked for it. The child
//! is in the sandbox, under a filter of its own, see `sandbox/src/resident`.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    process,
    rc::Rc,
};

use mcs_filetype::Detector;
use mcs_sandbox::JobMedia;

use crate::{
    error::EvaluationError,
    evaluator::{Evaluation, load_rules},
    evaluator_settings::{EvaluatorSettings, EvaluatorTask},
    hash_list_set::HashListSet,
    inspector::Inspector,
    object_types::ObjectTypes,
    process_limits::raise_stack_limit,
    report::{EvaluatorAnswer, FileReport, MAX_ANSWER},
    rule_filter::RuleFilter,
    rule_visitor::RuleVisitor,
    unpack::warm_up,
};

/// Exit code of an evaluator that could not start. The reason is on standard error.
const FAILED: i32 = 2;

/// First argument of an evaluator.
const COMMAND: &str = "evaluate-resident";

/// Returns the arguments that start a program whose `main` calls [`dispatch`] as a resident evaluator, for
/// [`Sandbox::start_resident`](mcs_sandbox::Sandbox::start_resident). Its data are the prepared rules, see
/// [`RuleSet::prepared`](crate::RuleSet::prepared), sealed by [`mcs_sandbox::sealed`]; empty if there are no rules. The lists
/// of hashes follow, see [`HashListSet::prepared`](crate::HashListSet::prepared), if there are any.
/// The argument of a job is that of an [`EvaluatorTask`], and its result is a [`FileReport`].
#[must_use]
pub fn arguments(settings: &EvaluatorSettings) -> Vec<OsString> {
    // Cannot fail: no map, no type with a serialization of its own.
    let settings = serde_json::to_string(settings).unwrap_or_default();
    vec![COMMAND.into(), settings.into()]
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
        [settings] => match serve(settings) {
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

fn serve(settings: &OsStr) -> Result<(), EvaluationError> {
    let settings = settings.to_str().and_then(|settings| serde_json::from_str(settings).ok());
    let settings: EvaluatorSettings = settings.ok_or(EvaluationError::Settings)?;
    raise_stack_limit().map_err(EvaluationError::Limits)?;
    let ignored: Vec<_> = settings.ignored.iter().map(String::as_str).collect();
    let observed: Vec<_> = settings.observed.rules.iter().map(String::as_str).collect();
    let filter = RuleFilter {
        ignored: &ignored,
        observed: &observed,
        observes_all: settings.observed.all_rules,
    };
    let load = |data: Vec<File>| {
        let [rules, lists @ ..] = <&[File]>::from(&data) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let lists = lists.first().map(load_lists).transpose()?;
        let detector = load_detector(&settings).map_err(io::Error::other)?;
        let rules = load_visitor(rules, filter, &settings, detector.as_ref())?;
        warm_up();
        let mut loaded = LoadedEvaluator {
            rules,
            lists,
            inspector: Inspector::new(detector),
            settings: &settings,
        };
        Ok(move |media: &JobMedia| loaded.examine(media).map(encode))
    };
    mcs_sandbox::serve_resident(load).map_err(EvaluationError::Service)
}

/// Loads the detection of types, if the settings need it.
fn load_detector(settings: &EvaluatorSettings) -> Result<Option<Rc<Detector>>, EvaluationError> {
    if !settings.detects_types {
        return Ok(None);
    }
    let detector = Detector::new().map_err(EvaluationError::Types)?;
    detector.preload();
    Ok(Some(Rc::new(detector)))
}

/// Loads the rules, if there are any.
fn load_visitor<'r>(
    rules: &File,
    filter: RuleFilter<'r>,
    settings: &EvaluatorSettings,
    detector: Option<&Rc<Detector>>,
) -> io::Result<Option<RuleVisitor<'r>>> {
    let prepared = mcs_sandbox::map_sealed(rules)?;
    if prepared.is_empty() {
        return Ok(None);
    }
    let mut visitor = load_rules(prepared, filter).map_err(io::Error::other)?;
    visitor.warm_up();
    Ok(Some(match detector {
        Some(detector) => visitor.with_types(ObjectTypes::new(
            Rc::clone(detector),
            settings.sets_file_type,
            settings.inner_types.clone(),
        )),
        None => visitor,
    }))
}

fn load_lists(prepared: &File) -> io::Result<HashListSet> {
    HashListSet::from_sealed(prepared.try_clone()?).map_err(io::Error::other)
}

/// What a child uses: a copy of what its parent has loaded.
struct LoadedEvaluator<'r> {
    rules: Option<RuleVisitor<'r>>,
    lists: Option<HashListSet>,
    inspector: Inspector,
    settings: &'r EvaluatorSettings,
}

impl LoadedEvaluator<'_> {
    /// Examines one file. An error means that the media could not be read.
    fn examine(&mut self, media: &JobMedia) -> io::Result<FileReport> {
        let task = EvaluatorTask::from_argument(media.argument());
        let task = task.ok_or(io::ErrorKind::InvalidInput)?;
        if !task.evaluates_rules && !task.searches_hashes {
            let inspection = self.inspector.inspect(media, media.len())?;
            return Ok(FileReport { inspection, rules: None, hashes: None });
        }
        let bytes = media.read_all()?;
        let inspection = self.inspector.inspect(&*bytes, media.len())?;
        let mut rules = self.rules.as_mut().filter(|_| task.evaluates_rules);
        if let Some(rules) = rules.as_mut().filter(|_| !task.limits_types) {
            rules.allow_all_types();
        }
        let lists = self.lists.as_ref().filter(|_| task.searches_hashes);
        let lacks_rules = task.evaluates_rules && rules.is_none();
        let observes_hashes = self.settings.observed.hashes;
        let evaluation =
            Evaluation { rules, lists, observes_hashes, settings: &self.settings.unpack };
        let (mut rules, hashes) = evaluation.run(&bytes);
        if lacks_rules {
            rules = Some(EvaluatorAnswer::from(Err(EvaluationError::NoRules)));
        }
        Ok(FileReport { inspection, rules, hashes })
    }
}

/// Serializes a report; an answer of the rules that is too long becomes a failure.
fn encode(mut report: FileReport) -> Vec<u8> {
    let reason = match serde_json::to_vec(&report) {
        Ok(bytes) if bytes.len() <= MAX_ANSWER => return bytes,
        Ok(bytes) => format!("the report has {} bytes, more than {MAX_ANSWER}", bytes.len()),
        Err(error) => error.to_string(),
    };
    let lost = report.rules.replace(EvaluatorAnswer::Failed(reason));
    if let (Some(EvaluatorAnswer::Report(lost)), Some(hashes)) = (lost, &mut report.hashes) {
        hashes.notes = lost.notes;
    }
    // Strings without escapes of any kind: cannot fail.
    serde_json::to_vec(&report).unwrap_or_default()
}
