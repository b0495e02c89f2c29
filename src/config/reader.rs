//! Reads single keys, records which keys exist, and collects all problems instead of stopping at the
//! first. Keys that no section reads are unknown; the problem suggests the most similar known key.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::de::DeValue;

use super::{
    problem::{InvalidValue, Location, Problem, Warning},
    value::{ParseResult, RawValue, describe},
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

/// All entries of a configuration, and the diagnostics collected while reading them.
pub(super) struct Reader<'a> {
    /// Location of missing keys: the file as a whole.
    location: Location,
    /// Directory with the credentials that the service manager passed, by name.
    credentials: Option<&'a Path>,
    entries: BTreeMap<(String, String), RawEntry<'a>>,
    /// The sections in the file, including empty ones.
    sections: Vec<(String, Location)>,
    /// Variables without `__` in the name.
    misnamed: Vec<(String, Location)>,
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
    pub(super) fn new(location: Location, credentials: Option<&'a Path>) -> Self {
        Self {
            location,
            credentials,
            entries: BTreeMap::new(),
            sections: Vec::new(),
            misnamed: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, section: &str, location: Location) {
        self.sections.push((section.into(), location));
    }

    /// Inserts a key; a later entry replaces an earlier one.
    pub(super) fn insert(&mut self, section: &str, key: &str, entry: RawEntry<'a>) {
        self.entries.insert((section.into(), key.into()), entry);
    }

    pub(super) fn outside_any_section(&mut self, location: Location, key: &str) {
        self.problems.push(Problem {
            location,
            key: Some(key.into()),
            message: "found outside any section, expected below a line like [web]".into(),
        });
    }

    pub(super) fn misnamed(&mut self, location: Location, name: &str) {
        self.misnamed.push((name.into(), location));
    }

    /// Returns the path of a credential, if the service manager passed it.
    pub(super) fn credential(&self, name: &str) -> Option<PathBuf> {
        self.credentials.map(|directory| directory.join(name)).filter(|path| path.exists())
    }

    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 'a> {
        Section { reader: self, name }
    }

    pub(super) fn finish(mut self) -> Diagnostics {
        self.report_unknown();
        Diagnostics { problems: self.problems, warnings: self.warnings, known: self.known }
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
            let expected =
                nearest(section, self.known.iter().map(|(section, _)| (*section).into()))
                    .map_or_else(
                        || "one of those in default.toml".into(),
                        |name| format!("{name}?"),
                    );
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
                    || "one of those in default.toml".into(),
                    |(section, key)| format!("{section}.{key}?"),
                );
                unknown(&entry.location, path, "key", expected)
            };
            self.problems.push(problem);
        }
        for (name, location) in &self.misnamed {
            let names = self.known.iter().map(|(section, key)| format!("{section}_{key}").into());
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

    /// Returns a similar key of the same section, or the same key of another section.
    fn suggest(&self, section: &str, key: &str) -> Option<KeyPath> {
        let siblings = self.known.iter().filter(|(name, _)| *name == section);
        let near = nearest(key, siblings.map(|(_, key)| (*key).into()));
        self.known
            .iter()
            .find(|(s, k)| *s == section && near.as_deref() == Some(*k))
            .or_else(|| self.known.iter().find(|(_, known)| *known == key))
            .copied()
    }
}

/// Returns the most similar known name, if it is similar enough for a typing error.
fn nearest<'k>(name: &str, known: impl Iterator<Item = Cow<'k, str>>) -> Option<Cow<'k, str>> {
    let limit = (name.len() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, &known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

impl<'a> Section<'_, 'a> {
    /// Reads and parses a key. Returns `None` if the key is absent, or invalid, which is recorded as a
    /// problem.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(RawValue<'_>) -> ParseResult<T>,
    ) -> Option<T> {
        self.register(key);
        let entry = self.entry(key)?;
        let value = RawValue { toml: entry.value.as_ref()?, raw: entry.raw, base: entry.base };
        match parse(value) {
            Ok(parsed) => Some(parsed),
            Err(errors) => {
                let (location, path) = (entry.location.clone(), format!("{}.{key}", self.name));
                self.reader.problems.extend(
                    errors.into_iter().map(|error| error.into_problem(location.clone(), &path)),
                );
                None
            }
        }
    }

    /// Like [`Section::read`], but records an absent key as a problem.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl FnOnce(RawValue<'_>) -> ParseResult<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key, expected);
        }
        self.read(key, parse)
    }

    /// Whether the key is set, to a valid or an invalid value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.is_some())
    }

    /// Returns the table `key` as a section called `name`.
    pub(super) fn subsection(&mut self, key: &'static str, name: &'static str) -> Section<'_, 'a> {
        self.register(key);
        let path = (self.name.to_owned(), key.to_owned());
        if let Some(mut entry) = self.reader.entries.remove(&path) {
            match entry.value.take() {
                Some(DeValue::Table(table)) => {
                    for (key, value) in table {
                        let inner = RawEntry {
                            value: Some(value.into_inner()),
                            raw: None,
                            base: entry.base,
                            location: entry.location.clone(),
                        };
                        self.reader.insert(name, &key.into_inner(), inner);
                    }
                }
                Some(other) => self.reader.problems.extend(
                    InvalidValue::single(describe(&other), "a table")
                        .into_iter()
                        .map(|error| error.into_problem(entry.location.clone(), name)),
                ),
                None => {}
            }
        }
        Section { reader: &mut *self.reader, name }
    }

    pub(super) fn missing(&mut self, key: &str, expected: &str) {
        self.reader.problems.push(Problem {
            location: self.reader.location.clone(),
            key: Some(format!("{}.{key}", self.name)),
            message: format!("missing, expected {expected}"),
        });
    }

    /// Records a value that is valid by itself but conflicts with another key.
    pub(super) fn conflict(&mut self, key: &str, message: impl Into<String>) {
        let location =
            self.entry(key).map_or(self.reader.location.clone(), |entry| entry.location.clone());
        let key = Some(format!("{}.{key}", self.name));
        self.reader.problems.push(Problem { location, key, message: message.into() });
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.reader.warnings.push(warning);
    }

    fn entry(&self, key: &str) -> Option<&RawEntry<'a>> {
        // `(&str, &str)` is not a borrowed form of the key type.
        self.reader.entries.get(&(self.name.to_owned(), key.to_owned()))
    }

    fn register(&mut self, key: &'static str) {
        self.reader.known.push((self.name, key));
    }
}
