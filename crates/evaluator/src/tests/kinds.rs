//! Kinds of rules.

use super::{SUPPLIED, finding, loading::load};
use crate::{
    RuleFinding, RuleKind, RuleLoadError, metadata::rule_kind, prepared::restore,
    rule_visitor::MAX_NAMES,
};

#[test]
fn most_severe_kind_of_the_matching_rules_counts() {
    let rules = load(&[
        (
            "a.yar",
            r#"
            rule Policy { meta: kind = "policy" condition: uint8(0) == 0x61 }
            rule Malware { meta: kind = "malware" condition: uint8(1) == 0x62 }
            rule Unnamed { meta: author = "x" condition: uint8(2) == 0x63 }
            private rule Hidden { condition: true }
            "#,
        ),
        ("b.yar", r#"rule Policy { meta: kind = "malware" condition: uint8(3) == 0x64 }"#),
    ])
    .unwrap();
    for (bytes, kind, names) in [
        (b"----", None, [].as_slice()),
        (b"a---", Some(RuleKind::Policy), &["Policy"]),
        (b"-b--", Some(RuleKind::Malware), &["Malware"]),
        // A rule without a kind.
        (b"--c-", Some(RuleKind::Malware), &["Unnamed"]),
        // Names of malware precede the others, and each name is reported once.
        (b"abc-", Some(RuleKind::Malware), &["Malware", "Unnamed", "Policy"]),
        (b"a--d", Some(RuleKind::Malware), &["Policy"]),
    ] {
        let found = finding(&rules, bytes, &[]);
        assert_eq!(found.as_ref().map(|found| found.kind), kind);
        assert_eq!(found.map(|found| found.rules).unwrap_or_default(), names);
    }
}

#[test]
fn malware_is_found_after_the_maximum_of_policy_matches() {
    let rule = |number| format!("rule P{number} {{ meta: kind = \"policy\" condition: true }}\n");
    let mut text: String = (0..2 * MAX_NAMES).map(rule).collect();
    text.push_str("rule Last { condition: true }");
    let rules = load(&[("a.yar", &text)]).unwrap();
    let RuleFinding { kind, rules: names, .. } = finding(&rules, b"x", &[]).unwrap();
    assert_eq!(kind, RuleKind::Malware);
    assert_eq!((names.len(), &*names[0], &*names[1]), (MAX_NAMES, "Last", "P0"));
}

#[test]
fn unknown_kind_is_an_error() {
    for (value, expected) in [
        ("\"virus\"", "\"virus\""),
        ("\"Policy\"", "\"Policy\""),
        ("\"\"", "\"\""),
        ("1", "1"),
        ("true", "true"),
        ("\"policy\" kind = \"other\"", "\"other\""),
    ] {
        for modifier in ["", "private ", "global "] {
            let text = format!(
                "rule Other {{ condition: true }} {modifier}rule Some {{ meta: kind = {value} condition: true }}"
            );
            let error = load(&[("a.yar", &text)]).unwrap_err();
            assert!(matches!(&error, RuleLoadError::UnknownKind { rule, .. } if rule == "Some"));
            let message = error.to_string();
            let found = format!("/a.yar: rule Some: found kind = {expected}, expected");
            assert!(message.contains(&found), "{message}");
        }
    }
}

#[test]
fn supplied_rules_are_policy_except_the_test_file() {
    for scanner in restore(SUPPLIED.prepared()).unwrap() {
        let scanner = scanner.unwrap();
        for rule in scanner.rules().filter(|rule| !rule.is_private) {
            let is_test_file = rule.name == "EICAR_Test_File";
            let kind = if is_test_file { RuleKind::Malware } else { RuleKind::Policy };
            assert_eq!(rule_kind(&scanner, rule.metadatas), Ok(kind), "{}", rule.name);
        }
    }
}
