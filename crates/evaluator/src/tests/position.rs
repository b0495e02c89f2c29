//! Scopes, and variables with the position of an object.

use std::ops::ControlFlow;

use super::loading::load;
use crate::{
    RuleFinding, RuleKind, RuleLoadError, RuleSet,
    prepared::restore,
    rule_filter::RuleFilter,
    rule_visitor::RuleVisitor,
    unpack::{EntryName, Kind, MediaObject, Visitor},
};

/// Returns what rules find in these objects.
fn visit(rules: &RuleSet, objects: &[MediaObject<'_>]) -> Option<RuleFinding> {
    let mut visitor = RuleVisitor::new(restore(rules.prepared()).unwrap(), RuleFilter::default());
    for object in objects {
        if visitor.visit(object) == ControlFlow::Break(()) {
            break;
        }
    }
    visitor.take_result().unwrap().finding
}

fn media(bytes: &[u8]) -> MediaObject<'_> {
    MediaObject { bytes, path: &[], depth: 0, container: None, is_repeated: false, digest: None }
}

fn inner<'a>(bytes: &'a [u8], path: &'a [EntryName]) -> MediaObject<'a> {
    MediaObject {
        bytes,
        path,
        depth: 2,
        container: Some(Kind::Zip),
        is_repeated: false,
        digest: None,
    }
}

#[test]
fn scope_limits_a_rule_to_the_media_file_or_to_its_contents() {
    for (scope, in_media, in_contents) in
        [("outer", true, false), ("inner", false, true), ("both", true, true)]
    {
        let text = format!("rule A {{ meta: scope = \"{scope}\" condition: true }}");
        let rules = load(&[("a.yar", &text)]).unwrap();
        assert_eq!(visit(&rules, &[media(b"x")]).is_some(), in_media, "{scope}");
        let path = [EntryName::label("part")];
        assert_eq!(visit(&rules, &[inner(b"x", &path)]).is_some(), in_contents, "{scope}");
    }
}

#[test]
fn unknown_scope_is_an_error() {
    let result = load(&[("a.yar", "rule A { meta: scope = \"all\" condition: true }")]);
    let Err(RuleLoadError::UnknownScope { rule, scope, .. }) = result else { panic!() };
    assert_eq!((&*rule, &*scope), ("A", "\"all\""));
    let result = load(&[("a.yar", "rule A { meta: scope = 1 condition: true }")]);
    assert!(matches!(result, Err(RuleLoadError::UnknownScope { .. })));
}

#[test]
fn rules_can_use_the_position_of_an_object() {
    let path = [
        EntryName::file("mail.zip"),
        EntryName::label("part 2"),
        EntryName::file("a\\b/c.tar.EXE"),
    ];
    for condition in [
        "filename == \"c.tar.EXE\"",
        "filename icontains \".exe\"",
        "extension == \"EXE\"",
        "filepath == \"mail.zip/a\\\\b/c.tar.EXE\"",
        "depth == 2",
        "container == \"zip\"",
        "filetype == \"\" and owner == \"\"",
    ] {
        let rules = load(&[("a.yar", &format!("rule A {{ condition: {condition} }}"))]).unwrap();
        assert!(visit(&rules, &[inner(b"x", &path)]).is_some(), "{condition}");
    }
    for condition in ["filename == \"\"", "filepath == \"\"", "depth == 0", "container == \"\""] {
        let rules = load(&[("a.yar", &format!("rule A {{ condition: {condition} }}"))]).unwrap();
        assert!(visit(&rules, &[media(b"x")]).is_some(), "{condition}");
        assert_eq!(visit(&rules, &[inner(b"x", &path)]), None, "{condition}");
    }
}

#[test]
fn rules_that_use_the_type_are_found() {
    for (condition, uses_file_type) in [
        ("filetype == \"image/png\"", true),
        ("filetype contains \"image\" and filename == \"a\"", true),
        ("filename == \"a\" and depth == 1", false),
        ("owner == \"\"", false),
        ("true", false),
    ] {
        let rules = load(&[("a.yar", &format!("rule A {{ condition: {condition} }}"))]).unwrap();
        assert_eq!(rules.uses_file_type(), uses_file_type, "{condition}");
    }
}

#[test]
fn repeated_content_is_evaluated_again_only_if_rules_use_the_position() {
    let (first, second) = ([EntryName::file("a.txt")], [EntryName::file("a.exe")]);
    let repeated = MediaObject { is_repeated: true, ..inner(b"x", &second) };
    let rules = load(&[("a.yar", "rule A { condition: extension == \"exe\" }")]).unwrap();
    let found = visit(&rules, &[inner(b"x", &first), repeated]).unwrap();
    assert_eq!(
        found,
        RuleFinding {
            kind: RuleKind::Malware,
            rules: vec!["A".to_owned()],
            path: vec!["a.exe".to_owned()]
        }
    );

    let repeated = MediaObject { is_repeated: true, ..inner(b"x", &second) };
    let rules = load(&[("a.yar", "rule A { condition: true }")]).unwrap();
    assert_eq!(visit(&rules, &[repeated]), None);
}

#[test]
fn first_finding_has_its_path() {
    let path = [EntryName::file("a.zip"), EntryName::file("b.exe")];
    let rules = load(&[("a.yar", "rule A { strings: $a = \"bad\" condition: $a }")]).unwrap();
    let found = visit(&rules, &[media(b"good"), inner(b"bad", &path), media(b"bad")]).unwrap();
    assert_eq!(found.path, ["a.zip", "b.exe"]);
}
