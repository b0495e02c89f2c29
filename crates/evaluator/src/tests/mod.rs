//! Tests of the rules in `config/rules` on files that they must and must not match, and tests of loading other rules.

mod archives;
mod drawings;
mod hashes;
mod kinds;
mod loading;
mod matching;
mod not_matching;
mod observed;
mod office;
mod office_parts;
mod pdf_actions;
mod position;
mod settings_files;
mod smuggling;
mod split;
mod variables;
mod windows_scripts;
mod zip;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use crate::{
    EvaluationReport, RuleFinding, RuleSet, UnpackSettings, error::EvaluationError, evaluator,
    rule_filter::RuleFilter,
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
    let filter = RuleFilter { ignored, ..RuleFilter::default() };
    evaluator::evaluate(prepared, bytes, filter, &UnpackSettings::default())
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

/// Asserts that a supplied rule alone matches these files.
fn assert_all_match(rule: &str, files: &[&str]) {
    for file in files {
        assert_matches(file, file.as_bytes(), &[rule]);
    }
}

/// Asserts that no supplied rule matches these files.
fn assert_none_match(files: &[&str]) {
    for file in files {
        assert_matches(file, file.as_bytes(), &[]);
    }
}

/// Returns a text in UTF-16 with a byte order mark.
fn utf16(text: &str, to_bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
    "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(to_bytes).collect()
}

/// Asserts that a rule matches a text in all encodings that Windows and browsers detect by a byte order mark.
fn assert_matches_in_all_encodings(rule: &str, text: &str) {
    for bytes in [
        text.as_bytes().to_vec(),
        format!("\u{feff}{text}").into_bytes(),
        utf16(text, u16::to_le_bytes),
        utf16(text, u16::to_be_bytes),
    ] {
        assert_matches(text, &bytes, &[rule]);
    }
}
