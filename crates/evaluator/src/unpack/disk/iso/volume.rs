//! Volume descriptors (ECMA-119, section 8), path tables (section 9.4), and boot catalogs (El Torito, section 2).

use super::{
    directory::{DirectoryRecord, is_in_both_orders, is_regular},
    sector::SECTOR,
};
use crate::unpack::fields::u32_at;

pub(super) const IDENTIFIER: &[u8; 5] = b"CD001";

/// Sectors in which Linux searches for descriptors. Other programs read the first ones of them only.
const DESCRIPTOR_SECTORS: std::ops::Range<usize> = 16..100;

/// Types of descriptors.
const BOOT_RECORD: u8 = 0;
const PRIMARY: u8 = 1;
const SUPPLEMENTARY: u8 = 2;
const TERMINATOR: u8 = 255;

/// Length of a date in a descriptor, bytes. The last one is the time zone.
const DATE: usize = 17;

/// Maximum number of descriptors that are read.
const MAX_VOLUMES: usize = 16;

/// Returns the sectors with descriptors that follow each other. 7-Zip does not take them for the start of another image,
/// unless it rejects this one.
pub(super) fn descriptor_area(bytes: &[u8]) -> &[u8] {
    let area = bytes.get(DESCRIPTOR_SECTORS.start * SECTOR..).unwrap_or_default();
    let is_descriptor =
        |sector: &&[u8]| sector.get(1..).is_some_and(|sector| sector.starts_with(IDENTIFIER));
    let sectors = area.chunks(SECTOR).take(DESCRIPTOR_SECTORS.len()).take_while(is_descriptor);
    area.get(..sectors.map(<[u8]>::len).sum()).unwrap_or(area)
}

/// Returns the length of an image, if it has a descriptor in the first sector for descriptors.
pub(super) fn extent(image: &[u8]) -> Option<usize> {
    let descriptor = image.get(DESCRIPTOR_SECTORS.start * SECTOR..)?.get(..SECTOR)?;
    if !matches!(descriptor, [0..=2, b'C', b'D', b'0', b'0', b'1', 1..=2, ..]) {
        return None;
    }
    let blocks = usize::try_from(u32_at(descriptor, 80)?).ok()?;
    let end_of_descriptor = (DESCRIPTOR_SECTORS.start + 1) * SECTOR;
    Some(blocks.saturating_mul(SECTOR).max(end_of_descriptor))
}

pub(super) fn has_descriptor(bytes: &[u8]) -> bool {
    descriptors(bytes).next().is_some()
}

/// Returns the types of the descriptors before the terminator, and the descriptors.
fn descriptors(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let sectors =
        DESCRIPTOR_SECTORS.map_while(|sector| bytes.get(sector * SECTOR..)?.get(..SECTOR));
    let identified = sectors.filter_map(|sector| match sector.split_first() {
        Some((kind, rest)) if rest.starts_with(IDENTIFIER) => Some((*kind, sector)),
        _ => None,
    });
    identified.take_while(|(kind, _)| *kind != TERMINATOR)
}

/// Returns whether 7-Zip reads all descriptors. It rejects the image otherwise.
pub(super) fn has_regular_descriptors(bytes: &[u8]) -> bool {
    let of_volumes = |kind: &u8| matches!(*kind, PRIMARY | SUPPLEMENTARY);
    descriptors(bytes).filter(|(kind, _)| of_volumes(kind)).all(|(_, descriptor)| {
        let has_equal_orders = |offset: usize| {
            descriptor
                .get(offset..)
                .and_then(<[u8]>::first_chunk)
                .copied()
                .is_some_and(is_in_both_orders)
        };
        let is_zero = |range: std::ops::Range<usize>| {
            descriptor.get(range).is_some_and(|part| part.iter().all(|byte| *byte == 0))
        };
        // The size of a logical block in little-endian byte order.
        let has_sectors = descriptor.get(128..130) == Some(&[0, 8]);
        let root = descriptor.get(156..190).is_some_and(is_regular);
        let dates = descriptor.get(813..813 + 4 * DATE).unwrap_or_default().chunks_exact(DATE);
        let has_dates = dates
            .flat_map(|date| date.iter().take(DATE - 1))
            .all(|byte| byte.is_ascii_digit() || matches!(byte, 0 | b' '));
        [80, 132].into_iter().all(has_equal_orders)
            && is_zero(72..80)
            && is_zero(882..883)
            && has_sectors
            && root
            && has_dates
    })
}

/// Returns the volumes, those with the longest names first.
pub(super) fn volumes(bytes: &[u8]) -> Vec<Volume<'_>> {
    let of_kind = |wanted| {
        let wanted = descriptors(bytes).filter(move |(kind, _)| *kind == wanted);
        wanted.take(MAX_VOLUMES).filter_map(|(_, descriptor)| Volume::parse(bytes, descriptor))
    };
    of_kind(SUPPLEMENTARY).chain(of_kind(PRIMARY)).collect()
}

pub(super) struct Volume<'a> {
    bytes: &'a [u8],
    descriptor: &'a [u8],
    root: DirectoryRecord<'a>,
    /// Size of a logical block, bytes.
    block: usize,
    /// Whether names are UCS-2, big endian.
    is_joliet: bool,
}

impl<'a> Volume<'a> {
    fn parse(bytes: &'a [u8], descriptor: &'a [u8]) -> Option<Self> {
        let root = DirectoryRecord::parse(descriptor.get(156..190)?)?;
        let block = match descriptor.get(128..130)? {
            [0, 2] => 512,
            [0, 4] => 1024,
            _ => SECTOR,
        };
        let is_supplementary = descriptor.first() == Some(&SUPPLEMENTARY);
        // Escape sequences of UCS-2 levels 1 to 3 (Joliet, section 3).
        let is_joliet =
            is_supplementary && matches!(descriptor.get(88..91), Some(b"%/@" | b"%/C" | b"%/E"));
        Some(Self { bytes, descriptor, root, block, is_joliet })
    }

    pub(super) fn root(&self) -> DirectoryRecord<'a> {
        self.root
    }

    /// Returns the offset of a logical block in the image.
    pub(super) fn offset(&self, block: u32) -> usize {
        usize::try_from(block).unwrap_or(usize::MAX).saturating_mul(self.block)
    }

    /// Returns the offset of the content of a file or directory.
    pub(super) fn record_offset(&self, record: &DirectoryRecord<'_>) -> usize {
        let attributes = usize::from(record.attribute_blocks) * self.block;
        self.offset(record.block).saturating_add(attributes)
    }

    /// Returns the name of a file, UTF-8 in most cases.
    pub(super) fn file_name(&self, record: &DirectoryRecord<'_>) -> Vec<u8> {
        let name = record.rock_ridge_name();
        if name.is_empty() { self.decode_name(record.identifier) } else { name }
    }

    /// Decodes an identifier, and removes the version at its end.
    pub(super) fn decode_name(&self, identifier: &[u8]) -> Vec<u8> {
        let mut name = identifier.to_vec();
        if self.is_joliet {
            let (units, _) = identifier.as_chunks::<2>();
            let units: Vec<_> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            name = String::from_utf16_lossy(&units).into_bytes();
        }
        if let Some(end) = name.iter().rposition(|byte| *byte == b';') {
            name.truncate(end);
        }
        name
    }

    /// Returns the names and first blocks of the directories in the path table of type L, which Windows reads.
    pub(super) fn path_table(&self) -> impl Iterator<Item = (&'a [u8], u32)> + use<'a> {
        let length = u32_at(self.descriptor, 132).unwrap_or_default();
        let start = self.offset(u32_at(self.descriptor, 140).unwrap_or_default());
        let rest = self.bytes.get(start..).unwrap_or_default();
        let mut table = rest.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(rest);
        std::iter::from_fn(move || {
            let (header, after) = table.split_first_chunk::<8>()?;
            let name_length = usize::from(header[0]);
            let name = after.get(..name_length).filter(|name| !name.is_empty())?;
            let block = u32_at(header, 2)?;
            table = after.get(name_length.next_multiple_of(2)..).unwrap_or_default();
            Some((name, block))
        })
    }
}

/// Returns the boot images, and the bytes from the start of each one to the end of the file.
pub(super) fn boot_images(bytes: &[u8]) -> Vec<(&[u8], &[u8])> {
    let is_el_torito = |descriptor: &[u8]| {
        descriptor.get(7..).is_some_and(|system| system.starts_with(b"EL TORITO SPECIFICATION"))
    };
    let records = descriptors(bytes)
        .filter(|(kind, descriptor)| *kind == BOOT_RECORD && is_el_torito(descriptor));
    let catalogs = records.take(MAX_VOLUMES).filter_map(|(_, record)| {
        let block = usize::try_from(u32_at(record, 0x47)?).ok()?;
        bytes.get(block.checked_mul(SECTOR)?..)?.get(..SECTOR)
    });
    catalogs
        .flat_map(|catalog| catalog.as_chunks::<32>().0)
        .filter_map(|entry| boot_image(bytes, entry))
        .collect()
}

/// Returns the boot image of a bootable entry of a catalog.
fn boot_image<'a>(bytes: &'a [u8], entry: &[u8; 32]) -> Option<(&'a [u8], &'a [u8])> {
    let [0x88, media, _, _, _, _, low, high, ..] = *entry else { return None };
    // Floppy disks of 1.2, 1.44 and 2.88 MB have their full size; otherwise sectors of 512 bytes are counted.
    let length = match media & 0xf {
        1 => 1_228_800,
        2 => 1_474_560,
        3 => 2_949_120,
        _ => 512 * usize::from(u16::from_le_bytes([low, high])),
    };
    let start = usize::try_from(u32_at(entry, 8)?).ok()?.checked_mul(SECTOR)?;
    let rest = bytes.get(start..)?;
    let image = rest.get(..length).unwrap_or(rest);
    (!image.is_empty()).then_some((image, rest))
}
