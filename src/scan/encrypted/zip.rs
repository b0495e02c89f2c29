//! zip, by PKWARE's APPNOTE.TXT 6.3.10.
//!
//! Extractors disagree on which directory counts where there are several, on whether offsets count from the
//! beginning of the file or of the archive in it, and on whether the directory or the local header of an entry is
//! right. All of them are looked at: every end record that an extractor may find, the directory at either place, and
//! of each entry both headers. Beside that, the entries are followed from the beginning of the file, as programs
//! do that read a stream. An entry whose local header leaves its size to a descriptor behind it is passed by
//! searching for the next header, within 1 MiB for the whole file; what is behind that is left to the directory.

use super::{
    ReadAt,
    reader::{Reader, Stop, WINDOW, u16_at, u32_at, u64_at},
};

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";

const LOCAL_LENGTH: usize = 30;
const ENTRY_LENGTH: usize = 46;
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;

/// Encrypted; strongly so; with masked headers. APPNOTE, section 4.4.4.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// `WinZip`'s encryption, as a method.
const AES: u16 = 99;

/// The sizes stand behind the data.
const DESCRIPTOR: u16 = 1 << 3;

const MAX_SEARCH: u64 = 1 << 20;

/// Whether an entry is encrypted. False for what is no zip.
pub(super) fn examine<S: ReadAt + ?Sized>(reader: &mut Reader<'_, S>) -> Result<bool, Stop> {
    let mut directories = Vec::new();
    for end in ends(reader)? {
        directories.extend(directories_of(reader, end)?);
    }
    directories.sort_unstable();
    directories.dedup();
    for Directory { at, prefix } in directories {
        if directory(reader, at, prefix)? {
            return Ok(true);
        }
    }
    follow(reader)
}

/// A directory, and where offsets in it count from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Directory {
    at: u64,
    prefix: u64,
}

/// The end records in the last 64 KiB: a comment may follow each, and some programs let other bytes follow.
fn ends<S: ReadAt + ?Sized>(reader: &mut Reader<'_, S>) -> Result<Vec<u64>, Stop> {
    let length = reader.length.min(END_LENGTH as u64 + u64::from(u16::MAX));
    let mut tail = vec![0; usize::try_from(length).unwrap_or(0)];
    let from = reader.length - length;
    let filled = reader.fill(&mut tail, from)?;
    tail.truncate(filled);
    let starts = tail.windows(4).enumerate().filter(|(_, it)| **it == END);
    Ok(starts.map(|(at, _)| from + at as u64).collect())
}

/// The directories that an end record may mean.
fn directories_of<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
    end: u64,
) -> Result<Vec<Directory>, Stop> {
    let Some(record) = reader.exact::<END_LENGTH>(end)? else {
        return Ok(Vec::new());
    };
    let mut found = places(end, u32_at(&record, 12).into(), u32_at(&record, 16).into());
    let locator = end.checked_sub(LOCATOR_LENGTH as u64);
    let locator = match locator {
        Some(at) => reader.exact::<LOCATOR_LENGTH>(at)?,
        None => None,
    };
    if let Some(locator) = locator.filter(|it| it.starts_with(&LOCATOR_64)) {
        // The stated offset does not count bytes before the archive; the record stands right before its locator.
        let before = end.checked_sub(LOCATOR_LENGTH as u64 + 56);
        for at in [Some(u64_at(&locator, 8)), before].into_iter().flatten() {
            if let Some(record) = reader.exact::<56>(at)?.filter(|it| it.starts_with(&END_64)) {
                found.extend(places(at, u64_at(&record, 40), u64_at(&record, 48)));
            }
        }
    }
    let mut directories = Vec::new();
    for directory in found {
        if reader.exact(directory.at)? == Some(ENTRY) {
            directories.push(directory);
        }
    }
    Ok(directories)
}

/// The place that the record at `end` states, and the place right before the record.
fn places(end: u64, size: u64, offset: u64) -> Vec<Directory> {
    let stated = Some(Directory { at: offset, prefix: 0 });
    let before =
        end.checked_sub(size).map(|at| Directory { at, prefix: at.saturating_sub(offset) });
    [stated, before].into_iter().flatten().collect()
}

fn directory<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
    mut at: u64,
    prefix: u64,
) -> Result<bool, Stop> {
    loop {
        let Some(entry) = reader.ahead(at, ENTRY_LENGTH)?.filter(|it| it.starts_with(&ENTRY))
        else {
            return Ok(false);
        };
        let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
        let lengths = [28, 30, 32].map(|at| u64::from(u16_at(entry, at)));
        let offset = u32_at(entry, 42);
        if is_encrypted(flags, method) {
            return Ok(true);
        }
        let next = at + ENTRY_LENGTH as u64 + lengths.iter().sum::<u64>();
        let [name, extra, _] = lengths;
        let offset = match offset {
            u32::MAX => offset_64(reader, at + ENTRY_LENGTH as u64 + name, extra)?,
            offset => Some(offset.into()),
        };
        if let Some(offset) = offset {
            for at in [offset, offset.saturating_add(prefix)] {
                if let Some(header) = reader.exact::<10>(at)?.filter(|it| it.starts_with(&LOCAL))
                    && is_encrypted(u16_at(&header, 6), u16_at(&header, 8))
                {
                    return Ok(true);
                }
                if prefix == 0 {
                    break;
                }
            }
        }
        at = next;
    }
}

/// The offset in the extra field for large archives: the last of those that an entry has.
fn offset_64<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
    from: u64,
    length: u64,
) -> Result<Option<u64>, Stop> {
    let Some((at, size)) = large(reader, from, length)? else { return Ok(None) };
    // Behind two sizes, or alone, and before the number of the disk.
    let at = at + size.saturating_sub(8).min(16) / 8 * 8;
    Ok(reader.exact::<8>(at)?.map(u64::from_le_bytes))
}

/// Place and size of the extra field for large archives.
fn large<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
    mut at: u64,
    length: u64,
) -> Result<Option<(u64, u64)>, Stop> {
    let end = at.saturating_add(length);
    while at + 4 <= end {
        let Some(field) = reader.exact::<4>(at)? else { break };
        let size = u64::from(u16_at(&field, 2));
        if u16_at(&field, 0) == 1 {
            return Ok(Some((at + 4, size)));
        }
        at += 4 + size;
    }
    Ok(None)
}

/// Follows local headers from the beginning of the file.
fn follow<S: ReadAt + ?Sized>(reader: &mut Reader<'_, S>) -> Result<bool, Stop> {
    let mut search = MAX_SEARCH;
    let Some(first) = reader.exact::<8>(0)? else { return Ok(false) };
    // Archives that were made for several disks, and need but one.
    let spanned = first.starts_with(b"PK00") || first.starts_with(b"PK\x07\x08");
    let mut at = if spanned { 4 } else { 0 };
    loop {
        let Some(header) = reader.ahead(at, LOCAL_LENGTH)?.filter(|it| it.starts_with(&LOCAL))
        else {
            return Ok(false);
        };
        let (flags, method) = (u16_at(header, 6), u16_at(header, 8));
        if is_encrypted(flags, method) {
            return Ok(true);
        }
        let packed = u32_at(header, 18);
        let (name, extra) = (u64::from(u16_at(header, 26)), u64::from(u16_at(header, 28)));
        let data = at + LOCAL_LENGTH as u64 + name + extra;
        at = if packed == u32::MAX {
            let field = large(reader, data - extra, extra)?;
            let size = match field {
                Some((at, size)) if size >= 16 => reader.exact::<8>(at + 8)?,
                _ => None,
            };
            match size.map(u64::from_le_bytes).and_then(|size| data.checked_add(size)) {
                Some(next) => next,
                None => return Ok(false),
            }
        } else {
            data + u64::from(packed)
        };
        if flags & DESCRIPTOR != 0 {
            match next_header(reader, at, &mut search)? {
                Some(next) => at = next,
                None => return Ok(false),
            }
        }
    }
}

/// The next local header that is plausible: compressed bytes may look like its signature.
fn next_header<S: ReadAt + ?Sized>(
    reader: &mut Reader<'_, S>,
    mut at: u64,
    search: &mut u64,
) -> Result<Option<u64>, Stop> {
    let plausible = |header: &[u8]| {
        header.starts_with(&LOCAL)
            && u16_at(header, 4) < 256
            && matches!(u16_at(header, 8), 0..=20 | 93..=99)
            && u16_at(header, 26) > 0
    };
    while *search > 0 && at < reader.length {
        let left = usize::try_from(reader.length - at).unwrap_or(WINDOW).min(WINDOW);
        let Some(piece) = reader.ahead(at, left)? else { break };
        let found = piece.windows(LOCAL_LENGTH).position(plausible);
        if let Some(found) = found {
            return Ok(Some(at + found as u64));
        }
        if left < WINDOW {
            break;
        }
        let passed = (left - LOCAL_LENGTH) as u64;
        at += passed;
        *search = search.saturating_sub(passed);
    }
    Ok(None)
}

fn is_encrypted(flags: u16, method: u16) -> bool {
    flags & ENCRYPTED != 0 || method == AES
}
