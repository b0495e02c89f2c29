//! More rules than the engine loads at once, and conditions with more members than it loads.

use std::fmt::Write as _;

use super::loading::{judged, load};
use crate::{
    LoadError,
    evaluator::{Failure, matches},
    prepared::{encode, restore},
    rule_set::compiler,
    split::MAX_RULES,
};

/// `count` rules; rule N matches where `<N>` is found.
fn numbered(prefix: &str, count: usize) -> String {
    (0..count).fold(String::new(), |mut text, number| {
        let _infallible = writeln!(
            text,
            "rule {prefix}{number} {{ strings: $a = \"<{number}>\" condition: $a }}"
        );
        text
    })
}

fn parts(prepared: &[u8]) -> usize {
    restore(prepared).unwrap().map(Result::unwrap).count()
}

#[test]
fn the_rule_behind_the_engines_maximum_is_effective() {
    // 1 516 rules; the last one's name sorts before all others.
    let mut text = numbered("rule_", 1_515);
    text.push_str("rule A { condition: filesize > 10000 }");
    let rules = load(&[("a.yar", &text)]).unwrap();
    assert_eq!(rules.names().len(), 1_516);
    assert_eq!(judged(&rules, &[0; 10_847], &[]), ["A"]);
    assert_eq!(judged(&rules, b"<1514>", &[]), ["rule_1514"]);
    assert!(judged(&rules, b"<1515>", &[]).is_empty());
}

#[test]
fn each_of_6_000_rules_is_effective_in_one_file_and_in_many() {
    let one = load(&[("all.yar", &numbered("r", 6_000))]).unwrap();
    let files: Vec<_> =
        (0..60).map(|file| (format!("{file}.yar"), numbered(&format!("f{file}_"), 100))).collect();
    let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let many = load(&files).unwrap();
    for rules in [&one, &many] {
        assert_eq!(rules.names().len(), 6_000);
        assert_eq!(parts(rules.prepared()), 6);
        let restored = restore(rules.prepared()).unwrap().map(Result::unwrap);
        let names: Vec<_> = restored
            .flat_map(|part| part.rules().map(|it| it.name.to_owned()).collect::<Vec<_>>())
            .collect();
        assert_eq!(names.len(), 6_000, "no rule twice");
        assert!(rules.names().iter().eq(names.iter().collect::<std::collections::BTreeSet<_>>()));
    }
    for number in [0, 1_023, 1_024, 1_025, 2_048, 5_999] {
        assert_eq!(judged(&one, format!("<{number}>").as_bytes(), &[]), [format!("r{number}")]);
    }
    assert_eq!(judged(&many, b"<99>", &[]).len(), 16, "one of each file, as many as are printed");
    assert!(judged(&many, b"<100>", &[]).is_empty());
}

#[test]
fn references_private_and_global_rules_and_includes_hold_across_parts() {
    let before = "import \"math\" // }\n\
        private global rule Large { condition: filesize > 3 /* } */ }\n\
        private rule Help { strings: $a = \"help}\" condition: $a }\n\
        rule set_one { strings: $a = \"one\" condition: $a }\n\
        rule set_three { strings: $a = \"three\" condition: $a } // only a wildcard refers to it\n\
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
    let found = |bytes: &str| {
        let mut found = judged(&rules, bytes.as_bytes(), &["Other"]);
        found.sort();
        found
    };
    assert_eq!(found("help} one"), ["Late", "One", "set_one"]);
    assert_eq!(found("help} two"), ["Chain", "Late", "One", "set_two"]);
    assert_eq!(found("one two"), ["One", "set_one", "set_two"]);
    assert_eq!(found("one two three"), ["All", "set_one", "set_three", "set_two"]);
    assert_eq!(found("<70>"), ["Neither", "x70", "y70", "z70"]);
    assert_eq!(found("<2999>"), ["x2999", "z2999"]);
    // The global rule is of its file alone.
    assert!(judged(&rules, b"one", &["Other"]).is_empty());
    assert_eq!(judged(&rules, b"<2>", &["Other"]), ["z2"]);
    assert_eq!(judged(&rules, b"any", &[]), ["Other"]);
}

#[test]
fn a_rule_that_needs_too_many_others_is_an_error_that_names_it() {
    let text = format!("{}rule Any {{ condition: any of (r*) }}", numbered("r", MAX_RULES));
    let error = load(&[("a.yar", &text)]).unwrap_err();
    assert!(matches!(&error, LoadError::Entangled { rule, .. } if rule == "Any"), "{error}");
    let globals = numbered("g", MAX_RULES + 1).replace("rule g", "global rule g");
    let error = load(&[("a.yar", &globals)]).unwrap_err();
    assert!(matches!(error, LoadError::Entangled { .. }), "{error}");
    // Over several files they fit.
    let [one, two] = ["a", "b"].map(|prefix| numbered(prefix, 600).replace("rule", "global rule"));
    assert_eq!(parts(load(&[("a.yar", &one), ("b.yar", &two)]).unwrap().prepared()), 2);
}

#[test]
fn a_list_in_a_condition_that_the_engine_cuts_off_is_an_error_that_names_the_rule() {
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
        assert!(matches!(&error, LoadError::Lost { rule, .. } if rule == "Long"), "{error}");
    }
    // As the error advises.
    let grouped = format!("({}) or ({})", sizes(0..1_000), sizes(1_000..2_000));
    let rules = load(&[("a.yar", &format!("rule Long {{ condition: {grouped} }}"))]).unwrap();
    assert_eq!(judged(&rules, &[0; 1_999], &[]), ["Long"]);
    assert!(judged(&rules, &[0; 2_000], &[]).is_empty());
}

#[test]
fn a_prepared_form_that_is_cut_short_or_forged_is_refused() {
    let rules = load(&[("a.yar", &numbered("r", 1_500))]).unwrap();
    let whole = rules.prepared();
    let refused = |bytes: &[u8]| matches!(matches(bytes, b"nothing", &[]), Err(Failure::Rules(_)));
    assert!(!refused(whole));
    for length in (0..whole.len()).step_by(977).chain([whole.len() - 1]) {
        assert!(refused(&whole[..length]), "{length} bytes");
    }
    assert!(refused(&[whole, b"x"].concat()), "more than the header names");

    // One part fewer, and none.
    let version = crate::prepared::PREPARED_BY.len();
    for parts in [0_u32, 1, 3] {
        let mut forged = whole.to_vec();
        forged[version..version + 4].copy_from_slice(&parts.to_le_bytes());
        assert!(refused(&forged), "{parts} parts");
    }

    // The header of one set before the rules of another: fewer rules, other names, not private any more.
    let scanner = |text: &str| {
        let mut compiler = compiler();
        compiler.add_rules_str_in_namespace(text, "same").unwrap();
        encode(&[compiler.finalize()]).unwrap()
    };
    let header = version + 4;
    let [first, others @ ..] = [
        "private rule A { condition: true } rule B { condition: A }",
        "rule A { condition: true } rule B { condition: A }",
        "rule B { condition: true }",
        "private rule A { condition: true } rule C { condition: A }",
    ]
    .map(scanner);
    assert!(!refused(&first));
    for other in others {
        let mut forged = other;
        // The number of rules and their digest, behind the length.
        forged[header + 8..header + 44].copy_from_slice(&first[header + 8..header + 44]);
        assert!(refused(&forged));
    }
}

#[test]
fn more_rules_than_the_engine_reads_are_noticed_even_where_loading_succeeds() {
    // The names behind the 1 024th rule are such that the engine takes what follows for something else without an error.
    let mut compiler = compiler();
    compiler
        .add_rules_str(numbered("rule_", 1_515) + "rule A { condition: filesize > 10000 }")
        .unwrap();
    let scanner = compiler.finalize();
    assert!(!crate::prepared::survives(&scanner).unwrap());
    let prepared = encode(&[scanner]).unwrap();
    assert!(restore(&prepared).unwrap().any(|part| part.is_err()));
}
