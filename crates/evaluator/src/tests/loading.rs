//! Loading of directories, public rules and invalid rules, and use of the prepared form.

use std::{fs, path::Path};

use super::{SUPPLIED, evaluate, finding, hashes::hex};
use crate::{
    NoteKind, RuleLoadError, RuleSet,
    error::EvaluationError,
    prepared::{PREPARED_BY, restore},
};

pub(super) fn load(files: &[(&str, &str)]) -> Result<RuleSet, RuleLoadError> {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    RuleSet::load(&[directory.path().to_owned()])
}

pub(super) fn matching(rules: &RuleSet, bytes: &[u8], ignored: &[&str]) -> Vec<String> {
    finding(rules, bytes, ignored).map(|found| found.rules).unwrap_or_default()
}

#[test]
fn loads_rule_files_of_a_directory_tree() {
    let rules = load(&[
        ("a.yar", "rule A { condition: true }"),
        ("more/b.YARA", "rule B { condition: true }"),
        ("notes.txt", "no rule"),
        (".git/c.yar", "no rule"),
    ]);
    assert_eq!(rules.unwrap().names().iter().collect::<Vec<_>>(), ["A", "B"]);
}

#[test]
fn files_have_separate_namespaces() {
    let rules = load(&[
        ("a.yar", "private rule Help { condition: true } rule Same { condition: Help }"),
        ("b.yar", "private rule Help { condition: false } rule Same { condition: Help }"),
    ])
    .unwrap();
    assert_eq!(matching(&rules, b"x", &[]), ["Same"]);
}

#[test]
fn supports_modules_and_variables_of_public_rules() {
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
    assert_eq!(matching(&rules, b"a MARKER here", &[]), ["Public"]);
    assert!(matching(&rules, b"nothing", &[]).is_empty());
}

#[test]
fn error_of_an_invalid_rule_has_file_line_and_column() {
    let error = load(&[
        ("ok.yar", "rule A { condition: true }"),
        ("z.yar", "rule B {\n condition:\n  $undefined\n}"),
    ]);
    let message = error.unwrap_err().to_string();
    assert!(message.contains("/z.yar:3:3: error: ") && message.contains("undefined"), "{message}");
    let error = load(&[("z.yar", "import \"no_such\"\nrule B { condition: true }")]);
    assert!(error.unwrap_err().to_string().contains("/z.yar:1:"), "an unknown module");
}

#[test]
fn rejects_directories_without_reportable_rules() {
    assert!(matches!(load(&[("notes.txt", "x")]), Err(RuleLoadError::Empty(_))));
    assert!(matches!(
        load(&[("a.yar", "private rule A { condition: true }")]),
        Err(RuleLoadError::Empty(_))
    ));
    let missing = RuleSet::load(&["/missing/rules".into()]);
    assert!(matches!(missing, Err(RuleLoadError::Unreadable { .. })));
}

#[test]
fn private_and_ignored_rules_are_not_reported() {
    let rules = load(&[(
        "a.yar",
        "private rule A { condition: true } rule B { condition: A } rule C { condition: A }",
    )]);
    let rules = rules.unwrap();
    assert_eq!(matching(&rules, b"x", &["B"]), ["C"]);
    assert!(matching(&rules, b"x", &["B", "C"]).is_empty());
}

#[test]
fn digest_depends_on_the_rules() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.yar");
    let digest = |text: &str| {
        fs::write(&file, text).unwrap();
        RuleSet::load(std::slice::from_ref(&file)).unwrap().digest()
    };
    let before = digest("rule A { strings: $a = \"one\" condition: $a }");
    assert_eq!(before, digest("rule A { strings: $a = \"one\" condition: $a }"));
    assert_ne!(before, digest("rule A { strings: $a = \"two\" condition: $a }"));
}

/// Of the sources, computed independently: not of the compiled form, which depends on the build.
#[test]
fn digest_is_that_of_the_sources_in_all_builds() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("more")).unwrap();
    fs::write(path("a.yar"), "include \"more/b.yara\"\nrule A { condition: false }").unwrap();
    fs::write(path("more/b.yara"), "rule B { condition: false }").unwrap();
    let digest = || RuleSet::load(&[path("a.yar")]).unwrap().digest();
    let text = hex(&digest());
    assert_eq!(
        text, "5aa44e1ebc4126eb762b1783e47fa455123d0eb5738af84968ea5678cd1bea58",
        "a new version of the code that unpacks files changes this value"
    );
    fs::write(path("more/b.yara"), "rule B { condition: true }").unwrap();
    assert_ne!(hex(&digest()), text, "an include");
}

#[test]
fn digest_does_not_depend_on_where_the_files_are() {
    let files =
        [("a.yar", "rule A { condition: false }"), ("b/c.yar", "rule B { condition: false }")];
    let [first, second] = [(), ()].map(|()| load(&files).unwrap());
    assert_eq!(first.digest(), second.digest());
    assert_eq!(first.prepared(), second.prepared());
}

#[test]
fn too_many_matches_of_a_string_are_a_limit() {
    let rules = load(&[("a.yar", "rule A { strings: $a = \"ab\" condition: #a == 1 }")]).unwrap();
    let report = evaluate(rules.prepared(), &b"ab".repeat(260_000), &[]).unwrap();
    assert_eq!(report.finding, None);
    assert_eq!(report.notes[0].kind, NoteKind::Limit);
    assert_eq!(report.notes[0].reason, "string a of rule A has too many matches");
}

#[test]
fn matches_of_a_pattern_without_fixed_bytes_are_not_truncated() {
    let rule = "rule Last { strings: $a = /.{1,3}/s condition: $a at filesize - 1 }";
    let rules = load(&[("a.yar", rule)]).unwrap();
    assert_eq!(matching(&rules, &b"a-".repeat(10), &[]), ["Last"]);
    assert_eq!(matching(&rules, &b"a-".repeat(130_000), &[]), ["Last"]);
}

#[test]
fn rejects_rules_prepared_by_another_version() {
    let mut prepared = SUPPLIED.prepared().to_vec();
    prepared[0] ^= 1;
    assert!(matches!(evaluate(&prepared, b"x", &[]), Err(EvaluationError::Rules(_))));
    assert!(restore(&prepared).is_err());
}

#[test]
fn version_marker_agrees_with_the_lock_file() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    let lock = fs::read_to_string(lock).unwrap();
    let (_, after) = lock.split_once("name = \"boreal\"\nversion = \"").unwrap();
    let boreal = after.split('"').next().unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        PREPARED_BY,
        format!("mcs-evaluator {version}, form 4, boreal {boreal}\n").as_bytes()
    );
}
