//! The evaluation of one file: unpacks it and evaluates the rules on all objects in it.

use crate::{
    error::EvaluationError,
    prepared::restore,
    report::EvaluationReport,
    rule_visitor::RuleVisitor,
    unpack::{UnpackSettings, unpack},
};

/// Unpacks a file and evaluates the prepared rules on all objects in it, up to the first one in which rules match.
///
/// # Errors
/// If rules cannot be restored or evaluated and no other rules match.
#[cfg(any(test, fuzzing))]
pub(crate) fn evaluate(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
    settings: &UnpackSettings,
) -> Result<EvaluationReport, EvaluationError> {
    evaluate_with(load_rules(prepared, ignored)?, bytes, settings)
}

/// Restores the prepared rules. Matches of rules with one of the `ignored` names are not reported.
pub(crate) fn load_rules<'r>(
    prepared: &[u8],
    ignored: &'r [&'r str],
) -> Result<RuleVisitor<'r>, EvaluationError> {
    Ok(RuleVisitor::new(restore(prepared).map_err(EvaluationError::Rules)?, ignored))
}

/// Unpacks a file and evaluates the rules on all objects in it, up to the first one in which rules match.
///
/// # Errors
/// If rules could not be restored or evaluated and no other rules match.
pub(crate) fn evaluate_with(
    mut visitor: RuleVisitor<'_>,
    bytes: &[u8],
    settings: &UnpackSettings,
) -> Result<EvaluationReport, EvaluationError> {
    let notes = unpack(bytes, settings, &mut visitor);
    let (finding, limit) = visitor.into_result()?;
    let mut report = EvaluationReport { finding, notes };
    report
        .notes
        .extend(limit.filter(|limit| report.notes.iter().all(|note| note.kind != limit.kind)));
    Ok(report)
}
