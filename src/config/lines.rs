//! Keys and their values as TOML, as `check-config` prints them.

use std::fmt;

/// One key and its value.
#[derive(PartialEq, Eq)]
pub(super) struct Line {
    pub(super) section: &'static str,
    pub(super) key: &'static str,
    value: String,
    /// Whether different values may have the same text: secrets, and paths of files whose content counts.
    pub(super) is_opaque: bool,
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
        self.lines.push(Line { section: self.section, key, value, is_opaque });
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
            for line in self.lines.iter().filter(|line| line.section == *section) {
                writeln!(f, "{} = {}", line.key, line.value)?;
            }
        }
        Ok(())
    }
}
