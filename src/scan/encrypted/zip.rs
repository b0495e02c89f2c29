//! zip, PKWARE's APPNOTE.TXT 6.3.10.
//!
//! Extractors disagree about which of several directories is valid, whether offsets count from the start of the
//! file or of the archive in it, and whether the directory or the local header of an entry is right. Therefore all
//! of them are examined: every end record that an extractor may find, the directory at both positions, and both
//! headers of each entry. In addition, local headers are followed from the start of the file, as streaming
//! extractors do. After an entry whose size is only in a data descriptor, the next header is searched for, within 1
//! MiB per file. Later entries are found through the directory only.

use super::reader::{BoundedReader, ReadAt, Stop, WINDOW, u16_at, u32_at, u64_at};

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";

const LOCAL_LENGTH: usize = 30;
const ENTRY_LENGTH: usize = 46;
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;

/// Flags for encryption, strong encryption and masked headers. APPNOTE, section 4.4.4.
const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;

/// Compression method of AES encryption by `WinZip`.
const AES: u16 = 99;

/// Flag for sizes in a data descriptor after the data.
const DESCRIPTOR: u16 = 1 << 3;

/// Maximum number of bytes searched for local headers after data descriptors.
const MAX_SEARCH: u64 = 1 << 20;

/// Returns whether any entry is encrypted. Returns false for files in other formats.
pub(super) fn examine<S: ReadAt + ?Sized>(reader: &mut BoundedReader<'_, S>) -> Result<bool, Stop> {
    let mut directories = Vec::new();
    for end in end_records(reader)? {
        directories.extend(directories_for(reader, end)?);
    }
    directories.sort_unstable();
    directories.dedup();
    for CentralDirectory { offset, prefix } in directories {
        if examine_directory(reader, offset, prefix)? {
            return Ok(true);
        }
    }
    examine_local_headers(reader)
}

/// Position of a central directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct CentralDirectory {
    offset: u64,
    /// Length of the data before the archive, bytes.
    prefix: u64,
}

/// Returns the offsets of end records in the last 64 KiB. A comment, and with some programs other data, may follow
/// each.
fn end_records<S: ReadAt + ?Sized>(reader: &mut BoundedReader<'_, S>) -> Result<Vec<u64>, Stop> {
    let length = reader.length.min(END_LENGTH as u64 + u64::from(u16::MAX));
    let mut tail = vec![0; usize::try_from(length).unwrap_or(0)];
    let start = reader.length - length;
    let filled = reader.fill(&mut tail, start)?;
    tail.truncate(filled);
    let records = tail.windows(4).enumerate().filter(|(_, bytes)| **bytes == END);
    Ok(records.map(|(index, _)| start + index as u64).collect())
}

/// Returns the directories that an end record may refer to.
fn directories_for<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    end: u64,
) -> Result<Vec<CentralDirectory>, Stop> {
    let Some(record) = reader.exact::<END_LENGTH>(end)? else {
        return Ok(Vec::new());
    };
    let mut candidates =
        directory_candidates(end, u32_at(&record, 12).into(), u32_at(&record, 16).into());
    let locator = end.checked_sub(LOCATOR_LENGTH as u64);
    let locator = match locator {
        Some(offset) => reader.exact::<LOCATOR_LENGTH>(offset)?,
        None => None,
    };
    if let Some(locator) = locator.filter(|bytes| bytes.starts_with(&LOCATOR_64)) {
        // The offset in the locator ignores data before the archive. The record directly precedes its locator.
        let adjacent = end.checked_sub(LOCATOR_LENGTH as u64 + 56);
        for offset in [Some(u64_at(&locator, 8)), adjacent].into_iter().flatten() {
            let record = reader.exact::<56>(offset)?;
            if let Some(record) = record.filter(|bytes| bytes.starts_with(&END_64)) {
                let (size, start) = (u64_at(&record, 40), u64_at(&record, 48));
                candidates.extend(directory_candidates(offset, size, start));
            }
        }
    }
    let mut directories = Vec::new();
    for directory in candidates {
        if reader.exact(directory.offset)? == Some(ENTRY) {
            directories.push(directory);
        }
    }
    Ok(directories)
}

/// Returns the position in the end record at `end`, and the position directly before the record.
fn directory_candidates(end: u64, size: u64, offset: u64) -> Vec<CentralDirectory> {
    let recorded = Some(CentralDirectory { offset, prefix: 0 });
    let adjacent = end
        .checked_sub(size)
        .map(|start| CentralDirectory { offset: start, prefix: start.saturating_sub(offset) });
    [recorded, adjacent].into_iter().flatten().collect()
}

fn examine_directory<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut offset: u64,
    prefix: u64,
) -> Result<bool, Stop> {
    loop {
        let entry = reader.ahead(offset, ENTRY_LENGTH)?;
        let Some(entry) = entry.filter(|bytes| bytes.starts_with(&ENTRY)) else {
            return Ok(false);
        };
        let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
        let lengths = [28, 30, 32].map(|field| u64::from(u16_at(entry, field)));
        let local_offset = u32_at(entry, 42);
        if is_encrypted(flags, method) {
            return Ok(true);
        }
        let next = offset + ENTRY_LENGTH as u64 + lengths.iter().sum::<u64>();
        let [name, extra, _] = lengths;
        let local_offset = match local_offset {
            u32::MAX => zip64_offset(reader, offset + ENTRY_LENGTH as u64 + name, extra)?,
            local_offset => Some(local_offset.into()),
        };
        if let Some(local_offset) = local_offset {
            for start in [local_offset, local_offset.saturating_add(prefix)] {
                let header = reader.exact::<10>(start)?;
                if let Some(header) = header.filter(|bytes| bytes.starts_with(&LOCAL))
                    && is_encrypted(u16_at(&header, 6), u16_at(&header, 8))
                {
                    return Ok(true);
                }
                if prefix == 0 {
                    break;
                }
            }
        }
        offset = next;
    }
}

/// Returns the local header's offset in an entry's zip64 extra field.
fn zip64_offset<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    start: u64,
    length: u64,
) -> Result<Option<u64>, Stop> {
    let Some((field, size)) = zip64_field(reader, start, length)? else { return Ok(None) };
    // The offset follows up to two sizes and precedes the disk number.
    let offset = field + size.saturating_sub(8).min(16) / 8 * 8;
    Ok(reader.exact::<8>(offset)?.map(u64::from_le_bytes))
}

/// Returns offset and size of the zip64 field in an extra area.
fn zip64_field<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut offset: u64,
    length: u64,
) -> Result<Option<(u64, u64)>, Stop> {
    let end = offset.saturating_add(length);
    while offset + 4 <= end {
        let Some(field) = reader.exact::<4>(offset)? else { break };
        let size = u64::from(u16_at(&field, 2));
        if u16_at(&field, 0) == 1 {
            return Ok(Some((offset + 4, size)));
        }
        offset += 4 + size;
    }
    Ok(None)
}

/// Follows local headers from the start of the file.
fn examine_local_headers<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
) -> Result<bool, Stop> {
    let mut search = MAX_SEARCH;
    let Some(first) = reader.exact::<8>(0)? else { return Ok(false) };
    // Markers of archives that were created for several volumes.
    let has_marker = first.starts_with(b"PK00") || first.starts_with(b"PK\x07\x08");
    let mut offset = if has_marker { 4 } else { 0 };
    loop {
        let header = reader.ahead(offset, LOCAL_LENGTH)?;
        let Some(header) = header.filter(|bytes| bytes.starts_with(&LOCAL)) else {
            return Ok(false);
        };
        let (flags, method) = (u16_at(header, 6), u16_at(header, 8));
        if is_encrypted(flags, method) {
            return Ok(true);
        }
        let packed = u32_at(header, 18);
        let (name, extra) = (u64::from(u16_at(header, 26)), u64::from(u16_at(header, 28)));
        let data = offset + LOCAL_LENGTH as u64 + name + extra;
        offset = if packed == u32::MAX {
            let field = zip64_field(reader, data - extra, extra)?;
            let size = match field {
                Some((field, size)) if size >= 16 => reader.exact::<8>(field + 8)?,
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
            match next_local_header(reader, offset, &mut search)? {
                Some(next) => offset = next,
                None => return Ok(false),
            }
        }
    }
}

/// Returns the offset of the next plausible local header. Compressed data may contain its signature by chance.
fn next_local_header<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut offset: u64,
    search: &mut u64,
) -> Result<Option<u64>, Stop> {
    let is_plausible = |header: &[u8]| {
        header.starts_with(&LOCAL)
            && u16_at(header, 4) < 256
            && matches!(u16_at(header, 8), 0..=20 | 93..=99)
            && u16_at(header, 26) > 0
    };
    while *search > 0 && offset < reader.length {
        let length = usize::try_from(reader.length - offset).unwrap_or(WINDOW).min(WINDOW);
        let Some(bytes) = reader.ahead(offset, length)? else { break };
        if let Some(index) = bytes.windows(LOCAL_LENGTH).position(is_plausible) {
            return Ok(Some(offset + index as u64));
        }
        if length < WINDOW {
            break;
        }
        let searched = (length - LOCAL_LENGTH) as u64;
        offset += searched;
        *search = search.saturating_sub(searched);
    }
    Ok(None)
}

fn is_encrypted(flags: u16, method: u16) -> bool {
    flags & ENCRYPTED != 0 || method == AES
}
