//! The first sector of a FAT volume, and chains of clusters.

use crate::unpack::{content::StreamContent, fields::FieldReader};

/// Number of clusters from which on a volume is FAT16.
const FAT12_CLUSTERS: usize = 4085;

/// Size of a directory entry, bytes.
const ENTRY: usize = 32;

/// Number of the first cluster.
const FIRST_CLUSTER: u32 = 2;

/// Size of the numbers in the allocation table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FatWidth {
    Bits12,
    Bits16,
    Bits32,
}

pub(super) struct FatVolume<'a> {
    volume: &'a [u8],
    width: FatWidth,
    /// The first allocation table, which all programs use.
    table: &'a [u8],
    /// Offset and size of the root directory of FAT12 and FAT16, bytes.
    root: (usize, usize),
    /// First cluster of the root directory of FAT32.
    root_cluster: u32,
    /// Offset of the first cluster, and size of each, bytes.
    data: usize,
    cluster_size: usize,
    /// Number of clusters in the volume.
    clusters: usize,
}

impl<'a> FatVolume<'a> {
    /// Parses the first sector; `None` if it has an invalid field.
    pub(super) fn parse(volume: &'a [u8]) -> Option<Self> {
        let first = volume.get(..512)?;
        // A jump and the signature are in all volumes, but Linux needs neither.
        let is_boot_sector =
            matches!(first.first(), Some(0xe9 | 0xeb)) || first.ends_with(&[0x55, 0xaa]);
        let mut fields = FieldReader::new(first.get(11..)?);
        let sector = usize::from(fields.u16()?);
        let [per_cluster] = *fields.bytes(1)? else { return None };
        let reserved = usize::from(fields.u16()?);
        let [tables] = *fields.bytes(1)? else { return None };
        let root_entries = usize::from(fields.u16()?);
        let total = usize::from(fields.u16()?);
        let [media] = *fields.bytes(1)? else { return None };
        let table_sectors = usize::from(fields.u16()?);
        // Sectors of a track, heads, hidden sectors.
        fields.bytes(8)?;
        let total = if total == 0 { fields.length()? } else { total };
        let mut fields = FieldReader::new(first.get(36..)?);
        let is_32 = table_sectors == 0;
        let table_sectors = if is_32 { fields.length()? } else { table_sectors };
        fields.bytes(4)?;
        let root_cluster = fields.u32()?;
        let is_valid = is_boot_sector
            && sector.is_power_of_two()
            && (128..=4096).contains(&sector)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=4).contains(&tables)
            && media >= 0xf0
            && table_sectors > 0
            && (is_32 || root_entries > 0);
        if !is_valid {
            return None;
        }
        let table_start = reserved.checked_mul(sector)?;
        let table_size = table_sectors.checked_mul(sector)?;
        let root_start = table_size.checked_mul(tables.into())?.checked_add(table_start)?;
        let root_size = root_entries * ENTRY;
        let data = root_start.checked_add(root_size.next_multiple_of(sector))?;
        let cluster_size = sector * usize::from(per_cluster);
        let clusters = total.checked_mul(sector)?.checked_sub(data)? / cluster_size;
        let table_end = table_start.checked_add(table_size)?.min(volume.len());
        Some(Self {
            volume,
            width: match clusters {
                _ if is_32 => FatWidth::Bits32,
                0..FAT12_CLUSTERS => FatWidth::Bits12,
                _ => FatWidth::Bits16,
            },
            table: volume.get(table_start..table_end)?,
            root: (root_start, root_size),
            root_cluster,
            data,
            cluster_size,
            clusters,
        })
    }

    /// Returns the content of the root directory, at most `size` bytes, and whether it is complete.
    pub(super) fn root(&self, size: usize) -> (StreamContent<'a>, bool) {
        if self.width == FatWidth::Bits32 {
            return self.chain(self.root_cluster, size);
        }
        let mut content = StreamContent::new(self.volume);
        let length = self.root.1.min(size);
        let is_complete = content.push(self.root.0, length) == length;
        (content, is_complete)
    }

    /// Returns the content of a chain of clusters, and whether the chain ends with a mark or has `size` bytes.
    pub(super) fn chain(&self, first: u32, size: usize) -> (StreamContent<'a>, bool) {
        let mut content = StreamContent::new(self.volume);
        // The upper half of the number has another meaning in older volumes.
        let mut cluster = if self.width == FatWidth::Bits32 { first } else { first & 0xffff };
        for _ in 0..self.clusters.min(self.volume.len() / self.cluster_size + 1) {
            let Some(index) = cluster.checked_sub(FIRST_CLUSTER) else { return (content, false) };
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            if index >= self.clusters {
                return (content, self.is_end(cluster));
            }
            let length = size.saturating_sub(content.len()).min(self.cluster_size);
            let offset = index.saturating_mul(self.cluster_size).saturating_add(self.data);
            if content.push(offset, length) < length {
                return (content, false);
            }
            if content.len() >= size {
                return (content, true);
            }
            match self.next(cluster) {
                Some(next) => cluster = next,
                None => return (content, false),
            }
        }
        let is_end = self.is_end(cluster);
        (content, is_end)
    }

    /// Returns the number in the allocation table for a cluster.
    fn next(&self, cluster: u32) -> Option<u32> {
        let cluster = cluster as usize;
        let number = |offset: usize| Some(FieldReader::new(self.table.get(offset..)?));
        match self.width {
            FatWidth::Bits12 => {
                let pair = number(cluster.checked_add(cluster / 2)?)?.u16()?;
                Some((if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }).into())
            }
            FatWidth::Bits16 => number(cluster.checked_mul(2)?)?.u16().map(u32::from),
            FatWidth::Bits32 => Some(number(cluster.checked_mul(4)?)?.u32()? & 0x0fff_ffff),
        }
    }

    /// Returns whether a number is the mark at the end of a chain.
    fn is_end(&self, number: u32) -> bool {
        match self.width {
            FatWidth::Bits12 => number >= 0xff8,
            FatWidth::Bits16 => number >= 0xfff8,
            FatWidth::Bits32 => number >= 0x0fff_fff8,
        }
    }
}
