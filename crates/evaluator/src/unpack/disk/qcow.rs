//! QEMU's disk images, version 2 and 3 (`docs/interop/qcow2.rst` of QEMU).

use flate2::read::DeflateDecoder;

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

const SIGNATURE: &[u8] = b"QFI\xfb";

/// Bits of an entry of a table that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Flags of an entry: the cluster is compressed, or has no content.
const IS_COMPRESSED: u64 = 1 << 62;
const IS_ZERO: u64 = 1;

/// Features that change the structure, except for those about damaged files: another file with the data, another
/// compression, and other tables.
const UNSUPPORTED: usize = 0b1_1100;

/// Length of the header that both versions have, bytes.
const HEADER: usize = 72;

pub(in crate::unpack) const EMBEDDED: ArchiveSignature =
    ArchiveSignature { magic: SIGNATURE, offset: 0, extent, is_preferred: false };

/// Returns the length of the header that both versions have, if it is valid.
fn extent(file: &[u8]) -> Option<usize> {
    QcowDisk::new(file).map(|_disk| HEADER)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(SIGNATURE)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if be_u32_at(bytes, 32).is_some_and(|method| method != 0) {
        unpacker.note(NoteKind::Encrypted, "the disk is encrypted");
        return Ok(());
    }
    let Some(disk) = QcowDisk::new(bytes) else {
        unpacker.note(NoteKind::Unreadable, "the disk has an unknown or damaged header");
        return Ok(());
    };
    if be_length_at(bytes, 8) != Some(0) {
        unpacker.note(NoteKind::Unreadable, "the disk is a difference to another one");
    }
    let decoded = unpacker.decode(EntryName::label("disk"), BlockReader::new(disk))?;
    if decoded == Completeness::Complete {
        unpacker.set_ended(bytes.get(..HEADER).unwrap_or(bytes));
    }
    Ok(())
}

struct QcowDisk<'a> {
    file: &'a [u8],
    /// Tables of the first level.
    table: &'a [[u8; 8]],
    cluster_bits: u32,
    size: usize,
}

impl<'a> QcowDisk<'a> {
    fn new(file: &'a [u8]) -> Option<Self> {
        let (version, cluster_bits) = (be_u32_at(file, 4)?, be_u32_at(file, 20)?);
        let features = if version == 3 { be_length_at(file, 72)? } else { 0 };
        if !matches!(version, 2 | 3)
            || !(9..=21).contains(&cluster_bits)
            || features & UNSUPPORTED != 0
        {
            return None;
        }
        let count = usize::try_from(be_u32_at(file, 36)?).ok()?;
        let table = file.get(be_length_at(file, 40)?..)?.as_chunks::<8>().0;
        let table = table.get(..count).unwrap_or(table);
        let used = table.iter().rposition(|entry| *entry != [0; 8]).map_or(0, |last| last + 1);
        let mut disk = Self { file, table, cluster_bits, size: be_length_at(file, 24)? };
        let per_table = disk.block_size() / 8;
        // The rest of the disk has no content.
        let mut blocks = used.saturating_mul(per_table);
        for _ in 0..per_table {
            if blocks == 0 || disk.entry(blocks - 1).is_some_and(|entry| entry != 0) {
                break;
            }
            blocks -= 1;
        }
        disk.size = readable_size(disk.size, blocks.saturating_mul(disk.block_size()));
        Some(disk)
    }

    /// Returns the entry of a cluster in the table of the second level; 0 if there is no table.
    fn entry(&self, number: usize) -> Option<u64> {
        let per_table = self.block_size() / 8;
        let first = u64::from_be_bytes(*self.table.get(number / per_table)?) & OFFSET;
        if first == 0 {
            return Some(0);
        }
        let offset = usize::try_from(first).ok()?.checked_add(8 * (number % per_table))?;
        Some(u64::from_be_bytes(*self.file.get(offset..)?.first_chunk()?))
    }
}

impl<'a> BlockDisk<'a> for QcowDisk<'a> {
    fn block_size(&self) -> usize {
        1 << self.cluster_bits
    }

    fn size(&self) -> usize {
        self.size
    }

    fn block(&self, number: usize) -> DiskBlock<'a> {
        let Some(entry) = self.entry(number) else { return DiskBlock::Missing };
        let is_compressed = entry & IS_COMPRESSED != 0;
        let offset = if is_compressed {
            entry & ((1 << (62 - (self.cluster_bits - 8))) - 1)
        } else {
            entry & OFFSET
        };
        if !is_compressed && (offset == 0 || entry & IS_ZERO != 0) {
            return DiskBlock::Zeros;
        }
        let content = usize::try_from(offset).ok().and_then(|offset| self.file.get(offset..));
        match content {
            None => DiskBlock::Missing,
            // The decoder ends before the next cluster.
            Some(content) if is_compressed => {
                DiskBlock::Compressed(Box::new(DeflateDecoder::new(content)))
            }
            Some(content) => DiskBlock::Stored(content),
        }
    }
}
