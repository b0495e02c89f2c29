//! Reads single keys, records which keys exist, and collects all problems instead of stopping at the
//! first. Keys that no section reads are unknown; the problem suggests the most similar known key.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use toml::de::DeValue;

use mcs_sandbox::User;

use super::{
    key::Key,
    problem::{InvalidValue, Location, Problem, Warning},
    similar::nearest,
    value::{RawValue, describe, to_i64},
};

/// A key's value as written.
pub(super) struct RawEntry<'a> {
    /// `None` if an empty variable unset the key.
    pub(super) value: Option<DeValue<'a>>,
    /// The text of a variable, which is a valid string without quotes.
    pub(super) raw: Option<&'a str>,
    /// Directory that relative paths are resolved against.
    pub(super) base: &'a Path,
    pub(super) location: Location,
}

impl RawEntry<'_> {
    fn raw_value(&self) -> Option<RawValue<'_>> {
        Some(RawValue { toml: self.value.as_ref()?, raw: self.raw, base: self.base })
    }
}

/// Directories that the service manager passed.
#[derive(Clone, Default, Debug)]
pub(super) struct PassedDirectories {
    /// The credentials, by name.
    pub(super) credentials: Option<PathBuf>,
    /// Persistent files.
    pub(super) state: Option<PathBuf>,
    /// Sockets.
    pub(super) runtime: Option<PathBuf>,
}

/// Entries by section and key.
type Entries<'a> = BTreeMap<(String, String), RawEntry<'a>>;

/// All entries of a configuration, and the diagnostics collected while reading them.
pub(super) struct Reader<'a> {
    /// Location of missing keys: the file as a whole.
    location: Location,
    /// User of the service.
    server: User,
    passed: &'a PassedDirectories,
    /// The lowest layer: the value of keys that are not in `entries`.
    defaults: Entries<'a>,
    entries: Entries<'a>,
    /// The sections in the file, including empty ones.
    sections: Vec<(String, Location)>,
    /// Variables without `__` in the name.
    misnamed: Vec<(String, Location)>,
    /// Variables that Kubernetes sets.
    service_links: Vec<String>,
    known: Vec<KeyPath>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

/// Names of a section and a key.
pub(super) type KeyPath = (&'static str, &'static str);

/// Renamed keys: former and current name, whose values have the same meaning. A former name is an error that
/// names the current one.
const RENAMED: [(KeyPath, KeyPath); 5] = [
    (("scan", "script_larger"), ("scan", "script_on_oversize")),
    (("rules", "larger"), ("rules", "on_oversize")),
    (("clamd", "larger"), ("clamd", "on_oversize")),
    (("icap", "larger"), ("icap", "on_oversize")),
    (("clamd", "encrypted"), ("scan", "on_encrypted")),
];

/// One section of the configuration.
pub(super) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    name: &'static str,
}

/// The problems and warnings found by reading.
pub(super) struct Diagnostics {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    /// Every key that a section reads.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares it with default.toml"))]
    pub(super) known: Vec<KeyPath>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(location: Location, passed: &'a PassedDirectories, server: User) -> Self {
        Self {
            location,
            server,
            passed,
            defaults: BTreeMap::new(),
            entries: BTreeMap::new(),
            sections: Vec::new(),
            misnamed: Vec::new(),
            service_links: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, section: &str, location: Location) {
        self.sections.push((section.into(), location));
    }

    /// Inserts a default. Relative paths are not resolved.
    pub(super) fn insert_default(&mut self, section: &str, key: &str, value: DeValue<'a>) {
        let (base, location) = (Path::new("/"), self.location.clone());
        let entry = RawEntry { value: Some(value), raw: None, base, location };
        self.defaults.insert((section.into(), key.into()), entry);
    }

    /// Inserts a key; a later entry replaces an earlier one.
    pub(super) fn insert(&mut self, section: &str, key: &str, entry: RawEntry<'a>) {
        self.entries.insert((section.into(), key.into()), entry);
    }

    pub(super) fn outside_any_section(
        &mut self,
        location: Location,
        key: &str,
        value: &DeValue<'_>,
    ) {
        let is_table = |value: &toml::Spanned<DeValue<'_>>| value.get_ref().is_table();
        let message = match value {
            DeValue::Array(list) if !list.is_empty() && list.iter().all(is_table) => {
                format!("found [[{key}]], expected [{key}]")
            }
            _ => "found outside any section, expected below a line like [web]".into(),
        };
        self.problems.push(Problem { location, key: Some(key.into()), message });
    }

    pub(super) fn misnamed(&mut self, location: Location, name: &str) {
        self.misnamed.push((name.into(), location));
    }

    /// Records a variable that Kubernetes sets for a service.
    pub(super) fn service_link(&mut self, name: &str) {
        self.service_links.push(name.into());
    }

    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 'a> {
        Section { reader: self, name }
    }

    /// Moves the entries of a table to a section of its own.
    fn flatten(&mut self, parent: &'static str, key: &'static str, name: &str) {
        self.known.push((parent, key));
        for entries in [&mut self.defaults, &mut self.entries] {
            let table = entries.remove(&(parent.to_owned(), key.to_owned()));
            let Some(RawEntry { value: Some(value), base, location, .. }) = table else { continue };
            let DeValue::Table(table) = value else {
                let errors = InvalidValue::single(describe(&value), "a table").into_iter();
                let problem = |error: InvalidValue| error.into_problem(location.clone(), name);
                self.problems.extend(errors.map(problem));
                continue;
            };
            for (key, value) in table {
                let (value, location) = (Some(value.into_inner()), location.clone());
                let path = (name.to_owned(), key.into_inner().into_owned());
                entries.insert(path, RawEntry { value, raw: None, base, location });
            }
        }
    }

    pub(super) fn finish(mut self) -> Diagnostics {
        self.report_unknown();
        if !self.service_links.is_empty() {
            self.warnings.push(Warning::ServiceLinks(std::mem::take(&mut self.service_links)));
        }
        let Self { problems, warnings, known, .. } = self;
        Diagnostics { problems, warnings, known }
    }

    fn report_unknown(&mut self) {
        let unknown = |location: &Location, key: String, what: &str, expected: String| Problem {
            location: location.clone(),
            key: Some(key),
            message: format!("found an unknown {what}, expected {expected}"),
        };
        let is_section = |name: &str| self.known.iter().any(|(section, _)| *section == name);
        for (section, location) in self.sections.iter().filter(|(section, _)| !is_section(section))
        {
            let expected = nearest(section, self.known.iter().map(|(section, _)| *section));
            let expected = expected.map_or_else(|| self.section_names(), |name| format!("{name}?"));
            self.problems.push(unknown(location, section.clone(), "section", expected));
        }
        for ((section, key), entry) in &self.entries {
            let in_unknown_section =
                self.sections.iter().any(|(name, _)| name == section) && !is_section(section);
            if in_unknown_section || self.known.iter().any(|known| *known == (section, key)) {
                continue;
            }
            let path = format!("{section}.{key}");
            let renamed = RENAMED.iter().find(|(former, _)| *former == (section, key));
            let problem = if let Some((_, (section, key))) = renamed {
                Problem {
                    location: entry.location.clone(),
                    key: Some(path),
                    message: format!("found a key that was renamed, expected {section}.{key}"),
                }
            } else {
                let expected = self.suggest(section, key).map_or_else(
                    || self.key_names(section),
                    |(section, key)| format!("{section}.{key}?"),
                );
                unknown(&entry.location, path, "key", expected)
            };
            self.problems.push(problem);
        }
        for (name, location) in &self.misnamed {
            let names = self.known.iter().map(|(section, key)| format!("{section}_{key}"));
            let suggestion = nearest(name, names)
                .and_then(|near| self.known.iter().find(|(s, k)| format!("{s}_{k}") == near));
            let expected = suggestion.map_or_else(
                || "MCS_<SECTION>__<KEY>".into(),
                |(section, key)| format!("MCS_{section}__{key}?").to_uppercase(),
            );
            self.problems.push(Problem {
                location: location.clone(),
                key: None,
                message: format!("found an unknown name, expected {expected}"),
            });
        }
    }

    /// Returns a similar key of the same or a similarly named section, or the same key of another section.
    fn suggest(&self, section: &str, key: &str) -> Option<KeyPath> {
        let known_section = nearest(section, self.known.iter().map(|(name, _)| *name));
        let similar = known_section.and_then(|section| {
            let siblings = self.known.iter().filter(|(name, _)| *name == section);
            Some((section, nearest(key, siblings.map(|(_, key)| *key))?))
        });
        similar.or_else(|| self.known.iter().find(|(_, known)| *known == key).copied())
    }

    fn section_names(&self) -> String {
        let names: BTreeSet<_> = self.known.iter().map(|(section, _)| *section).collect();
        format!("one of {}", names.into_iter().collect::<Vec<_>>().join(", "))
    }

    /// Lists the keys of a small section.
    fn key_names(&self, section: &str) -> String {
        const MAX_NAMES: usize = 8;
        let siblings = self.known.iter().filter(|(name, _)| *name == section);
        let names: BTreeSet<_> = siblings.map(|(_, key)| *key).collect();
        if names.is_empty() || names.len() > MAX_NAMES {
            return "one of those in default.toml".into();
        }
        format!("one of {}", names.into_iter().collect::<Vec<_>>().join(", "))
    }
}

impl<'a> Section<'_, 'a> {
    /// Reads the configured value of a key, otherwise its default. Records an invalid value as a problem, and continues
    /// with the default. Returns `None` if the key has no valid value and no default.
    pub(super) fn read<T: 'static>(&mut self, name: &'static str, key: &Key<T>) -> Option<T> {
        self.reader.known.push((self.name, name));
        let path = self.path(name);
        let mut problems = Vec::new();
        for entries in [&self.reader.entries, &self.reader.defaults] {
            let Some(entry) = entries.get(&path) else { continue };
            match entry.raw_value().map(|value| key.parse(value)) {
                Some(Ok(value)) => {
                    self.reader.problems.extend(problems);
                    return Some(value);
                }
                Some(Err(errors)) if problems.is_empty() => {
                    let (location, path) = (&entry.location, format!("{}.{name}", self.name));
                    let problem = |error: InvalidValue| error.into_problem(location.clone(), &path);
                    problems.extend(errors.into_iter().map(problem));
                }
                _ => {}
            }
        }
        self.reader.problems.extend(problems);
        key.absent()
    }

    /// Returns the configured value, or the default.
    pub(super) fn raw(&self, name: &str) -> Option<RawValue<'_>> {
        let path = self.path(name);
        let Reader { entries, defaults, .. } = &*self.reader;
        [entries, defaults].into_iter().find_map(|entries| entries.get(&path)?.raw_value())
    }

    /// Whether the key is configured, to a valid or an invalid value. A default does not count.
    pub(super) fn has(&self, name: &str) -> bool {
        self.reader.entries.get(&self.path(name)).is_some_and(|entry| entry.value.is_some())
    }

    /// Returns another section. The keys of `a.b` are those of the table `b` in `[a]`.
    pub(super) fn within(&mut self, name: &'static str) -> Section<'_, 'a> {
        if let Some((parent, key)) = name.rsplit_once('.') {
            self.reader.flatten(parent, key, name);
        }
        self.reader.section(name)
    }

    /// User of the service.
    pub(super) fn server(&self) -> User {
        self.reader.server
    }

    /// Returns the path of a credential, if the service manager passed it.
    pub(super) fn credential(&self, name: &str) -> Option<PathBuf> {
        let path = self.reader.passed.credentials.as_ref().map(|directory| directory.join(name));
        path.filter(|path| path.exists())
    }

    /// Returns the directory for persistent files, if the service manager passed one.
    pub(super) fn state_directory(&self) -> Option<&Path> {
        self.reader.passed.state.as_deref()
    }

    /// Returns the directory for sockets, if the service manager passed one.
    pub(super) fn runtime_directory(&self) -> Option<&Path> {
        self.reader.passed.runtime.as_deref()
    }

    /// Records a missing key: at the empty variable that unset the key, otherwise at its section.
    pub(super) fn missing(&mut self, name: &str, expected: &str) {
        let unset = self.reader.entries.get(&self.path(name));
        let section = self.reader.sections.iter().find(|(section, _)| section == self.name);
        let (location, found) = match (unset, section) {
            (Some(entry), _) if entry.value.is_none() => {
                (&entry.location, "missing, since this empty variable unsets the key")
            }
            (_, Some((_, location))) => (location, "missing"),
            _ => (&self.reader.location, "missing"),
        };
        let (location, message) = (location.clone(), format!("{found}, expected {expected}"));
        let key = Some(format!("{}.{name}", self.name));
        self.reader.problems.push(Problem { location, key, message });
    }

    /// Records a value that conflicts with another key, or is unusable.
    pub(super) fn conflict(&mut self, name: &str, message: impl Into<String>) {
        let entry = self.reader.entries.get(&self.path(name));
        let location = entry.map_or(&self.reader.location, |entry| &entry.location).clone();
        let key = Some(format!("{}.{name}", self.name));
        self.reader.problems.push(Problem { location, key, message: message.into() });
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.reader.warnings.push(warning);
    }

    /// Warns of keys that are set to another value than their default, and have no effect.
    pub(super) fn warn_unused(&mut self, is_unused: impl Fn(&str) -> bool, since: &str) {
        let Reader { entries, defaults, .. } = &*self.reader;
        let is_default = |path: &(String, String), value: &DeValue<'_>| {
            let default = defaults.get(path).and_then(|entry| entry.value.as_ref());
            default.is_some_and(|default| is_same(default, value))
        };
        let keys: Vec<_> = entries
            .iter()
            .filter(|(path, _)| path.0 == self.name && is_unused(&path.1))
            .filter(|(path, entry)| {
                entry.value.as_ref().is_some_and(|value| !is_default(path, value))
            })
            .map(|((section, key), _)| format!("{section}.{key}"))
            .collect();
        if !keys.is_empty() {
            self.warn(Warning::Unused { keys, since: since.to_owned() });
        }
    }

    fn path(&self, name: &str) -> (String, String) {
        // `(&str, &str)` is not a borrowed form of the key type.
        (self.name.to_owned(), name.to_owned())
    }
}

/// Compares two values without their positions.
fn is_same(a: &DeValue<'_>, b: &DeValue<'_>) -> bool {
    match (a, b) {
        (DeValue::String(a), DeValue::String(b)) => a == b,
        (DeValue::Integer(a), DeValue::Integer(b)) => to_i64(a).is_some() && to_i64(a) == to_i64(b),
        (DeValue::Boolean(a), DeValue::Boolean(b)) => a == b,
        (DeValue::Array(a), DeValue::Array(b)) => {
            a.len() == b.len()
                && a.iter().zip(b.iter()).all(|(a, b)| is_same(a.get_ref(), b.get_ref()))
        }
        (DeValue::Table(a), DeValue::Table(b)) => {
            let is_in_b = |name: &str, a| b.get(name).is_some_and(|b| is_same(a, b.get_ref()));
            a.len() == b.len() && a.iter().all(|(name, a)| is_in_b(name.get_ref(), a.get_ref()))
        }
        _ => false,
    }
}
