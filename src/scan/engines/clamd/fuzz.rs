//! Any bytes as a daemon's answer, and what holds whatever they are; see the ICAP server's.

#![expect(clippy::expect_used, reason = "a panic is how an input is told to break something")]

use futures_util::FutureExt;

use super::{finding, version, whole_answer};
use crate::scan::engines::Finding;

/// Tries an input: a byte that once chose a setting, and a daemon's answer.
///
/// # Panics
/// Where something does not hold.
pub fn answer(input: &[u8]) {
    let Some((_, answer)) = input.split_first() else { return };
    let whole = whole_answer(&mut &*answer).now_or_never().expect("what is there is read at once");
    let found = whole.and_then(|answer| finding(&answer));
    if let Ok(found @ (Finding::Clean | Finding::Encrypted { .. })) = found {
        let said = answer.strip_suffix(b"\0").and_then(|it| {
            it.strip_prefix(b"stream: ").or_else(|| {
                let rest = it.strip_prefix(b"fd[")?;
                let end = rest.iter().position(|it| !it.is_ascii_digit())?;
                rest.get(end..)?.strip_prefix(b"]: ")
            })
        });
        let said = said.expect("clean, by an answer that is not whole");
        let encrypted = said.starts_with(b"Heuristics.Encrypted.") && said.ends_with(b" FOUND");
        let expected = if found == Finding::Clean { said == b"OK" } else { encrypted };
        assert!(expected, "{found:?}, and that is not what was said");
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
