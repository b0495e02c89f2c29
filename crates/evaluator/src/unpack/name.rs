//! Names of objects, and their paths in reports.

use std::borrow::Cow;

/// Maximum length of a name in a report, characters.
const MAX_NAME: usize = 60;

/// Maximum length of all names of a path in a report together, characters.
pub(crate) const MAX_PATH: usize = 200;

/// Maximum length of a name that is kept, bytes. Longer names exist only to cost memory: names of files have at most 255
/// bytes on all common file systems, paths 4096.
const MAX_KEPT: usize = 4096;

/// Stands for characters that a report omits.
const ELLIPSIS: char = '…';

/// Name of an object in its container.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct EntryName {
    text: String,
    kind: NameKind,
}

/// What a name is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NameKind {
    File,
    Label,
    Encoding,
}

impl EntryName {
    /// Creates the name of a file, possibly with directories. Bytes that are not UTF-8 are replaced.
    pub(crate) fn file(name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        let start = name.len().saturating_sub(MAX_KEPT);
        // The extension is at the end.
        let kept = name.get(start..).unwrap_or(name);
        Self { text: String::from_utf8_lossy(kept).into_owned(), kind: NameKind::File }
    }

    /// Creates a description of an object without a name, such as "object 12".
    pub(crate) fn label(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: NameKind::Label }
    }

    /// Creates a description of the text of the whole container in another encoding. To rules, it is the container.
    pub(crate) fn encoding(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: NameKind::Encoding }
    }

    /// Returns whether this is the text of its container.
    pub(crate) fn is_encoding(&self) -> bool {
        self.kind == NameKind::Encoding
    }

    /// Returns the name of the file, empty if there is none.
    pub(crate) fn file_path(&self) -> &str {
        if self.kind == NameKind::File { &self.text } else { "" }
    }
}

/// Shortens the names of a path for a report: each to [`MAX_NAME`] characters, all together to [`MAX_PATH`]. The last
/// names are the most specific ones, so the first ones are omitted.
pub(super) fn for_report(path: &[EntryName]) -> Vec<String> {
    let mut names = Vec::new();
    let mut remaining = MAX_PATH;
    for name in path.iter().rev() {
        let name = shorten(&name.text);
        let length = name.chars().count();
        if length > remaining {
            names.push(ELLIPSIS.to_string());
            break;
        }
        remaining -= length;
        names.push(name.into_owned());
    }
    names.reverse();
    names
}

/// Keeps the end of a long name, because the extension is there.
fn shorten(name: &str) -> Cow<'_, str> {
    match name.char_indices().rev().nth(MAX_NAME - 1) {
        Some((start, _)) if start > 0 => {
            let rest: String = name.get(start..).unwrap_or_default().chars().skip(1).collect();
            format!("{ELLIPSIS}{rest}").into()
        }
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reported_names_are_short_and_keep_their_end() {
        let long = EntryName::file("x".repeat(100) + ".exe");
        let [name] = &for_report(std::slice::from_ref(&long))[..] else { panic!() };
        assert_eq!(name.chars().count(), MAX_NAME);
        assert!(name.starts_with('…') && name.ends_with("x.exe"), "{name}");
        let exact = "y".repeat(MAX_NAME);
        assert_eq!(for_report(&[EntryName::file(&exact)]), [exact]);

        let names = for_report(&vec![long; 10]);
        assert_eq!(names[0], "…");
        assert_eq!(names.len(), 1 + MAX_PATH / MAX_NAME);
    }

    #[test]
    fn only_names_of_files_are_visible_to_rules() {
        assert_eq!(EntryName::file(b"a/b\xff.exe").file_path(), "a/b\u{fffd}.exe");
        assert_eq!(EntryName::label("object 3").file_path(), "");
    }
}
