//! Fuzz target: reads any bytes as a stored outcome and checks invariants. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use serde_json::Value;

use super::{file_outcome::FileOutcome, outcome_record::DecodedOutcome};

/// Checks one input: the record inside a seal.
///
/// # Panics
/// If malware in the record is lost, or if the outcome changes when it is stored again.
pub fn check(input: &[u8]) {
    let Ok(DecodedOutcome { outcome, content, scanned_by }) = FileOutcome::from_record(input)
    else {
        return;
    };
    let record: Value = serde_json::from_slice(input).expect("accepted a record that is no JSON");
    assert_eq!(outcome.is_infected(), names_malware(&record));
    assert!(!outcome.is_clean() || outcome.findings.is_empty());
    let content = content.unwrap_or_default();
    let stored = outcome.to_record(&content, scanned_by).expect("an outcome without failures");
    let again = FileOutcome::from_record(&stored).expect("the record of this version");
    assert_eq!((again.content, again.scanned_by), (Some(content), scanned_by));
    assert_eq!(format!("{:?}", again.outcome), format!("{outcome:?}"));
}

/// Returns whether a finding of the record is malware.
fn names_malware(record: &Value) -> bool {
    let several = record["findings"].as_array().into_iter().flatten();
    let is_malware = |finding: &Value| finding["is_infected"] == true;
    several.chain([&record["finding"]]).any(is_malware)
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("outcome_record", check);
}
