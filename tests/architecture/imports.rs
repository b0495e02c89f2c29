//! Imports between files, with the paths of the code resolved to the files that define the items, and the table of
//! top-level modules in `ARCHITECTURE.md`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::modules::ModuleTree;

/// What a path names: an item or a module of the crates.
#[derive(Clone, Copy)]
enum PathTarget {
    /// An item of this module.
    Item(usize),
    Module(usize),
}

/// Maximum number of re-exports on the way to an item. Ends the search for names that `use` themselves.
const MAX_REEXPORTS: usize = 16;

impl ModuleTree {
    /// Returns the modules that define items used by a module. A path that names only a module imports nothing.
    fn imports(&self, module: usize) -> BTreeSet<usize> {
        let paths = self.modules[module].references.iter();
        paths
            .filter_map(|path| match self.resolve(module, path, false, 0)? {
                PathTarget::Item(target) => Some(target),
                PathTarget::Module(_) => None,
            })
            .filter(|&target| self.modules[target].file != self.modules[module].file)
            .collect()
    }

    /// Returns the imports of each file.
    pub(crate) fn file_imports(&self) -> BTreeMap<&Path, BTreeSet<&Path>> {
        let mut imports: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            let targets = self.imports(index);
            let files = targets.into_iter().map(|target| &*self.modules[target].file);
            imports.entry(&module.file).or_default().extend(files);
        }
        imports
    }

    /// Resolves a path in a module. Returns `None` for items of other crates, type parameters and local variables.
    /// `is_prefix`: more segments follow, so a module is preferred to an item of the same name.
    fn resolve(
        &self,
        from: usize,
        path: &[String],
        is_prefix: bool,
        depth: usize,
    ) -> Option<PathTarget> {
        let mut target = PathTarget::Module(from);
        for (position, name) in path.iter().enumerate() {
            // The rest of the path names a variant, a constant or a function of the item.
            let PathTarget::Module(module) = target else { break };
            let node = &self.modules[module];
            target = match &**name {
                "crate" => PathTarget::Module(node.root),
                "self" => target,
                "super" => PathTarget::Module(node.parent?),
                name => {
                    let is_prefix = is_prefix || position + 1 < path.len();
                    let library = || self.libraries.get(name).filter(|_| position == 0);
                    // A path into a module that has no such item in its source names one that a macro defines.
                    let by_macro =
                        || (position > 0 && depth == 0).then_some(PathTarget::Item(module));
                    self.lookup(module, name, is_prefix, depth)
                        .or_else(|| library().map(|&root| PathTarget::Module(root)))
                        .or_else(by_macro)?
                }
            };
        }
        Some(target)
    }

    /// Finds a name among the child modules, the items and the `use` declarations of a module.
    fn lookup(
        &self,
        module: usize,
        name: &str,
        is_prefix: bool,
        depth: usize,
    ) -> Option<PathTarget> {
        if depth > MAX_REEXPORTS {
            return None;
        }
        let node = &self.modules[module];
        let child = node.children.get(name).map(|&child| PathTarget::Module(child));
        let item = node.items.contains(name).then_some(PathTarget::Item(module));
        let through = |path: &[String]| self.resolve(module, path, is_prefix, depth + 1);
        let glob = |glob: &Vec<String>| through(&[&glob[..], &[name.to_owned()]].concat());
        if is_prefix { child.or(item) } else { item }
            .or_else(|| node.bindings.get(name).and_then(|path| through(path)))
            .or_else(|| node.globs.iter().find_map(glob))
            .or(child)
            // A module that re-exports an item of another crate stands for its definition.
            .or_else(|| node.bindings.contains_key(name).then_some(PathTarget::Item(module)))
    }

    /// Returns the imports of each top-level module of the crates whose roots are these files. The code of a root itself
    /// counts as a module with the name of its file, if it uses or defines anything.
    pub(crate) fn top_level_imports(
        &self,
        roots: &[PathBuf],
    ) -> BTreeMap<String, BTreeSet<String>> {
        let top_level = |index: usize| {
            let module = &self.modules[index];
            let stem = || self.modules[module.root].file.file_stem().unwrap().to_string_lossy();
            module.path.first().cloned().unwrap_or_else(|| stem().into_owned())
        };
        let mut table: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (index, module) in self.modules.iter().enumerate() {
            let is_in =
                |module: usize| roots.contains(&self.modules[self.modules[module].root].file);
            let is_empty = module.references.is_empty() && module.items.is_empty();
            if !is_in(index) || (module.path.is_empty() && is_empty) {
                continue;
            }
            let name = top_level(index);
            let targets = self.imports(index).into_iter().filter(|&target| is_in(target));
            let names: Vec<_> = targets.map(top_level).filter(|target| *target != name).collect();
            table.entry(name).or_default().extend(names);
        }
        table
    }
}

/// First line of the table of top-level modules.
pub(crate) const HEADER: &str = "| module | purpose | imports |";

/// Returns the rows of the table: names of modules and of their imports, in the order of the page.
fn documented(page: &str) -> Vec<(String, BTreeSet<String>)> {
    let rows = page.lines().skip_while(|line| *line != HEADER).skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|row| {
            let cells: Vec<_> = row.split('|').collect();
            (code_spans(cells[1]).collect(), code_spans(cells[3]).map(str::to_owned).collect())
        })
        .collect()
}

/// Returns the texts between backticks.
fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Compares the table with the imports of the code. Returns what differs, and the imports that don't run downwards.
pub(crate) fn table_errors(
    page: &str,
    imports: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let table = documented(page);
    let order: Vec<&str> = table.iter().map(|(module, _)| &**module).collect();
    let position = |module: &str| order.iter().position(|other| *other == module);
    let mut errors = Vec::new();
    if table.is_empty() {
        errors.push(format!("the page has no table {HEADER}"));
    }
    for (index, (module, documented)) in table.iter().enumerate() {
        let Some(imports) = imports.get(module) else {
            errors.push(format!("{module} is in the table, and not in the code"));
            continue;
        };
        if imports != documented {
            let mut names: Vec<_> = imports.iter().collect();
            names.sort_by_key(|name| position(name));
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            let cell = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            errors.push(format!("{module} imports: {cell}"));
        }
        let upward = imports.iter().filter(|name| position(name).is_some_and(|at| at <= index));
        errors.extend(upward.map(|name| format!("{module} imports {name}, which is above it")));
    }
    let missing = imports.keys().filter(|module| position(module).is_none());
    errors.extend(missing.map(|module| format!("{module} is missing in the table")));
    errors
}
