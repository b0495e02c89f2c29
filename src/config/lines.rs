//! Keys and their values as TOML, as `check-config` prints them.

use std::fmt;

/// One key and its value.
#[derive(PartialEq, Eq)]
pub(super) struct Line {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    value: String,
    /// Whether different values may have the same text: secrets.
    pub(super) is_opaque: bool,
    /// Whether the line is only compared: the content of files that the key names.
    is_hidden: bool,
}

/// The lines of one or more sections.
pub(super) struct Lines {
    section: &'static str,
    lines: Vec<Line>,
}

impl Lines {
    /// Collects the lines that `write` adds to `section`.
    pub(super) fn collect(section: &'static str, write: impl FnOnce(&mut Self)) -> Self {
        let mut lines = Self { section, lines: Vec::new() };
        write(&mut lines);
        lines
    }

    /// Adds the lines of another section.
    pub(super) fn within(&mut self, section: &'static str, write: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.section, section);
        write(self);
        self.section = outer;
    }

    pub(super) fn add(&mut self, key: &'static str, value: String, is_opaque: bool) {
        self.lines.push(Line { section: self.section, key, value, is_opaque, is_hidden: false });
    }

    /// Adds what a key's value depends on in addition to its text, for comparisons.
    pub(super) fn add_hidden(&mut self, key: &'static str, value: String) {
        let section = self.section;
        self.lines.push(Line { section, key, value, is_opaque: false, is_hidden: true });
    }

    /// Returns the lines whose value differs from `other`, or that `other` lacks.
    pub(super) fn missing_in<'l>(&'l self, other: &'l Self) -> impl Iterator<Item = &'l Line> {
        self.lines.iter().filter(|line| !other.lines.contains(line))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter()
    }
}

/// Writes the sections in the order of their first lines.
impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sections: Vec<&str> = Vec::new();
        for line in &self.lines {
            if !sections.contains(&line.section) {
                sections.push(line.section);
            }
        }
        for (index, section) in sections.iter().enumerate() {
            writeln!(f, "{}[{section}]", if index == 0 { "" } else { "\n" })?;
            let is_shown = |line: &&Line| line.section == *section && !line.is_hidden;
            for line in self.lines.iter().filter(is_shown) {
                writeln!(f, "{} = {}", line.key, line.value)?;
            }
        }
        Ok(())
    }
}
