//! Reads keys one by one, remembers which ones exist, and collects problems instead of stopping at
//! the first. What nobody asked for is unknown, and the nearest key that exists is suggested.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::de::DeValue;

use super::{
    kinds::describe,
    problem::{Place, Problem, Warning, Wrong},
};

/// A key as written.
pub(super) struct Entry<'a> {
    /// `None`: taken out by an empty variable, as if it stood in no file.
    pub(super) value: Option<DeValue<'a>>,
    /// The text of a variable: `12` is a fine string there without quotes.
    pub(super) raw: Option<&'a str>,
    /// What relative paths start from.
    pub(super) base: &'a Path,
    /// Where it was written.
    pub(super) place: Place,
}

/// A value on its way into its final type.
#[derive(Clone, Copy)]
pub(super) struct Value<'v> {
    pub(super) toml: &'v DeValue<'v>,
    pub(super) raw: Option<&'v str>,
    pub(super) base: &'v Path,
}

/// What a kind makes of a value.
pub(super) type Parsed<T> = Result<T, Vec<Wrong>>;

/// The whole configuration while it is read.
pub(super) struct Reader<'a> {
    /// The file as a whole: where absent keys are missed.
    place: Place,
    /// What the service manager has handed over, by name.
    credentials: Option<&'a Path>,
    entries: BTreeMap<(String, String), Entry<'a>>,
    /// The file's sections, empty ones too.
    sections: Vec<(String, Place)>,
    /// Variables without `__` in their name.
    misnamed: Vec<(String, Place)>,
    known: Vec<Key>,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

/// A section's and a key's name.
pub(super) type Key = (&'static str, &'static str);

/// Keys that were renamed, and their names now. The value may have moved to another section, and means the same
/// there.
const RENAMED: [(Key, Key); 1] = [(("clamd", "encrypted"), ("scan", "on_encrypted"))];

/// One section of it.
pub(super) struct Section<'r, 'a> {
    reader: &'r mut Reader<'a>,
    name: &'static str,
}

/// All that reading told.
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Warning>,
    /// Every key that was asked for.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test holds default.toml against it"))]
    pub(super) known: Vec<Key>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(place: Place, credentials: Option<&'a Path>) -> Self {
        Self {
            place,
            credentials,
            entries: BTreeMap::new(),
            sections: Vec::new(),
            misnamed: Vec::new(),
            known: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn open(&mut self, section: &str, place: Place) {
        self.sections.push((section.into(), place));
    }

    /// A later one replaces an earlier one.
    pub(super) fn insert(&mut self, section: &str, key: &str, entry: Entry<'a>) {
        self.entries.insert((section.into(), key.into()), entry);
    }

    pub(super) fn outside_any_section(&mut self, place: Place, key: &str) {
        self.problems.push(Problem {
            place,
            key: Some(key.into()),
            message: "found outside any section, expected below a line like [web]".into(),
        });
    }

    pub(super) fn misnamed(&mut self, place: Place, name: &str) {
        self.misnamed.push((name.into(), place));
    }

    /// The path of a credential, if it was handed over.
    pub(super) fn credential(&self, name: &str) -> Option<PathBuf> {
        self.credentials.map(|directory| directory.join(name)).filter(|path| path.exists())
    }

    pub(super) fn section(&mut self, name: &'static str) -> Section<'_, 'a> {
        Section { reader: self, name }
    }

    pub(super) fn finish(mut self) -> Findings {
        self.tell_unknown();
        Findings { problems: self.problems, warnings: self.warnings, known: self.known }
    }

    fn tell_unknown(&mut self) {
        let unknown = |place: &Place, key: String, what: &str, expected: String| Problem {
            place: place.clone(),
            key: Some(key),
            message: format!("found an unknown {what}, expected {expected}"),
        };
        let is_section = |name: &str| self.known.iter().any(|(section, _)| *section == name);
        for (section, place) in self.sections.iter().filter(|(section, _)| !is_section(section)) {
            let expected =
                nearest(section, self.known.iter().map(|(section, _)| (*section).into()))
                    .map_or_else(
                        || "one of those in default.toml".into(),
                        |name| format!("{name}?"),
                    );
            self.problems.push(unknown(place, section.clone(), "section", expected));
        }
        for ((section, key), entry) in &self.entries {
            let in_unknown_section =
                self.sections.iter().any(|(name, _)| name == section) && !is_section(section);
            if in_unknown_section || self.known.iter().any(|known| *known == (section, key)) {
                continue;
            }
            let renamed = RENAMED.iter().find(|(old, _)| *old == (section, key));
            if let Some((_, (section_now, key_now))) = renamed {
                self.problems.push(Problem {
                    place: entry.place.clone(),
                    key: Some(format!("{section}.{key}")),
                    message: format!(
                        "found a key that was renamed, expected {section_now}.{key_now}"
                    ),
                });
                continue;
            }
            let suggestion = self.suggest(section, key);
            let expected = suggestion.map_or_else(
                || "one of those in default.toml".into(),
                |(s, k)| format!("{s}.{k}?"),
            );
            self.problems.push(unknown(&entry.place, format!("{section}.{key}"), "key", expected));
        }
        for (name, place) in &self.misnamed {
            let names = self.known.iter().map(|(section, key)| format!("{section}_{key}").into());
            let suggestion = nearest(name, names)
                .and_then(|near| self.known.iter().find(|(s, k)| format!("{s}_{k}") == near));
            let expected = suggestion.map_or_else(
                || "MCS_<SECTION>__<KEY>".into(),
                |(section, key)| format!("MCS_{section}__{key}?").to_uppercase(),
            );
            self.problems.push(Problem {
                place: place.clone(),
                key: None,
                message: format!("found an unknown name, expected {expected}"),
            });
        }
    }

    /// A key of the same section that looks alike, or the same key of another section.
    fn suggest(&self, section: &str, key: &str) -> Option<Key> {
        let siblings = self.known.iter().filter(|(name, _)| *name == section);
        let near = nearest(key, siblings.map(|(_, key)| (*key).into()));
        self.known
            .iter()
            .find(|(s, k)| *s == section && near.as_deref() == Some(*k))
            .or_else(|| self.known.iter().find(|(_, known)| *known == key))
            .copied()
    }
}

/// Close enough to be a slip of the fingers.
fn nearest<'k>(name: &str, known: impl Iterator<Item = Cow<'k, str>>) -> Option<Cow<'k, str>> {
    let limit = (name.len() / 3).max(1);
    known
        .map(|known| (strsim::osa_distance(name, &known), known))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

impl<'a> Section<'_, 'a> {
    /// `None` where the key is absent or wrong; if wrong, that is told.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        kind: impl FnOnce(Value<'_>) -> Parsed<T>,
    ) -> Option<T> {
        self.know(key);
        let entry = self.entry(key)?;
        let value = Value { toml: entry.value.as_ref()?, raw: entry.raw, base: entry.base };
        match kind(value) {
            Ok(parsed) => Some(parsed),
            Err(wrongs) => {
                let (place, path) = (entry.place.clone(), format!("{}.{key}", self.name));
                self.reader
                    .problems
                    .extend(wrongs.into_iter().map(|wrong| wrong.at(place.clone(), &path)));
                None
            }
        }
    }

    /// [`Section::read`], with the absence told too.
    pub(super) fn require<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        kind: impl FnOnce(Value<'_>) -> Parsed<T>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key, expected);
        }
        self.read(key, kind)
    }

    /// Whether the key is written somewhere, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entry(key).is_some_and(|entry| entry.value.is_some())
    }

    /// A table with keys of its own, read as a section of that name.
    pub(super) fn subsection(&mut self, key: &'static str, name: &'static str) -> Section<'_, 'a> {
        self.know(key);
        let path = (self.name.to_owned(), key.to_owned());
        if let Some(mut entry) = self.reader.entries.remove(&path) {
            match entry.value.take() {
                Some(DeValue::Table(table)) => {
                    for (key, value) in table {
                        let inner = Entry {
                            value: Some(value.into_inner()),
                            raw: None,
                            base: entry.base,
                            place: entry.place.clone(),
                        };
                        self.reader.insert(name, &key.into_inner(), inner);
                    }
                }
                Some(other) => self.reader.problems.extend(
                    Wrong::one(describe(&other), "a table")
                        .into_iter()
                        .map(|wrong| wrong.at(entry.place.clone(), name)),
                ),
                None => {}
            }
        }
        Section { reader: &mut *self.reader, name }
    }

    pub(super) fn missing(&mut self, key: &str, expected: &str) {
        self.reader.problems.push(Problem {
            place: self.reader.place.clone(),
            key: Some(format!("{}.{key}", self.name)),
            message: format!("found nothing, expected {expected}"),
        });
    }

    /// A value that is right by itself and wrong beside another.
    pub(super) fn conflict(&mut self, key: &str, message: impl Into<String>) {
        let place = self.entry(key).map_or(self.reader.place.clone(), |entry| entry.place.clone());
        let key = Some(format!("{}.{key}", self.name));
        self.reader.problems.push(Problem { place, key, message: message.into() });
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.reader.warnings.push(warning);
    }

    fn entry(&self, key: &str) -> Option<&Entry<'a>> {
        // A map by pairs of `String` cannot be asked with a pair of `&str`.
        self.reader.entries.get(&(self.name.to_owned(), key.to_owned()))
    }

    fn know(&mut self, key: &'static str) {
        self.reader.known.push((self.name, key));
    }
}
