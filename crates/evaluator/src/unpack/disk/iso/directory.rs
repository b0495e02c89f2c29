//! Directory records: ECMA-119, section 9.1.

use std::io::{self, Read};

use super::sector::SECTOR;

/// Length of a record without its name.
const FIXED: usize = 33;

#[derive(Clone, Copy)]
pub(super) struct DirectoryRecord<'a> {
    /// First logical block of the extended attributes, which are before the content.
    pub(super) block: u32,
    /// Number of logical blocks of the extended attributes.
    pub(super) attribute_blocks: u8,
    /// Length of the content, bytes.
    pub(super) length: usize,
    flags: u8,
    pub(super) identifier: &'a [u8],
    /// Fields of other standards, such as Rock Ridge.
    system_use: &'a [u8],
}

impl<'a> DirectoryRecord<'a> {
    /// Parses the record at the start of `bytes`. Of numbers in both byte orders, the little-endian one is read, as all
    /// common programs do.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let record = bytes.get(..usize::from(*bytes.first()?))?;
        let number = |offset| Some(u32::from_le_bytes(*record.get(offset..)?.first_chunk()?));
        let name_length = usize::from(*record.get(FIXED - 1)?);
        let identifier = record.get(FIXED..)?.get(..name_length)?;
        // A byte of padding follows a name of even length.
        let system_use = record.get(FIXED + (name_length | 1)..).unwrap_or_default();
        Some(Self {
            block: number(2)?,
            attribute_blocks: *record.get(1)?,
            length: usize::try_from(number(10)?).ok()?,
            flags: *record.get(25)?,
            identifier,
            system_use,
        })
    }

    pub(super) fn is_directory(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Returns whether the next record continues the file.
    pub(super) fn has_more_extents(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Returns whether this is the record of the directory that contains it, or of that directory's parent.
    pub(super) fn is_self_or_parent(&self) -> bool {
        matches!(self.identifier, [0 | 1])
    }

    /// Returns the Rock Ridge name (IEEE P1282, section 4.1.4), empty if there is none.
    pub(super) fn rock_ridge_name(&self) -> Vec<u8> {
        let mut name = Vec::new();
        let mut fields = self.system_use;
        while let [first, second, length, ..] = *fields
            && let Some((field, rest)) = fields.split_at_checked(usize::from(length))
            && length >= 4
        {
            if [first, second] == *b"NM" {
                name.extend_from_slice(field.get(5..).unwrap_or_default());
            }
            fields = rest;
        }
        name
    }
}

/// Returns whether 7-Zip reads the record at the start of `bytes`: the numbers in both byte orders are equal, there are no
/// extended attributes, and the name is inside of the record.
fn is_regular_record(bytes: &[u8]) -> bool {
    let [length, 0, record @ ..] = bytes else { return false };
    let has_equal_orders = |offset: usize| {
        record.get(offset..).and_then(<[u8]>::first_chunk).copied().is_some_and(is_in_both_orders)
    };
    let name_length = record.get(FIXED - 3).copied().map_or(usize::MAX, usize::from);
    let end = name_length.saturating_add(FIXED).checked_next_multiple_of(2);
    has_equal_orders(0) && has_equal_orders(8) && end.is_some_and(|end| end <= usize::from(*length))
}

/// Returns whether the big-endian half of a number is that of the little-endian one, section 7.3.3.
pub(super) fn is_in_both_orders(number: [u8; 8]) -> bool {
    number.iter().zip(number.iter().rev()).all(|(first, last)| first == last)
}

/// Returns whether 7-Zip reads all records of a directory. It rejects the image otherwise.
pub(super) fn is_regular(directory: &[u8]) -> bool {
    let mut position = 0;
    while let Some(rest) = directory.get(position..)
        && let Some(length) = rest.first()
    {
        match usize::from(*length) {
            0 => position += 1,
            length if is_regular_record(rest) => position += length,
            _ => return false,
        }
    }
    true
}

/// Returns the records of a directory. A zero instead of a length means that the next record is in the next sector; for
/// 7-Zip it is at the next byte that is not zero, so that damaged directories have two readings.
pub(super) fn records(directory: &[u8]) -> impl Iterator<Item = DirectoryRecord<'_>> {
    let mut has_two_readings = false;
    let mut reading = Records { directory, position: 0 };
    let mut other = Records { directory, position: 0 };
    std::iter::from_fn(move || {
        let record = reading.next(|position| {
            let next_sector = (position + 1).next_multiple_of(SECTOR).min(directory.len());
            let padding = directory.get(position..next_sector).unwrap_or_default();
            has_two_readings |= padding.iter().any(|byte| *byte != 0);
            next_sector
        });
        record.or_else(|| if has_two_readings { other.next(|position| position + 1) } else { None })
    })
}

struct Records<'a> {
    directory: &'a [u8],
    position: usize,
}

impl<'a> Records<'a> {
    /// Returns the next valid record. `after_zero` returns the position after a zero instead of a length.
    fn next(&mut self, mut after_zero: impl FnMut(usize) -> usize) -> Option<DirectoryRecord<'a>> {
        loop {
            let rest = self.directory.get(self.position..)?;
            let length = usize::from(*rest.first()?);
            let position = self.position;
            self.position = if length == 0 { after_zero(position) } else { position + length };
            let record = DirectoryRecord::parse(rest);
            if record.is_some() {
                return record;
            }
        }
    }
}

/// The parts of a file in several extents.
pub(super) struct JoinedParts<'p, 'a> {
    parts: std::slice::Iter<'p, &'a [u8]>,
    current: &'a [u8],
}

impl<'p, 'a> JoinedParts<'p, 'a> {
    pub(super) fn new(parts: &'p [&'a [u8]]) -> Self {
        Self { parts: parts.iter(), current: &[] }
    }
}

impl Read for JoinedParts<'_, '_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.parts.next() {
                Some(part) => self.current = part,
                None => return Ok(0),
            }
        }
        self.current.read(output)
    }
}
