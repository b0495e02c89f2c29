//! Checks the structure of the sources: imports run downwards by the table in `ARCHITECTURE.md`, files import each other
//! without cycles, a type name stands for one type, files are short, and the vocabulary is standard. Clippy checks the
//! length of functions (`clippy.toml`).
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    ItemEnum, ItemStruct, ItemTrait, ItemType, ItemUnion,
    visit::{self, Visit},
};

mod cycles;
mod imports;
mod modules;
mod self_tests;
mod vocabulary;

use cycles::find_cycle;
use imports::table_errors;
use modules::{ModuleTree, SourceTree};

/// Type names that each module may define for itself.
const REPEATABLE: &[&str] = &["Error", "Kind", "Settings"];

const MAX_LINES: usize = 500;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Returns the directories of the workspace's packages, with the name of each package's library.
fn packages() -> Vec<(PathBuf, String)> {
    let manifest = |directory: &Path| -> toml::Table {
        read(directory.join("Cargo.toml").to_str().unwrap()).parse().unwrap()
    };
    let root = manifest(Path::new(""));
    let members = root["workspace"]["members"].as_array().unwrap();
    let members = members.iter().flat_map(|member| match member.as_str().unwrap() {
        "crates/*" => {
            let crates = fs::read_dir(repository().join("crates")).unwrap();
            crates.map(|entry| Path::new("crates").join(entry.unwrap().file_name())).collect()
        }
        member => vec![PathBuf::from(member)],
    });
    std::iter::once(PathBuf::new())
        .chain(members)
        .map(|directory| {
            let name = manifest(&directory)["package"]["name"].as_str().unwrap().replace('-', "_");
            (directory, name)
        })
        .collect()
}

/// Follows the modules of all libraries and programs of the workspace.
fn workspace(sources: &SourceTree) -> ModuleTree {
    let mut tree = ModuleTree::default();
    for (directory, name) in packages() {
        for (file, library) in [("src/lib.rs", Some(&*name)), ("src/main.rs", None)] {
            let file = directory.join(file);
            if sources.contains(&file) {
                tree.add_crate(sources, &file, library);
            }
        }
    }
    tree
}

/// Follows the modules of one library without a name.
fn library(files: &[(&str, &str)]) -> ModuleTree {
    let mut tree = ModuleTree::default();
    tree.add_crate(&SourceTree::from_texts(files), Path::new("lib.rs"), None);
    tree
}

#[test]
fn imports_run_downwards_as_documented() {
    let tree = workspace(&SourceTree::read(repository()));
    let imports = tree.top_level_imports(&["src/lib.rs", "src/main.rs"].map(PathBuf::from));
    assert!(imports.len() > 15, "{imports:?}");
    let errors = table_errors(&read("ARCHITECTURE.md"), &imports);
    assert!(errors.is_empty(), "the table of modules in ARCHITECTURE.md: {errors:#?}");
}

#[test]
fn no_file_imports_itself_through_others() {
    let tree = workspace(&SourceTree::read(repository()));
    let imports = tree.file_imports();
    assert!(imports.len() > 200, "{}", imports.len());
    let count: usize = imports.values().map(BTreeSet::len).sum();
    assert!(count > 500, "{count}");
    let cycle = find_cycle(&imports);
    assert!(cycle.is_none(), "import cycle: {cycle:#?}");
}

#[test]
fn a_type_name_stands_for_one_type() {
    let sources = SourceTree::read(repository());
    let duplicates = duplicate_types(&sources);
    assert!(duplicates.is_empty(), "defined in several files: {duplicates:#?}");
}

#[test]
fn files_are_short() {
    let sources = SourceTree::read(repository());
    let long = long_files(&sources);
    assert!(long.is_empty(), "more than {MAX_LINES} lines: {long:#?}");
}

/// Clippy counts the lines, with the lint `too_many_lines` of the group `pedantic`.
#[test]
fn clippy_limits_the_length_of_functions() {
    let limits: toml::Table = read("clippy.toml").parse().unwrap();
    assert_eq!(limits["too-many-lines-threshold"].as_integer(), Some(60));
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let lints = manifest["workspace"]["lints"]["clippy"].as_table().unwrap();
    assert!(lints.contains_key("pedantic") && !lints.contains_key("too_many_lines"), "{lints:?}");
}

#[test]
fn vocabulary_is_standard() {
    let files = vocabulary::checked_files(repository());
    assert!(files.len() > 300, "{}", files.len());
    let found: Vec<_> = files
        .iter()
        .flat_map(|(path, text)| {
            let found = vocabulary::old_words(text).into_iter();
            found.map(|(line, word)| format!("{}:{line}: {word}", path.display()))
        })
        .collect();
    assert!(found.is_empty(), "replaced by standard terms: {found:#?}");
}

/// Returns the type names that several files of the workspace define, with these files.
fn duplicate_types(sources: &SourceTree) -> BTreeMap<String, BTreeSet<&Path>> {
    let mut files: BTreeMap<String, BTreeSet<&Path>> = BTreeMap::new();
    // Packages of their own.
    let is_outside = |path: &Path| path.starts_with("fuzz") || path.starts_with("tests/real");
    for (path, _) in sources.files().filter(|(path, _)| !is_outside(path)) {
        let mut names = TypeNames::default();
        names.visit_file(&sources.parse(path));
        for name in names.0 {
            files.entry(name).or_default().insert(path);
        }
    }
    files.retain(|name, files| files.len() > 1 && !REPEATABLE.contains(&&**name));
    files
}

/// Names of the structs, enums, unions, traits and type aliases of a file.
#[derive(Default)]
struct TypeNames(BTreeSet<String>);

impl Visit<'_> for TypeNames {
    fn visit_item_struct(&mut self, item: &ItemStruct) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_struct(self, item);
    }

    fn visit_item_enum(&mut self, item: &ItemEnum) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_enum(self, item);
    }

    fn visit_item_union(&mut self, item: &ItemUnion) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_union(self, item);
    }

    fn visit_item_trait(&mut self, item: &ItemTrait) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_trait(self, item);
    }

    fn visit_item_type(&mut self, item: &ItemType) {
        self.0.insert(item.ident.to_string());
        visit::visit_item_type(self, item);
    }
}

/// Returns the files above the maximum length, with their numbers of lines.
fn long_files(sources: &SourceTree) -> Vec<(&Path, usize)> {
    let lengths = sources.files().map(|(path, text)| (path, text.lines().count()));
    lengths.filter(|(_, lines)| *lines > MAX_LINES).collect()
}
