//! The project's own rules, on what they are to catch and on what they are to let pass; and what is wrong with others'.

mod caught;
mod harmless;
mod loading;
mod office;
mod split;
mod zip;

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use crate::{RuleSet, evaluator::matches};

static OWN: LazyLock<RuleSet> = LazyLock::new(|| RuleSet::load(&[own()]).unwrap());

fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/rules")
}

/// The names of the project's rules that match.
fn found(bytes: &[u8]) -> Vec<String> {
    matches(OWN.prepared(), bytes, &[]).unwrap()
}

/// These rules match, and no others.
fn assert_found(what: &str, bytes: &[u8], rules: &[&str]) {
    let mut found = found(bytes);
    found.sort();
    let mut rules = rules.to_vec();
    rules.sort_unstable();
    assert_eq!(found, rules, "{what}");
}
