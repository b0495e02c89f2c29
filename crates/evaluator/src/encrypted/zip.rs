//! zip, PKWARE's APPNOTE.TXT 6.3.10.
//!
//! Extractors disagree about which of several directories is valid, whether offsets count from the start of the
//! file or of the archive in it, and whether the directory or the local header of an entry is right. Some search for
//! local headers when they find no directory. Therefore the examination does not rely on one chain of headers:
//!
//! - It examines the directories of all end records in the last 128 KiB, at both positions, and both headers of each
//!   entry. `unzip` and 7-Zip accept 64 to 80 KiB after an end record.
//! - It examines every signature of a local header or a directory entry in the file, if the file is a candidate: it
//!   starts like a zip archive, has an end record in the last 128 KiB, or has a local header's signature in the first
//!   8 MiB.
//!
//! The second step also finds entries of archives that are stored without compression in other files. An archive
//! counts as encrypted if such an inner archive is. Entries of compressed inner archives are not found.
//!
//! Signatures also occur by chance, and in programs that compare data with them. [`EntryHeader::is_plausible`] excludes
//! these. In 4 GiB of random bytes, 2 signatures are expected, of which about 1 in 10 000 counts as encrypted.

use memchr::memmem;

use super::reader::{BoundedReader, ReadAt, Stop, u16_at, u32_at, u64_at};

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const ENTRY: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";

const LOCAL_LENGTH: usize = 30;
const ENTRY_LENGTH: usize = 46;
const END_LENGTH: usize = 22;
const LOCATOR_LENGTH: usize = 20;

/// Flag of an encrypted entry. APPNOTE, section 4.4.4. Extractors decrypt entries only if this flag is set.
const ENCRYPTED: u16 = 1;

/// Flags for strong encryption and masked headers. They have no effect without [`ENCRYPTED`].
const STRONG_OR_MASKED: u16 = 1 << 6 | 1 << 13;

/// Flags without a meaning. Extractors ignore them.
const RESERVED: u16 = 0xf << 7 | 1 << 12 | 1 << 14 | 1 << 15;

/// Compression method of AES encryption by `WinZip`.
const AES: u16 = 99;

/// Range at the end of the file in which end records are searched for, bytes.
const MAX_TAIL: u64 = 128 << 10;

/// Range at the start of a file in which a local header makes it a candidate, bytes. 7-Zip searches 4 MiB.
const MAX_PREFIX: u64 = 8 << 20;

/// Number of bytes of a name that are examined.
const NAME_LENGTH: usize = 256;

/// Returns whether any entry is encrypted. Returns false for files in other formats.
pub(super) fn examine<S: ReadAt + ?Sized>(reader: &mut BoundedReader<'_, S>) -> Result<bool, Stop> {
    let ends = end_records(reader)?;
    let mut is_candidate = !ends.is_empty();
    let mut directories = Vec::new();
    for end in ends {
        directories.extend(directories_for(reader, end)?);
    }
    directories.sort_unstable();
    directories.dedup();
    for CentralDirectory { offset, prefix } in directories {
        if examine_directory(reader, offset, prefix)? {
            return Ok(true);
        }
    }
    // The last two mark archives that were created for several volumes.
    for signature in [LOCAL, END, *b"PK\x07\x08", *b"PK00"] {
        is_candidate |= reader.starts_with(&signature)?;
    }
    examine_signatures(reader, is_candidate)
}

/// Position of a central directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct CentralDirectory {
    offset: u64,
    /// Length of the data before the archive, bytes.
    prefix: u64,
}

/// Returns the offsets of end records in the last [`MAX_TAIL`] bytes. A comment, and with some programs other data,
/// may follow each.
fn end_records<S: ReadAt + ?Sized>(reader: &mut BoundedReader<'_, S>) -> Result<Vec<u64>, Stop> {
    let length = reader.length.min(MAX_TAIL);
    let mut tail = vec![0; usize::try_from(length).unwrap_or(0)];
    let start = reader.length - length;
    let filled = reader.fill(&mut tail, start)?;
    tail.truncate(filled);
    Ok(memmem::find_iter(&tail, &END).map(|index| start + index as u64).collect())
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

/// Returns the local header's offset in the zip64 field of an entry's extra area.
fn zip64_offset<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut offset: u64,
    length: u64,
) -> Result<Option<u64>, Stop> {
    let end = offset.saturating_add(length);
    while offset + 4 <= end {
        let Some(field) = reader.exact::<4>(offset)? else { break };
        let size = u64::from(u16_at(&field, 2));
        if u16_at(&field, 0) == 1 {
            // The local header's offset follows up to two sizes and precedes the disk number.
            let value = offset + 4 + size.saturating_sub(8).min(16) / 8 * 8;
            return Ok(reader.exact::<8>(value)?.map(u64::from_le_bytes));
        }
        offset += 4 + size;
    }
    Ok(None)
}

/// Examines every signature in one sequential pass. Unless `is_candidate` is set, entries count from the first local
/// header's signature on, and the pass ends after [`MAX_PREFIX`] bytes without one.
fn examine_signatures<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut is_candidate: bool,
) -> Result<bool, Stop> {
    const CHUNK_SIZE: usize = 256 * 1024;
    const OVERLAP: usize = ENTRY_LENGTH + NAME_LENGTH;
    let length = reader.length;
    let mut buffer = vec![0; usize::try_from(length).unwrap_or(CHUNK_SIZE).min(CHUNK_SIZE)];
    let mut offset = 0;
    while offset < length && (is_candidate || offset < MAX_PREFIX) {
        let filled = reader.fill(&mut buffer, offset)?;
        let chunk = buffer.get(..filled).unwrap_or_default();
        // Headers that may extend beyond the chunk are examined in the next one.
        let is_last = offset + filled as u64 >= length || filled <= OVERLAP;
        let searched = if is_last { filled } else { filled - OVERLAP };
        // A signature at the last byte that is searched ends behind it.
        let area = chunk.get(..=searched).unwrap_or(chunk);
        for start in memmem::find_iter(area, b"PK") {
            let bytes = chunk.get(start..).unwrap_or_default();
            is_candidate |= bytes.starts_with(&LOCAL);
            let left = length - offset - start as u64;
            if is_candidate
                && EntryHeader::parse(bytes).is_some_and(|header| header.is_encrypted(left))
            {
                return Ok(true);
            }
        }
        if is_last {
            break;
        }
        offset += searched as u64;
    }
    Ok(false)
}

/// A local header or directory entry, found by its signature.
struct EntryHeader<'a> {
    flags: u16,
    method: u16,
    /// Total length of the header with its variable fields, bytes.
    length: u64,
    name_length: usize,
    /// The first [`NAME_LENGTH`] bytes of the name.
    name: &'a [u8],
}

impl<'a> EntryHeader<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (flags, lengths, fixed) = match bytes.first_chunk() {
            Some(&LOCAL) => (6, [26, 28].as_slice(), LOCAL_LENGTH),
            Some(&ENTRY) => (8, [28, 30, 32].as_slice(), ENTRY_LENGTH),
            _ => return None,
        };
        let rest = bytes.get(fixed..)?;
        let name_length = usize::from(u16_at(bytes, *lengths.first()?));
        let variable: u64 = lengths.iter().map(|field| u64::from(u16_at(bytes, *field))).sum();
        Some(Self {
            flags: u16_at(bytes, flags),
            method: u16_at(bytes, flags + 2),
            length: fixed as u64 + variable,
            name_length,
            name: rest.get(..name_length.min(NAME_LENGTH)).unwrap_or(rest),
        })
    }

    fn is_encrypted(&self, left: u64) -> bool {
        is_encrypted(self.flags, self.method) && self.is_plausible(left)
    }

    /// Returns whether this is the header of an entry that an extractor may decrypt, rather than other data. `left`
    /// is the number of bytes to the end of the file.
    ///
    /// Extractors accept any version, reserved flags (7-Zip, unzip), empty names (7-Zip) and names that contain a NUL
    /// (7-Zip at the end of a name, unzip anywhere). Executables contain the signature as the operand of a comparison.
    /// The machine code after such a false signature decodes as reserved flags and as a name that contains a NUL.
    /// Therefore a header may have reserved flags or an irregular name (empty, or with a NUL before the end), but not
    /// both, and a header with either must have the encryption flag.
    fn is_plausible(&self, left: u64) -> bool {
        let has_reserved_flags = self.flags & RESERVED != 0;
        let is_regular = match self.name.iter().position(|byte| *byte == 0) {
            Some(index) => index > 0 && index + 1 == self.name_length,
            None => self.name_length > 0,
        };
        let irregularities = u8::from(has_reserved_flags) + u8::from(!is_regular);
        let accepted = u8::from(self.flags & ENCRYPTED != 0);
        // The methods that the specification assigns.
        let is_known = matches!(self.method, 0..=20 | 93..=99);
        is_known && self.length <= left && irregularities <= accepted
    }
}

fn is_encrypted(flags: u16, method: u16) -> bool {
    flags & (ENCRYPTED | STRONG_OR_MASKED) != 0 || method == AES
}
