//! The file to be: sections with comments and keys. What `config` refuses of a value that was taken
//! over is taken out again, element by element, and told by the line that it came from.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use super::{
    Remark, RemarkKind,
    old::{Found, shown},
};
use crate::config::{self, Problem, quoted, toml_key};

/// Sections in the order of `default.toml`.
const SECTIONS: [&str; 7] =
    ["web", "scan", "sandbox", "download", "result_cache", "crypto", "operations"];

/// What is wrong with these is mostly that a file is not there yet: they stay.
const FILES: [&str; 5] = [
    "scan.script",
    "scan.temp_directory",
    "crypto.request_secret_path",
    "crypto.pickle_path",
    "crypto.pickle_key",
];

/// Comments are broken before this column.
const WIDTH: usize = 100;

pub(super) struct Draft {
    /// The directory that the old scanner was started in.
    pub(super) base: PathBuf,
    pub(super) remarks: Vec<Remark>,
    sections: BTreeMap<&'static str, Vec<Item>>,
    /// What to say before the next key, and not without it.
    why: Option<String>,
}

enum Item {
    Comment(String),
    /// A line that someone may want, as a comment, whole.
    Suggestion(String),
    Key(Key),
}

struct Key {
    name: &'static str,
    value: Value,
    why: Option<String>,
    /// The key and the line that it came from.
    origin: Option<(&'static str, usize)>,
}

/// Each part in TOML.
pub(super) enum Value {
    One(String),
    List(Vec<String>),
    Table(Vec<(String, String)>),
}

impl Draft {
    pub(super) fn new(base: &Path) -> Self {
        Self { base: base.into(), remarks: Vec::new(), sections: BTreeMap::new(), why: None }
    }

    pub(super) fn comment(&mut self, section: &'static str, text: impl Into<String>) {
        self.push(section, Item::Comment(text.into()));
    }

    /// A comment on the key that is set next.
    pub(super) fn why(&mut self, text: impl Into<String>) {
        self.why = Some(text.into());
    }

    pub(super) fn suggest(&mut self, section: &'static str, line: impl Into<String>) {
        self.push(section, Item::Suggestion(line.into()));
    }

    /// A key of ours, for a key of theirs.
    pub(super) fn set<T>(
        &mut self,
        section: &'static str,
        name: &'static str,
        value: Value,
        from: &Found<T>,
    ) {
        let (why, origin) = (self.why.take(), Some((from.key, from.line)));
        self.push(section, Item::Key(Key { name, value, why, origin }));
    }

    /// A key of ours that follows from what they did without one.
    pub(super) fn set_new(&mut self, section: &'static str, name: &'static str, value: Value) {
        let why = self.why.take();
        self.push(section, Item::Key(Key { name, value, why, origin: None }));
    }

    fn push(&mut self, section: &'static str, item: Item) {
        self.sections.entry(section).or_default().push(item);
    }

    /// Until `config` has nothing to say about values any more; what is left then are files.
    pub(super) fn settle(&mut self) {
        let mut told = Vec::new();
        loop {
            let problems = config::problems(&self.render(""), &self.base);
            if !self.take_out(problems, &mut told) {
                break;
            }
        }
        self.remarks.append(&mut told);
    }

    /// Whether anything was: then there may be less to say.
    fn take_out(&mut self, problems: Vec<Problem>, told: &mut Vec<Remark>) -> bool {
        let mut taken_out = false;
        // Backwards, so that elements keep their positions.
        for problem in problems.into_iter().rev() {
            let Some(path) = problem.key else { continue };
            let found = self.sections.iter_mut().find_map(|(section, items)| {
                items.iter_mut().enumerate().find_map(|(at, item)| match item {
                    Item::Key(key) => {
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
                    key: shown(&path),
                    message: problem.message,
                };
                // Each round says it again.
                if !told.contains(&remark) {
                    told.push(remark);
                }
                continue;
            };
            let stays = FILES.contains(&name.as_str());
            let Some(items) = self.sections.get_mut(section) else { continue };
            let Some(Item::Key(key)) = items.get_mut(at) else { continue };
            let (old, line) = key.origin.map_or((name.as_str(), None), |(k, l)| (k, Some(l)));
            let end = if stays { "" } else { "; left out" };
            let remark = Remark {
                kind: RemarkKind::Mistake,
                line,
                key: shown(&format!("{old}{part}")),
                message: format!("{}{end}", problem.message),
            };
            if !stays {
                if key.value.remove(&part) {
                    items.remove(at);
                }
                taken_out = true;
            }
            if !stays || !told.contains(&remark) {
                told.push(remark);
            }
        }
        taken_out
    }

    /// The file, below its first comment.
    pub(super) fn render(&self, header: &str) -> String {
        let mut out = String::new();
        comment(&mut out, "", header);
        let mut remarks: Vec<_> = self.remarks.iter().collect();
        remarks.sort_by_key(|remark| remark.line);
        for (kind, title) in [
            (RemarkKind::Mistake, "To be decided by you:"),
            (RemarkKind::NoCounterpart, "Without a counterpart here:"),
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
                    Item::Comment(text) => comment(&mut out, "", text),
                    Item::Suggestion(line) => {
                        let _ = writeln!(out, "# {line}");
                    }
                    Item::Key(key) => {
                        comment(&mut out, "", key.why.as_deref().unwrap_or_default());
                        let _ = writeln!(out, "{} = {}", key.name, key.value.toml());
                    }
                }
            }
        }
        out
    }
}

impl Value {
    pub(super) fn text(text: impl AsRef<str>) -> Self {
        Self::One(quoted(text.as_ref()))
    }

    pub(super) fn path(path: &Path) -> Self {
        Self::text(path.to_string_lossy())
    }

    pub(super) fn texts<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Self {
        Self::List(texts.into_iter().map(|text| quoted(text.as_ref())).collect())
    }

    pub(super) fn table(entries: &[(String, String)]) -> Self {
        let entries = entries.iter().map(|(name, text)| (toml_key(name), quoted(text)));
        Self::Table(entries.collect())
    }

    fn toml(&self) -> String {
        match self {
            Self::One(value) => value.clone(),
            Self::List(elements) => format!("[{}]", elements.join(", ")),
            Self::Table(entries) if entries.is_empty() => "{}".into(),
            Self::Table(entries) => {
                let entries: Vec<_> = entries.iter().map(|(k, v)| format!("{k} = {v}")).collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }

    /// Takes a part out, as `config` names it: `[2]`, `.name`, or nothing for the whole. Whether nothing
    /// is left.
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
                let before = entries.len();
                entries.retain(|(name, _)| part.strip_prefix('.') != Some(name));
                entries.is_empty() || entries.len() == before
            }
            Self::One(_) => true,
        }
    }
}

/// Text as lines of a comment; a bullet's later lines are indented. What is in it comes from anybody's
/// file: it can end no line.
fn comment(out: &mut String, bullet: &str, text: &str) {
    let (mut line, mut is_first) = (String::new(), true);
    let mut end = |line: &mut String| {
        let indent = if is_first { bullet.to_owned() } else { " ".repeat(bullet.len()) };
        is_first = false;
        let _ = writeln!(out, "# {indent}{line}");
        line.clear();
    };
    for word in text.split_whitespace() {
        let word: String = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        let length = line.chars().count() + word.chars().count() + bullet.len() + 3;
        if !line.is_empty() && length > WIDTH {
            end(&mut line);
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    if !line.is_empty() {
        end(&mut line);
    }
}
