//! Combination of the engines' verdicts.

use std::time::SystemTime;

use super::{
    engine::{EngineResult, EngineVerdict},
    outcome::{MAX_FIRST_LINE, ScanResult},
};
use crate::{
    scan::{encrypted::OnEncrypted, error::ScanError, verdict::Verdict},
    text::single_line,
};

/// Combines the engines' verdicts and the encrypted contents that the service detected itself. "Not clean" overrides
/// everything. Encrypted contents, handled by `policy`, override failures, because repeating the scan cannot succeed.
/// A failure overrides "clean".
///
/// # Errors
/// The first failure; [`ScanError::Encrypted`] by `policy`; [`ScanError::NoEngine`] if all engines were skipped.
pub(super) fn combine(
    results: Vec<EngineResult>,
    encrypted: Option<String>,
    policy: OnEncrypted,
) -> Result<ScanResult, ScanError> {
    let passes = policy == OnEncrypted::Pass;
    let mut encrypted = encrypted.filter(|_| !passes);
    let is_not_clean =
        |result: &&EngineResult| matches!(result.verdict, EngineVerdict::NotClean { .. });
    let not_clean_count = results.iter().filter(is_not_clean).count();
    let is_partial = results
        .iter()
        .any(|result| matches!(result.verdict, EngineVerdict::Skipped { failed: true }));
    let (mut failure, mut clean) = (None, None::<(Option<i32>, Option<String>)>);
    for EngineResult { verdict, exit_code, first_line, .. } in results {
        match verdict {
            EngineVerdict::NotClean { output, first_line } => {
                return Ok(ScanResult {
                    verdict: Verdict::NotClean { output },
                    exit_code: exit_code.filter(|_| not_clean_count == 1),
                    first_line,
                    is_partial: false,
                });
            }
            EngineVerdict::Failed(error) => failure = failure.or(Some(error)),
            EngineVerdict::Encrypted { name } if !passes => {
                encrypted = encrypted.or(Some(name));
            }
            EngineVerdict::Clean | EngineVerdict::Encrypted { .. } => {
                let (earlier_code, earlier_line) = clean.unwrap_or_default();
                clean = Some((earlier_code.or(exit_code), first_line.or(earlier_line)));
            }
            EngineVerdict::Skipped { .. } => {}
        }
    }
    match (encrypted, failure, clean) {
        (Some(name), ..) => encrypted_result(name, policy),
        (None, Some(error), _) => Err(error),
        (None, None, Some((exit_code, first_line))) => Ok(ScanResult {
            verdict: Verdict::Clean { at: SystemTime::now() },
            exit_code,
            first_line: first_line.unwrap_or_default(),
            is_partial,
        }),
        (None, None, None) => Err(ScanError::NoEngine),
    }
}

/// Returns the result for encrypted contents where `policy` is not [`OnEncrypted::Pass`].
fn encrypted_result(name: String, policy: OnEncrypted) -> Result<ScanResult, ScanError> {
    if policy == OnEncrypted::Fail {
        return Err(ScanError::Encrypted(name));
    }
    let output = format!("encrypted contents ({name})");
    let first_line = single_line(&output, MAX_FIRST_LINE);
    let verdict = Verdict::NotClean { output: output.into() };
    Ok(ScanResult { verdict, exit_code: None, first_line, is_partial: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::engines::error::EngineFailure;

    fn result(verdict: EngineVerdict) -> EngineResult {
        EngineResult { engine: "one", verdict, exit_code: None, first_line: None }
    }

    fn clean() -> EngineResult {
        result(EngineVerdict::Clean)
    }

    fn infected() -> EngineResult {
        result(EngineVerdict::NotClean { output: "Eicar".into(), first_line: "Eicar".into() })
    }

    fn failed() -> EngineResult {
        result(EngineVerdict::Failed(ScanError::Engine("one", EngineFailure::TimedOut)))
    }

    fn encrypted() -> EngineResult {
        result(EngineVerdict::Encrypted { name: "Heuristics.Encrypted.PDF".into() })
    }

    /// Returns the finding, the verdict or the cause of the error.
    fn outcome(results: Vec<EngineResult>, detected: Option<&str>, policy: OnEncrypted) -> String {
        match combine(results, detected.map(str::to_owned), policy) {
            Ok(ScanResult { verdict: Verdict::NotClean { output }, .. }) => output.to_string(),
            Ok(result) => result.verdict.name().into(),
            Err(error) => error.cause().as_str().into(),
        }
    }

    #[test]
    fn precedence_of_verdicts_under_each_policy() {
        use OnEncrypted::{Fail, Pass, Refuse};
        let by_service = "encrypted contents (zip)";
        let by_engine = "encrypted contents (Heuristics.Encrypted.PDF)";
        for (results, detected, [refuse, fail, pass]) in [
            (vec![clean()], Some("zip"), [by_service, "encrypted", "clean"]),
            (vec![clean(), encrypted()], None, [by_engine, "encrypted", "clean"]),
            (vec![encrypted()], Some("zip"), [by_service, "encrypted", "clean"]),
            // "Not clean" overrides everything, in any order.
            (vec![encrypted(), infected()], Some("zip"), ["Eicar"; 3]),
            (vec![infected(), failed()], None, ["Eicar"; 3]),
            // Encrypted contents override failures.
            (vec![failed(), clean()], Some("zip"), [by_service, "encrypted", "engine_timeout"]),
            (vec![failed(), encrypted()], None, [by_engine, "encrypted", "engine_timeout"]),
            (
                vec![result(EngineVerdict::Skipped { failed: true })],
                Some("zip"),
                [by_service, "encrypted", "no_engine"],
            ),
            (vec![], None, ["no_engine"; 3]),
        ] {
            for (policy, expected) in [(Refuse, refuse), (Fail, fail), (Pass, pass)] {
                let results = results.iter().map(copy).collect();
                assert_eq!(outcome(results, detected, policy), expected, "{policy:?}");
            }
        }
    }

    fn copy(original: &EngineResult) -> EngineResult {
        match &original.verdict {
            EngineVerdict::Clean => clean(),
            EngineVerdict::NotClean { .. } => infected(),
            EngineVerdict::Encrypted { .. } => encrypted(),
            EngineVerdict::Failed(_) => failed(),
            EngineVerdict::Skipped { failed } => result(EngineVerdict::Skipped { failed: *failed }),
        }
    }
}
