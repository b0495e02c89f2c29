//! Fuzz target: loads any bytes as prepared rules, and evaluates the supplied rules on any bytes as a file. `cargo
//! test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use std::{path::Path, sync::LazyLock};

use crate::{
    RuleSet, UnpackSettings,
    evaluator::evaluate,
    prepared::{PREPARED_BY, restore},
    rule_filter::RuleFilter,
    rule_visitor::MAX_NAMES,
};

/// The rules in `config/rules`.
static SUPPLIED: LazyLock<RuleSet> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/rules");
    RuleSet::load(&[directory]).expect("the supplied rules are valid")
});

/// Tests one input. Its first byte selects how the rest is used:
///
/// - `f`: a file,
/// - `c`: changes to the prepared form of the supplied rules, three bytes each (an offset, little endian, and a value),
/// - `v`: a prepared form without the version marker, which is prepended,
/// - anything else: a prepared form.
///
/// # Panics
/// If changed rules are loaded, or if the reported names are not those of distinct rules.
pub fn input(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    match selector {
        b'f' => file(rest),
        b'c' => changes(rest),
        b'v' => _ = prepared(&[PREPARED_BY, rest].concat()),
        _ => _ = prepared(rest),
    }
}

/// Evaluates the supplied rules on a file.
fn file(bytes: &[u8]) {
    let supplied = SUPPLIED.prepared();
    let settings = UnpackSettings { enabled: false, ..UnpackSettings::default() };
    let report = |filter: RuleFilter<'_>| {
        evaluate(supplied, bytes, filter, &settings).expect("complete rules")
    };
    let names = |ignored: &[&str]| {
        let report = report(RuleFilter { ignored, ..RuleFilter::default() });
        report.finding.map(|found| found.rules).unwrap_or_default()
    };
    let found = names(&[]);
    assert!(found.len() <= MAX_NAMES, "{found:?}");
    assert!(found.iter().all(|name| SUPPLIED.names().contains(name)), "{found:?}");
    let Some((first, others)) = found.split_first() else { return };
    assert!(!others.contains(first), "{found:?}");
    let observed = report(RuleFilter { observes_all: true, ..RuleFilter::default() });
    assert_eq!(observed.finding, None);
    let observed: Vec<_> = observed.observed.iter().flat_map(|found| &found.rules).collect();
    assert!(found.iter().all(|name| observed.contains(&name)), "{found:?} {observed:?}");
    // At the maximum, another rule takes the place of the ignored one.
    if found.len() < MAX_NAMES {
        assert_eq!(names(&[first]), others, "without {first}");
    }
}

/// Loads the supplied rules with some bytes changed.
fn changes(edits: &[u8]) {
    let mut form = SUPPLIED.prepared().to_vec();
    for edit in edits.chunks_exact(3) {
        if let [low, high, value] = *edit
            && let Some(byte) = form.get_mut(usize::from(u16::from_le_bytes([low, high])))
        {
            *byte = value;
        }
    }
    assert_eq!(prepared(&form), form == SUPPLIED.prepared());
}

/// Loads a prepared form and returns whether all parts of it were accepted.
fn prepared(bytes: &[u8]) -> bool {
    restore(bytes).is_ok_and(|mut parts| parts.all(|part| part.is_ok()))
}

#[cfg(test)]
#[test]
fn kept_corpus_passes() {
    mcs_testing::replay_corpus("evaluator", input);
}

#[cfg(test)]
mod properties {
    use proptest::{collection::vec, prelude::*};

    use super::input;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn accepts_any_bytes(selector in prop::sample::select(b"fcv ".as_slice()), bytes in vec(any::<u8>(), 0..300)) {
            input(&[&[selector][..], &bytes].concat());
        }
    }
}
