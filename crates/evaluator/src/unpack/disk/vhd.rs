//! Virtual hard disks (VHD), as in Microsoft's "Virtual Hard Disk Image Format Specification" 1.0.
//!
//! Only disks with blocks are unpacked. A disk of fixed size starts with its first sector and has a footer at its end, so
//! that the formats of its content recognize it.

use std::io::{self, Read};

use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
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

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    match u32_at(bytes, 60) {
        Some(DYNAMIC) => {}
        Some(DIFFERENCING) => {
            unpacker.note(NoteKind::Unreadable, "the disk is a difference to another one");
            return Ok(());
        }
        _ => return Ok(()),
    }
    let Some(disk) = VhdReader::new(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the header of the disk is damaged");
        return Ok(());
    };
    unpacker.decode(EntryName::label("disk"), disk).map(drop)
}

/// Reads the content of the disk up to the last block in the file.
struct VhdReader<'a> {
    file: &'a [u8],
    /// Sectors of the blocks.
    table: &'a [[u8; 4]],
    /// Size of a block, and of the bitmap before it, bytes.
    block_size: usize,
    bitmap: usize,
    /// Position in the disk, and its size, bytes.
    position: usize,
    size: usize,
}

impl<'a> VhdReader<'a> {
    fn new(file: &'a [u8]) -> Option<Self> {
        let size = u64_at(file, 48)?;
        let header = file.get(u64_at(file, 16)?..)?;
        if !header.starts_with(b"cxsparse") {
            return None;
        }
        let table = file.get(u64_at(header, 16)?..)?.as_chunks::<4>().0;
        let count = usize::try_from(u32_at(header, 28)?).ok()?;
        let block_size = usize::try_from(u32_at(header, 32)?).ok()?;
        if block_size < SECTOR || !block_size.is_power_of_two() {
            return None;
        }
        let table = table.get(..count).unwrap_or(table);
        let is_used = |sector: &[u8; 4]| u32::from_be_bytes(*sector) != UNUSED;
        let used = table.iter().rposition(is_used).map_or(0, |last| last + 1);
        let size = size.min(used.saturating_mul(block_size));
        let bitmap = (block_size / SECTOR).div_ceil(8).next_multiple_of(SECTOR);
        Some(Self { file, table, block_size, bitmap, position: 0, size })
    }
}

impl Read for VhdReader<'_> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let start = self.position % self.block_size;
        let rest = (self.size - self.position).min(self.block_size - start);
        let length = rest.min(output.len());
        let output = output.get_mut(..length).unwrap_or_default();
        let sector = self.table.get(self.position / self.block_size).copied();
        let sector = sector.map(u32::from_be_bytes).filter(|sector| *sector != UNUSED);
        match sector {
            None => output.fill(0),
            Some(sector) => {
                let offset = (sector as usize).saturating_mul(SECTOR).saturating_add(self.bitmap);
                let content = self.file.get(offset.saturating_add(start)..).unwrap_or_default();
                let Some(content) = content.get(..length) else {
                    let reason = "a block of the disk is outside of the file";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
                };
                output.copy_from_slice(content);
            }
        }
        self.position += length;
        Ok(length)
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<usize> {
    usize::try_from(u64::from_be_bytes(*bytes.get(offset..)?.first_chunk()?)).ok()
}
