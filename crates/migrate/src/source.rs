//! Extracts the old scanner's keys from the file by path, and reports unknown keys.

use std::{collections::BTreeMap, fmt, rc::Rc};

use crate::{
    remark::{Remark, RemarkKind},
    yaml::{MapEntry, Node, Yaml},
};

/// The scanner that a configuration was written for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Predecessor {
    /// The Node.js scanner.
    Node,
    /// The Python scanner.
    Python,
}

/// Detects the scanner by the sections that only one of the two scanners has. If the file has sections of both, the
/// scanner with more such sections is returned; `None` if the numbers are equal.
pub(crate) fn detect(root: &Node) -> Option<Predecessor> {
    let Yaml::Map(sections) = &root.value else { return None };
    let count = |names: &[&str]| {
        sections.iter().filter(|section| names.contains(&section.key.as_str())).count()
    };
    let python = count(&["web", "crypto", "result_cache", "download"]);
    let node =
        count(&["server", "middleware", "altRemovalCmd", "requestHeader", "acceptedMimeType"]);
    match python.cmp(&node) {
        std::cmp::Ordering::Greater => Some(Predecessor::Python),
        std::cmp::Ordering::Less => Some(Predecessor::Node),
        std::cmp::Ordering::Equal => None,
    }
}

impl fmt::Display for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "the Node.js scanner",
            Self::Python => "the Python scanner",
        })
    }
}

/// The known settings of the file, by path.
pub(crate) struct SourceConfig {
    values: BTreeMap<&'static str, (usize, Rc<Node>)>,
}

/// A value in the old file, with its key and line.
pub(crate) struct Setting<T> {
    pub(crate) key: &'static str,
    pub(crate) line: usize,
    pub(crate) value: T,
}

impl SourceConfig {
    /// Reads the keys in `known`, and adds remarks on all others.
    pub(crate) fn read(
        root: &Node,
        known: &'static [&'static str],
        remarks: &mut Vec<Remark>,
    ) -> Self {
        let mut config = Self { values: BTreeMap::new() };
        if let Yaml::Map(entries) = &root.value {
            config.read_section("", entries, known, remarks);
        }
        config
    }

    /// Recurses at most three levels, the depth of the known paths.
    fn read_section(
        &mut self,
        parent: &str,
        entries: &[MapEntry],
        known: &'static [&'static str],
        remarks: &mut Vec<Remark>,
    ) {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        for entry in entries {
            let path = if parent.is_empty() {
                entry.key.clone()
            } else {
                format!("{parent}.{}", entry.key)
            };
            let mut remark = |message: String| {
                let key = printable(&path);
                remarks.push(Remark {
                    kind: RemarkKind::Mistake,
                    line: Some(entry.line),
                    key,
                    message,
                });
            };
            if let Some(first) = seen.insert(&entry.key, entry.line) {
                remark(format!("duplicate of line {first}; the last one counts"));
            }
            if let Some(key) = known.iter().find(|key| **key == path) {
                if matches!(entry.node.value, Yaml::Null) {
                    remark("without a value; ignored".into());
                    self.values.remove(key);
                } else {
                    self.values.insert(key, (entry.line, Rc::clone(&entry.node)));
                }
                continue;
            }
            let section = format!("{path}.");
            if !known.iter().any(|key| key.starts_with(&section)) {
                let what = if parent.is_empty() && matches!(entry.node.value, Yaml::Map(_)) {
                    "section"
                } else {
                    "key"
                };
                let suggestion = nearest(&path, known)
                    .map_or_else(String::new, |key| format!("; did you mean {key}?"));
                remark(format!("a {what} unknown to that scanner; omitted{suggestion}"));
                continue;
            }
            match &entry.node.value {
                Yaml::Map(entries) => self.read_section(&path, entries, known, remarks),
                Yaml::Null => remark("an empty section; ignored".into()),
                _ => remark("found a value, expected a section; omitted".into()),
            }
        }
    }

    /// Returns the value of a key.
    fn get(&self, key: &'static str) -> Option<Setting<&Node>> {
        let (line, node) = self.values.get(key)?;
        Some(Setting { key, line: *line, value: node })
    }

    /// Returns a scalar's text. Adds a remark on other values.
    pub(crate) fn text(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Setting<String>> {
        let setting = self.get(key)?;
        let Yaml::Text(text) = &setting.value.value else {
            remarks.push(setting.mistake("found a list or a section, expected text; omitted"));
            return None;
        };
        Some(setting.with_value(text.clone()))
    }

    /// Returns the texts of a list. Adds remarks on other elements.
    pub(crate) fn list(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Setting<Vec<String>>> {
        let setting = self.get(key)?;
        let Yaml::List(elements) = &setting.value.value else {
            remarks.push(setting.mistake("expected a list; omitted"));
            return None;
        };
        let mut texts = Vec::new();
        for (index, element) in elements.iter().enumerate() {
            match &element.value {
                Yaml::Text(text) => texts.push(text.clone()),
                _ => remarks.push(Remark {
                    kind: RemarkKind::Mistake,
                    line: Some(element.line),
                    key: format!("{key}[{index}]"),
                    message: "expected text; omitted".into(),
                }),
            }
        }
        Some(setting.with_value(texts))
    }

    /// Returns the names and texts of a mapping. Adds remarks on other values.
    pub(crate) fn table(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Setting<Vec<(String, String)>>> {
        let setting = self.get(key)?;
        let Yaml::Map(entries) = &setting.value.value else {
            remarks.push(setting.mistake("expected names and values; omitted"));
            return None;
        };
        let mut texts = BTreeMap::new();
        for entry in entries {
            match &entry.node.value {
                Yaml::Text(text) => {
                    texts.insert(entry.key.clone(), text.clone());
                }
                _ => remarks.push(Remark {
                    kind: RemarkKind::Mistake,
                    line: Some(entry.line),
                    key: printable(&format!("{key}.{}", entry.key)),
                    message: "expected text; omitted".into(),
                }),
            }
        }
        Some(setting.with_value(texts.into_iter().collect()))
    }
}

impl<T> Setting<T> {
    pub(crate) fn with_value<U>(&self, value: U) -> Setting<U> {
        Setting { key: self.key, line: self.line, value }
    }

    pub(crate) fn mistake(&self, message: impl Into<String>) -> Remark {
        self.remark(RemarkKind::Mistake, message)
    }

    pub(crate) fn no_counterpart(&self, message: impl Into<String>) -> Remark {
        self.remark(RemarkKind::NoCounterpart, message)
    }

    pub(crate) fn suggestion(&self, message: impl Into<String>) -> Remark {
        self.remark(RemarkKind::Suggestion, message)
    }

    fn remark(&self, kind: RemarkKind, message: impl Into<String>) -> Remark {
        Remark { kind, line: Some(self.line), key: self.key.into(), message: message.into() }
    }
}

/// Makes a key from the old file safe for a line of output: replaces control characters, and cuts it
/// after 80 characters.
pub(crate) fn printable(path: &str) -> String {
    let characters = path.chars().map(|c| if c.is_control() { '?' } else { c });
    let short: String = characters.take(80).collect();
    if short.chars().count() < path.chars().count() { format!("{short}…") } else { short }
}

/// Returns the most similar known path, or one with the same last component.
fn nearest(path: &str, known: &[&'static str]) -> Option<&'static str> {
    // The distance takes time proportional to the product of both lengths.
    if path.len() > 80 {
        return None;
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let limit = (path.len() / 4).max(1);
    known
        .iter()
        .map(|key| (strsim::osa_distance(&path.to_lowercase(), &key.to_lowercase()), *key))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| key)
        .or_else(|| known.iter().find(|key| last(key) == last(path)).copied())
}
