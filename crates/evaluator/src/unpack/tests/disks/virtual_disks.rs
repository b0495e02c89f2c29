//! Disk images: VMDK and QCOW2. Images that `qemu-img` wrote were unpacked, too.

use std::io::Write;

use flate2::{
    Compression,
    write::{DeflateEncoder, ZlibEncoder},
};

use super::{FatWriter, SECTOR, Width, mbr};
use crate::{
    report::NoteKind,
    unpack::tests::{ContainerSample, Expected, collect},
};

/// Returns a disk with a volume and blocks of zeros before it.
fn disk() -> Vec<u8> {
    let mut disk = mbr(&FatWriter::usual(Width::Fat12));
    // The partition starts at sector 20.
    disk[446 + 8] = 20;
    disk.splice(SECTOR..SECTOR, vec![0; 19 * SECTOR]);
    disk
}

/// Writes QEMU's format with clusters of 512 bytes: header, table of the first level, one of the second, content.
fn qcow(disk: &[u8], is_compressed: bool) -> Vec<u8> {
    let mut image = b"QFI\xfb\0\0\0\x02".to_vec();
    image.resize(20, 0);
    image.extend(9_u32.to_be_bytes());
    image.extend((disk.len() as u64).to_be_bytes());
    image.extend([0_u32, 1].map(u32::to_be_bytes).concat());
    image.extend(512_u64.to_be_bytes());
    image.resize(512, 0);
    image.extend((1 << 63 | 1024_u64).to_be_bytes());
    image.resize(1536, 0);
    for (index, cluster) in disk.chunks(512).enumerate() {
        if cluster.iter().all(|byte| *byte == 0) {
            continue;
        }
        let offset = image.len() as u64;
        let entry = if is_compressed {
            let mut encoder = DeflateEncoder::new(&mut image, Compression::default());
            encoder.write_all(cluster).unwrap();
            encoder.finish().unwrap();
            // One more sector than the first one.
            1 << 62 | 1 << 61 | offset
        } else {
            image.extend_from_slice(cluster);
            image.resize(image.len().next_multiple_of(512), 0);
            1 << 63 | offset
        };
        image[1024 + 8 * index..][..8].copy_from_slice(&u64::to_be_bytes(entry));
    }
    image
}

/// Writes VMDK with blocks of 4096 bytes: header, directory, table, content.
fn vmdk(disk: &[u8], is_compressed: bool) -> Vec<u8> {
    let flags = if is_compressed { 0x3_0001 } else { 1_u32 };
    let mut image = b"KDMV\x01\0\0\0".to_vec();
    image.extend(flags.to_le_bytes());
    let capacity = disk.len().div_ceil(SECTOR) as u64;
    image.extend([capacity, 8, 0, 0].map(u64::to_le_bytes).concat());
    image.extend(512_u32.to_le_bytes());
    image.extend([0, 1, 8_u64].map(u64::to_le_bytes).concat());
    image.resize(77, 0);
    image.push(u8::from(is_compressed));
    image.resize(SECTOR, 0);
    image.push(2);
    image.resize(8 * SECTOR, 0);
    for (index, block) in disk.chunks(4096).enumerate() {
        if block.iter().all(|byte| *byte == 0) {
            continue;
        }
        let sector = u32::try_from(image.len() / SECTOR).unwrap();
        image[2 * SECTOR + 4 * index..][..4].copy_from_slice(&sector.to_le_bytes());
        if is_compressed {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(block).unwrap();
            let data = encoder.finish().unwrap();
            image.extend((8 * index as u64).to_le_bytes());
            image.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
            image.extend(data);
        } else {
            image.extend_from_slice(block);
        }
        image.resize(image.len().next_multiple_of(SECTOR), 0);
    }
    image
}

/// Returns a VMDK file with the directory only in the copy of the header at the end.
fn vmdk_stream(disk: &[u8]) -> Vec<u8> {
    let mut image = vmdk(disk, true);
    let header = image[..SECTOR].to_vec();
    image[56..64].fill(0xff);
    [&image[..], &header, &[0; SECTOR]].concat()
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let disk = disk();
    let changed = |at: usize| {
        let mut image = qcow(&disk, false);
        image[at] = 1;
        image
    };
    vec![
        ContainerSample::payload("disk qcow2", qcow(&disk, false)),
        ContainerSample::payload("disk qcow2 compressed", qcow(&disk, true)),
        ContainerSample::payload(
            "disk qcow2 after text",
            [&b"text"[..], &qcow(&disk, true)].concat(),
        ),
        ContainerSample::payload(
            "disk vmdk after text",
            [&b"text"[..], &vmdk(&disk, true)].concat(),
        ),
        ContainerSample::payload("disk vmdk", vmdk(&disk, false)),
        ContainerSample::payload("disk vmdk compressed", vmdk(&disk, true)),
        ContainerSample::payload("disk vmdk stream", vmdk_stream(&disk)),
        ContainerSample::new(
            "disk qcow2 encrypted",
            changed(35),
            Expected::Note(NoteKind::Encrypted),
        ),
        ContainerSample::new("disk qcow 1", changed(7), Expected::Note(NoteKind::Unreadable)),
    ]
}

#[test]
fn disks_have_their_content() {
    let disk = disk();
    for image in [
        qcow(&disk, false),
        qcow(&disk, true),
        vmdk(&disk, false),
        vmdk(&disk, true),
        vmdk_stream(&disk),
    ] {
        let collected = collect(&image);
        assert_eq!(collected.objects[1].0, "disk");
        let content = &collected.objects[1].1;
        assert!(disk.starts_with(content) && content.len() > disk.len() - 4096, "{collected:?}");
        assert!(collected.notes.is_empty(), "{collected:?}");
    }
}

#[test]
fn truncated_disks_are_noted_and_examined() {
    let disk = disk();
    for image in [qcow(&disk, false), vmdk(&disk, false)] {
        let collected = collect(&image[..image.len() - SECTOR]);
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
        assert!(collected.objects[1].1.len() > 4096, "{collected:?}");
        for length in (0..image.len()).step_by(37) {
            collect(&image[..length]);
        }
    }
}

#[test]
fn difference_to_another_disk_is_noted() {
    let mut image = qcow(&disk(), false);
    image[15] = 16;
    let collected = collect(&image);
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}
