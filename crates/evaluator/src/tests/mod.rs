//! Tests of the rules in `config/rules` on files that they must and must not match, and tests of loading other rules.

mod kinds;
mod loading;
mod matching;
mod not_matching;
mod office;
mod split;
mod zip;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use crate::{RuleSet, evaluator::matches};

static SUPPLIED: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::load(&[supplied_rules()]).unwrap());

fn supplied_rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules")
}

/// Asserts that exactly these supplied rules match.
fn assert_matches(description: &str, bytes: &[u8], rules: &[&str]) {
    let found = matches(SUPPLIED.prepared(), bytes, &[]).unwrap();
    let mut names = found.names();
    names.sort_unstable();
    let mut rules = rules.to_vec();
    rules.sort_unstable();
    assert_eq!(names, rules, "{description}");
}
