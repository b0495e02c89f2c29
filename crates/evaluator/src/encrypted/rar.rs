//! RAR 4 (technote.txt of RAR 4.20) and RAR 5 (<https://www.rarlab.com/technote.htm>). Headers are followed
//! sequentially, by their size and the size of the data after them.
//!
//! An archive counts as encrypted if its headers cannot be followed: after a main header with a valid checksum, or
//! after a signature at the start of the file. Headers and data that the end of the file cuts off do not count,
//! because extractors stop there too.

use super::{
    encryption::Encryption,
    reader::{BoundedReader, ReadAt, Stop, WINDOW, crc32, u16_at, u32_at},
};

/// Headers of RAR 4.
mod block {
    pub(super) const MAIN: u8 = 0x73;
    pub(super) const FILE: u8 = 0x74;
    pub(super) const COMMENT: u8 = 0x75;
    pub(super) const AUTHENTICITY: u8 = 0x76;
    pub(super) const OLD_SERVICE: u8 = 0x77;
    pub(super) const RECOVERY: u8 = 0x78;
    pub(super) const SIGNATURE: u8 = 0x79;
    pub(super) const SERVICE: u8 = 0x7a;
    pub(super) const END: u8 = 0x7b;
}

/// Length of the common fields of a RAR 4 block.
const BLOCK: usize = 7;

struct Block {
    kind: u8,
    flags: u16,
    /// Size of the header, bytes.
    size: u64,
    /// Whether all common fields are zero.
    is_zero: bool,
}

impl Block {
    /// Returns `None` at the end of the file.
    fn read<S: ReadAt + ?Sized>(
        reader: &mut BoundedReader<'_, S>,
        offset: u64,
    ) -> Result<Option<Self>, Stop> {
        let bytes = reader.ahead(offset, BLOCK)?;
        Ok(bytes.map(|bytes| Self {
            kind: bytes.get(2).copied().unwrap_or_default(),
            flags: u16_at(bytes, 3),
            size: u16_at(bytes, 5).into(),
            is_zero: bytes.iter().all(|byte| *byte == 0),
        }))
    }

    fn is_file(&self) -> bool {
        matches!(self.kind, block::FILE | block::SERVICE)
    }

    fn is_encrypted(&self) -> bool {
        const HEADERS_ENCRYPTED: u16 = 0x80;
        const FILE_ENCRYPTED: u16 = 0x04;
        (self.kind == block::MAIN && self.flags & HEADERS_ENCRYPTED != 0)
            || (self.is_file() && self.flags & FILE_ENCRYPTED != 0)
    }

    /// Returns the size of the data by type, as unrar reads it, and by flag, as 7-Zip does.
    fn data<S: ReadAt + ?Sized>(
        &self,
        reader: &mut BoundedReader<'_, S>,
        offset: u64,
    ) -> Result<(u64, u64), Stop> {
        const LARGE: u16 = 0x100;
        const HAS_DATA: u16 = 0x8000;
        // Fields beyond the header count as zero.
        let mut field = |start: u64| {
            let is_present = start + 4 <= self.size;
            let bytes = if is_present { reader.ahead(offset + start, 4)? } else { None };
            Ok(bytes.map_or(0, |bytes| u64::from(u32_at(bytes, 0))))
        };
        let low = field(7)?;
        if self.is_file() {
            let high = if self.flags & LARGE == 0 { 0 } else { field(32)? };
            let size = low | high << 32;
            return Ok((size, size));
        }
        let by_flag = if self.flags & HAS_DATA == 0 { 0 } else { low };
        let by_type = match self.kind {
            block::OLD_SERVICE | block::RECOVERY => low,
            block::MAIN | block::COMMENT | block::AUTHENTICITY | block::SIGNATURE | block::END => 0,
            _ => by_flag,
        };
        Ok((by_type, by_flag))
    }

    /// Returns whether this is a main header with a valid checksum.
    fn is_valid_main<S: ReadAt + ?Sized>(
        &self,
        reader: &mut BoundedReader<'_, S>,
        offset: u64,
    ) -> Result<bool, Stop> {
        /// Length of a main header without an embedded comment, which the checksum does not cover.
        const MAIN_LENGTH: usize = 13;
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        if self.kind != block::MAIN || size < MAIN_LENGTH {
            return Ok(false);
        }
        for length in [MAIN_LENGTH, size.min(WINDOW)] {
            reader.charge_parsing(length as u64)?;
            let Some(bytes) = reader.ahead(offset, length)? else { continue };
            let crc = crc32(bytes.get(2..).unwrap_or_default());
            if crc & 0xffff == u32::from(u16_at(bytes, 0)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns whether the RAR 4 archive at `offset` has encrypted headers, an encrypted file, or headers that cannot be
/// followed.
pub(super) fn examine_4<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<Option<Encryption>, Stop> {
    const MARKER: u64 = 7;
    /// Maximum number of blocks after which extractors may continue at different offsets. No known program writes
    /// such blocks.
    const MAX_BRANCHES: usize = 64;

    let mut is_archive = offset == 0;
    let mut branches = vec![offset + MARKER];
    let mut known_branches = Vec::new();
    while let Some(mut offset) = branches.pop() {
        while let Some(block) = Block::read(reader, offset)? {
            reader.charge_parsing(BLOCK as u64)?;
            if block.is_encrypted() {
                return Ok(Some(Encryption::Rar));
            }
            is_archive = is_archive || block.is_valid_main(reader, offset)?;
            if block.size < BLOCK as u64 {
                // Zeros pad an archive without an end block.
                if is_archive && !block.is_zero {
                    return Ok(Some(Encryption::Unreadable));
                }
                break;
            }
            if block.kind == block::END {
                break;
            }
            let end = offset + block.size;
            let (by_type, by_flag) = block.data(reader, offset)?;
            let branch = end.saturating_add(by_flag);
            if by_type != by_flag && !known_branches.contains(&branch) {
                if known_branches.len() == MAX_BRANCHES {
                    return Err(Stop::Bound);
                }
                known_branches.push(branch);
                branches.push(branch);
            }
            offset = end.saturating_add(by_type);
        }
    }
    Ok(None)
}

/// Types and flags of RAR 5 headers.
mod header {
    pub(super) const MAIN: u32 = 1;
    pub(super) const FILE: u32 = 2;
    pub(super) const SERVICE: u32 = 3;
    pub(super) const ENCRYPTION: u32 = 4;
    pub(super) const END: u32 = 5;
    pub(super) const HAS_EXTRA: u64 = 1;
    pub(super) const HAS_DATA: u64 = 2;
}

/// Result of the examination of a RAR 5 header.
enum BlockHeader {
    Encrypted,
    /// The last header, or one that the end of the file cuts off.
    Last,
    /// The header does not follow the format.
    Malformed,
    /// Offset of the next header.
    Next(u64),
}

/// Returns whether the RAR 5 archive at `offset` has encrypted headers, an encrypted file, or headers that cannot be
/// followed.
pub(super) fn examine_5<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<Option<Encryption>, Stop> {
    const MARKER: u64 = 8;
    let first = offset + MARKER;
    let is_archive = offset == 0 || is_valid_main(reader, first)?;
    let mut offset = first;
    loop {
        match examine_header(reader, offset)? {
            BlockHeader::Encrypted => return Ok(Some(Encryption::Rar)),
            BlockHeader::Last => return Ok(None),
            BlockHeader::Malformed => return Ok(is_archive.then_some(Encryption::Unreadable)),
            BlockHeader::Next(next) => offset = next,
        }
    }
}

/// Reads the checksum and the size of a header. Returns the position after them and the header's end; `None` if the
/// size does not follow the format.
fn header_cursor<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<Option<Cursor>, Stop> {
    const CHECKSUM: u64 = 4;
    const MAX_SIZE_LENGTH: u64 = 3;
    let start = offset.saturating_add(CHECKSUM);
    let mut cursor = Cursor { offset: start, end: start.saturating_add(MAX_SIZE_LENGTH) };
    let Some(size) = cursor.number(reader)?.filter(|size| *size > 0) else { return Ok(None) };
    cursor.end = cursor.offset + size;
    Ok(Some(cursor))
}

/// Returns whether a main header with a valid checksum is at `offset`. Does not check a header above [`WINDOW`]
/// bytes.
fn is_valid_main<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<bool, Stop> {
    let Some(mut cursor) = header_cursor(reader, offset)? else { return Ok(false) };
    let (size_start, end) = (offset + 4, cursor.end);
    if cursor.number(reader)?.map(truncated) != Some(header::MAIN) {
        return Ok(false);
    }
    let length = usize::try_from(end - size_start).unwrap_or(usize::MAX);
    if length > WINDOW {
        return Ok(true);
    }
    let Some(crc) = reader.exact::<4>(offset)?.map(u32::from_le_bytes) else { return Ok(false) };
    reader.charge_parsing(length as u64)?;
    Ok(reader.ahead(size_start, length)?.is_some_and(|bytes| crc32(bytes) == crc))
}

/// Returns the type of a header as unrar reads it.
#[expect(clippy::cast_possible_truncation, reason = "unrar truncates types in the same way")]
fn truncated(kind: u64) -> u32 {
    kind as u32
}

fn examine_header<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<BlockHeader, Stop> {
    /// Length of the shortest header.
    const SHORTEST: u64 = 7;
    if offset.saturating_add(SHORTEST) > reader.length {
        return Ok(BlockHeader::Last);
    }
    let Some(mut cursor) = header_cursor(reader, offset)? else {
        return Ok(BlockHeader::Malformed);
    };
    let end = cursor.end;
    if end > reader.length {
        return Ok(BlockHeader::Last);
    }
    let (Some(full_kind), Some(flags)) = (cursor.number(reader)?, cursor.number(reader)?) else {
        return Ok(BlockHeader::Malformed);
    };
    let kind = truncated(full_kind);
    if kind == header::ENCRYPTION {
        return Ok(BlockHeader::Encrypted);
    }
    // Extractors disagree about the type.
    if u64::from(kind) != full_kind {
        return Ok(BlockHeader::Malformed);
    }
    if kind == header::END {
        return Ok(BlockHeader::Last);
    }
    let extra = if flags & header::HAS_EXTRA == 0 { Some(0) } else { cursor.number(reader)? };
    let data = if flags & header::HAS_DATA == 0 { Some(0) } else { cursor.number(reader)? };
    let (Some(extra), Some(data)) = (extra, data) else { return Ok(BlockHeader::Malformed) };
    let extra_start = end.checked_sub(extra).filter(|start| *start >= cursor.offset);
    let Some(offset) = extra_start else { return Ok(BlockHeader::Malformed) };
    if matches!(kind, header::FILE | header::SERVICE) {
        match has_encryption_record(reader, Cursor { offset, end })? {
            Some(true) => return Ok(BlockHeader::Encrypted),
            Some(false) => {}
            None => return Ok(BlockHeader::Malformed),
        }
    }
    // Data beyond the end of the file is cut off.
    Ok(BlockHeader::Next(end.saturating_add(data)))
}

/// Returns whether a file's extra area contains an encryption record; `None` if the area does not follow the format.
fn has_encryption_record<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut cursor: Cursor,
) -> Result<Option<bool>, Stop> {
    const ENCRYPTION: u64 = 1;
    // RAR up to 5.21 leaves one byte after the last record of some headers.
    while cursor.end.saturating_sub(cursor.offset) >= 2 {
        let Some(size) = cursor.number(reader)? else { return Ok(None) };
        let start = cursor.offset;
        match cursor.number(reader)? {
            Some(ENCRYPTION) => return Ok(Some(true)),
            Some(_) => {}
            None => return Ok(None),
        }
        match start.checked_add(size).filter(|next| *next > start && *next <= cursor.end) {
            Some(next) => cursor.offset = next,
            None => return Ok(None),
        }
    }
    Ok(Some(false))
}

/// Position in a header, and the header's end.
struct Cursor {
    offset: u64,
    end: u64,
}

impl Cursor {
    /// Reads a number of variable length: seven bits per byte, least significant first, up to ten bytes. Returns `None`
    /// for a longer number, and for a number that the end of the header cuts off. unrar reads both as zero, and 7-Zip
    /// rejects them.
    fn number<S: ReadAt + ?Sized>(
        &mut self,
        reader: &mut BoundedReader<'_, S>,
    ) -> Result<Option<u64>, Stop> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            if self.offset >= self.end {
                return Ok(None);
            }
            reader.charge_parsing(1)?;
            let Some(&[byte]) = reader.ahead(self.offset, 1)?.and_then(|bytes| bytes.first_chunk())
            else {
                return Ok(None);
            };
            self.offset += 1;
            value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}
