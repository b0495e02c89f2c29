//! The checks on small source trees: each finds what it must find.

use std::path::Path;

use super::{
    MAX_LINES, duplicate_types, find_cycle,
    imports::HEADER,
    library, long_files,
    modules::{ModuleTree, SourceTree},
    table_errors,
};

/// Returns the import cycle of a library, as the names of its files.
fn cycle(files: &[(&str, &str)]) -> Vec<String> {
    let tree = library(files);
    let cycle = find_cycle(&tree.file_imports()).unwrap_or_default();
    cycle.into_iter().map(|path| path.display().to_string()).collect()
}

/// Returns the files that a file of a library imports.
fn imports_of(files: &[(&str, &str)], file: &str) -> Vec<String> {
    let tree = library(files);
    let imports = tree.file_imports().remove(Path::new(file)).unwrap();
    imports.into_iter().map(|path| path.display().to_string()).collect()
}

#[test]
fn cycles_are_found_however_items_are_named() {
    let root = ("lib.rs", "mod a; mod b; mod c;");
    let forms = [
        "use crate::c::C; fn f(_: C) {}",
        "fn f() { crate::c::C::new(); }",
        "use super::c; fn f(_: c::C) {}",
        "fn f() { use crate::c::*; let _: Option<C> = None; }",
        "fn f() { println!(\"{}\", super::c::C::new()); }",
        "impl From<crate::c::C> for B {}",
        "pub use crate::c::C as D;",
    ];
    for form in forms {
        let b = format!("pub struct B; {form}");
        let files = [
            root,
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", &b),
            ("c/mod.rs", "mod inner; pub struct C; use crate::a::A;"),
            ("c/inner.rs", "use super::C;"),
        ];
        assert_eq!(cycle(&files), ["a.rs", "b.rs", "c/mod.rs"], "{form}");
    }
}

#[test]
fn imports_point_to_the_defining_file() {
    let files = [
        ("lib.rs", "mod outer; mod user; pub struct Root;"),
        ("outer.rs", "mod inner; pub use inner::{Inner, deep as renamed}; pub struct Outer;"),
        ("outer/inner.rs", "pub mod deep { pub struct Deep; } pub struct Inner;"),
        ("user.rs", "use crate::outer::{Inner, renamed}; fn f(_: renamed::Deep) {}"),
    ];
    assert_eq!(imports_of(&files, "user.rs"), ["outer/inner.rs"]);
    assert_eq!(imports_of(&files, "outer.rs"), ["outer/inner.rs"]);
    assert!(imports_of(&files, "outer/inner.rs").is_empty());
}

#[test]
fn a_reexported_item_of_another_crate_belongs_to_the_file_that_reexports_it() {
    let files = [
        ("lib.rs", "mod sync; mod user;"),
        ("sync.rs", "pub use parking_lot::Mutex; use std::fmt;"),
        ("user.rs", "use crate::sync::Mutex; use std::sync::Arc; fn f(_: Arc<Mutex<u8>>) {}"),
    ];
    assert_eq!(imports_of(&files, "user.rs"), ["sync.rs"]);
    assert!(imports_of(&files, "sync.rs").is_empty());
}

#[test]
fn an_item_that_a_macro_defines_belongs_to_the_file_that_its_path_names() {
    let files = [
        ("lib.rs", "mod causes; mod user; mod other;"),
        ("causes.rs", "macro_rules! causes { () => { pub enum Cause { A } } } causes!();"),
        ("user.rs", "use crate::causes::Cause; use std::io; fn f() { crate::causes::Cause::A; }"),
        ("other.rs", "use crate::user::*; fn f(_: Unknown) {}"),
    ];
    assert_eq!(imports_of(&files, "user.rs"), ["causes.rs"]);
    assert!(imports_of(&files, "other.rs").is_empty());
}

#[test]
fn visibility_tests_and_modules_are_no_imports() {
    let files = [
        ("lib.rs", "mod a; mod b; pub struct Root;"),
        (
            "a.rs",
            "use super::b; use serde::b::B; pub(in crate::b) struct A; \
             #[cfg(test)] mod tests { use crate::b::B; } \
             #[cfg(any(test, fuzzing))] mod fuzz; \
             #[cfg(test)] impl A { fn f(_: crate::b::B) {} } \
             impl A { #[cfg(test)] fn g(_: crate::b::B) {} } \
             struct S { #[cfg(test)] field: crate::b::B }",
        ),
        ("b.rs", "pub struct B; use crate::a::A;"),
    ];
    assert!(imports_of(&files, "a.rs").is_empty());
    assert_eq!(imports_of(&files, "b.rs"), ["a.rs"]);
    // A condition on the platform, and one that excludes tests, are part of a normal build.
    for condition in ["target_os = \"linux\"", "not(test)", "all(unix, not(fuzzing))"] {
        let a = format!("pub struct A; #[cfg({condition})] use crate::b::B;");
        assert_eq!(cycle(&[files[0], ("a.rs", &a), files[2]]), ["a.rs", "b.rs"], "{condition}");
    }
}

#[test]
fn modules_are_found_by_path_attributes_and_inline() {
    let files = [
        ("src/main.rs", "#[path = \"../shared/x.rs\"] mod x; mod outer { mod y; } mod z;"),
        ("shared/x.rs", "mod sibling;"),
        ("shared/sibling.rs", "use crate::z::Z;"),
        ("src/outer/y.rs", "use crate::z::Z;"),
        ("src/z.rs", "pub struct Z;"),
    ];
    let mut tree = ModuleTree::default();
    tree.add_crate(&SourceTree::from_texts(&files), Path::new("src/main.rs"), None);
    let imports = tree.file_imports();
    for file in ["shared/sibling.rs", "src/outer/y.rs"] {
        assert!(imports[Path::new(file)].contains(Path::new("src/z.rs")), "{file}");
    }
}

#[test]
fn table_must_equal_imports_and_their_order() {
    let errors = |rows: &str, a: &str, b: &str| {
        let files = [("lib.rs", "mod a; mod b;"), ("a.rs", a), ("b.rs", b)];
        let imports = library(&files).top_level_imports(&["lib.rs".into()]);
        table_errors(&format!("# Page\n\n{HEADER}\n|---|---|---|\n{rows}\ntext\n"), &imports)
    };
    let (a, b) = ("pub struct A; use crate::b::B;", "pub struct B;");
    let table = "| `a` | x `b` | `b` |\n| `b` | y | none |";
    assert!(errors(table, a, b).is_empty());
    let reversed = "| `b` | y | none |\n| `a` | x | `b` |";
    assert_eq!(errors(reversed, a, b), ["a imports b, which is above it"]);
    assert_eq!(errors("| `a` | x | `b` |", a, b), ["b is missing in the table"]);
    assert_eq!(errors(table, "", b), ["a imports: none"]);
    let upward = ["b imports: `a`", "b imports a, which is above it"];
    assert_eq!(errors(table, a, "pub struct B; use crate::a::A;"), upward);
    let more = format!("{table}\n| `c` | z | none |");
    assert_eq!(errors(&more, a, b), ["c is in the table, and not in the code"]);
    assert_eq!(errors("", a, b).len(), 3, "no table");
}

#[test]
fn programs_import_their_library_by_name() {
    let files = [
        ("lib.rs", "pub mod app;"),
        ("app.rs", "pub struct App;"),
        ("main.rs", "mod cli; fn main() { cli::run(); }"),
        ("cli.rs", "use service::app::App; pub fn run() {}"),
    ];
    let sources = SourceTree::from_texts(&files);
    let mut tree = ModuleTree::default();
    tree.add_crate(&sources, Path::new("lib.rs"), Some("service"));
    tree.add_crate(&sources, Path::new("main.rs"), None);
    let imports = tree.top_level_imports(&["lib.rs".into(), "main.rs".into()]);
    let row = |module: &str| imports[module].iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(row("main"), ["cli"]);
    assert_eq!(row("cli"), ["app"]);
    assert_eq!(row("app"), [""; 0]);
}

#[test]
fn duplicates_are_found_in_tests_and_functions() {
    let files = [
        ("src/a.rs", "struct One; enum Two {} struct Settings; trait Three {} struct Only;"),
        ("src/b.rs", "type One = u8; #[cfg(test)] mod tests { fn f() { struct Two; } }"),
        ("sandbox/src/c.rs", "union Three { x: u8 } struct Settings; impl A { type Only = u8; }"),
        ("fuzz/targets/d.rs", "struct Only;"),
    ];
    let sources = SourceTree::from_texts(&files);
    let names: Vec<_> = duplicate_types(&sources).into_keys().collect();
    assert_eq!(names, ["One", "Three", "Two"]);
}

#[test]
fn long_files_are_found() {
    let long = "//\n".repeat(MAX_LINES + 1);
    let files = [("short.rs", &long[3..]), ("long.rs", &long)];
    assert_eq!(
        long_files(&SourceTree::from_texts(&files)),
        [(Path::new("long.rs"), MAX_LINES + 1)]
    );
}
