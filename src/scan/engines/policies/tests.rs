//! Each outcome under each value of its policy, and the precedence of outcomes.
#![expect(
    clippy::unnecessary_wraps,
    reason = "the results of engines, which tables of cases combine"
)]

use super::*;
use crate::scan::engines::{EngineFailure, combine::combine, examination::FileInspection};

const CONTENT: [ContentPolicy; 3] =
    [ContentPolicy::Refuse, ContentPolicy::Fail, ContentPolicy::Pass];

fn text() -> OutcomeText {
    "name".into()
}

fn clean() -> Result<Outcome, ScanError> {
    Ok(Outcome::Clean)
}

fn infected() -> Result<Outcome, ScanError> {
    Ok(Outcome::Infected("Eicar".into()))
}

fn refused() -> Result<Outcome, ScanError> {
    Ok(Outcome::Refused("Macro".into()))
}

fn encrypted() -> Result<Outcome, ScanError> {
    Ok(Outcome::Encrypted(text()))
}

fn limit() -> Result<Outcome, ScanError> {
    Ok(Outcome::Limit(text()))
}

fn unreadable() -> Result<Outcome, ScanError> {
    Ok(Outcome::Unreadable(text()))
}

fn inconsistent() -> Result<Outcome, ScanError> {
    Ok(Outcome::Inconsistent(text()))
}

fn too_large() -> Result<Outcome, ScanError> {
    Ok(Outcome::TooLarge)
}

fn failed() -> Result<Outcome, ScanError> {
    Err(ScanError::Engine("clamd", EngineFailure::TimedOut))
}

fn disk_failed() -> Result<Outcome, ScanError> {
    Err(ScanError::Disk(std::io::ErrorKind::StorageFull.into()))
}

/// Combines the results of the engines clamd, rules and icap, in this order.
fn combined(results: Vec<Result<Outcome, ScanError>>, detected: Option<&str>) -> FileOutcome {
    let results = results
        .into_iter()
        .zip(["clamd", "rules", "icap"])
        .map(|(outcome, engine)| EngineResult::new(engine, outcome));
    let encrypted = detected.map(str::to_owned);
    combine(results.collect(), Ok(FileInspection { encrypted, ..FileInspection::default() }))
}

/// Returns the finding, the verdict or the cause of the error.
fn decided(policies: &Policies, file: &FileOutcome) -> String {
    match policies.decide(file).verdict {
        Ok(Verdict::NotClean { output, .. }) => output.to_string(),
        Ok(verdict) => verdict.name().to_owned(),
        Err(error) => error.cause().as_str().to_owned(),
    }
}

fn policies(content: ContentPolicy) -> Policies {
    Policies::for_test(content, OversizePolicy::Fail, SkipPolicy::Fail)
}

#[test]
fn each_outcome_under_each_policy() {
    let refuse = [
        "encrypted contents (name)",
        "limit exceeded (name)",
        "unreadable contents (name)",
        "inconsistent contents (name)",
    ];
    for (results, expected) in [
        (vec![clean()], ["clean"; 3]),
        (vec![infected()], ["Eicar"; 3]),
        (vec![refused()], ["Macro"; 3]),
        (vec![encrypted()], [refuse[0], "encrypted", "clean"]),
        (vec![limit()], [refuse[1], "limit", "clean"]),
        (vec![unreadable()], [refuse[2], "unreadable", "clean"]),
        (vec![inconsistent()], [refuse[3], "inconsistent", "clean"]),
        (vec![failed()], ["engine_timeout"; 3]),
        (vec![], ["no_engine"; 3]),
    ] {
        let file = combined(results, None);
        for (policy, expected) in CONTENT.into_iter().zip(expected) {
            assert_eq!(decided(&policies(policy), &file), expected, "{policy:?}");
        }
    }
}

#[test]
fn oversize_and_failure_under_each_policy() {
    use OversizePolicy::{Fail, Refuse, Skip};
    let refuse = "too large for the engine clamd";
    for (results, expected) in [
        (
            vec![too_large(), clean()],
            [(Fail, "engine_too_large"), (Refuse, refuse), (Skip, "clean")],
        ),
        // No engine has finished. A retry changes nothing, so the error is final.
        (
            vec![too_large()],
            [(Fail, "engine_too_large"), (Refuse, refuse), (Skip, "engine_too_large")],
        ),
        (vec![too_large(), infected()], [(Fail, "Eicar"), (Refuse, "Eicar"), (Skip, "Eicar")]),
    ] {
        let file = combined(results, None);
        for (policy, expected) in expected {
            let policies = Policies::for_test(ContentPolicy::Refuse, policy, SkipPolicy::Fail);
            assert_eq!(decided(&policies, &file), expected, "{policy:?}");
        }
    }
    for (results, [fail, skip]) in [
        (vec![failed(), clean()], ["engine_timeout", "clean"]),
        (vec![failed()], ["engine_timeout", "no_engine"]),
        // A retry may let the failed engine finish.
        (vec![failed(), too_large()], ["engine_timeout", "no_engine"]),
        // Not a failure of the engine.
        (vec![disk_failed(), clean()], ["disk", "disk"]),
    ] {
        let file = combined(results, None);
        for (policy, expected) in [(SkipPolicy::Fail, fail), (SkipPolicy::Skip, skip)] {
            let policies = Policies::for_test(ContentPolicy::Refuse, Skip, policy);
            assert_eq!(decided(&policies, &file), expected, "{policy:?}");
        }
    }
}

#[test]
fn precedence_of_outcomes() {
    let by_service = "encrypted contents (zip)";
    for (results, detected, expected) in [
        (vec![clean()], Some("zip"), [by_service, "encrypted", "clean"]),
        (vec![encrypted()], Some("zip"), [by_service, "encrypted", "clean"]),
        // Findings override everything, in any order; malware overrides other findings.
        (vec![encrypted(), limit(), infected()], Some("zip"), ["Eicar"; 3]),
        (vec![refused(), infected()], None, ["Eicar"; 3]),
        (vec![infected(), refused()], None, ["Eicar"; 3]),
        (vec![too_large(), refused()], None, ["Macro"; 3]),
        (vec![failed(), infected()], None, ["Eicar"; 3]),
        (vec![limit(), encrypted()], None, ["encrypted contents (name)", "encrypted", "clean"]),
        (vec![unreadable(), limit()], None, ["limit exceeded (name)", "limit", "clean"]),
        (
            vec![inconsistent(), unreadable()],
            None,
            ["unreadable contents (name)", "unreadable", "clean"],
        ),
        (vec![inconsistent(), unreadable(), refused()], None, ["Macro"; 3]),
        // Final outcomes override failures.
        (vec![failed(), clean()], Some("zip"), [by_service, "encrypted", "engine_timeout"]),
        (vec![failed(), limit()], None, ["limit exceeded (name)", "limit", "engine_timeout"]),
        (
            vec![failed(), inconsistent()],
            None,
            ["inconsistent contents (name)", "inconsistent", "engine_timeout"],
        ),
        (vec![failed(), too_large()], None, ["engine_too_large"; 3]),
        // Encrypted contents that only the service found: no engine has finished.
        (vec![], Some("zip"), [by_service, "encrypted", "no_engine"]),
    ] {
        let file = combined(results, detected);
        for (policy, expected) in CONTENT.into_iter().zip(expected) {
            assert_eq!(decided(&policies(policy), &file), expected, "{policy:?} {detected:?}");
        }
    }
    // "Refuse" for one outcome overrides "fail" for another one.
    let file = combined(vec![limit(), encrypted()], None);
    for (on_encrypted, on_limit, expected) in [
        (ContentPolicy::Fail, ContentPolicy::Refuse, "limit exceeded (name)"),
        (ContentPolicy::Pass, ContentPolicy::Fail, "limit"),
        (ContentPolicy::Fail, ContentPolicy::Pass, "encrypted"),
    ] {
        let policies = Policies { on_encrypted, on_limit, ..policies(ContentPolicy::Pass) };
        assert_eq!(decided(&policies, &file), expected);
    }
}

#[test]
fn canary_accepts_only_findings() {
    let policies = policies(ContentPolicy::Refuse).for_canary();
    for (result, expected) in [
        (encrypted(), "clean"),
        (limit(), "clean"),
        (unreadable(), "clean"),
        (inconsistent(), "clean"),
        (too_large(), "engine_too_large"),
        (failed(), "engine_timeout"),
        (refused(), "Macro"),
    ] {
        assert_eq!(decided(&policies, &combined(vec![result], Some("zip"))), expected);
    }
}

/// The policies of the two kinds of contents that only the rules report are independent of each other.
#[test]
fn each_policy_applies_to_its_outcome() {
    let file = combined(vec![inconsistent(), unreadable()], None);
    for (on_unreadable, on_inconsistent, expected) in [
        (ContentPolicy::Pass, ContentPolicy::Refuse, "inconsistent contents (name)"),
        (ContentPolicy::Fail, ContentPolicy::Refuse, "inconsistent contents (name)"),
        (ContentPolicy::Refuse, ContentPolicy::Pass, "unreadable contents (name)"),
        (ContentPolicy::Pass, ContentPolicy::Fail, "inconsistent"),
        (ContentPolicy::Fail, ContentPolicy::Pass, "unreadable"),
    ] {
        let policies =
            Policies { on_unreadable, on_inconsistent, ..policies(ContentPolicy::Refuse) };
        assert_eq!(decided(&policies, &file), expected);
    }
}

#[test]
fn result_and_finding_of_each_engine_are_kept() {
    let file = combined(vec![refused(), infected(), failed()], None);
    let results: Vec<_> = file.results.iter().map(|r| (r.engine, r.result)).collect();
    assert_eq!(results, [("clamd", "refused"), ("rules", "infected"), ("icap", "failed")]);
    assert_eq!(file.results[0].finding.as_deref(), Some("Macro"));
    let findings: Vec<_> = file.findings.iter().map(|finding| &*finding.output).collect();
    assert_eq!(findings, ["Eicar", "Macro"], "the most severe one is first");
    assert_eq!(file.finding_engine(), Some("rules"));
}

#[test]
fn clients_receive_locations_only_with_report_paths() {
    let located = |name: &str| OutcomeText {
        location: Some("a.zip > setup.exe".to_owned()),
        ..OutcomeText::from(name)
    };
    for (outcome, name) in [
        (Outcome::Infected(located("Eicar")), "Eicar"),
        (Outcome::Refused(located("Program")), "Program"),
        (Outcome::Unreadable(located("truncated")), "unreadable contents (truncated)"),
    ] {
        let file = combined(vec![Ok(outcome)], None);
        let policies = policies(ContentPolicy::Refuse);
        assert_eq!(decided(&policies, &file), name);
        let line = format!("{name} in a.zip > setup.exe");
        // For the log and the audit log.
        assert_eq!(policies.decide(&file).first_line, line);
        assert_eq!(decided(&policies.with_paths(), &file), line);
        // What the cache stores keeps the location.
        assert_eq!(decided(&policies.with_paths(), &file.without_lines()), line);
        let short = Policies { max_output: 20, ..policies.with_paths() };
        let file = combined(vec![Ok(Outcome::Infected(located("Eicar")))], None);
        assert_eq!(decided(&short, &file), "in a.zip > setup.exe");
    }
    let file = combined(vec![Ok(Outcome::Limit(located("max_files")))], None);
    let error = policies(ContentPolicy::Fail).decide(&file).verdict.unwrap_err();
    assert!(error.to_string().ends_with(": max_files in a.zip > setup.exe"), "{error}");
}

/// An ICAP server may report several properties of one file. The policy of each applies.
#[test]
fn outcome_that_passes_does_not_hide_another_one_of_the_same_engine() {
    let outcome = |result: Result<Outcome, ScanError>| result.unwrap();
    let file = |first, others: Vec<Outcome>| {
        combine(
            vec![EngineResult { others, ..EngineResult::new("icap", first) }],
            Ok(FileInspection::default()),
        )
    };
    let passing_encrypted = Policies {
        on_encrypted: ContentPolicy::Pass,
        ..Policies::for_test(ContentPolicy::Fail, OversizePolicy::Skip, SkipPolicy::Fail)
    };
    let both = file(encrypted(), vec![outcome(limit())]);
    assert_eq!(decided(&passing_encrypted, &both), "limit");
    assert_eq!(decided(&policies(ContentPolicy::Pass), &both), "clean");
    // An engine that did not examine the file has not finished.
    let passing = Policies::for_test(ContentPolicy::Pass, OversizePolicy::Skip, SkipPolicy::Fail);
    let unexamined = file(encrypted(), vec![outcome(limit()), outcome(too_large())]);
    assert_eq!(decided(&passing, &unexamined), "engine_too_large");
    assert_eq!(decided(&policies(ContentPolicy::Pass), &unexamined), "engine_too_large");
    // Not expected, but not ignored.
    let infected = file(encrypted(), vec![outcome(infected())]);
    assert_eq!(decided(&passing, &infected), "Eicar");
}

/// No policy makes a file clean whose type and encryption are unknown.
#[test]
fn failed_inspection_is_a_failure_under_all_policies() {
    let uninspected = |results: Vec<Result<Outcome, ScanError>>| {
        let results = results.into_iter().map(|outcome| EngineResult::new("clamd", outcome));
        combine(results.collect(), Err(ScanError::Inspection(EngineFailure::TimedOut)))
    };
    for policy in CONTENT {
        for on_failure in [SkipPolicy::Fail, SkipPolicy::Skip] {
            let policies = Policies::for_test(policy, OversizePolicy::Skip, on_failure);
            for results in [vec![clean()], vec![failed()], vec![too_large()], vec![]] {
                let file = uninspected(results);
                assert!(!file.is_clean());
                let decision = policies.decide(&file);
                let error = decision.verdict.unwrap_err();
                assert!(matches!(*error, ScanError::Inspection(_)), "{error}");
                assert_eq!(decision.validity, Validity::Failure);
            }
            // The file is not served in any case.
            assert_eq!(decided(&policies, &uninspected(vec![infected()])), "Eicar");
        }
    }
}

#[test]
fn metrics_name_outcomes_and_skipped_engines() {
    let skipping = Policies::for_test(ContentPolicy::Pass, OversizePolicy::Skip, SkipPolicy::Skip);
    for (outcome, name, name_if_skipping) in [
        (clean(), "clean", "clean"),
        (infected(), "infected", "infected"),
        (refused(), "refused", "refused"),
        (encrypted(), "encrypted", "encrypted"),
        (limit(), "limit", "limit"),
        (unreadable(), "unreadable", "unreadable"),
        (inconsistent(), "inconsistent", "inconsistent"),
        (too_large(), "too_large", "skipped"),
        (failed(), "failed", "skipped"),
        (disk_failed(), "failed", "failed"),
    ] {
        let result = EngineResult::new("clamd", outcome);
        let names = [&policies(ContentPolicy::Pass), &skipping].map(|all| all.record(&result));
        assert_eq!(names, [name, name_if_skipping]);
    }
}
