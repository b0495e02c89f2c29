//! Native data of embedded objects, [MS-OLEDS] 2.2.5 and 2.3.6, and the files in the data of the Packager.

use super::compound::u32_at;
use crate::{
    report::NoteKind,
    unpack::{
        content::StreamContent,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Maximum length of the names before or after a packaged file together, bytes. Paths in Windows have at most 260
/// characters, except for special ones of at most 32 767.
const MAX_NAMES: usize = 64 << 10;

/// Passes the object in the stream `\x01Ole10Native`: its size, then the data.
pub(super) fn stream(content: &StreamContent<'_>, unpacker: &mut Unpacker<'_>) -> Unpacked {
    data(&content.from(4), unpacker)
}

/// Passes the native data of an object: the packaged file if there is one, else all of the data.
pub(in crate::unpack::document) fn data(
    data: &StreamContent<'_>,
    unpacker: &mut Unpacker<'_>,
) -> Unpacked {
    let packages = Package::parse(data);
    if packages.is_empty() {
        if data.len() > 0 {
            data.visit(EntryName::label("native data"), unpacker)?;
        }
        return Ok(());
    }
    for Package { content, names, is_complete } in packages {
        // The same content under each name, because programs differ in the name that they use.
        for name in names {
            content.visit(EntryName::file(name), unpacker)?;
        }
        if !is_complete {
            unpacker.note(NoteKind::Unreadable, "an embedded file ends before its size");
        }
    }
    Ok(())
}

/// A file in the data of the Packager: a number, label, original path, a number, the length of the temporary path, the
/// temporary path, the size of the file, and the file. The paths follow once more in UTF-16.
struct Package<'a> {
    content: StreamContent<'a>,
    /// The different names without directories, at least one.
    names: Vec<Vec<u8>>,
    is_complete: bool,
}

impl<'a> Package<'a> {
    /// Number at the start of packaged files and links.
    const VERSION: [u8; 2] = [2, 0];

    /// Returns the file; twice if the end of the temporary path is ambiguous. Empty if this is other data.
    fn parse(data: &StreamContent<'a>) -> Vec<Self> {
        let head = data.copy(0, MAX_NAMES);
        if !head.starts_with(&Self::VERSION) {
            return Vec::new();
        }
        let fields = || {
            let (label, rest) = text(head.get(2..)?)?;
            let (path, rest) = text(rest)?;
            // After a number.
            let (length, rest) = rest.get(4..)?.split_at_checked(4)?;
            let (temporary, _) = text(rest)?;
            Some(([label, path, temporary], u32_at(length, 0) as usize, head.len() - rest.len()))
        };
        let Some((names, length, start)) = fields() else { return Vec::new() };
        // The path ends at its length, or at its first zero.
        let by_zero = start + names.last().map_or(0, |temporary| temporary.len() + 1);
        let by_length = start.saturating_add(length);
        let names: Vec<_> = names.into_iter().map(<[u8]>::to_vec).collect();
        let file = |start: usize| Self::file(data, start, &names);
        let mut packages: Vec<_> = file(by_length).into_iter().collect();
        if by_zero != by_length {
            packages.extend(file(by_zero));
        }
        // A size beyond the end is more likely a wrong guess than an incomplete file.
        if packages.iter().any(|package| package.is_complete) {
            packages.retain(|package| package.is_complete);
        }
        packages
    }

    /// Returns the file whose size is at `start`.
    fn file(data: &StreamContent<'a>, start: usize, names: &[Vec<u8>]) -> Option<Self> {
        let size = data.copy(start, 4);
        let size = u32_at(size.first_chunk::<4>()?, 0) as usize;
        let content = data.range(start + 4, size);
        if size == 0 || content.len() == 0 {
            return None;
        }
        let after = data.copy((start + 4).saturating_add(size), MAX_NAMES);
        let all = names.iter().cloned().chain(unicode_names(&after));
        let mut names: Vec<Vec<u8>> = Vec::new();
        for name in all.map(|name| file_name(&name).to_vec()) {
            if !name.is_empty() && !names.contains(&name) {
                names.push(name);
            }
        }
        if names.is_empty() {
            names.push(b"package".to_vec());
        }
        let is_complete = content.len() == size;
        Some(Self { content, names, is_complete })
    }
}

/// Splits bytes at the first zero.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((text, rest.get(1..)?))
}

/// Returns the three paths after a packaged file, in UTF-16 with their lengths in characters. Older programs write none.
fn unicode_names(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    while names.len() < 3 {
        let length = (u32_at(bytes, 0) as usize).saturating_mul(2);
        let Some((name, rest)) = bytes.get(4..).and_then(|rest| rest.split_at_checked(length))
        else {
            break;
        };
        let units = name.as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit));
        let name: String = char::decode_utf16(units)
            .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
            .take_while(|character| *character != '\0')
            .collect();
        names.push(name.into_bytes());
        bytes = rest;
    }
    names
}

/// Returns a path without its directories.
fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| matches!(byte, b'\\' | b'/')).next().unwrap_or_default()
}

/// Returns the native data of an embedded object in the format of OLE 1.0 ([MS-OLEDS] 2.2.5); `None` for links and
/// other data. Word ignores the version. The data is shorter than its size if the object is truncated.
pub(in crate::unpack::document) fn ole1_data<'a>(
    object: &StreamContent<'a>,
) -> Option<StreamContent<'a>> {
    const EMBEDDED: u32 = 2;
    let number = |at: usize| Some(u32_at(object.copy(at, 4).first_chunk::<4>()?, 0) as usize);
    if number(4)? != EMBEDDED as usize {
        return None;
    }
    // Class, topic and item.
    let mut at = 8_usize;
    for _ in 0..3 {
        at = at.checked_add(4)?.checked_add(number(at)?)?;
    }
    let size = number(at)?;
    let data = object.range(at + 4, size);
    (data.len() > 0).then_some(data)
}
