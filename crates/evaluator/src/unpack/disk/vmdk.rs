//! VMDK disk images in one file, as in "Virtual Disk Format 5.0".

use flate2::read::ZlibDecoder;

use super::blocks::{BlockDisk, BlockReader, DiskBlock, readable_size};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        fields::FieldReader,
        name::EntryName,
        unpacker::{Completeness, Unpacked, Unpacker},
    },
};

const SIGNATURE: &[u8] = b"KDMV";

const SECTOR: usize = 512;

/// Flag of a file whose blocks (grains) are compressed.
const IS_COMPRESSED: u32 = 1 << 16;

/// Length of the header of a compressed block, bytes: its first sector and its size.
const GRAIN_HEADER: usize = 12;

/// Offset of the copy of the header that is before the end of the file, bytes.
const FOOTER: usize = 1024;

/// Maximum number of blocks in a table. Programs write 512.
const MAX_TABLE: usize = 4096;

/// Maximum size of a block, sectors.
const MAX_GRAIN: usize = 1 << 16;

pub(in crate::unpack) const EMBEDDED: ArchiveSignature =
    ArchiveSignature { magic: SIGNATURE, offset: 0, extent, is_preferred: false };

/// Returns the length of the header, if it is valid.
fn extent(file: &[u8]) -> Option<usize> {
    VmdkDisk::parse(file).map(|_disk| SECTOR)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let Some(disk) = VmdkDisk::new(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the disk has an unknown or damaged header");
        return Ok(());
    };
    let decoded = unpacker.decode(EntryName::label("disk"), BlockReader::new(disk))?;
    if decoded == Completeness::Complete {
        unpacker.set_ended(bytes.get(..SECTOR).unwrap_or(bytes));
    }
    Ok(())
}

struct VmdkDisk<'a> {
    file: &'a [u8],
    is_compressed: bool,
    /// Bytes.
    block_size: usize,
    size: usize,
    /// Sectors of the tables of blocks.
    directory: &'a [[u8; 4]],
    per_table: usize,
}

impl<'a> VmdkDisk<'a> {
    fn new(file: &'a [u8]) -> Option<Self> {
        let mut disk = Self::parse(file)?;
        let used = disk.directory.iter().rposition(|table| *table != [0; 4]);
        let mut blocks = used.map_or(0, |last| last + 1).saturating_mul(disk.per_table);
        // The rest of the disk has no content.
        for _ in 0..disk.per_table {
            if blocks == 0 || disk.entry(blocks - 1).is_some_and(|entry| entry > 1) {
                break;
            }
            blocks -= 1;
        }
        disk.size = readable_size(disk.size, blocks.saturating_mul(disk.block_size));
        Some(disk)
    }

    /// Parses the header. The size is that of the header.
    fn parse(file: &'a [u8]) -> Option<Self> {
        let mut fields = FieldReader::new(file.get(8..)?);
        let flags = fields.u32()?;
        let (capacity, grain) = (number(&mut fields)?, number(&mut fields)?);
        // Offset and size of the text with the description.
        fields.bytes(16)?;
        let per_table = fields.length()?;
        if !grain.is_power_of_two() || grain > MAX_GRAIN || !(1..=MAX_TABLE).contains(&per_table) {
            return None;
        }
        let directory = directory_offset(file)
            .or_else(|| directory_offset(file.get(file.len().checked_sub(FOOTER)?..)?))?;
        let mut disk = Self {
            file,
            is_compressed: flags & IS_COMPRESSED != 0,
            block_size: grain * SECTOR,
            size: capacity.saturating_mul(SECTOR),
            directory: file.get(directory.checked_mul(SECTOR)?..)?.as_chunks().0,
            per_table,
        };
        let tables = capacity.div_ceil(grain.checked_mul(per_table)?);
        disk.directory = disk.directory.get(..tables).unwrap_or(disk.directory);
        Some(disk)
    }

    /// Returns the sector of a block; 0 or 1 if it has no content.
    fn entry(&self, number: usize) -> Option<usize> {
        let table = u32::from_le_bytes(*self.directory.get(number / self.per_table)?);
        if table == 0 {
            return Some(0);
        }
        let offset = (table as usize).checked_mul(SECTOR)?;
        let offset = offset.checked_add(4 * (number % self.per_table))?;
        FieldReader::new(self.file.get(offset..)?).length()
    }
}

/// Returns the sector of the directory; `None` if it is only in the copy of the header.
fn directory_offset(header: &[u8]) -> Option<usize> {
    const AT_END: usize = usize::MAX;
    let header = header.get(56..).filter(|_| header.starts_with(SIGNATURE))?;
    number(&mut FieldReader::new(header)).filter(|offset| *offset != AT_END)
}

fn number(fields: &mut FieldReader<'_>) -> Option<usize> {
    usize::try_from(fields.u64()?).ok()
}

impl<'a> BlockDisk<'a> for VmdkDisk<'a> {
    fn block_size(&self) -> usize {
        self.block_size
    }

    fn size(&self) -> usize {
        self.size
    }

    fn block(&self, number: usize) -> DiskBlock<'a> {
        let Some(sector) = self.entry(number) else { return DiskBlock::Missing };
        if sector <= 1 {
            return DiskBlock::Zeros;
        }
        let offset = sector.checked_mul(SECTOR);
        match offset.and_then(|offset| self.file.get(offset..)) {
            None => DiskBlock::Missing,
            Some(content) if self.is_compressed => {
                let data = content.get(GRAIN_HEADER..).unwrap_or_default();
                DiskBlock::Compressed(Box::new(ZlibDecoder::new(data)))
            }
            Some(content) => DiskBlock::Stored(content),
        }
    }
}
