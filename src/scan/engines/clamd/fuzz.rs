//! Any bytes as a daemon's answer, and what holds whatever they are; see the ICAP server's.

#![expect(clippy::expect_used, reason = "a panic is how an input is told to break something")]

use futures_util::FutureExt;

use super::{Clamd, Encrypted, Settings, version, whole_answer};
use crate::scan::engines::{Bounds, Finding, Otherwise};

/// Tries an input: what is said of encrypted archives, and a daemon's answer.
///
/// # Panics
/// Where something does not hold.
pub fn answer(input: &[u8]) {
    let Some((encrypted, answer)) = input.split_first() else { return };
    let encrypted = match encrypted % 3 {
        0 => Encrypted::Refuse,
        1 => Encrypted::Fail,
        _ => Encrypted::Pass,
    };
    let bounds = Bounds { max_size: None, larger: Otherwise::Fail, on_failure: Otherwise::Fail };
    let (addresses, timeout) = (Vec::new(), std::time::Duration::MAX);
    let clamd = Clamd::new(&Settings { addresses, encrypted, timeout, bounds });
    let whole = whole_answer(&mut &*answer).now_or_never().expect("what is there is read at once");
    if whole.and_then(|answer| clamd.finding(&answer)).is_ok_and(|it| it == Finding::Clean) {
        let said = answer.strip_suffix(b"\0").and_then(|it| {
            it.strip_prefix(b"stream: ").or_else(|| {
                let rest = it.strip_prefix(b"fd[")?;
                let end = rest.iter().position(|it| !it.is_ascii_digit())?;
                rest.get(end..)?.strip_prefix(b"]: ")
            })
        });
        let said = said.expect("clean, by an answer that is not whole");
        let encrypted = said.starts_with(b"Heuristics.Encrypted.") && said.ends_with(b" FOUND");
        let passed = clamd.encrypted == Encrypted::Pass && encrypted;
        assert!(said == b"OK" || passed, "clean, and that is not what was said");
    }
    let told = version(tokio::io::join(answer, tokio::io::sink())).now_or_never();
    if let Ok(told) = told.expect("what is there is read at once") {
        assert!(told.starts_with("ClamAV "));
    }
}

#[cfg(test)]
#[test]
fn what_was_found_by_fuzzing_is_answered_as_it_should_be() {
    super::super::fake::each_of_corpus("clamd", answer);
}
