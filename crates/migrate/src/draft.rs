//! The new file: sections with comments and keys. Converted values that the validation rejects are removed
//! again, element by element, with a remark that names the line in the old file.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use crate::{
    Rejection, Validate, format,
    format::quoted,
    remark::{Remark, RemarkKind},
    source::{Setting, printable},
};

/// Sections in the order of `default.toml`.
const SECTIONS: [&str; 8] =
    ["web", "scan", "clamd", "sandbox", "download", "result_cache", "crypto", "operations"];

/// Keys that stay even if they are invalid, since usually only the file is missing.
const FILE_KEYS: [&str; 5] = [
    "scan.script",
    "scan.temp_directory",
    "crypto.request_secret_path",
    "crypto.pickle_path",
    "crypto.pickle_key",
];

/// Maximum width of comments, in columns.
const WIDTH: usize = 100;

pub(crate) struct Draft {
    /// The directory in which the old scanner was started.
    pub(crate) base: PathBuf,
    /// Texts of scripts in the file, by their names.
    pub(crate) scripts: BTreeMap<String, String>,
    pub(crate) remarks: Vec<Remark>,
    sections: BTreeMap<&'static str, Vec<DraftItem>>,
    /// Comment for the next key; discarded without one.
    key_comment: Option<String>,
}

enum DraftItem {
    Comment(String),
    /// A commented-out line, written without wrapping.
    Suggestion(String),
    Key(DraftKey),
}

struct DraftKey {
    name: &'static str,
    value: TomlValue,
    comment: Option<String>,
    /// The key and line in the old file.
    origin: Option<(&'static str, usize)>,
}

/// A value whose parts are formatted as TOML.
pub(crate) enum TomlValue {
    Scalar(String),
    List(Vec<String>),
    Table(Vec<(String, String)>),
}

impl Draft {
    pub(crate) fn new(base: &Path, scripts: BTreeMap<String, String>) -> Self {
        Self {
            base: base.into(),
            scripts,
            remarks: Vec::new(),
            sections: BTreeMap::new(),
            key_comment: None,
        }
    }

    pub(crate) fn comment(&mut self, section: &'static str, text: impl Into<String>) {
        self.push(section, DraftItem::Comment(text.into()));
    }

    /// Sets the comment of the next key.
    pub(crate) fn comment_next_key(&mut self, text: impl Into<String>) {
        self.key_comment = Some(text.into());
    }

    pub(crate) fn suggest(&mut self, section: &'static str, line: impl Into<String>) {
        self.push(section, DraftItem::Suggestion(line.into()));
    }

    /// Adds a key converted from `origin`.
    pub(crate) fn set<T>(
        &mut self,
        section: &'static str,
        name: &'static str,
        value: TomlValue,
        origin: &Setting<T>,
    ) {
        let comment = self.key_comment.take();
        let origin = Some((origin.key, origin.line));
        self.push(section, DraftItem::Key(DraftKey { name, value, comment, origin }));
    }

    /// Adds a key that keeps a behaviour for which the old scanner had no key.
    pub(crate) fn set_new(&mut self, section: &'static str, name: &'static str, value: TomlValue) {
        let comment = self.key_comment.take();
        self.push(section, DraftItem::Key(DraftKey { name, value, comment, origin: None }));
    }

    fn push(&mut self, section: &'static str, item: DraftItem) {
        self.sections.entry(section).or_default().push(item);
    }

    /// Removes values until `validate` rejects only keys in [`FILE_KEYS`], or keys that are not in the draft.
    pub(crate) fn remove_rejected_values(&mut self, validate: &Validate<'_>) {
        let mut reported = Vec::new();
        loop {
            let rejections = validate(&self.render(""), &self.base);
            if !self.remove(rejections, &mut reported) {
                break;
            }
        }
        self.remarks.append(&mut reported);
    }

    /// Removes the rejected values. Returns whether any was removed, so that the rest must be validated
    /// again.
    fn remove(&mut self, rejections: Vec<Rejection>, reported: &mut Vec<Remark>) -> bool {
        let mut removed = false;
        // In reverse order, so that indices of list elements stay valid.
        for rejection in rejections.into_iter().rev() {
            let Some(path) = rejection.key else { continue };
            let found = self.sections.iter_mut().find_map(|(section, items)| {
                items.iter_mut().enumerate().find_map(|(at, item)| match item {
                    DraftItem::Key(key) => {
                        let name = format!("{section}.{}", key.name);
                        let part = path.strip_prefix(&name)?;
                        let is_whole = part.is_empty() || part.starts_with(['[', '.']);
                        is_whole.then(|| (*section, at, name, part.to_owned()))
                    }
                    _ => None,
                })
            });
            let Some((section, at, name, part)) = found else {
                let remark = Remark {
                    kind: RemarkKind::Mistake,
                    line: None,
                    key: printable(&path),
                    message: rejection.message,
                };
                // The rejection recurs in each validation.
                if !reported.contains(&remark) {
                    reported.push(remark);
                }
                continue;
            };
            let stays = FILE_KEYS.contains(&name.as_str());
            let Some(items) = self.sections.get_mut(section) else { continue };
            let Some(DraftItem::Key(key)) = items.get_mut(at) else { continue };
            let (old_key, line) =
                key.origin.map_or((name.as_str(), None), |(key, line)| (key, Some(line)));
            let suffix = if stays { "" } else { "; omitted" };
            let remark = Remark {
                kind: RemarkKind::Mistake,
                line,
                key: printable(&format!("{old_key}{part}")),
                message: format!("{}{suffix}", rejection.message),
            };
            if !stays {
                if key.value.remove(&part) {
                    items.remove(at);
                }
                removed = true;
            }
            if !stays || !reported.contains(&remark) {
                reported.push(remark);
            }
        }
        removed
    }

    /// Formats the file, starting with `header` as a comment.
    pub(crate) fn render(&self, header: &str) -> String {
        let mut out = String::new();
        comment(&mut out, "", header);
        let mut remarks: Vec<_> = self.remarks.iter().collect();
        remarks.sort_by_key(|remark| remark.line);
        for (kind, title) in [
            (RemarkKind::Mistake, "Action required:"),
            (RemarkKind::NoCounterpart, "No counterpart in this scanner:"),
            (RemarkKind::Suggestion, "Suggestions:"),
        ] {
            let mut of_kind = remarks.iter().filter(|remark| remark.kind == kind).peekable();
            if of_kind.peek().is_some() {
                out.push_str("#\n");
                comment(&mut out, "", title);
            }
            for remark in of_kind {
                comment(&mut out, "- ", &remark.to_string());
            }
        }
        for section in SECTIONS {
            let Some(items) = self.sections.get(section) else { continue };
            let _ = write!(out, "\n[{section}]\n");
            for item in items {
                match item {
                    DraftItem::Comment(text) => comment(&mut out, "", text),
                    DraftItem::Suggestion(line) => {
                        let _ = writeln!(out, "# {line}");
                    }
                    DraftItem::Key(key) => {
                        comment(&mut out, "", key.comment.as_deref().unwrap_or_default());
                        let _ = writeln!(out, "{} = {}", key.name, key.value.toml());
                    }
                }
            }
        }
        out
    }
}

impl TomlValue {
    pub(crate) fn text(text: impl AsRef<str>) -> Self {
        Self::Scalar(quoted(text.as_ref()))
    }

    pub(crate) fn path(path: &Path) -> Self {
        Self::text(path.to_string_lossy())
    }

    pub(crate) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| quoted(text.as_ref())).collect())
    }

    pub(crate) fn table(entries: &[(String, String)]) -> Self {
        let entries = entries.iter().map(|(name, text)| (format::key(name), quoted(text)));
        Self::Table(entries.collect())
    }

    fn toml(&self) -> String {
        match self {
            Self::Scalar(value) => value.clone(),
            Self::List(elements) => format!("[{}]", elements.join(", ")),
            Self::Table(entries) if entries.is_empty() => "{}".into(),
            Self::Table(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k} = {v}")).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// Removes a part as named by a [`Rejection`]: `[2]`, `.name`, or empty for the whole value. Returns whether
    /// the value is empty then.
    fn remove(&mut self, part: &str) -> bool {
        match self {
            Self::List(elements) => {
                let index = part.strip_prefix('[').and_then(|rest| rest.split(']').next());
                match index.and_then(|index| index.parse::<usize>().ok()) {
                    Some(index) if index < elements.len() => {
                        elements.remove(index);
                        elements.is_empty()
                    }
                    _ => true,
                }
            }
            Self::Table(entries) => {
                // From the end, since rejections are processed in reverse order.
                let at = entries.iter().rposition(|(name, _)| part.strip_prefix('.') == Some(name));
                at.map(|at| entries.remove(at)).is_none() || entries.is_empty()
            }
            Self::Scalar(_) => true,
        }
    }
}

/// Appends `text` as wrapped comment lines, indented below a bullet. Control characters are replaced, so
/// that untrusted text cannot end a line.
fn comment(out: &mut String, bullet: &str, text: &str) {
    let (mut line, mut is_first) = (String::new(), true);
    let mut end_line = |line: &mut String| {
        let indent = if is_first { bullet.to_owned() } else { " ".repeat(bullet.len()) };
        is_first = false;
        let _ = writeln!(out, "# {indent}{line}");
        line.clear();
    };
    for word in text.split_whitespace() {
        let word: String = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let length = line.chars().count() + word.chars().count() + bullet.len() + 3;
        if !line.is_empty() && length > WIDTH {
            end_line(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        end_line(&mut line);
    }
}
