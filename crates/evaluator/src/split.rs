//! Divides rules into parts that the engine can load: boreal 1.4.0 restores at most [`MAX_RULES`] rules and as many
//! global rules from one serialized scanner, and silently ignores the rest.
//!
//! A file that fits is not divided. A larger file is divided into pieces. Each piece contains all imports and global
//! rules of the file, and with each rule the rules that it refers to, in the order of the file, so every condition has
//! the same result as in the whole file. A rule in several pieces matches in all of them or in none, and its name is
//! reported once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use boreal::{Compiler, Scanner};
use boreal_parser::{file::YaraFileComponent, parse, rule::Rule};

use crate::{
    compiler::{invalid, namespace, new_compiler},
    error::{MAX_RULES, RuleLoadError},
};

/// Maximum depth of nested includes. The compiler, which has no limit, has read the files before.
const MAX_INCLUDE_DEPTH: usize = 64;

/// Numbers of rules by kind.
#[derive(Clone, Copy, Default)]
struct RuleCounts {
    normal: usize,
    global: usize,
}

impl RuleCounts {
    fn add(&mut self, is_global: bool) {
        if is_global { self.global += 1 } else { self.normal += 1 }
    }

    fn plus(self, other: Self) -> Self {
        Self { normal: self.normal + other.normal, global: self.global + other.global }
    }

    fn fit(self) -> bool {
        self.normal <= MAX_RULES && self.global <= MAX_RULES
    }
}

/// Returns whether the engine can load these rules as one part.
pub(crate) fn fits(scanner: &Scanner) -> bool {
    let mut counts = RuleCounts::default();
    scanner.rules().for_each(|rule| counts.add(rule.is_global));
    counts.fit()
}

/// Divides `whole`, compiled from `files` with one namespace per file, into parts that the engine can load.
///
/// # Errors
/// If a file cannot be divided, or has changed since `whole` was compiled.
pub(crate) fn split(files: &[PathBuf], whole: &Scanner) -> Result<Vec<Scanner>, RuleLoadError> {
    let mut by_namespace: BTreeMap<&str, RuleCounts> = BTreeMap::new();
    for rule in whole.rules() {
        by_namespace.entry(rule.namespace).or_default().add(rule.is_global);
    }
    let mut packer = PartPacker::default();
    for (index, file) in files.iter().enumerate() {
        let namespace = namespace(index);
        let counts = by_namespace.get(namespace.as_str()).copied().unwrap_or_default();
        if counts.fit() {
            let compiler = packer.compiler_for(&namespace, counts);
            compiler.add_rules_file_in_namespace(file, &namespace).map_err(invalid)?;
            continue;
        }
        let source = RuleSource::read(file)?;
        for piece in source.pieces()? {
            let compiler = packer.compiler_for(&namespace, source.counts(&piece));
            compiler
                .add_rules_str_in_namespace(source.text(&piece), &namespace)
                .map_err(invalid)?;
        }
    }
    let parts = packer.finish();
    let identities = |scanners: &[Scanner]| -> BTreeSet<(String, String, bool, bool)> {
        let rules = scanners.iter().flat_map(Scanner::rules);
        rules
            .map(|rule| {
                let (namespace, name) = (rule.namespace.to_owned(), rule.name.to_owned());
                (namespace, name, rule.is_private, rule.is_global)
            })
            .collect()
    };
    if identities(&parts) == identities(std::slice::from_ref(whole)) {
        Ok(parts)
    } else {
        Err(RuleLoadError::Changed)
    }
}

/// Returns the name of the first rule of a file that does not satisfy `is_restorable` when it is compiled with only the
/// rules that it needs.
pub(crate) fn find_unrestorable(
    file: &Path,
    is_restorable: impl Fn(&Scanner) -> bool,
) -> Result<Option<String>, RuleLoadError> {
    let source = RuleSource::read(file)?;
    let base = source.base();
    for (index, component) in source.components.iter().enumerate() {
        let Some(rule) = &component.rule else { continue };
        let mut piece = base.clone();
        source.add_closure(index, &mut piece);
        let mut compiler = new_compiler();
        compiler.add_rules_str_in_namespace(source.text(&piece), namespace(0)).map_err(invalid)?;
        if !is_restorable(&compiler.finalize()) {
            return Ok(Some(rule.name.clone()));
        }
    }
    Ok(None)
}

/// Distributes rules among compilers, one for each part.
#[derive(Default)]
struct PartPacker {
    full: Vec<Compiler>,
    current: Option<(Compiler, RuleCounts)>,
    namespace: String,
}

impl PartPacker {
    /// Returns a compiler that can hold these additional rules of a namespace. A part never contains two pieces of one
    /// file, because rules that are in both would be defined twice.
    fn compiler_for(&mut self, namespace: &str, additional: RuleCounts) -> &mut Compiler {
        let fits = self.current.as_ref().is_some_and(|(_, counts)| counts.plus(additional).fit());
        if (!fits || self.namespace == namespace)
            && let Some((compiler, _)) = self.current.take()
        {
            self.full.push(compiler);
        }
        namespace.clone_into(&mut self.namespace);
        let (current, counts) =
            self.current.get_or_insert_with(|| (new_compiler(), RuleCounts::default()));
        *counts = counts.plus(additional);
        current
    }

    fn finish(self) -> Vec<Scanner> {
        let last = self.current.map(|(compiler, _)| compiler);
        self.full.into_iter().chain(last).map(Compiler::finalize).collect()
    }
}

/// A rule file with the contents of its includes.
struct RuleSource {
    path: PathBuf,
    components: Vec<SourceComponent>,
}

/// An import or a rule.
struct SourceComponent {
    text: String,
    rule: Option<RuleOutline>,
}

struct RuleOutline {
    name: String,
    is_global: bool,
    /// Indexes of earlier rules that the condition can refer to.
    references: Vec<usize>,
}

impl RuleSource {
    fn read(path: &Path) -> Result<Self, RuleLoadError> {
        let mut source = Self { path: path.to_owned(), components: Vec::new() };
        let mut names = BTreeMap::new();
        source.append(path, 0, &mut names)?;
        Ok(source)
    }

    /// Appends the components of a file. Each include is replaced by the components of the included file.
    fn append(
        &mut self,
        path: &Path,
        depth: usize,
        names: &mut BTreeMap<String, usize>,
    ) -> Result<(), RuleLoadError> {
        let unreadable = |source| RuleLoadError::Unreadable { path: path.to_owned(), source };
        if depth > MAX_INCLUDE_DEPTH {
            return Err(RuleLoadError::TooDeep(path.to_owned()));
        }
        let content = fs::read_to_string(path).map_err(unreadable)?;
        let changed = || unreadable(io::Error::other("changed since it was compiled"));
        let parsed = parse(&content).map_err(|_| changed())?;
        let mut start = 0;
        for component in parsed.components {
            let (end, outline) = match &component {
                YaraFileComponent::Include(include) => (include.span.end, None),
                YaraFileComponent::Import(import) => (import.span.end, None),
                YaraFileComponent::Rule(rule) => {
                    let end = end_of_rule(&content, rule).ok_or_else(changed)?;
                    let condition = content.get(rule.condition.span.start..end);
                    let references = references(condition.ok_or_else(changed)?, names);
                    names.insert(rule.name.clone(), self.components.len());
                    let name = rule.name.clone();
                    (end, Some(RuleOutline { name, is_global: rule.is_global, references }))
                }
            };
            let text = content.get(start..end).ok_or_else(changed)?;
            if let YaraFileComponent::Include(include) = component {
                // The compiler also resolves paths relative to the including file.
                let target = path.parent().unwrap_or(path).join(include.path);
                let target = target.canonicalize().map_err(unreadable)?;
                self.append(&target, depth + 1, names)?;
            } else {
                if !is_same(text, &component, start) {
                    return Err(changed());
                }
                self.components.push(SourceComponent { text: text.to_owned(), rule: outline });
            }
            start = end;
        }
        Ok(())
    }

    /// Returns the components that every piece must contain: the imports, the global rules, and the rules that global
    /// rules refer to.
    fn base(&self) -> BTreeSet<usize> {
        let mut base = BTreeSet::new();
        for (index, component) in self.components.iter().enumerate() {
            if component.rule.as_ref().is_none_or(|rule| rule.is_global) {
                self.add_closure(index, &mut base);
            }
        }
        base
    }

    /// Adds a component and all rules that it refers to, directly or indirectly.
    fn add_closure(&self, index: usize, piece: &mut BTreeSet<usize>) {
        let mut pending = vec![index];
        while let Some(index) = pending.pop() {
            if piece.insert(index) {
                let rule = self.components.get(index).and_then(|component| component.rule.as_ref());
                pending.extend(rule.into_iter().flat_map(|rule| &rule.references));
            }
        }
    }

    /// Returns pieces that together contain all rules, as indexes of components.
    fn pieces(&self) -> Result<Vec<BTreeSet<usize>>, RuleLoadError> {
        let base = self.base();
        let (mut pieces, mut current) = (Vec::new(), base.clone());
        for (index, component) in self.components.iter().enumerate() {
            let Some(rule) = &component.rule else { continue };
            // Global rules are in each piece. They are not skipped, so that too many of them are an error below.
            if current.contains(&index) && !rule.is_global {
                continue;
            }
            let mut larger = current.clone();
            self.add_closure(index, &mut larger);
            if self.counts(&larger).fit() {
                current = larger;
                continue;
            }
            let mut smallest = base.clone();
            self.add_closure(index, &mut smallest);
            if !self.counts(&smallest).fit() {
                let (path, rule) = (self.path.clone(), rule.name.clone());
                return Err(RuleLoadError::TooManyReferences { path, rule, needs: smallest.len() });
            }
            pieces.push(std::mem::replace(&mut current, smallest));
        }
        pieces.push(current);
        Ok(pieces)
    }

    fn counts(&self, piece: &BTreeSet<usize>) -> RuleCounts {
        let mut counts = RuleCounts::default();
        let components = piece.iter().filter_map(|index| self.components.get(*index));
        let rules = components.filter_map(|component| component.rule.as_ref());
        rules.for_each(|rule| counts.add(rule.is_global));
        counts
    }

    fn text(&self, piece: &BTreeSet<usize>) -> String {
        let mut text = String::new();
        for component in piece.iter().filter_map(|index| self.components.get(*index)) {
            text.push_str(&component.text);
            text.push('\n');
        }
        text
    }
}

/// Returns the offset after the closing brace of a rule. Only spaces, comments and closing parentheses may precede the
/// brace after the condition.
fn end_of_rule(content: &str, rule: &Rule) -> Option<usize> {
    let mut offset = rule.condition.span.end;
    loop {
        offset += skip_blank(content.get(offset..)?);
        match content.get(offset..)?.chars().next()? {
            '}' => return Some(offset + 1),
            ')' => offset += 1,
            _ => return None,
        }
    }
}

/// Returns the length of the spaces and comments at the start of `text`.
fn skip_blank(text: &str) -> usize {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        let (after, end) = if let Some(comment) = rest.strip_prefix("/*") {
            (comment, "*/")
        } else if let Some(comment) = rest.strip_prefix("//") {
            (comment, "\n")
        } else {
            return text.len() - rest.len();
        };
        rest = after.split_once(end).map_or("", |(_, rest)| rest);
    }
}

/// Returns whether `text`, which starts at offset `start` of the file, contains exactly this component.
fn is_same(text: &str, component: &YaraFileComponent, start: usize) -> bool {
    let Ok(parsed) = parse(text) else { return false };
    let [only] = parsed.components.as_slice() else { return false };
    match (only, component) {
        (YaraFileComponent::Import(only), YaraFileComponent::Import(import)) => {
            only.name == import.name
        }
        (YaraFileComponent::Rule(only), YaraFileComponent::Rule(rule)) => {
            let span = only.condition.span.start + start..only.condition.span.end + start;
            (&only.name, only.is_private, only.is_global, span)
                == (&rule.name, rule.is_private, rule.is_global, rule.condition.span.clone())
                && only.variables.len() == rule.variables.len()
        }
        _ => false,
    }
}

/// Returns the indexes of earlier rules that a condition can refer to: those named by an identifier, or by a prefix
/// followed by `*`. Identifiers in strings and comments are included, because an additional rule in a piece changes no
/// result.
fn references(condition: &str, names: &BTreeMap<String, usize>) -> Vec<usize> {
    let is_identifier = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = condition;
    let mut previous = None;
    while let Some(character) = rest.chars().next() {
        if !is_identifier(character) {
            previous = Some(character);
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
            continue;
        }
        let length = rest.find(|character| !is_identifier(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        rest = after;
        // `$a`, `#a`, `@a` and `!a` refer to strings.
        if matches!(previous.take(), Some('$' | '#' | '@' | '!')) {
            continue;
        }
        found.extend(names.get(word));
        let next = after.get(skip_blank(after)..).unwrap_or_default();
        if next.starts_with('*') {
            let range = names.range(word.to_owned()..);
            let with_prefix = range.take_while(|(name, _)| name.starts_with(word));
            found.extend(with_prefix.map(|(_, index)| index));
        }
    }
    found
}
