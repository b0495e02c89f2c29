//! The old file's keys: the ones that its scanner knew, by their path, and a word on all others.

use std::{collections::BTreeMap, rc::Rc};

use super::{
    Predecessor, Remark, RemarkKind,
    yaml::{Entry, Node, Yaml},
};

/// Whose file it is, by the sections that only one of them has; of a mixture, whose has more.
pub(super) fn whose(root: &Node) -> Option<Predecessor> {
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

/// What the file says, by path.
pub(super) struct Old {
    values: BTreeMap<&'static str, (usize, Rc<Node>)>,
}

/// A value as it was written, and where.
pub(super) struct Found<T> {
    pub(super) key: &'static str,
    pub(super) line: usize,
    pub(super) value: T,
}

impl Old {
    /// Paths that are not in `known` are told.
    pub(super) fn read(
        root: &Node,
        known: &'static [&'static str],
        remarks: &mut Vec<Remark>,
    ) -> Self {
        let mut old = Self { values: BTreeMap::new() };
        if let Yaml::Map(entries) = &root.value {
            old.descend("", entries, known, remarks);
        }
        old
    }

    /// Known paths are three deep at the most, and so is this.
    fn descend(
        &mut self,
        parent: &str,
        entries: &[Entry],
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
            let mut tell = |message: String| {
                let key = shown(&path);
                remarks.push(Remark {
                    kind: RemarkKind::Mistake,
                    line: Some(entry.line),
                    key,
                    message,
                });
            };
            if let Some(first) = seen.insert(&entry.key, entry.line) {
                tell(format!("written a second time, after line {first}; the last one counts"));
            }
            if let Some(key) = known.iter().find(|key| **key == path) {
                if matches!(entry.node.value, Yaml::Null) {
                    tell("without a value; taken as absent".into());
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
                let meant = nearest(&path, known)
                    .map_or_else(String::new, |key| format!("; was {key} meant?"));
                tell(format!("a {what} unknown to that scanner; left out{meant}"));
                continue;
            }
            match &entry.node.value {
                Yaml::Map(entries) => self.descend(&path, entries, known, remarks),
                Yaml::Null => tell("an empty section; taken as absent".into()),
                _ => tell("found no keys in it, expected a section; left out".into()),
            }
        }
    }

    /// A key's value, whatever it is.
    fn take(&self, key: &'static str) -> Option<Found<&Node>> {
        let (line, node) = self.values.get(key)?;
        Some(Found { key, line: *line, value: node })
    }

    /// A scalar's text.
    pub(super) fn text(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Found<String>> {
        let found = self.take(key)?;
        let Yaml::Text(text) = &found.value.value else {
            remarks.push(found.mistake("found a list or a section, expected text; left out"));
            return None;
        };
        Some(found.with(text.clone()))
    }

    /// A list's texts, each with its line; other elements are told.
    pub(super) fn list(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Found<Vec<String>>> {
        let found = self.take(key)?;
        let Yaml::List(elements) = &found.value.value else {
            remarks.push(found.mistake("expected a list; left out"));
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
                    message: "expected text; left out".into(),
                }),
            }
        }
        Some(found.with(texts))
    }

    /// A mapping's names and texts; other values are told.
    pub(super) fn table(
        &self,
        key: &'static str,
        remarks: &mut Vec<Remark>,
    ) -> Option<Found<Vec<(String, String)>>> {
        let found = self.take(key)?;
        let Yaml::Map(entries) = &found.value.value else {
            remarks.push(found.mistake("expected names and values; left out"));
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
                    key: shown(&format!("{key}.{}", entry.key)),
                    message: "expected text; left out".into(),
                }),
            }
        }
        Some(found.with(texts.into_iter().collect()))
    }
}

impl<T> Found<T> {
    pub(super) fn with<U>(&self, value: U) -> Found<U> {
        Found { key: self.key, line: self.line, value }
    }

    pub(super) fn mistake(&self, message: impl Into<String>) -> Remark {
        self.remark(RemarkKind::Mistake, message)
    }

    pub(super) fn no_counterpart(&self, message: impl Into<String>) -> Remark {
        self.remark(RemarkKind::NoCounterpart, message)
    }

    fn remark(&self, kind: RemarkKind, message: impl Into<String>) -> Remark {
        Remark { kind, line: Some(self.line), key: self.key.into(), message: message.into() }
    }
}

/// A key of somebody's file in a line of ours: no line breaks, and not without end.
pub(super) fn shown(path: &str) -> String {
    let kept = path.chars().map(|c| if c.is_control() { '?' } else { c });
    let short: String = kept.take(80).collect();
    if short.chars().count() < path.chars().count() { format!("{short}…") } else { short }
}

/// Close enough to be a slip of the fingers, or the same name elsewhere.
fn nearest(path: &str, known: &[&'static str]) -> Option<&'static str> {
    // Distances take the product of both lengths.
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
