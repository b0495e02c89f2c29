//! One verdict of all the engines' words.

use std::time::SystemTime;

use super::{
    Judgement,
    engine::{Opinion, Word},
};
use crate::scan::{
    ScanError, Verdict,
    encrypted::OnEncrypted,
    script::{MAX_FIRST_LINE, one_line},
};

/// Combines the engines' words. An infection outweighs everything, then contents that need a password (as `policy`
/// says; none of them is a failure to repeat), then a failure outweighs "clean". Without any word there is no verdict.
pub(super) fn combine(
    opinions: Vec<Opinion>,
    encrypted: Option<String>,
    policy: OnEncrypted,
) -> Result<Judgement, ScanError> {
    let passes = policy == OnEncrypted::Pass;
    let mut encrypted = encrypted.filter(|_| !passes);
    let refusals = opinions.iter().filter(|it| matches!(it.word, Word::NotClean { .. })).count();
    let without_some = opinions.iter().any(|it| matches!(it.word, Word::LeftOut { failed: true }));
    let (mut failure, mut clean) = (None, None::<(Option<i32>, Option<String>)>);
    for Opinion { word, exit_code, first_line, .. } in opinions {
        match word {
            Word::NotClean { output, first_line } => {
                return Ok(Judgement {
                    verdict: Verdict::NotClean { output },
                    exit_code: exit_code.filter(|_| refusals == 1),
                    first_line,
                    without_some: false,
                });
            }
            Word::Failed(error) => failure = failure.or(Some(error)),
            Word::Encrypted { name } if !passes => {
                encrypted = encrypted.or(Some(name));
            }
            Word::Clean | Word::Encrypted { .. } => {
                let (before, line) = clean.unwrap_or_default();
                clean = Some((before.or(exit_code), first_line.or(line)));
            }
            Word::LeftOut { .. } => {}
        }
    }
    match (encrypted, failure, clean) {
        (Some(what), ..) => without_password(what, policy),
        (None, Some(error), _) => Err(error),
        (None, None, Some((exit_code, first_line))) => Ok(Judgement {
            verdict: Verdict::Clean { at: SystemTime::now() },
            exit_code,
            first_line: first_line.unwrap_or_default(),
            without_some,
        }),
        (None, None, None) => Err(ScanError::NobodyAsked),
    }
}

/// The outcome for contents that need a password, where they are not the engines' to judge.
fn without_password(what: String, policy: OnEncrypted) -> Result<Judgement, ScanError> {
    if policy == OnEncrypted::Fail {
        return Err(ScanError::Encrypted(what));
    }
    let finding = format!("encrypted contents ({what})");
    let first_line = one_line(&finding, MAX_FIRST_LINE);
    let verdict = Verdict::NotClean { output: finding.into() };
    Ok(Judgement { verdict, exit_code: None, first_line, without_some: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::engines::EngineFailure;

    fn opinion(word: Word) -> Opinion {
        Opinion { engine: "one", word, exit_code: None, first_line: None }
    }

    fn clean() -> Opinion {
        opinion(Word::Clean)
    }

    fn infected() -> Opinion {
        opinion(Word::NotClean { output: "Eicar".into(), first_line: "Eicar".into() })
    }

    fn failed() -> Opinion {
        opinion(Word::Failed(ScanError::Engine("one", EngineFailure::TimedOut)))
    }

    fn encrypted() -> Opinion {
        opinion(Word::Encrypted { name: "Heuristics.Encrypted.PDF".into() })
    }

    /// The outcome in a word.
    fn outcome(words: Vec<Opinion>, header: Option<&str>, policy: OnEncrypted) -> String {
        match combine(words, header.map(str::to_owned), policy) {
            Ok(Judgement { verdict: Verdict::NotClean { output }, .. }) => output.to_string(),
            Ok(judgement) => judgement.verdict.name().into(),
            Err(error) => error.cause().into(),
        }
    }

    #[test]
    fn encrypted_contents_have_the_outcome_of_the_policy() {
        use OnEncrypted::{Fail, Pass, Refuse};
        let by_header = "encrypted contents (zip)";
        let by_engine = "encrypted contents (Heuristics.Encrypted.PDF)";
        for (words, header, [refuse, fail, pass]) in [
            (vec![clean()], Some("zip"), [by_header, "encrypted", "clean"]),
            (vec![clean(), encrypted()], None, [by_engine, "encrypted", "clean"]),
            (vec![encrypted()], Some("zip"), [by_header, "encrypted", "clean"]),
            // An infection outweighs them, wherever it stands.
            (vec![encrypted(), infected()], Some("zip"), ["Eicar"; 3]),
            (vec![infected(), failed()], None, ["Eicar"; 3]),
            // They outweigh a failure, which clients would repeat.
            (vec![failed(), clean()], Some("zip"), [by_header, "encrypted", "engine_timeout"]),
            (vec![failed(), encrypted()], None, [by_engine, "encrypted", "engine_timeout"]),
            (
                vec![opinion(Word::LeftOut { failed: true })],
                Some("zip"),
                [by_header, "encrypted", "nobody_asked"],
            ),
            (vec![], None, ["nobody_asked"; 3]),
        ] {
            for (policy, expected) in [(Refuse, refuse), (Fail, fail), (Pass, pass)] {
                let words = words.iter().map(again).collect();
                assert_eq!(outcome(words, header, policy), expected, "{policy:?}");
            }
        }
    }

    fn again(one: &Opinion) -> Opinion {
        match &one.word {
            Word::Clean => clean(),
            Word::NotClean { .. } => infected(),
            Word::Encrypted { .. } => encrypted(),
            Word::Failed(_) => failed(),
            Word::LeftOut { failed } => opinion(Word::LeftOut { failed: *failed }),
        }
    }
}
