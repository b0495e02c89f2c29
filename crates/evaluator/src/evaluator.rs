//! The evaluation of one file: unpacks it, and looks up and evaluates all objects in it.

use crate::{
    error::EvaluationError,
    hash_list_set::HashListSet,
    hash_visitor::HashVisitor,
    prepared::restore,
    report::{EvaluationReport, EvaluatorAnswer, HashReport, Note},
    rule_filter::RuleFilter,
    rule_visitor::{RuleResult, RuleVisitor},
    unpack::{UnpackSettings, Visitor, unpack},
};

/// Unpacks a file and evaluates the prepared rules on all objects in it, up to the first one in which rules match that are
/// not only observed.
///
/// # Errors
/// If rules cannot be restored or evaluated and no other rules match.
#[cfg(any(test, fuzzing))]
pub(crate) fn evaluate(
    prepared: &[u8],
    bytes: &[u8],
    filter: RuleFilter<'_>,
    settings: &UnpackSettings,
) -> Result<EvaluationReport, EvaluationError> {
    evaluate_with(&mut load_rules(prepared, filter)?, bytes, settings)
}

/// Restores the prepared rules.
pub(crate) fn load_rules<'r>(
    prepared: &[u8],
    filter: RuleFilter<'r>,
) -> Result<RuleVisitor<'r>, EvaluationError> {
    Ok(RuleVisitor::new(restore(prepared).map_err(EvaluationError::Rules)?, filter))
}

/// What is evaluated on the objects of a file.
pub(crate) struct Evaluation<'a, 'r> {
    pub(crate) rules: Option<&'a mut RuleVisitor<'r>>,
    pub(crate) lists: Option<&'a HashListSet>,
    /// Whether a blocked hash does not end the evaluation.
    pub(crate) observes_hashes: bool,
    pub(crate) settings: &'a UnpackSettings,
}

impl Evaluation<'_, '_> {
    /// Unpacks a file, and looks up and evaluates all objects in it, up to the first finding that is not only observed. Returns the answer of the
    /// rules and the report of the lists, where there are any. A blocked hash ends the evaluation of the rules before they
    /// have an answer.
    pub(crate) fn run(self, bytes: &[u8]) -> (Option<EvaluatorAnswer>, Option<HashReport>) {
        let Self { mut rules, lists, observes_hashes, settings } = self;
        let Some(lists) = lists else {
            return (
                rules.map(|rules| EvaluatorAnswer::from(evaluate_with(rules, bytes, settings))),
                None,
            );
        };
        let visitor = rules.as_deref_mut().map(|rules| rules as &mut dyn Visitor);
        let mut hashes = HashVisitor::new(lists, visitor).observing(observes_hashes);
        let notes = unpack(bytes, settings, &mut hashes);
        let finding = hashes.into_finding();
        match rules {
            Some(rules) if finding.is_none() || observes_hashes => {
                let answer = EvaluatorAnswer::from(report(rules, notes.clone()));
                // The answer has the notes, unless the rules failed.
                let has_failed = matches!(answer, EvaluatorAnswer::Failed(_));
                let notes = if has_failed { notes } else { Vec::new() };
                (Some(answer), Some(HashReport { finding, notes }))
            }
            Some(_) | None => (None, Some(HashReport { finding, notes })),
        }
    }
}

/// Unpacks a file and evaluates the rules on all objects in it, up to the first one in which rules match that are not only
/// observed.
///
/// # Errors
/// If rules could not be restored or evaluated and no other rules match.
pub(crate) fn evaluate_with(
    visitor: &mut RuleVisitor<'_>,
    bytes: &[u8],
    settings: &UnpackSettings,
) -> Result<EvaluationReport, EvaluationError> {
    let notes = unpack(bytes, settings, visitor);
    report(visitor, notes)
}

fn report(
    visitor: &mut RuleVisitor<'_>,
    notes: Vec<Note>,
) -> Result<EvaluationReport, EvaluationError> {
    let RuleResult { finding, observed, limit } = visitor.take_result()?;
    let mut report = EvaluationReport { finding, observed, notes };
    report
        .notes
        .extend(limit.filter(|limit| report.notes.iter().all(|note| note.kind != limit.kind)));
    Ok(report)
}

impl From<Result<EvaluationReport, EvaluationError>> for EvaluatorAnswer {
    fn from(evaluated: Result<EvaluationReport, EvaluationError>) -> Self {
        evaluated.map_or_else(|error| Self::Failed(error.to_string()), Self::Report)
    }
}
