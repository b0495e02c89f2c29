//! Directories of FAT volumes.

use crate::unpack::fields::FieldReader;

/// Size of an entry, bytes.
const ENTRY: usize = 32;

/// Attributes.
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;

/// First byte of a name: the end of the directory, a deleted file, and a substitute for 0xe5.
const END: u8 = 0;
const DELETED: u8 = 0xe5;
const SUBSTITUTE: u8 = 0x05;

/// Flag of the part that is the end of a long name, and stored first.
const LAST_PART: u8 = 0x40;

/// Maximum number of parts of a long name, 13 characters each.
const MAX_PARTS: usize = 20;

/// A file or directory.
pub(super) struct FatEntry {
    pub(super) name: String,
    pub(super) is_directory: bool,
    pub(super) cluster: u32,
    /// Bytes.
    pub(super) size: usize,
}

/// Returns the files and directories in a directory, its references to itself and its parent excluded.
pub(super) fn entries(directory: &[u8]) -> Vec<FatEntry> {
    let mut entries = Vec::new();
    let mut long_name = LongName::default();
    let (records, _) = directory.as_chunks::<ENTRY>();
    for record in records {
        let [first, .., attributes] = *record.first_chunk::<12>().unwrap_or(&[0; 12]);
        if first == END {
            break;
        }
        if first == DELETED {
            long_name = LongName::default();
        } else if attributes & 0x3f == LONG_NAME {
            long_name.add(record);
        } else {
            let name = std::mem::take(&mut long_name).take(record);
            if attributes & VOLUME_LABEL == 0 && first != b'.' {
                entries.extend(entry(record, attributes, name));
            }
        }
    }
    entries
}

fn entry(record: &[u8; ENTRY], attributes: u8, name: Option<String>) -> Option<FatEntry> {
    let mut fields = FieldReader::new(record.get(20..)?);
    // The upper half is zero in FAT12 and FAT16, where Linux ignores it.
    let high = fields.u16()?;
    fields.bytes(4)?;
    let low = fields.u16()?;
    Some(FatEntry {
        name: name.unwrap_or_else(|| short_name(record)),
        is_directory: attributes & DIRECTORY != 0,
        cluster: u32::from(high) << 16 | u32::from(low),
        size: fields.length()?,
    })
}

/// Returns the name of eight and three characters.
fn short_name(record: &[u8; ENTRY]) -> String {
    let mut name = *record.first_chunk::<11>().unwrap_or(&[0; 11]);
    if let [first @ SUBSTITUTE, ..] = &mut name {
        *first = DELETED;
    }
    let (base, extension) = name.split_at(8);
    let text = |part: &[u8]| String::from_utf8_lossy(part.trim_ascii_end()).into_owned();
    match text(extension) {
        extension if extension.is_empty() => text(base),
        extension => format!("{}.{extension}", text(base)),
    }
}

/// The parts of a long name before an entry, the last part first.
#[derive(Default)]
struct LongName {
    parts: Vec<[u16; 13]>,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, record: &[u8; ENTRY]) {
        let [number, ..] = *record;
        let checksum = record.get(13).copied().unwrap_or_default();
        if number & LAST_PART != 0 || checksum != self.checksum || self.parts.len() >= MAX_PARTS {
            self.parts.clear();
        }
        self.checksum = checksum;
        let mut units = [1..11, 14..26, 28..32]
            .into_iter()
            .flat_map(|range| record.get(range).unwrap_or_default().as_chunks::<2>().0)
            .map(|unit| u16::from_le_bytes(*unit));
        self.parts.push(std::array::from_fn(|_| units.next().unwrap_or_default()));
    }

    /// Returns the name, if its checksum is that of the entry's short name.
    fn take(self, record: &[u8; ENTRY]) -> Option<String> {
        let short = record.first_chunk::<11>()?;
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.parts.is_empty() || sum != self.checksum {
            return None;
        }
        let units = self.parts.into_iter().rev().flatten().take_while(|unit| *unit != 0);
        let name = char::decode_utf16(units);
        Some(name.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect())
    }
}
