//! Virtual hard disks (VHD), as in Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.
//!
//! Only disks with blocks are unpacked. A disk of fixed size starts with its first sector and has a footer at its end, so
//! that the formats of its content recognize it.

use super::blocks::{BlockDisk, BlockReader, DiskBlock, readable_size};
use crate::unpack::fields::{be_length_at, be_u32_at};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Completeness, Unpacked, Unpacker},
    },
};

/// First bytes of the footer, and of its copy at the start of disks with blocks.
const SIGNATURE: &[u8] = b"conectix";

/// Types of disks.
const DYNAMIC: u32 = 3;
const DIFFERENCING: u32 = 4;

const SECTOR: usize = 512;

/// Marks a block without content.
const UNUSED: u32 = u32::MAX;

/// The end of the signature is less frequent in texts than the start.
pub(in crate::unpack) const EMBEDDED: ArchiveSignature =
    ArchiveSignature { magic: b"x\0\0\0", offset: 7, extent, is_preferred: false };

/// Returns the length of the footer's copy, if this is a disk with blocks.
fn extent(file: &[u8]) -> Option<usize> {
    let is_dynamic = matches(file) && be_u32_at(file, 60) == Some(DYNAMIC);
    (is_dynamic && VhdDisk::parse(file).is_some()).then_some(SECTOR)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    match be_u32_at(bytes, 60) {
        Some(DYNAMIC) => {}
        Some(DIFFERENCING) => {
            unpacker.note(NoteKind::Unreadable, "the disk is a difference to another one");
            return Ok(());
        }
        _ => return Ok(()),
    }
    let Some(disk) = VhdDisk::new(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the header of the disk is damaged");
        return Ok(());
    };
    let decoded = unpacker.decode(EntryName::label("disk"), BlockReader::new(disk))?;
    if decoded == Completeness::Complete {
        unpacker.set_ended(bytes.get(..SECTOR).unwrap_or(bytes));
    }
    Ok(())
}

struct VhdDisk<'a> {
    file: &'a [u8],
    /// Sectors of the blocks.
    table: &'a [[u8; 4]],
    /// Size of a block, and of the bitmap before it, bytes.
    block_size: usize,
    bitmap: usize,
    /// Size of the disk up to the last block in the file, bytes.
    size: usize,
}

impl<'a> VhdDisk<'a> {
    fn new(file: &'a [u8]) -> Option<Self> {
        let mut disk = Self::parse(file)?;
        let is_used = |sector: &[u8; 4]| u32::from_be_bytes(*sector) != UNUSED;
        let used = disk.table.iter().rposition(is_used).map_or(0, |last| last + 1);
        disk.size = readable_size(disk.size, used.saturating_mul(disk.block_size));
        Some(disk)
    }

    /// Parses the headers. The size is that of the header.
    fn parse(file: &'a [u8]) -> Option<Self> {
        let size = be_length_at(file, 48)?;
        let header = file.get(be_length_at(file, 16)?..)?;
        if !header.starts_with(b"cxsparse") {
            return None;
        }
        let table = file.get(be_length_at(header, 16)?..)?.as_chunks::<4>().0;
        let count = usize::try_from(be_u32_at(header, 28)?).ok()?;
        let block_size = usize::try_from(be_u32_at(header, 32)?).ok()?;
        if block_size < SECTOR || !block_size.is_power_of_two() {
            return None;
        }
        let table = table.get(..count).unwrap_or(table);
        let bitmap = (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        Some(Self { file, table, block_size, bitmap, size })
    }
}

impl<'a> BlockDisk<'a> for VhdDisk<'a> {
    fn block_size(&self) -> usize {
        self.block_size
    }

    fn size(&self) -> usize {
        self.size
    }

    fn block(&self, number: usize) -> DiskBlock<'a> {
        let sector = self.table.get(number).copied().map_or(UNUSED, u32::from_be_bytes);
        if sector == UNUSED {
            return DiskBlock::Zeros;
        }
        let offset = (sector as usize).saturating_mul(SECTOR).saturating_add(self.bitmap);
        self.file.get(offset..).map_or(DiskBlock::Missing, DiskBlock::Stored)
    }
}
