//! Fuzz target: parses any bytes as a daemon's response and checks invariants. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use futures_util::FutureExt;

use super::{parse_outcome, read_response, read_version};
use crate::scan::engines::outcome::Outcome;

/// Checks one input: an unused byte, kept for compatibility with the corpus, and a daemon's response.
///
/// # Panics
/// If an invariant is violated.
pub fn check(input: &[u8]) {
    let Some((_, bytes)) = input.split_first() else { return };
    let response = read_response(&mut &*bytes).now_or_never().expect("a slice is always ready");
    let outcome = response.and_then(|response| parse_outcome(&response));
    if let Ok(outcome) = outcome {
        check_outcome(&outcome, bytes);
    }
    let version = read_version(tokio::io::join(bytes, tokio::io::sink())).now_or_never();
    if let Ok(version) = version.expect("a slice is always ready") {
        assert!(version.starts_with("ClamAV "));
    }
}

/// Checks the outcome of a complete response.
fn check_outcome(outcome: &Outcome, bytes: &[u8]) {
    let line = bytes.strip_suffix(b"\0").expect("accepted an incomplete response");
    if *outcome == Outcome::TooLarge {
        assert_eq!(line, b"INSTREAM size limit exceeded. ERROR");
        return;
    }
    let result = line.strip_prefix(b"stream: ").or_else(|| {
        let rest = line.strip_prefix(b"fd[")?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        rest.get(end..)?.strip_prefix(b"]: ")
    });
    let result = result.expect("accepted an incomplete response");
    let names_finding = result.ends_with(b" FOUND");
    let is_correct = match outcome {
        Outcome::Clean => result == b"OK",
        Outcome::Encrypted(_) => result.starts_with(b"Heuristics.Encrypted.") && names_finding,
        Outcome::Limit(_) => {
            result.starts_with(b"Heuristics.Limits.Exceeded") && names_finding
                || result.starts_with(b"CL_EMAX") && result.ends_with(b" ERROR")
        }
        Outcome::Infected(_) | Outcome::Refused(_) => names_finding,
        // The first two are outcomes of the rules only.
        Outcome::Unreadable(_) | Outcome::Inconsistent(_) | Outcome::TooLarge => false,
    };
    assert!(is_correct, "{outcome:?} does not match the response");
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("clamd", check);
}
