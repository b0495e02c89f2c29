//! Rules and hashes that are only observed.

use std::fmt::Write as _;

use super::{hashes::archive, loading::load};
use crate::{
    EvaluationReport, RuleFinding, RuleKind, RuleSet, UnpackSettings, error::EvaluationError,
    evaluator::evaluate, rule_filter::RuleFilter, rule_visitor::MAX_OBSERVED,
};

fn rules() -> RuleSet {
    let text = r#"
        rule First { strings: $a = "first" condition: $a at 0 }
        rule Second { meta: kind = "policy" strings: $a = "second" condition: $a at 0 or $a at 6 }
        rule Third { strings: $a = "third" condition: $a at 0 or $a at 6 }
    "#;
    load(&[("a.yar", text)]).unwrap()
}

fn observing(bytes: &[u8], observed: &[&str]) -> EvaluationReport {
    let filter = RuleFilter { observed, ..RuleFilter::default() };
    evaluate(rules().prepared(), bytes, filter, &UnpackSettings::default()).unwrap()
}

fn found(kind: RuleKind, rule: &str, path: &[&str]) -> RuleFinding {
    let path = path.iter().map(|&name| name.to_owned()).collect();
    RuleFinding { kind, rules: vec![rule.to_owned()], path }
}

#[test]
fn observed_rule_hides_no_other_one() {
    let (malware, policy) = (RuleKind::Malware, RuleKind::Policy);
    // In the same object.
    let report = observing(b"first second", &["First"]);
    assert_eq!(report.finding, Some(found(policy, "Second", &[])));
    assert_eq!(report.observed, [found(malware, "First", &[])]);
    // In a later one, which ends the evaluation.
    let files: &[(&str, &[u8])] =
        &[("a", b"first"), ("b", b"first"), ("c", b"third"), ("d", b"second")];
    let report = observing(&archive(files), &["First", "Second"]);
    assert_eq!(report.finding, Some(found(malware, "Third", &["c"])));
    assert_eq!(report.observed[..], [found(malware, "First", &["a"])]);
}

#[test]
fn all_rules_may_be_observed() {
    let filter = RuleFilter { observes_all: true, ..RuleFilter::default() };
    let settings = UnpackSettings::default();
    let report = evaluate(rules().prepared(), b"first third", filter, &settings).unwrap();
    assert_eq!(report.finding, None);
    let names: Vec<_> = report.observed.iter().flat_map(|found| &found.rules).collect();
    assert_eq!(names, ["First", "Third"]);
}

#[test]
fn rules_of_one_name_have_the_most_severe_kind() {
    let policy = "rule A { meta: kind = \"policy\" condition: true }";
    let rules = load(&[("a.yar", policy), ("b.yar", "rule A { condition: true }")]).unwrap();
    let filter = RuleFilter { observed: &["A"], ..RuleFilter::default() };
    let report = evaluate(rules.prepared(), b"x", filter, &UnpackSettings::default()).unwrap();
    assert_eq!(report.observed, [found(RuleKind::Malware, "A", &[])]);
}

#[test]
fn too_many_observed_rules_fail_unless_another_rule_matches() {
    let mut text = String::new();
    for number in 0..=MAX_OBSERVED {
        writeln!(text, "rule R{number} {{ condition: uint8(0) == 0x61 }}").unwrap();
    }
    text.push_str("rule Other { condition: uint8(1) == 0x62 }");
    let rules = load(&[("a.yar", &text)]).unwrap();
    let names: Vec<_> = rules.names().iter().map(String::as_str).collect();
    let observed: Vec<_> = names.into_iter().filter(|name| *name != "Other").collect();
    let evaluated = |bytes: &[u8], observed: &[&str]| {
        let filter = RuleFilter { observed, ..RuleFilter::default() };
        evaluate(rules.prepared(), bytes, filter, &UnpackSettings::default())
    };
    let error = evaluated(b"a-", &observed).unwrap_err();
    assert!(matches!(error, EvaluationError::Observed(MAX_OBSERVED)), "{error}");
    assert_eq!(evaluated(b"ab", &observed).unwrap().finding.unwrap().rules, ["Other"]);
    assert_eq!(evaluated(b"--", &observed).unwrap(), EvaluationReport::default());
}
