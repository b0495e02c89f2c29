//! FAT volumes, partition tables and virtual disks. The written images end after their last file. Images that `mkfs.fat`,
//! `mcopy`, `sfdisk` and `qemu-img` wrote were unpacked, too.

mod udif;
mod virtual_disks;

use proptest::{collection::vec, prelude::*};

use super::{ContainerSample, Expected, check_without_notes, collect, payload};
use crate::report::NoteKind;

const SECTOR: usize = 512;
const DIRECTORY: u8 = 0x10;
const LABEL: u8 = 0x08;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Fat12,
    Fat16,
    Fat32,
}

/// Writes a volume with clusters of one sector. The sectors: boot sector, table, root directory of one sector, clusters
/// from number 2 on. In FAT32, the root directory is cluster 2.
struct FatWriter {
    image: Vec<u8>,
    width: Width,
}

impl FatWriter {
    fn new(width: Width) -> Self {
        let mut image = vec![0; 10 * SECTOR];
        let total: u32 = if width == Width::Fat12 { 100 } else { 70_000 };
        let is_32 = width == Width::Fat32;
        image[..3].copy_from_slice(b"\xeb\x3c\x90");
        image[11..16].copy_from_slice(&[0, 2, 1, 1, 0]);
        image[16..19].copy_from_slice(&[1, if is_32 { 0 } else { 16 }, 0]);
        image[21..24].copy_from_slice(&[0xf8, u8::from(!is_32), 0]);
        // FAT16 has fewer clusters than 65 525, and the number of sectors in the field of two bytes.
        match width {
            Width::Fat12 => image[19] = 100,
            Width::Fat16 => image[19..21].copy_from_slice(&5000_u16.to_le_bytes()),
            Width::Fat32 => image[32..36].copy_from_slice(&total.to_le_bytes()),
        }
        image[36..40].copy_from_slice(&[u8::from(is_32), 0, 0, 0]);
        image[44] = if is_32 { 2 } else { 0 };
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        let mut writer = Self { image, width };
        if is_32 {
            writer.link(2, 0x0fff_ffff);
        }
        writer
    }

    fn cluster(&self, number: usize) -> usize {
        let first = if self.width == Width::Fat32 { 2 } else { 3 };
        (first + number - 2) * SECTOR
    }

    /// Sets the number in the table for a cluster.
    fn link(&mut self, cluster: usize, next: u32) {
        let table = &mut self.image[SECTOR..2 * SECTOR];
        let number = next.to_le_bytes();
        match self.width {
            Width::Fat12 => {
                let at = cluster + cluster / 2;
                let (mask, value) = if cluster.is_multiple_of(2) {
                    (0xf000, next & 0xfff)
                } else {
                    (0xf, next << 4)
                };
                let old = u16::from_le_bytes([table[at], table[at + 1]]);
                let new = old & mask | u16::try_from(value & 0xffff).unwrap();
                table[at..at + 2].copy_from_slice(&new.to_le_bytes());
            }
            Width::Fat16 => table[2 * cluster..][..2].copy_from_slice(&number[..2]),
            Width::Fat32 => table[4 * cluster..][..4].copy_from_slice(&number),
        }
    }

    /// Writes content to a chain of clusters.
    fn chain(&mut self, clusters: &[usize], content: &[u8]) {
        for (index, cluster) in clusters.iter().enumerate() {
            let start = self.cluster(*cluster);
            let part = content.chunks(SECTOR).nth(index).unwrap_or_default();
            self.image[start..start + part.len()].copy_from_slice(part);
            let next =
                clusters.get(index + 1).map_or(0x0fff_ffff, |next| u32::try_from(*next).unwrap());
            self.link(*cluster, next);
        }
    }

    fn root(&mut self, entries: &[Vec<u8>]) {
        let entries = entries.concat();
        self.image[2 * SECTOR..][..entries.len()].copy_from_slice(&entries);
    }

    /// Returns a volume with the payload in a file and a directory, in clusters that are not adjacent.
    fn usual(width: Width) -> Vec<u8> {
        let mut writer = Self::new(width);
        let content = [payload(), vec![b'x'; 900]].concat();
        let file = named("a long name.exe", entry(b"ALONGN~1EXE", 0, 5, content.len()));
        writer.root(&[entry(b"LABEL      ", LABEL, 0, 0), entry(b"DIR        ", DIRECTORY, 3, 0)]);
        let own = [entry(b".          ", DIRECTORY, 3, 0), entry(b"..         ", DIRECTORY, 0, 0)];
        let mut deleted = entry(b"XELETED EXE", 0, 5, content.len());
        deleted[0] = 0xe5;
        writer.chain(&[3], &[&own.concat()[..], &deleted, &file].concat());
        writer.chain(&[5, 7, 6], &content);
        writer.image
    }
}

/// Returns an entry of a directory.
fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size: usize) -> Vec<u8> {
    let mut entry = [&name[..], &[attributes], &[0; 14]].concat();
    entry.extend(cluster.to_le_bytes());
    entry.extend(u32::try_from(size).unwrap().to_le_bytes());
    entry
}

/// Returns an entry with a long name before it.
fn named(name: &str, entry: Vec<u8>) -> Vec<u8> {
    let sum = entry[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(13);
    if !units.len().is_multiple_of(13) {
        units.push(0);
    }
    units.resize(13 * count, 0xffff);
    let mut entries = Vec::new();
    for (index, part) in units.chunks(13).enumerate().rev() {
        let last = if index + 1 == count { 0x40 } else { 0 };
        let bytes: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        entries.push(u8::try_from(index + 1).unwrap() | last);
        entries.extend(
            [&bytes[..10], &[0x0f, 0, sum], &bytes[10..22], &[0, 0], &bytes[22..]].concat(),
        );
    }
    entries.extend(entry);
    entries
}

/// Returns a sector with a partition table. Each partition: its type, first sector and number of sectors.
fn table(partitions: &[(u8, u32, u32)]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR];
    for (index, (kind, start, length)) in partitions.iter().enumerate() {
        let entry = &mut sector[446 + 16 * index..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..16].copy_from_slice(&length.to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn sectors(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / SECTOR).unwrap()
}

fn mbr(volume: &[u8]) -> Vec<u8> {
    [table(&[(6, 1, sectors(volume))]), volume.to_vec()].concat()
}

/// Returns a disk with the volume in the second partition of an extended one.
fn extended(volume: &[u8]) -> Vec<u8> {
    let first = table(&[(6, 1, 1), (5, 2, 1 + sectors(volume))]);
    let second = table(&[(6, 1, sectors(volume))]);
    let all = 3 + sectors(volume);
    [table(&[(0x0f, 1, all)]), first, vec![0; SECTOR], second, volume.to_vec()].concat()
}

fn gpt(volume: &[u8], sector: usize) -> Vec<u8> {
    let sector_number = |sectors: u64| sectors.to_le_bytes();
    let mut disk = table(&[(0xee, 1, u32::MAX)]);
    disk.resize(sector, 0);
    disk.extend(b"EFI PART\0\0\x01\0\x5c\0\0\0\0\0\0\0\0\0\0\0\x01");
    disk.resize(sector + 72, 0);
    disk.extend([&sector_number(2)[..], &[4, 0, 0, 0, 128, 0, 0, 0]].concat());
    disk.resize(2 * sector, 0);
    let last = 2 + (volume.len().div_ceil(sector)) as u64;
    let name: Vec<u8> = "data".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let entry = [&[7; 32][..], &sector_number(3), &sector_number(last), &[0; 8], &name].concat();
    disk.extend([0; 128]);
    disk.extend(entry);
    disk.resize(3 * sector, 0);
    disk.extend(volume);
    disk.resize(disk.len().next_multiple_of(sector), 0);
    disk
}

/// Returns the footer of a virtual disk of a type.
fn footer(kind: u8, header: u64, size: usize) -> Vec<u8> {
    let mut footer = b"conectix\0\0\0\x02\0\x01\0\0".to_vec();
    footer.extend(header.to_be_bytes());
    footer.resize(48, 0);
    footer.extend((size as u64).to_be_bytes());
    footer.extend([0, 0, 0, 0, 0, 0, 0, kind]);
    footer.resize(SECTOR, 0);
    footer
}

/// Returns a virtual disk with blocks of 4096 bytes, in reverse order. Blocks of zeros are not stored.
fn dynamic(disk: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let footer = footer(3, 512, disk.len());
    let blocks: Vec<_> = disk.chunks(BLOCK).collect();
    let mut header = b"cxsparse".to_vec();
    header.extend([0xff; 8]);
    header.extend(1536_u64.to_be_bytes());
    header.extend([0, 1, 0, 0]);
    header.extend(u32::try_from(blocks.len()).unwrap().to_be_bytes());
    header.extend(u32::try_from(BLOCK).unwrap().to_be_bytes());
    header.resize(1024, 0);
    let mut numbers = vec![[0xff; 4]; SECTOR / 4];
    let mut content = Vec::new();
    for (index, block) in blocks.iter().enumerate().rev() {
        if block.iter().any(|byte| *byte != 0) {
            numbers[index] = (4 + sectors(&content)).to_be_bytes();
            content.extend([0xff; SECTOR]);
            content.extend_from_slice(block);
            content.resize(content.len().next_multiple_of(SECTOR), 0);
        }
    }
    [&footer, &header, &numbers.concat()[..], &content, &footer].concat()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let volume = FatWriter::usual(Width::Fat12);
    let disk = mbr(&volume);
    let sparse = [&disk[..], &vec![0; 8192], &volume].concat();
    let fixed = [&disk[..], &footer(2, u64::MAX, disk.len())].concat();
    let unreadable = Expected::Note(NoteKind::Unreadable);
    let mut empty = FatWriter::new(Width::Fat12);
    empty.root(&[entry(b"EMPTY   TXT", 0, 0, 0), entry(b"A       TXT", 0, 5, 4)]);
    empty.chain(&[5], b"text");
    let mut looping = FatWriter::new(Width::Fat12);
    looping.root(&[entry(b"A       TXT", 0, 5, 4000)]);
    looping.chain(&[5], b"text");
    let outside = table(&[(6, 0, 1), (6, 1, 1), (6, 9, 1)]).repeat(2);
    let mut damaged_extended = extended(&payload().repeat(4));
    damaged_extended[SECTOR + 510] = 0;
    damaged_extended.drain(SECTOR..4 * SECTOR);
    let mut without_header = dynamic(&disk);
    without_header[512] = 0;
    let mut samples = vec![
        ContainerSample::payload("disk fat12", volume.clone()),
        ContainerSample::payload("disk fat16", FatWriter::usual(Width::Fat16)),
        ContainerSample::payload("disk fat32", FatWriter::usual(Width::Fat32)),
        ContainerSample::payload("disk mbr", disk.clone()),
        ContainerSample::payload("disk after partitions", [mbr(&[1; 512]), payload()].concat()),
        ContainerSample::payload("disk damaged extended partition", damaged_extended),
        ContainerSample::payload("disk extended partition", extended(&volume)),
        ContainerSample::payload("disk gpt", gpt(&volume, 512)),
        ContainerSample::payload("disk gpt 4096", gpt(&volume, 4096)),
        ContainerSample::payload("disk vhd fixed", fixed),
        ContainerSample::payload("disk vhd dynamic", dynamic(&sparse)),
        ContainerSample::new("disk plain", empty.image, Expected::Clean),
        ContainerSample::new("disk partition outside", outside, unreadable),
        ContainerSample::new("disk truncated file", looping.image, unreadable),
        ContainerSample::new("disk vhd without header", without_header, unreadable),
        ContainerSample::new("disk vhd difference", footer(4, 512, 4096), unreadable),
    ];
    let behind = |disk: Vec<u8>| [&b"text"[..], &disk].concat();
    samples.push(ContainerSample::payload("disk gpt after text", behind(gpt(&volume, 512))));
    samples.push(ContainerSample::payload("disk vhd after text", behind(dynamic(&sparse))));
    samples.extend(virtual_disks::samples());
    samples.extend(udif::samples());
    samples
}

#[test]
fn samples_are_unpacked() {
    check_without_notes(samples());
}

#[test]
fn files_have_their_names_and_all_of_their_content() {
    for width in [Width::Fat12, Width::Fat16, Width::Fat32] {
        let collected = collect(&FatWriter::usual(width));
        assert_eq!(collected.paths(), ["DIR/a long name.exe"]);
        assert_eq!(collected.objects[1].1, [payload(), vec![b'x'; 900]].concat());
    }
    let mut writer = FatWriter::new(Width::Fat12);
    let mut wrong = named("wrong.exe", entry(b"A       TXT", 0, 5, 1));
    wrong[13] ^= 1;
    let name = "a name of 26 characters.ex";
    writer.root(&[
        wrong,
        named(name, entry(b"ANAME~1 EX ", 0, 6, 1)),
        entry(b"\x05A      B  ", 0, 7, 1),
    ]);
    let collected = collect(&writer.image);
    assert_eq!(collected.paths(), ["A.TXT", name, "\u{fffd}A.B"]);
}

#[test]
fn dynamic_disk_has_its_content() {
    let disk = [mbr(&FatWriter::usual(Width::Fat12)), vec![0; 5000], b"end".to_vec()].concat();
    let collected = collect(&dynamic(&disk));
    assert_eq!(collected.objects[1].0, "disk");
    assert_eq!(collected.objects[1].1, disk);
    // The last block ends before its length.
    let collected = collect(&dynamic(&disk)[..8000]);
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}

#[test]
fn loops_end() {
    // A directory that contains itself, and a chain that is a loop.
    let mut writer = FatWriter::new(Width::Fat12);
    writer.root(&[entry(b"DIR        ", DIRECTORY, 3, 0), entry(b"A          ", 0, 5, 1 << 30)]);
    writer.chain(&[3], &entry(b"DIR        ", DIRECTORY, 3, 0));
    writer.link(5, 6);
    writer.link(6, 5);
    let collected = collect(&writer.image);
    assert!(collected.objects.len() < 4, "{collected:?}");
    let table = table(&[(5, 1, 10), (5, 1, 10)]);
    let collected = collect(&table.repeat(4));
    assert!(collected.objects.len() < 4, "{collected:?}");
}

#[test]
fn huge_disks_reach_a_limit() {
    let mut disk = dynamic(&mbr(&FatWriter::usual(Width::Fat12)));
    // Blocks of 1 GiB.
    disk[512 + 32..512 + 36].copy_from_slice(&(1_u32 << 30).to_be_bytes());
    disk[48..56].copy_from_slice(&u64::MAX.to_be_bytes());
    disk[1536..1540].fill(0xff);
    assert!(collect(&disk).note(NoteKind::Limit).is_some());
}

#[test]
fn boot_sector_is_not_a_partition_table() {
    // Code where the partition table would be.
    let mut volume = FatWriter::usual(Width::Fat12);
    volume[446..510].fill(0x90);
    assert_eq!(collect(&volume).paths(), ["DIR/a long name.exe"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_disks_are_examined(
        edits in vec((0_usize..3000, any::<u8>()), 1..8),
        sample in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let mut disk = sample.get(&samples).bytes.clone();
        for (index, value) in edits {
            let index = index % disk.len();
            disk[index] = value;
        }
        collect(&disk);
    }
}
