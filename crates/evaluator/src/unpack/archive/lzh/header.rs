//! Headers of the levels 0 to 3, as in the documentation of LHA for UNIX (`header.doc.md`).

use crate::unpack::fields::{u16_at, u32_at, u64_at};

/// Length of the fields that all levels have, bytes.
const COMMON: usize = 21;

/// Maximum length of a name, bytes.
const MAX_NAME: usize = 4096;

/// Maximum number of extended headers of a member.
const MAX_EXTENDED: usize = 256;

/// One member, without its content.
#[derive(Clone, Debug)]
pub(super) struct LzhHeader {
    /// Such as "-lh5-".
    pub(super) method: [u8; 5],
    pub(super) name: Vec<u8>,
    pub(super) crc: u16,
    /// Offset of the data, bytes.
    pub(super) data_start: usize,
    /// Where the data start for 7-Zip, which ignores the total length of the header, if that is another offset.
    pub(super) other_start: Option<usize>,
    /// Whether the total length of the header is one that no program writes.
    pub(super) is_ambiguous: bool,
    /// Length of the data, bytes.
    pub(super) packed: u64,
    /// Size of the file, bytes.
    pub(super) size: u64,
}

impl LzhHeader {
    /// Parses the header at the start of `bytes`.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let method = *bytes.get(2..)?.first_chunk::<5>()?;
        // "-lh5-", "-lzs-", "-pm0-".
        if !matches!(method, [b'-', b'l' | b'p', _, _, b'-']) {
            return None;
        }
        let packed = u32_at(bytes, 7)?.into();
        let size = u32_at(bytes, 11)?.into();
        let base = Self {
            method,
            name: Vec::new(),
            crc: 0,
            data_start: 0,
            other_start: None,
            is_ambiguous: false,
            packed,
            size,
        };
        match *bytes.get(20)? {
            level @ (0 | 1) => base.with_short_header(bytes, level),
            2 => base.with_long_header(bytes, 2),
            3 => base.with_long_header(bytes, 4),
            _ => None,
        }
    }

    /// Reads a header of level 0 or 1, whose length and checksum have one byte each.
    fn with_short_header(mut self, bytes: &[u8], level: u8) -> Option<Self> {
        let length = usize::from(*bytes.first()?);
        let header = bytes.get(2..)?.get(..length)?;
        let sum = header.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != *bytes.get(1)? {
            return None;
        }
        let name_length = usize::from(*bytes.get(COMMON)?);
        let name_end = COMMON + 1 + name_length;
        let is_inside = name_end + 2 <= length + 2;
        self.name = bytes.get(COMMON + 1..name_end).filter(|_| is_inside)?.to_vec();
        self.crc = u16_at(bytes, name_end)?;
        self.data_start = length + 2;
        if level == 1 {
            let next = u16_at(bytes, length)?.into();
            let start = self.data_start;
            self.extended(bytes, start, next, 2)?;
            // The stated length includes the extended headers.
            self.packed = self.packed.checked_sub((self.data_start - start) as u64)?;
        }
        Some(self)
    }

    /// Reads a header of level 2 or 3. `width` is the length of the sizes of extended headers.
    fn with_long_header(mut self, bytes: &[u8], width: usize) -> Option<Self> {
        self.crc = u16_at(bytes, COMMON)?;
        // The first field is the total length at level 2, and the length of sizes at level 3.
        let (total, start) = match width {
            2 => (u16_at(bytes, 0)?.into(), 24),
            _ if u16_at(bytes, 0)? == 4 => (usize::try_from(u32_at(bytes, 24)?).ok()?, 28),
            _ => return None,
        };
        let next = size_at(bytes, start, width)?;
        self.extended(bytes, start + width, next, width)?;
        let end = self.data_start;
        // Programs add one byte if the first byte of the total length would be zero, which ends an archive.
        let is_padded = total == end + 1 && total & 0xff == 1;
        self.is_ambiguous = total != end && !is_padded;
        if (end + 1..=bytes.len()).contains(&total) {
            self.data_start = total;
            self.other_start = Some(end);
        }
        Some(self)
    }

    /// Reads extended headers from `start` on, the first of which has `size` bytes, the size of the next one included.
    fn extended(
        &mut self,
        bytes: &[u8],
        mut start: usize,
        mut size: usize,
        width: usize,
    ) -> Option<()> {
        let mut directory = Vec::new();
        for _ in 0..MAX_EXTENDED {
            if size == 0 {
                break;
            }
            let header = bytes.get(start..)?.get(..size)?;
            let (content, next) = header.split_at_checked(size.checked_sub(width)?)?;
            let (kind, content) = content.split_first()?;
            match kind {
                0x01 => self.name = content.get(..MAX_NAME).unwrap_or(content).to_vec(),
                0x02 => directory = content.get(..MAX_NAME).unwrap_or(content).to_vec(),
                // Sizes of files above 4 GiB.
                0x42 => {
                    self.packed = u64_at(content, 0)?;
                    self.size = u64_at(content, 8)?;
                }
                _ => {}
            }
            start += size;
            size = size_at(next, 0, width)?;
        }
        directory.append(&mut self.name);
        // The separator of directories.
        self.name = directory.iter().map(|byte| if *byte == 0xff { b'/' } else { *byte }).collect();
        self.data_start = start;
        (size == 0).then_some(())
    }
}

fn size_at(bytes: &[u8], offset: usize, width: usize) -> Option<usize> {
    match width {
        2 => u16_at(bytes, offset).map(usize::from),
        _ => usize::try_from(u32_at(bytes, offset)?).ok(),
    }
}
