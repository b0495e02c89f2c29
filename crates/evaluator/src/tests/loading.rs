//! Rules as operators have them: directories, public ones, broken ones.

use std::{fs, path::Path};

use super::OWN;
use crate::{
    LoadError, RuleSet,
    evaluator::{Failure, matches},
    prepared::{PREPARED_BY, restore},
};

pub(super) fn load(files: &[(&str, &str)]) -> Result<RuleSet, LoadError> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    RuleSet::load(&[folder.path().to_owned()])
}

pub(super) fn judged(rules: &RuleSet, bytes: &[u8], ignored: &[&str]) -> Vec<String> {
    matches(rules.prepared(), bytes, ignored).unwrap()
}

#[test]
fn files_of_a_directory_and_below_it_are_found_and_others_are_not() {
    let rules = load(&[
        ("a.yar", "rule A { condition: true }"),
        ("more/b.YARA", "rule B { condition: true }"),
        ("notes.txt", "no rule"),
        (".git/c.yar", "no rule"),
    ]);
    assert_eq!(rules.unwrap().names().iter().collect::<Vec<_>>(), ["A", "B"]);
}

#[test]
fn two_files_may_use_the_same_names() {
    let rules = load(&[
        ("a.yar", "private rule Help { condition: true } rule Same { condition: Help }"),
        ("b.yar", "private rule Help { condition: false } rule Same { condition: Help }"),
    ])
    .unwrap();
    assert_eq!(judged(&rules, b"x", &[]), ["Same"]);
}

#[test]
fn public_rules_load_with_modules_and_variables() {
    let rules = load(&[(
        "public.yar",
        r#"
        import "pe" import "elf" import "macho" import "math" import "hash" import "dotnet" import "time" import "console" import "string"
        rule Public : tag {
            meta: author = "x" score = 75
            strings: $a = "marker" ascii wide nocase fullword $b = { 01 ?2 [2-4] (03 | 04) } $c = /ab+c/ $d = "other" xor(1-3) $e = "other" base64
            condition:
                $a and not pe.is_pe and not defined elf.type and math.entropy(0, filesize) < 8
                and hash.md5(0, filesize) != "" and filename == "" and extension != "exe" and console.log("x")
                and (pe.imphash() == "x" or not any of ($b, $c, $d, $e) or true)
        }"#,
    )])
    .unwrap();
    assert_eq!(judged(&rules, b"a MARKER here", &[]), ["Public"]);
    assert!(judged(&rules, b"nothing", &[]).is_empty());
}

#[test]
fn a_broken_rule_is_named_with_its_file_line_and_column() {
    let error = load(&[
        ("ok.yar", "rule A { condition: true }"),
        ("z.yar", "rule B {\n condition:\n  $nowhere\n}"),
    ]);
    let said = error.unwrap_err().to_string();
    assert!(said.contains("/z.yar:3:3: error: ") && said.contains("nowhere"), "{said}");
    let error = load(&[("z.yar", "import \"no_such\"\nrule B { condition: true }")]);
    assert!(error.unwrap_err().to_string().contains("/z.yar:1:"), "an unknown module");
}

#[test]
fn what_has_no_rule_in_it_is_said() {
    assert!(matches!(load(&[("notes.txt", "x")]), Err(LoadError::Empty(_))));
    assert!(matches!(
        load(&[("a.yar", "private rule A { condition: true }")]),
        Err(LoadError::Empty(_))
    ));
    let missing = RuleSet::load(&["/nowhere/at/all".into()]);
    assert!(matches!(missing, Err(LoadError::Unreadable { .. })));
}

#[test]
fn private_and_ignored_rules_refuse_nothing() {
    let rules = load(&[(
        "a.yar",
        "private rule A { condition: true } rule B { condition: A } rule C { condition: A }",
    )]);
    let rules = rules.unwrap();
    assert_eq!(judged(&rules, b"x", &["B"]), ["C"]);
    assert!(judged(&rules, b"x", &["B", "C"]).is_empty());
}

#[test]
fn the_digest_is_of_the_rules() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.yar");
    let digest = |text: &str| {
        fs::write(&file, text).unwrap();
        RuleSet::load(std::slice::from_ref(&file)).unwrap().digest()
    };
    let before = digest("rule A { strings: $a = \"one\" condition: $a }");
    assert_eq!(before, digest("rule A { strings: $a = \"one\" condition: $a }"));
    assert_ne!(before, digest("rule A { strings: $a = \"two\" condition: $a }"));
}

#[test]
fn a_string_that_is_everywhere_makes_no_verdict() {
    let rules = load(&[("a.yar", "rule A { strings: $a = \"ab\" condition: #a == 1 }")]).unwrap();
    let failure = matches(rules.prepared(), &b"ab".repeat(260_000), &[]);
    assert!(matches!(failure, Err(Failure::Crowded(_))));
}

#[test]
fn a_pattern_without_fixed_bytes_is_not_cut_off_in_silence() {
    let rule = "rule Last { strings: $a = /.{1,3}/s condition: $a at filesize - 1 }";
    let rules = load(&[("a.yar", rule)]).unwrap();
    assert_eq!(judged(&rules, &b"a-".repeat(10), &[]), ["Last"]);
    assert_eq!(judged(&rules, &b"a-".repeat(130_000), &[]), ["Last"]);
}

#[test]
fn rules_that_another_version_prepared_are_not_used() {
    let mut prepared = OWN.prepared().to_vec();
    prepared[0] ^= 1;
    assert!(matches!(matches(&prepared, b"x", &[]), Err(Failure::Rules(_))));
    assert!(restore(&prepared).is_err());
}

#[test]
fn the_version_that_prepares_is_the_one_in_the_lock_file() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap();
    let (_, after) = lock.split_once("name = \"boreal\"\nversion = \"").unwrap();
    let boreal = after.split('"').next().unwrap();
    let this = env!("CARGO_PKG_VERSION");
    assert_eq!(PREPARED_BY, format!("mcs-rules {this}, form 2, boreal {boreal}\n").as_bytes());
}
