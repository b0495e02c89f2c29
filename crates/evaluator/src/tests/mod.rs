//! Tests of the rules in `config/rules` on files that they must and must not match, and tests of loading other rules.

mod kinds;
mod loading;
mod matching;
mod not_matching;
mod office;
mod position;
mod split;
mod variables;
mod zip;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use crate::{
    EvaluationReport, RuleFinding, RuleSet, UnpackSettings, error::EvaluationError, evaluator,
};

static SUPPLIED: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::load(&[supplied_rules()]).unwrap());

fn supplied_rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules")
}

/// Evaluates prepared rules within the default limits.
fn evaluate(
    prepared: &[u8],
    bytes: &[u8],
    ignored: &[&str],
) -> Result<EvaluationReport, EvaluationError> {
    evaluator::evaluate(prepared, bytes, ignored, &UnpackSettings::default())
}

/// Returns what rules find.
fn finding(rules: &RuleSet, bytes: &[u8], ignored: &[&str]) -> Option<RuleFinding> {
    evaluate(rules.prepared(), bytes, ignored).unwrap().finding
}

/// Asserts that exactly these supplied rules match.
fn assert_matches(description: &str, bytes: &[u8], rules: &[&str]) {
    let found = finding(&SUPPLIED, bytes, &[]);
    let mut names = found.map(|found| found.rules).unwrap_or_default();
    names.sort_unstable();
    let mut rules = rules.to_vec();
    rules.sort_unstable();
    assert_eq!(names, rules, "{description}");
}

/// Returns a text in UTF-16 with a byte order mark.
fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(to_bytes).collect()
}
