//! The modules of the workspace's crates, followed from their `mod` declarations. Modules, items and fields that exist
//! only in tests (`cfg(test)`) or fuzz targets (`cfg(fuzzing)`) are left out.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use syn::{
    Attribute, Expr, ImplItem, Item, ItemMod, ItemUse, Lit, Macro, Meta, Token, UseTree,
    Visibility,
    buffer::{Cursor, TokenBuffer},
    punctuated::Punctuated,
    visit::{self, Visit},
};

/// Texts of Rust files by their paths, relative to the root of the repository.
pub(crate) struct SourceTree(BTreeMap<PathBuf, String>);

impl SourceTree {
    /// Reads all Rust files of the repository, including tests and the packages outside of the workspace.
    pub(crate) fn read(root: &Path) -> Self {
        let mut files = BTreeMap::new();
        let mut directories = vec![root.to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                if path.is_dir() {
                    // Build results, and the repository's own data.
                    if name != "target" && name != "node_modules" && !name.starts_with('.') {
                        directories.push(path);
                    }
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    files.insert(path.strip_prefix(root).unwrap().to_owned(), text);
                }
            }
        }
        Self(files)
    }

    /// Builds a tree of these files.
    pub(crate) fn from_texts(files: &[(&str, &str)]) -> Self {
        Self(files.iter().map(|&(path, text)| (path.into(), text.to_owned())).collect())
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.0.iter().map(|(path, text)| (&**path, &**text))
    }

    pub(crate) fn contains(&self, path: &Path) -> bool {
        self.0.contains_key(path)
    }

    pub(crate) fn parse(&self, path: &Path) -> syn::File {
        let text = self.0.get(path).unwrap_or_else(|| panic!("{} is missing", path.display()));
        syn::parse_file(text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// One module: a file, or an inline `mod name { … }` of a file.
#[derive(Default)]
pub(crate) struct ModuleNode {
    /// Names of the modules from the root of the crate, without the crate.
    pub(crate) path: Vec<String>,
    pub(crate) file: PathBuf,
    /// Index of the root of the crate.
    pub(crate) root: usize,
    pub(crate) parent: Option<usize>,
    pub(crate) children: BTreeMap<String, usize>,
    /// Names of the items that the module defines, except submodules.
    pub(crate) items: BTreeSet<String>,
    /// Paths by the names that `use` declarations give them.
    pub(crate) bindings: BTreeMap<String, Vec<String>>,
    /// Paths of `use path::*`.
    pub(crate) globs: Vec<Vec<String>>,
    /// All paths in the code of the module, including those of `use` declarations.
    pub(crate) references: BTreeSet<Vec<String>>,
}

/// The modules of several crates.
#[derive(Default)]
pub(crate) struct ModuleTree {
    pub(crate) modules: Vec<ModuleNode>,
    /// Indexes of the roots of libraries, by the names of the crates.
    pub(crate) libraries: BTreeMap<String, usize>,
}

impl ModuleTree {
    /// Adds a crate and its modules. Only a library has a name by which other crates import it.
    pub(crate) fn add_crate(&mut self, sources: &SourceTree, file: &Path, library: Option<&str>) {
        let root = self.modules.len();
        if let Some(name) = library {
            self.libraries.insert(name.to_owned(), root);
        }
        let directory = file.parent().unwrap().to_owned();
        let node = ModuleNode { file: file.to_owned(), root, ..ModuleNode::default() };
        self.add_module(sources, node, &sources.parse(file).items, &directory);
    }

    /// Adds a module with its items. `directory` contains the files of its child modules.
    fn add_module(
        &mut self,
        sources: &SourceTree,
        node: ModuleNode,
        items: &[Item],
        directory: &Path,
    ) -> usize {
        let index = self.modules.len();
        self.modules.push(node);
        for item in items {
            if !is_built(attributes(item)) {
                continue;
            }
            if let Item::Mod(module) = item {
                let child = self.add_child(sources, index, module, directory);
                self.modules[index].children.insert(module.ident.to_string(), child);
                continue;
            }
            let node = &mut self.modules[index];
            node.items.extend(name(item));
            References(node).visit_item(item);
        }
        index
    }

    fn add_child(
        &mut self,
        sources: &SourceTree,
        parent: usize,
        module: &ItemMod,
        directory: &Path,
    ) -> usize {
        let name = module.ident.to_string();
        let ModuleNode { path, file, root, .. } = &self.modules[parent];
        let mut node = ModuleNode {
            path: [&path[..], std::slice::from_ref(&name)].concat(),
            file: file.clone(),
            root: *root,
            parent: Some(parent),
            ..ModuleNode::default()
        };
        if let Some((_, items)) = &module.content {
            return self.add_module(sources, node, items, &directory.join(name));
        }
        let (file, directory) = if let Some(path) = path_attribute(&module.attrs) {
            let file = normalize(&file.parent().unwrap().join(path));
            let directory = file.parent().unwrap().to_owned();
            (file, directory)
        } else {
            let flat = directory.join(format!("{name}.rs"));
            let nested = directory.join(&name);
            (if sources.contains(&flat) { flat } else { nested.join("mod.rs") }, nested)
        };
        node.file.clone_from(&file);
        self.add_module(sources, node, &sources.parse(&file).items, &directory)
    }
}

/// Removes `..` and the component before it.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path {
        if component == ".." {
            normal.pop();
        } else {
            normal.push(component);
        }
    }
    normal
}

/// Returns the value of `#[path = "…"]`.
fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// Returns whether code with these attributes is part of a normal build.
fn is_built(attributes: &[Attribute]) -> bool {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("cfg"))
        .all(|attribute| may_hold(&attribute.parse_args().unwrap()))
}

/// Returns whether a condition of `cfg` may hold in a normal build. Conditions on the platform may.
fn may_hold(condition: &Meta) -> bool {
    let Meta::List(list) = condition else {
        return !condition.path().is_ident("test") && !condition.path().is_ident("fuzzing");
    };
    let parse = Punctuated::<Meta, Token![,]>::parse_terminated;
    let mut conditions = list.parse_args_with(parse).unwrap().into_iter();
    if list.path.is_ident("all") {
        conditions.all(|condition| may_hold(&condition))
    } else if list.path.is_ident("any") {
        conditions.any(|condition| may_hold(&condition))
    } else {
        // `not`.
        true
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Returns the name that an item defines in its module.
fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Collects the paths in an item, and the bindings of its `use` declarations. A declaration within a function counts as
/// one of the module, unless the module has another binding of that name.
struct References<'a>(&'a mut ModuleNode);

impl References<'_> {
    fn add_use(&mut self, prefix: &[String], tree: &UseTree) {
        let join = |name: &dyn ToString| [prefix, &[name.to_string()]].concat();
        let (path, name) = match tree {
            UseTree::Path(path) => return self.add_use(&join(&path.ident), &path.tree),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.add_use(prefix, tree));
            }
            UseTree::Glob(_) => return self.0.globs.push(prefix.to_vec()),
            UseTree::Name(name) if name.ident == "self" => {
                (prefix.to_vec(), prefix.last().unwrap().clone())
            }
            UseTree::Name(name) => (join(&name.ident), name.ident.to_string()),
            UseTree::Rename(rename) if rename.ident == "self" => {
                (prefix.to_vec(), rename.rename.to_string())
            }
            UseTree::Rename(rename) => (join(&rename.ident), rename.rename.to_string()),
        };
        self.0.references.insert(path.clone());
        if name != "_" {
            self.0.bindings.entry(name).or_insert(path);
        }
    }

    /// Collects the paths in the arguments of a macro, whose syntax is unknown: identifiers that `::` connects.
    fn add_tokens(&mut self, mut cursor: Cursor<'_>) {
        let mut path: Vec<String> = Vec::new();
        // Colons since the last identifier.
        let mut colons = 0;
        while !cursor.eof() {
            if let Some((ident, rest)) = cursor.ident() {
                if colons != 2 {
                    self.add_path(std::mem::take(&mut path));
                }
                path.push(ident.to_string());
                colons = 0;
                cursor = rest;
            } else if let Some((punct, rest)) = cursor.punct() {
                colons = if punct.as_char() == ':' { colons + 1 } else { 0 };
                if colons == 0 {
                    self.add_path(std::mem::take(&mut path));
                }
                cursor = rest;
            } else {
                self.add_path(std::mem::take(&mut path));
                if let Some((inner, _, _, rest)) = cursor.any_group() {
                    self.add_tokens(inner);
                    cursor = rest;
                } else if let Some((_, rest)) = cursor.token_tree() {
                    cursor = rest;
                }
            }
        }
        self.add_path(path);
    }

    fn add_path(&mut self, path: Vec<String>) {
        if !path.is_empty() {
            self.0.references.insert(path);
        }
    }
}

impl Visit<'_> for References<'_> {
    fn visit_item(&mut self, item: &Item) {
        if is_built(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs[..],
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            _ => &[],
        };
        if is_built(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_field(&mut self, field: &syn::Field) {
        if is_built(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &syn::Variant) {
        if is_built(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &syn::Arm) {
        if is_built(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_local(&mut self, local: &syn::Local) {
        if is_built(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_use(&mut self, item: &ItemUse) {
        // A leading `::` names another crate.
        if item.leading_colon.is_none() {
            self.add_use(&[], &item.tree);
        }
    }

    // `pub(in path)` imports nothing.
    fn visit_visibility(&mut self, _: &Visibility) {}

    fn visit_attribute(&mut self, _: &Attribute) {}

    fn visit_path(&mut self, path: &syn::Path) {
        if path.leading_colon.is_none() {
            self.add_path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &Macro) {
        visit::visit_macro(self, call);
        self.add_tokens(TokenBuffer::new2(call.tokens.clone()).begin());
    }
}
