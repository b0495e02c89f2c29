//! Records of `ClamAV`'s `.hdb` and `.hsb`: `HASH:SIZE:NAME[:MINFL[:MAXFL]]` (docs.clamav.net, "Hash-based signatures";
//! `cli_loadhash` in `libclamav/readdb.c`).
//!
//! The number of digits determines the kind of the hash in both. The size `*` is any size, also with MD5. Versions of
//! `ClamAV` before `MINFL` cannot load a record, so that number is ignored. A record with a `MAXFL` below [`LEVEL`]
//! does not apply any more and is not used.

use crate::{
    entry::{FileDigest, HashEntry},
    error::LineProblem,
    text_list::SizeField,
};

/// Functionality level of `ClamAV` 1.4.6.
const LEVEL: u64 = 216;

/// Record of a database.
pub(crate) enum ClamavRecord<'a> {
    Entry(HashEntry<'a>),
    /// Withdrawn, or with an unknown kind of hash.
    Unsupported,
}

/// Parses a line. Returns `None` for empty lines and comments.
pub(crate) fn parse_record(line: &[u8]) -> Result<Option<ClamavRecord<'_>>, LineProblem> {
    let line = line.trim_ascii_end();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let mut fields = line.split(|byte| *byte == b':');
    let (Some(digits), Some(size), Some(name)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(LineProblem::InvalidRecord);
    };
    let _minimum_level = fields.next();
    let is_withdrawn = fields.next().is_some_and(|level| !is_current(level));
    let size = SizeField::parse(size).ok_or(LineProblem::InvalidRecord)?.bytes();
    let is_hash = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    if fields.next().is_some() || !is_hash {
        return Err(LineProblem::InvalidRecord);
    }
    let record = match FileDigest::from_hex(digits) {
        Some(digest) if !is_withdrawn => {
            ClamavRecord::Entry(HashEntry { digest, size, name: String::from_utf8_lossy(name) })
        }
        _ => ClamavRecord::Unsupported,
    };
    Ok(Some(record))
}

fn is_current(maximum_level: &[u8]) -> bool {
    let level = std::str::from_utf8(maximum_level).ok().and_then(|level| level.parse().ok());
    level.is_some_and(|level: u64| level >= LEVEL)
}
