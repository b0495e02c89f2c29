//! Partition tables: MBR with extended partitions, and GPT (UEFI specification 2.10, chapter 5).

use std::collections::HashSet;

use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        fields::{FieldReader, utf16_text},
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Size of a sector of MBR disks, bytes.
const SECTOR: usize = 512;

/// Offset and number of the entries in the first sector, and their size in bytes.
const TABLE: usize = 446;
const ENTRIES: usize = 4;
const ENTRY: usize = 16;

/// Types of partitions that contain other ones.
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];

/// Type of the partition that protects a GPT.
const PROTECTIVE: u8 = 0xee;

/// Maximum number of partitions in an extended one.
const MAX_LOGICAL: usize = 256;

const GPT_SIGNATURE: &[u8] = b"EFI PART";

/// Sizes of sectors of GPT disks, bytes.
const GPT_SECTORS: [usize; 2] = [512, 4096];

/// Maximum number of entries in a GPT. Programs write 128.
const MAX_GPT_ENTRIES: usize = 1024;

/// The end of the signature and the version. 7-Zip finds a GPT at any offset.
pub(in crate::unpack) const EMBEDDED: ArchiveSignature =
    ArchiveSignature { magic: b"T\0\0\x01\0", offset: SECTOR + 7, extent, is_preferred: false };

/// Returns the length of the first sector and of the header, if this is not the copy at the end of a disk.
fn extent(disk: &[u8]) -> Option<usize> {
    let header = disk.get(SECTOR..).filter(|header| header.starts_with(GPT_SIGNATURE))?;
    let sector = FieldReader::new(header.get(24..)?).u64()?;
    (sector == 1).then_some(2 * SECTOR)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    mbr(bytes, 0).is_some() || gpt_header(bytes).is_some()
}

/// Passes the partitions.
pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut disk = PartitionedDisk { bytes, partitions: HashSet::new() };
    if let Some((header, sector)) = gpt_header(bytes) {
        disk.gpt(header, sector, unpacker)?;
    }
    let partitions = mbr(bytes, 0).unwrap_or_default();
    let end = |partition: &MbrPartition| partition.start.saturating_add(partition.length);
    let end = partitions.iter().map(end).max().unwrap_or(usize::MAX);
    for partition in partitions {
        if EXTENDED.contains(&partition.kind) {
            disk.extended(&partition, unpacker)?;
        } else if partition.kind != PROTECTIVE {
            disk.partition(partition.start, partition.length, String::new(), unpacker)?;
        }
    }
    // 7-Zip extracts the rest as a file.
    let rest = bytes.get(end..).unwrap_or_default();
    if rest.iter().any(|byte| *byte != 0) {
        unpacker.slice(EntryName::label("after the partitions"), rest)?;
    }
    Ok(())
}

/// A partition, its start and length in bytes.
struct MbrPartition {
    kind: u8,
    start: usize,
    length: usize,
}

/// Parses the partition table in the sector at an offset. `None` if there is none.
fn mbr(disk: &[u8], offset: usize) -> Option<Vec<MbrPartition>> {
    let sector = disk.get(offset..)?.get(..SECTOR)?;
    let table = sector.get(TABLE..TABLE + ENTRIES * ENTRY)?;
    if !sector.ends_with(&[0x55, 0xaa]) {
        return None;
    }
    let mut partitions = Vec::new();
    for entry in table.as_chunks::<ENTRY>().0 {
        let [status, _, _, _, kind, ..] = *entry;
        let mut fields = FieldReader::new(entry.get(8..)?);
        let (start, length) = (fields.length()?, fields.length()?);
        // The first sector of volumes has code here.
        if !matches!(status, 0 | 0x80) {
            return None;
        }
        let start = start.saturating_mul(SECTOR);
        if kind != 0 && start > 0 && length > 0 {
            partitions.push(MbrPartition { kind, start, length: length.saturating_mul(SECTOR) });
        }
    }
    let is_in_disk = partitions.iter().any(|partition| partition.start < disk.len());
    (is_in_disk || offset > 0).then_some(partitions)
}

/// Returns the header of the GPT after the first sector, or its copy in the last one, and the size of a sector.
fn gpt_header(disk: &[u8]) -> Option<(&[u8], usize)> {
    let header = |offset: usize| disk.get(offset..).filter(|rest| rest.starts_with(GPT_SIGNATURE));
    let first = GPT_SECTORS.iter().find_map(|sector| Some((header(*sector)?, *sector)));
    first.or_else(|| {
        GPT_SECTORS
            .iter()
            .find_map(|sector| Some((header(disk.len().checked_sub(*sector)?)?, *sector)))
    })
}

struct PartitionedDisk<'a> {
    bytes: &'a [u8],
    /// Starts and lengths of the partitions that were examined.
    partitions: HashSet<(usize, usize)>,
}

impl PartitionedDisk<'_> {
    fn gpt(&mut self, header: &[u8], sector: usize, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let mut fields = FieldReader::new(header.get(72..).unwrap_or_default());
        let (Some(start), Some(count), Some(size)) =
            (fields.u64(), fields.length(), fields.length())
        else {
            return Ok(());
        };
        let to_bytes =
            |number: u64| usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(sector);
        let entries = self.bytes.get(to_bytes(start)..).unwrap_or_default();
        if count > MAX_GPT_ENTRIES {
            unpacker.note(NoteKind::Limit, "too many partitions");
        }
        for entry in entries.chunks_exact(size.max(128)).take(count.min(MAX_GPT_ENTRIES)) {
            let is_used = entry.iter().take(16).any(|byte| *byte != 0);
            let mut fields = FieldReader::new(entry.get(32..).unwrap_or_default());
            let (Some(first), Some(last)) = (fields.u64(), fields.u64()) else { continue };
            let name = utf16_text(entry.get(56..128).unwrap_or_default());
            if let Some(sectors) = last.checked_sub(first).filter(|_| is_used) {
                let length = to_bytes(sectors.saturating_add(1));
                self.partition(to_bytes(first), length, name, unpacker)?;
            }
        }
        Ok(())
    }

    /// Examines the partitions in an extended one: each has a sector with a table of itself and of the next sector.
    fn extended(&mut self, outer: &MbrPartition, unpacker: &mut Unpacker<'_>) -> Unpacked {
        let first = outer.start;
        let MbrPartition { start: mut table, mut length, .. } = *outer;
        for _ in 0..MAX_LOGICAL {
            let Some(partitions) = mbr(self.bytes, table) else {
                // 7-Zip extracts all of it.
                return self.partition(table, length, String::new(), unpacker);
            };
            let mut next = None;
            for partition in partitions {
                if EXTENDED.contains(&partition.kind) {
                    next = next.or(Some((first.saturating_add(partition.start), partition.length)));
                } else {
                    let start = table.saturating_add(partition.start);
                    self.partition(start, partition.length, String::new(), unpacker)?;
                }
            }
            match next {
                Some(next) => (table, length) = next,
                None => break,
            }
        }
        Ok(())
    }

    fn partition(
        &mut self,
        start: usize,
        length: usize,
        name: String,
        unpacker: &mut Unpacker<'_>,
    ) -> Unpacked {
        if !self.partitions.insert((start, length)) {
            return Ok(());
        }
        let rest = self.bytes.get(start..).unwrap_or_default();
        let content = rest.get(..length).unwrap_or(rest);
        // A table that covers the whole disk is not followed.
        if !content.is_empty() && start > 0 {
            let label = match name {
                name if name.is_empty() => format!("partition {}", self.partitions.len()),
                name => name,
            };
            unpacker.slice(EntryName::label(label), content)?;
        }
        // Truncated partitions are not noted: virtual disks end after their last block. Volumes note truncated files.
        if content.is_empty() {
            unpacker.note(NoteKind::Unreadable, "a partition is outside of the disk");
        }
        Ok(())
    }
}
