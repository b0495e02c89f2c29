//! RAR 4 (technote.txt of RAR 4.20) and RAR 5 (<https://www.rarlab.com/technote.htm>). Headers are followed
//! sequentially, by their size and the size of the data after them.

use super::reader::{BoundedReader, ReadAt, Stop, u32_at};

/// Returns whether the RAR 4 archive at `offset` has encrypted headers or an encrypted file.
pub(super) fn examine_4<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<bool, Stop> {
    const MARKER: u64 = 7;
    const MAIN: u8 = 0x73;
    const FILE: u8 = 0x74;
    const SERVICE: u8 = 0x7a;
    const END: u8 = 0x7b;
    const HEADERS_ENCRYPTED: u16 = 0x80;
    const FILE_ENCRYPTED: u16 = 0x04;
    const LARGE: u16 = 0x100;
    const HAS_DATA: u16 = 0x8000;

    let mut offset = offset + MARKER;
    loop {
        let Some(&[_, _, kind, flags_low, flags_high, size_low, size_high]) =
            reader.ahead(offset, 7)?.and_then(|bytes| bytes.first_chunk())
        else {
            return Ok(false);
        };
        let flags = u16::from_le_bytes([flags_low, flags_high]);
        let size = u64::from(u16::from_le_bytes([size_low, size_high]));
        if (kind == MAIN && flags & HEADERS_ENCRYPTED != 0)
            || (matches!(kind, FILE | SERVICE) && flags & FILE_ENCRYPTED != 0)
        {
            return Ok(true);
        }
        if size < 7 || kind == END {
            return Ok(false);
        }
        let is_file = matches!(kind, FILE | SERVICE);
        let mut data = 0;
        if is_file || flags & HAS_DATA != 0 {
            let low = reader.ahead(offset + 7, 4)?.map_or(0, |bytes| u32_at(bytes, 0));
            data = u64::from(low);
        }
        if is_file && flags & LARGE != 0 {
            let high = reader.ahead(offset + 32, 4)?.map_or(0, |bytes| u32_at(bytes, 0));
            data |= u64::from(high) << 32;
        }
        let Some(next) = offset.checked_add(size).and_then(|end| end.checked_add(data)) else {
            return Ok(false);
        };
        offset = next;
    }
}

/// Returns whether the RAR 5 archive at `offset` has encrypted headers or an encrypted file.
pub(super) fn examine_5<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    offset: u64,
) -> Result<bool, Stop> {
    const MARKER: u64 = 8;
    const CHECKSUM: u64 = 4;
    const FILE: u64 = 2;
    const SERVICE: u64 = 3;
    const ENCRYPTION: u64 = 4;
    const END: u64 = 5;
    const HAS_EXTRA: u64 = 1;
    const HAS_DATA: u64 = 2;

    let mut offset = offset + MARKER;
    loop {
        // A checksum, then the size of the header after the size field.
        let mut cursor = Cursor { offset: offset + CHECKSUM, end: u64::MAX };
        let Some(size) = cursor.number(reader)? else { return Ok(false) };
        let Some(end) = cursor.offset.checked_add(size).filter(|_| size > 0) else {
            return Ok(false);
        };
        cursor.end = end;
        let (Some(kind), Some(flags)) = (cursor.number(reader)?, cursor.number(reader)?) else {
            return Ok(false);
        };
        if kind == ENCRYPTION {
            return Ok(true);
        }
        if kind == END {
            return Ok(false);
        }
        let extra = if flags & HAS_EXTRA == 0 { Some(0) } else { cursor.number(reader)? };
        let data = if flags & HAS_DATA == 0 { Some(0) } else { cursor.number(reader)? };
        let (Some(extra), Some(data)) = (extra, data) else { return Ok(false) };
        if matches!(kind, FILE | SERVICE)
            && let Some(start) = end.checked_sub(extra).filter(|start| *start >= cursor.offset)
            && has_encryption_record(reader, Cursor { offset: start, end })?
        {
            return Ok(true);
        }
        let Some(next) = end.checked_add(data) else { return Ok(false) };
        offset = next;
    }
}

/// Returns whether a file's extra area contains an encryption record.
fn has_encryption_record<S: ReadAt + ?Sized>(
    reader: &mut BoundedReader<'_, S>,
    mut cursor: Cursor,
) -> Result<bool, Stop> {
    const ENCRYPTION: u64 = 1;
    loop {
        let Some(size) = cursor.number(reader)? else { return Ok(false) };
        let start = cursor.offset;
        match cursor.number(reader)? {
            Some(ENCRYPTION) => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
        match start.checked_add(size).filter(|next| *next > start && *next <= cursor.end) {
            Some(next) => cursor.offset = next,
            None => return Ok(false),
        }
    }
}

/// Position in a header, and the header's end.
struct Cursor {
    offset: u64,
    end: u64,
}

impl Cursor {
    /// Reads a number of variable length: seven bits per byte, least significant first, up to ten bytes.
    fn number<S: ReadAt + ?Sized>(
        &mut self,
        reader: &mut BoundedReader<'_, S>,
    ) -> Result<Option<u64>, Stop> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            if self.offset >= self.end {
                return Ok(None);
            }
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
