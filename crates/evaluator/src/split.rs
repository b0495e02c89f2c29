//! Divides rules into parts that the engine can load: boreal 1.4.0 reads back at most [`MAX_RULES`] rules and as many global
//! rules of one serialized scanner, and silently ignores the rest.
//!
//! Files stay whole where they fit. A larger file is divided by its rules. Each piece has all imports and global rules of the
//! file, and with each rule the rules that it refers to, in the order of the file, so that every condition has the same result
//! as in the whole. A rule that is in several pieces matches in all of them or in none, and its name is reported once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

use boreal::{Compiler, Scanner};
use boreal_parser::{file::YaraFileComponent, parse, rule::Rule};

use crate::{
    LoadError,
    rule_set::{broken, compiler},
};

/// Rules, and global rules, of one part.
pub(crate) const MAX_RULES: usize = 1024;

/// Includes in includes. The compiler has no limit, and has read the files before.
const MAX_INCLUDE_DEPTH: usize = 64;

/// Numbers of rules by kind.
#[derive(Clone, Copy, Default)]
struct Counts {
    normal: usize,
    global: usize,
}

impl Counts {
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

/// Whether the engine can load these rules as one part.
pub(crate) fn fits(scanner: &Scanner) -> bool {
    let mut counts = Counts::default();
    scanner.rules().for_each(|rule| counts.add(rule.is_global));
    counts.fit()
}

/// Divides `whole`, compiled from `files` with one namespace a file, into parts that the engine can load.
///
/// # Errors
/// A file that cannot be divided, or that has changed since `whole` was compiled.
pub(crate) fn split(files: &[PathBuf], whole: &Scanner) -> Result<Vec<Scanner>, LoadError> {
    let mut by_namespace: BTreeMap<&str, Counts> = BTreeMap::new();
    for rule in whole.rules() {
        by_namespace.entry(rule.namespace).or_default().add(rule.is_global);
    }
    let mut packer = Packer::default();
    for file in files {
        let namespace = file.to_string_lossy();
        let counts = by_namespace.get(&*namespace).copied().unwrap_or_default();
        if counts.fit() {
            let compiler = packer.room(&namespace, counts);
            compiler.add_rules_file_in_namespace(file, &namespace).map_err(broken)?;
            continue;
        }
        let source = Source::read(file)?;
        for piece in source.pieces()? {
            let compiler = packer.room(&namespace, source.counts(&piece));
            compiler.add_rules_str_in_namespace(source.text(&piece), &namespace).map_err(broken)?;
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
        Err(LoadError::Changed)
    }
}

/// Finds the first rule that the engine does not restore when it is alone with the rules that it needs.
pub(crate) fn find_lost(
    file: &Path,
    survives: impl Fn(&Scanner) -> bool,
) -> Result<Option<String>, LoadError> {
    let source = Source::read(file)?;
    let base = source.base();
    for (index, component) in source.components.iter().enumerate() {
        let Some(rule) = &component.rule else { continue };
        let mut piece = base.clone();
        source.add_closure(index, &mut piece);
        let mut compiler = compiler();
        let namespace = file.to_string_lossy();
        compiler.add_rules_str_in_namespace(source.text(&piece), namespace).map_err(broken)?;
        if !survives(&compiler.finalize()) {
            return Ok(Some(rule.name.clone()));
        }
    }
    Ok(None)
}

/// Fills compilers one after another.
#[derive(Default)]
struct Packer {
    full: Vec<Compiler>,
    current: Option<(Compiler, Counts)>,
    namespace: String,
}

impl Packer {
    /// Returns a compiler with room for rules of this namespace. No part has two pieces of one file: rules that are in both
    /// would be defined twice.
    fn room(&mut self, namespace: &str, more: Counts) -> &mut Compiler {
        let fits = self.current.as_ref().is_some_and(|(_, counts)| counts.plus(more).fit());
        if (!fits || self.namespace == namespace)
            && let Some((compiler, _)) = self.current.take()
        {
            self.full.push(compiler);
        }
        namespace.clone_into(&mut self.namespace);
        let (current, counts) = self.current.get_or_insert_with(|| (compiler(), Counts::default()));
        *counts = counts.plus(more);
        current
    }

    fn finish(self) -> Vec<Scanner> {
        let last = self.current.map(|(compiler, _)| compiler);
        self.full.into_iter().chain(last).map(Compiler::finalize).collect()
    }
}

/// A rule file with its includes in place.
struct Source {
    path: PathBuf,
    components: Vec<Component>,
}

/// An import or a rule.
struct Component {
    text: String,
    rule: Option<RuleOutline>,
}

struct RuleOutline {
    name: String,
    is_global: bool,
    /// Indexes of earlier rules that the condition may refer to.
    references: Vec<usize>,
}

impl Source {
    fn read(path: &Path) -> Result<Self, LoadError> {
        let mut source = Self { path: path.to_owned(), components: Vec::new() };
        let mut names = BTreeMap::new();
        source.append(path, 0, &mut names)?;
        Ok(source)
    }

    /// Appends a file's components, and those of its includes where they are included.
    fn append(
        &mut self,
        path: &Path,
        depth: usize,
        names: &mut BTreeMap<String, usize>,
    ) -> Result<(), LoadError> {
        let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
        if depth > MAX_INCLUDE_DEPTH {
            return Err(LoadError::TooDeep(path.to_owned()));
        }
        let content = fs::read_to_string(path).map_err(unreadable)?;
        let unparsed = || unreadable(io::Error::other("it has changed since it was compiled"));
        let parsed = parse(&content).map_err(|_| unparsed())?;
        let mut start = 0;
        for component in parsed.components {
            let (end, outline) = match &component {
                YaraFileComponent::Include(include) => (include.span.end, None),
                YaraFileComponent::Import(import) => (import.span.end, None),
                YaraFileComponent::Rule(rule) => {
                    let end = end_of_rule(&content, rule).ok_or_else(unparsed)?;
                    let condition = content.get(rule.condition.span.start..end);
                    let references = references(condition.ok_or_else(unparsed)?, names);
                    names.insert(rule.name.clone(), self.components.len());
                    let name = rule.name.clone();
                    (end, Some(RuleOutline { name, is_global: rule.is_global, references }))
                }
            };
            let text = content.get(start..end).ok_or_else(unparsed)?;
            if let YaraFileComponent::Include(include) = component {
                // Relative to the file that includes, as the compiler resolves it.
                let target = path.parent().unwrap_or(path).join(include.path);
                let target = target.canonicalize().map_err(unreadable)?;
                self.append(&target, depth + 1, names)?;
            } else {
                if !is_same(text, &component, start) {
                    return Err(unparsed());
                }
                self.components.push(Component { text: text.to_owned(), rule: outline });
            }
            start = end;
        }
        Ok(())
    }

    /// Returns what every piece has: imports, and global rules with the rules that they refer to.
    fn base(&self) -> BTreeSet<usize> {
        let mut base = BTreeSet::new();
        for (index, component) in self.components.iter().enumerate() {
            if component.rule.as_ref().is_none_or(|rule| rule.is_global) {
                self.add_closure(index, &mut base);
            }
        }
        base
    }

    /// Adds a component and all that it refers to, directly or not.
    fn add_closure(&self, index: usize, piece: &mut BTreeSet<usize>) {
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            if piece.insert(index) {
                let rule = self.components.get(index).and_then(|component| component.rule.as_ref());
                open.extend(rule.into_iter().flat_map(|rule| &rule.references));
            }
        }
    }

    /// Returns pieces that together have all rules, as indexes of components.
    fn pieces(&self) -> Result<Vec<BTreeSet<usize>>, LoadError> {
        let base = self.base();
        let (mut pieces, mut current) = (Vec::new(), base.clone());
        for (index, component) in self.components.iter().enumerate() {
            let Some(rule) = &component.rule else { continue };
            // Global rules are in each piece; too many of them are found here too.
            if current.contains(&index) && !rule.is_global {
                continue;
            }
            let mut larger = current.clone();
            self.add_closure(index, &mut larger);
            if self.counts(&larger).fit() {
                current = larger;
                continue;
            }
            let mut alone = base.clone();
            self.add_closure(index, &mut alone);
            if !self.counts(&alone).fit() {
                let (path, rule) = (self.path.clone(), rule.name.clone());
                return Err(LoadError::Entangled { path, rule, needs: alone.len() });
            }
            pieces.push(std::mem::replace(&mut current, alone));
        }
        pieces.push(current);
        Ok(pieces)
    }

    fn counts(&self, piece: &BTreeSet<usize>) -> Counts {
        let mut counts = Counts::default();
        let components = piece.iter().filter_map(|index| self.components.get(*index));
        components.filter_map(|it| it.rule.as_ref()).for_each(|rule| counts.add(rule.is_global));
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

/// Returns the offset behind a rule's closing brace. Between the condition and the brace are only spaces, comments and closing
/// parentheses.
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

/// Whether `text`, from offset `start` of the file on, is this component and nothing else.
fn is_same(text: &str, component: &YaraFileComponent, start: usize) -> bool {
    let Ok(parsed) = parse(text) else { return false };
    let [alone] = parsed.components.as_slice() else { return false };
    match (alone, component) {
        (YaraFileComponent::Import(alone), YaraFileComponent::Import(import)) => {
            alone.name == import.name
        }
        (YaraFileComponent::Rule(alone), YaraFileComponent::Rule(rule)) => {
            let moved = alone.condition.span.start + start..alone.condition.span.end + start;
            (&alone.name, alone.is_private, alone.is_global, moved)
                == (&rule.name, rule.is_private, rule.is_global, rule.condition.span.clone())
                && alone.variables.len() == rule.variables.len()
        }
        _ => false,
    }
}

/// Returns the indexes of earlier rules that a condition may name: each identifier, and with `*` behind it each name that begins
/// so. Identifiers in strings and comments count too: a rule too many in a piece changes no result.
fn references(condition: &str, names: &BTreeMap<String, usize>) -> Vec<usize> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = condition;
    let mut before = None;
    while let Some(character) = rest.chars().next() {
        if !is_part(character) {
            before = Some(character);
            rest = rest.get(character.len_utf8()..).unwrap_or_default();
            continue;
        }
        let length = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        rest = after;
        // `$a`, `#a`, `@a` and `!a` name strings.
        if matches!(before.take(), Some('$' | '#' | '@' | '!')) {
            continue;
        }
        found.extend(names.get(word));
        let next = after.get(skip_blank(after)..).unwrap_or_default();
        if next.starts_with('*') {
            let range = names.range(word.to_owned()..);
            let beginning = range.take_while(|(name, _)| name.starts_with(word));
            found.extend(beginning.map(|(_, index)| index));
        }
    }
    found
}
