//! Disk images of macOS.

use std::io::Write;

use crate::{
    report::NoteKind,
    unpack::tests::{
        ContainerSample, Expected, collect,
        disks::{FatWriter, SECTOR, Width},
        mail::base64,
        ole::powerpoint::zlib,
        payload,
        zip::stored_zip,
    },
};

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Returns an image of a partition in chunks of these types, two sectors each, and the last one the rest.
fn udif(partition: &[u8], kinds: &[u32]) -> Vec<u8> {
    let mut image = vec![0; 16];
    let mut table = b"mish\0\0\0\x01".to_vec();
    table.resize(24, 0);
    table.extend(16_u64.to_be_bytes());
    table.resize(204, 0);
    let mut rest = partition;
    for (index, kind) in kinds.iter().enumerate() {
        let length = if index + 1 == kinds.len() { rest.len() } else { 2 * SECTOR };
        let (chunk, after) = rest.split_at(length);
        rest = after;
        let content = match kind {
            0 => Vec::new(),
            0x8000_0005 => zlib(chunk),
            0x8000_0006 => bzip2(chunk),
            // Not supported: LZFSE.
            0x8000_0007 => vec![7; 100],
            _ => chunk.to_vec(),
        };
        let start = image.len() as u64 - 16;
        table.extend([kind.to_be_bytes(), [0; 4]].concat());
        table.extend(
            [0, (length / SECTOR) as u64, start, content.len() as u64]
                .map(u64::to_be_bytes)
                .concat(),
        );
        image.extend(content);
    }
    table.extend([0xff; 4]);
    table.resize(table.len() + 36, 0);
    let list = format!(
        "<plist><dict><key>blkx</key><array><dict><key>Data</key><data>\n\t{}\t</data></dict></array>\
         <key>plst</key><array><dict><key>Data</key><data>AAAA</data></dict></array></dict></plist>",
        base64(&table).replace('\n', "\n\t")
    );
    let start = image.len() as u64;
    image.extend(list.as_bytes());
    let mut trailer = b"koly\0\0\0\x04\0\0\x02\0".to_vec();
    trailer.resize(216, 0);
    trailer.extend([start, list.len() as u64].map(u64::to_be_bytes).concat());
    trailer.resize(SECTOR, 0);
    image.extend(trailer);
    image
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let volume = FatWriter::usual(Width::Fat12);
    let zeros = [vec![0; 1024], volume.clone()].concat();
    let mut encrypted = b"encrcdsa\0\0\0\x02".to_vec();
    encrypted.resize(2000, 7);
    let image = udif(&volume, &[0x8000_0005]);
    let mut without_table = image.clone();
    let trailer = without_table.len() - SECTOR;
    without_table[trailer + 216..trailer + 232].fill(0);
    vec![
        ContainerSample::payload("disk udif raw", udif(&volume, &[1])),
        ContainerSample::payload("disk udif zlib", image),
        ContainerSample::payload("disk udif chunks", udif(&volume, &[0x8000_0006, 1, 0x8000_0005])),
        ContainerSample::new(
            "disk udif lzfse",
            udif(&zeros, &[0, 0x8000_0007]),
            Expected::Note(NoteKind::Unreadable),
        ),
        ContainerSample::new("disk udif encrypted", encrypted, Expected::Note(NoteKind::Encrypted)),
        ContainerSample::new(
            "disk udif without table",
            without_table,
            Expected::Note(NoteKind::Unreadable),
        ),
    ]
}

#[test]
fn partition_has_its_content() {
    let partition = [FatWriter::usual(Width::Fat12), vec![0; 1024]].concat();
    let image = udif(&partition, &[0x8000_0006, 0x8000_0005, 1, 0x8000_0005]);
    let collected = collect(&image);
    assert_eq!(collected.objects[1], ("partition 1".to_owned(), partition));
    assert!(collected.notes.is_empty(), "{collected:?}");
    for length in (0..image.len()).step_by(31) {
        collect(&image[length..]);
    }
}

#[test]
fn chunks_of_zeros_reach_a_limit() {
    let mut image = udif(&[0; 1024], &[0]);
    let table = "<data>\n\t";
    let start = image.windows(table.len()).position(|bytes| bytes == table.as_bytes()).unwrap();
    let text = base64(&[&b"mish"[..], &[0; 200], &[0, 0, 0, 2], &[0x7f; 36]].concat());
    let text = text.replace('\n', "\n\t");
    image.splice(start + table.len()..start + table.len() + text.len(), text.into_bytes());
    assert!(collect(&image).note(NoteKind::Limit).is_some());
}

#[test]
fn chunks_behind_unsupported_ones_are_examined() {
    let mut partition = [vec![0; 2 * SECTOR], stored_zip(&[("a.exe", &payload())])].concat();
    partition.resize(partition.len().next_multiple_of(SECTOR), 0);
    let collected = collect(&udif(&partition, &[0x8000_0007, 1]));
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}
