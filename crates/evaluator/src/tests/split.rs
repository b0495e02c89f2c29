//! Rule sets and conditions above the limits of the engine, and invalid prepared forms.

use std::fmt::Write as _;

use super::{
    evaluate,
    loading::{load, matching},
};
use crate::{
    NoteKind,
    compiler::new_compiler,
    error::{EvaluationError, MAX_RULES, RuleLoadError},
    prepared::{PREPARED_BY, encode, is_restorable, restore},
};

/// Returns `count` rules. Rule N matches files that contain `<N>`.
fn numbered(prefix: &str, count: usize) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _infallible = writeln!(
            text,
            "rule {prefix}{number} {{ strings: $a = \"<{number}>\" condition: $a }}"
        );
        text
    })
}

fn number_of_parts(prepared: &[u8]) -> usize {
    restore(prepared).unwrap().map(Result::unwrap).count()
}

#[test]
fn rules_above_the_engine_limit_are_effective() {
    // 1 516 rules. The name of the last one sorts before all others.
    let mut text = numbered("rule_", 1_515);
    text.push_str("rule A { condition: filesize > 10000 }");
    let rules = load(&[("a.yar", &text)]).unwrap();
    assert_eq!(rules.names().len(), 1_516);
    assert_eq!(matching(&rules, &[0; 10_847], &[]), ["A"]);
    assert_eq!(matching(&rules, b"<1514>", &[]), ["rule_1514"]);
    assert!(matching(&rules, b"<1515>", &[]).is_empty());
}

#[test]
fn all_of_6_000_rules_are_effective_in_one_file_and_in_60_files() {
    let one = load(&[("all.yar", &numbered("r", 6_000))]).unwrap();
    let files: Vec<_> =
        (0..60).map(|file| (format!("{file}.yar"), numbered(&format!("f{file}_"), 100))).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let many = load(&files).unwrap();
    for rules in [&one, &many] {
        assert_eq!(rules.names().len(), 6_000);
        assert_eq!(number_of_parts(rules.prepared()), 6);
        let restored = restore(rules.prepared()).unwrap().map(Result::unwrap);
        let names: Vec<_> = restored
            .flat_map(|part| part.rules().map(|rule| rule.name.to_owned()).collect::<Vec<_>>())
            .collect();
        assert_eq!(names.len(), 6_000, "no rule is duplicated");
        assert!(rules.names().iter().eq(names.iter().collect::<std::collections::BTreeSet<_>>()));
    }
    for number in [0, 1_023, 1_024, 1_025, 2_048, 5_999] {
        assert_eq!(matching(&one, format!("<{number}>").as_bytes(), &[]), [format!("r{number}")]);
    }
    assert_eq!(
        matching(&many, b"<99>", &[]).len(),
        16,
        "one per file, up to the maximum number of names"
    );
    assert!(matching(&many, b"<100>", &[]).is_empty());
}

#[test]
fn references_private_and_global_rules_and_includes_work_across_parts() {
    let before = "import \"math\" // }\n\
        private global rule Large { condition: filesize > 3 /* } */ }\n\
        private rule Help { strings: $a = \"help}\" condition: $a }\n\
        rule set_one { strings: $a = \"one\" condition: $a }\n\
        rule set_three { strings: $a = \"three\" condition: $a } // referenced only by a wildcard\n\
        rule set_two { strings: $a = \"two\" condition: ( ( $a ) ) /* } */ // }\n }\n";
    let after = "rule Late { condition: Help and math.entropy(0, filesize) > 0 }\n\
        rule Chain { condition: Late and not set_one }\n\
        rule All { condition: all of (set_ /* two */ *) }\n\
        rule One { condition: 1 of (set_*, Help) and not All }\n\
        rule Neither { strings: $a = \"<70>\" condition: $a and none of (set_one, set_two) }\n";
    let other = "private rule Help { condition: false } rule Other { condition: not Help }\n";
    let main = format!(
        "include \"parts/before.inc\"\n{}include \"parts/after.inc\"\n{}",
        numbered("x", 3_000),
        numbered("y", 2_900)
    );
    let other = format!("{other}{}", numbered("z", 3_000));
    let rules = load(&[
        ("main.yar", main.as_str()),
        ("other.yar", &other),
        ("parts/before.inc", before),
        ("parts/after.inc", after),
    ])
    .unwrap();
    assert!(rules.names().len() > 8_900);
    let matching_sorted = |bytes: &str| {
        let mut names = matching(&rules, bytes.as_bytes(), &["Other"]);
        names.sort();
        names
    };
    assert_eq!(matching_sorted("help} one"), ["Late", "One", "set_one"]);
    assert_eq!(matching_sorted("help} two"), ["Chain", "Late", "One", "set_two"]);
    assert_eq!(matching_sorted("one two"), ["One", "set_one", "set_two"]);
    assert_eq!(matching_sorted("one two three"), ["All", "set_one", "set_three", "set_two"]);
    assert_eq!(matching_sorted("<70>"), ["Neither", "x70", "y70", "z70"]);
    assert_eq!(matching_sorted("<2999>"), ["x2999", "z2999"]);
    // The global rule applies only to its own file.
    assert!(matching(&rules, b"one", &["Other"]).is_empty());
    assert_eq!(matching(&rules, b"<2>", &["Other"]), ["z2"]);
    assert_eq!(matching(&rules, b"any", &[]), ["Other"]);
}

#[test]
fn error_of_a_rule_with_too_many_references_names_the_rule() {
    let text = format!("{}rule Any {{ condition: any of (r*) }}", numbered("r", MAX_RULES));
    let error = load(&[("a.yar", &text)]).unwrap_err();
    assert!(
        matches!(&error, RuleLoadError::TooManyReferences { rule, .. } if rule == "Any"),
        "{error}"
    );
    let globals = numbered("g", MAX_RULES + 1).replace("rule g", "global rule g");
    let error = load(&[("a.yar", &globals)]).unwrap_err();
    assert!(matches!(error, RuleLoadError::TooManyReferences { .. }), "{error}");
    // The same rules, split into several files, are within the limit.
    let [one, two] = ["a", "b"].map(|prefix| numbered(prefix, 600).replace("rule", "global rule"));
    assert_eq!(number_of_parts(load(&[("a.yar", &one), ("b.yar", &two)]).unwrap().prepared()), 2);
}

#[test]
fn error_of_a_condition_above_the_list_limit_names_the_rule() {
    let sizes = |range: std::ops::Range<usize>| {
        range.map(|size| format!("filesize == {size}")).collect::<Vec<_>>().join(" or ")
    };
    let values = (0..1_025).map(|value| value.to_string()).collect::<Vec<_>>().join(",");
    for condition in [sizes(0..1_025), format!("for any value in ({values}) : (filesize == value)")]
    {
        let text =
            format!("rule Before {{ condition: false }} rule Long {{ condition: {condition} }}");
        let error =
            load(&[("a.yar", &text), ("b.yar", "rule B { condition: false }")]).unwrap_err();
        assert!(
            matches!(&error, RuleLoadError::Unrestorable { rule, .. } if rule == "Long"),
            "{error}"
        );
    }
    // Grouping the operands, as the error message advises.
    let grouped = format!("({}) or ({})", sizes(0..1_000), sizes(1_000..2_000));
    let rules = load(&[("a.yar", &format!("rule Long {{ condition: {grouped} }}"))]).unwrap();
    assert_eq!(matching(&rules, &[0; 1_999], &[]), ["Long"]);
    assert!(matching(&rules, &[0; 2_000], &[]).is_empty());
}

#[test]
fn rejects_truncated_extended_and_changed_prepared_forms() {
    let rules = load(&[("a.yar", &numbered("r", 1_500))]).unwrap();
    let whole = rules.prepared();
    let is_rejected =
        |bytes: &[u8]| matches!(evaluate(bytes, b"nothing", &[]), Err(EvaluationError::Rules(_)));
    assert!(!is_rejected(whole));
    for length in (0..whole.len()).step_by(977).chain([whole.len() - 1]) {
        assert!(is_rejected(&whole[..length]), "{length} bytes");
    }
    assert!(is_rejected(&[whole, b"x"].concat()), "bytes after the last part");
    for offset in (0..whole.len()).step_by(977).chain([whole.len() - 1]) {
        let mut changed = whole.to_vec();
        changed[offset] ^= 1;
        assert!(is_rejected(&changed), "byte {offset}");
    }

    // A wrong number of parts.
    let version = PREPARED_BY.len() + 1;
    for parts in [0_u32, 1, 3] {
        let mut forged = whole.to_vec();
        forged[version..version + 4].copy_from_slice(&parts.to_le_bytes());
        assert!(is_rejected(&forged), "{parts} parts");
    }

    // The header of other rules: private instead of public, more rules, another name.
    let scanner = |text: &str| {
        let mut compiler = new_compiler();
        compiler.add_rules_str_in_namespace(text, "same").unwrap();
        encode(&[compiler.finalize()], false).unwrap()
    };
    let header = version + 4;
    let [first, others @ ..] = [
        "private rule A { condition: true } rule B { condition: A }",
        "rule A { condition: true } rule B { condition: A }",
        "rule B { condition: true }",
        "private rule A { condition: true } rule C { condition: A }",
    ]
    .map(scanner);
    assert!(!is_rejected(&first));
    for other in others {
        let mut forged = other;
        // The number of rules and the digest of their names, after the length.
        forged[header + 8..header + 44].copy_from_slice(&first[header + 8..header + 44]);
        assert!(is_rejected(&forged));
    }
}

#[test]
fn rejects_incompletely_restored_rules_without_an_engine_error() {
    // The names after the 1 024th rule make the engine interpret the following bytes as other data, without an error.
    let mut compiler = new_compiler();
    compiler
        .add_rules_str(numbered("rule_", 1_515) + "rule A { condition: filesize > 10000 }")
        .unwrap();
    let scanner = compiler.finalize();
    assert!(!is_restorable(&scanner).unwrap());
    let prepared = encode(&[scanner], false).unwrap();
    assert!(restore(&prepared).unwrap().any(|part| part.is_err()));
}

#[test]
fn failed_part_outweighs_a_match_limit_in_another_part() {
    let limited = "rule Limited { strings: $a = \"ab\" condition: #a == 1 }\n";
    let rules = load(&[("a.yar", &(limited.to_owned() + &numbered("r", 1_500)))]).unwrap();
    assert_eq!(number_of_parts(rules.prepared()), 2);
    let media = b"ab".repeat(260_000);
    let report = evaluate(rules.prepared(), &media, &[]).unwrap();
    assert_eq!(report.notes[0].kind, NoteKind::Limit);
    let mut damaged = rules.prepared().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let result = evaluate(&damaged, &media, &[]);
    assert!(matches!(result, Err(EvaluationError::Rules(_))));
}
