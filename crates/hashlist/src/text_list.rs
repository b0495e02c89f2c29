//! Text lists: one entry in each line.
//!
//! `DIGEST[:SIZE] [NAME]`, where the digest is a SHA-256 without size, a SHA-1 with or without size, or an MD5 with size.
//! The size is a number of bytes, or `*` for any size. Empty lines, and text from a `#` at the start of a line or of a
//! name, are ignored. The output of `sha256sum` has this form.

use crate::{
    entry::{FileDigest, HashEntry},
    error::LineProblem,
};

/// Parses a line. Returns `None` for empty lines and comments.
pub(crate) fn parse_line(line: &[u8]) -> Result<Option<HashEntry<'_>>, LineProblem> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (field, name) = line.split_at_checked(end).unwrap_or((line, b""));
    let name = name.trim_ascii_start();
    let name = if name.starts_with(b"#") { b"".as_slice() } else { name };
    // `sha256sum --binary` marks names with an asterisk.
    let name = name.strip_prefix(b"*").unwrap_or(name);
    let mut parts = field.splitn(2, |byte| *byte == b':');
    let digits = parts.next().unwrap_or_default();
    let size = parts.next().map(SizeField::parse);
    let digest =
        FileDigest::from_hex(digits).ok_or(LineProblem::NoDigest { found: digits.len() })?;
    let size = match (&digest, size) {
        (FileDigest::Sha256(_), Some(_)) => return Err(LineProblem::Sha256WithSize),
        (FileDigest::Md5(_), None) => return Err(LineProblem::Md5WithoutSize),
        (_, None) => None,
        (_, Some(size)) => size.ok_or(LineProblem::InvalidSize)?.bytes(),
    };
    Ok(Some(HashEntry { digest, size, name: String::from_utf8_lossy(name) }))
}

/// Size in an entry of a list.
pub(crate) enum SizeField {
    /// `*`
    Any,
    /// At least 1.
    Bytes(u64),
}

impl SizeField {
    pub(crate) fn parse(field: &[u8]) -> Option<Self> {
        if field == b"*" {
            return Some(Self::Any);
        }
        // `parse` also accepts a sign.
        if !field.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let size = std::str::from_utf8(field).ok()?.parse().ok()?;
        (size > 0).then_some(Self::Bytes(size))
    }

    pub(crate) fn bytes(self) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::Bytes(size) => Some(size),
        }
    }
}
