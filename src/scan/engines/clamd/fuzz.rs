//! Fuzz target: parses any bytes as a daemon's response and checks invariants. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use futures_util::FutureExt;

use super::{parse_finding, read_response, read_version};
use crate::scan::engines::outcome::Finding;

/// Checks one input: an unused byte, kept for compatibility with the corpus, and a daemon's response.
///
/// # Panics
/// If an invariant is violated.
pub fn check(input: &[u8]) {
    let Some((_, bytes)) = input.split_first() else { return };
    let response = read_response(&mut &*bytes).now_or_never().expect("a slice is always ready");
    let finding = response.and_then(|response| parse_finding(&response));
    if let Ok(finding @ (Finding::Clean | Finding::Encrypted { .. })) = finding {
        let result = bytes.strip_suffix(b"\0").and_then(|line| {
            line.strip_prefix(b"stream: ").or_else(|| {
                let rest = line.strip_prefix(b"fd[")?;
                let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
                rest.get(end..)?.strip_prefix(b"]: ")
            })
        });
        let result = result.expect("accepted an incomplete response");
        let is_encrypted =
            result.starts_with(b"Heuristics.Encrypted.") && result.ends_with(b" FOUND");
        let is_correct = if finding == Finding::Clean { result == b"OK" } else { is_encrypted };
        assert!(is_correct, "{finding:?} does not match the response");
    }
    let version = read_version(tokio::io::join(bytes, tokio::io::sink())).now_or_never();
    if let Ok(version) = version.expect("a slice is always ready") {
        assert!(version.starts_with("ClamAV "));
    }
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("clamd", check);
}
