//! LHA archives. 7-Zip and lha extract the samples with the payload, as far as they know the method.

use super::{
    ContainerSample, Expected,
    bit_writer::{BitWriter, static_huffman},
    collect, payload,
};
use crate::report::NoteKind;

const NAME: &str = "payload.txt";

fn crc16(content: &[u8]) -> u16 {
    content.iter().fold(0, |crc: u16, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0xa001 } else { 0 })
    })
}

/// Returns the fields up to the level.
fn common(method: &str, packed: usize, size: usize, level: u8) -> Vec<u8> {
    let mut header = method.as_bytes().to_vec();
    header.extend(u32::try_from(packed).unwrap().to_le_bytes());
    header.extend(u32::try_from(size).unwrap().to_le_bytes());
    header.extend([0, 0, 0x21, 0x5a, 0x20, level]);
    header
}

/// Writes a member with a header of a level.
fn member(level: u8, method: &str, name: &str, data: &[u8], content: &[u8]) -> Vec<u8> {
    let crc = crc16(content).to_le_bytes();
    let (directory, file) = name.rsplit_once('/').unwrap_or(("", name));
    let width = if level == 3 { 4 } else { 2 };
    let size = |size: usize| size.to_le_bytes()[..width].to_vec();
    let mut extended = Vec::new();
    for (kind, text) in [(1, file.to_owned()), (2, format!("{directory}\u{ff}"))] {
        extended.push([&[kind][..], text.replace('\u{ff}', "/").as_bytes()].concat());
    }
    // The size of the next extended header is at the end of each.
    let sizes: Vec<_> = extended.iter().map(|header| header.len() + width).collect();
    let mut chain = size(sizes[0]);
    for (index, header) in extended.iter().enumerate() {
        chain.extend(header);
        chain.extend(size(sizes.get(index + 1).copied().unwrap_or(0)));
    }
    let mut header = match level {
        0 => {
            let mut header = common(method, data.len(), content.len(), 0);
            header.push(u8::try_from(name.len()).unwrap());
            header.extend([name.as_bytes(), &crc].concat());
            header
        }
        1 => {
            let packed = data.len() + chain.len() - width;
            let mut header = common(method, packed, content.len(), 1);
            header.push(0);
            header.extend([&crc[..], b"U", &chain].concat());
            header
        }
        2 => [&common(method, data.len(), content.len(), 2), &crc[..], b"U", &chain].concat(),
        _ => {
            let common = common(method, data.len(), content.len(), 3);
            let total = u32::try_from(common.len() + 9 + chain.len()).unwrap();
            [&common, &crc[..], b"U", &total.to_le_bytes(), &chain].concat()
        }
    };
    let start = match level {
        0 | 1 => {
            let length = if level == 0 { header.len() } else { header.len() + width - chain.len() };
            let sum = header[..length].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
            vec![u8::try_from(length).unwrap(), sum]
        }
        2 => u16::try_from(header.len() + 2).unwrap().to_le_bytes().to_vec(),
        _ => vec![4, 0],
    };
    header.splice(0..0, start);
    [header, data.to_vec()].concat()
}

fn lzs(content: &[u8]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    for byte in content {
        bits.push(1, 1);
        bits.push(u32::from(*byte), 8);
    }
    bits.into_bytes()
}

fn lz5(content: &[u8]) -> Vec<u8> {
    content.chunks(8).flat_map(|chunk| [&[0xff], chunk].concat()).collect()
}

/// Writes an archive with the payload, and a file before it.
fn archive(level: u8, method: &str, data: &[u8]) -> Vec<u8> {
    let first = member(level, "-lh0-", "a", b"first", b"first");
    let directory = member(level, "-lhd-", "dir/", b"", b"");
    [first, directory, member(level, method, NAME, data, &payload()), vec![0]].concat()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let lh5 = static_huffman(&payload, 4);
    let lh7 = static_huffman(&payload, 5);
    let sample =
        |name: &str, bytes: Vec<u8>| ContainerSample::payload(format!("lzh-{name}"), bytes);
    let mut samples = Vec::new();
    for (method, data) in [
        ("-lh0-", &payload),
        ("-lh4-", &lh5),
        ("-lh5-", &lh5),
        ("-lh6-", &lh7),
        ("-lh7-", &lh7),
        ("-lhx-", &lh7),
        ("-lzs-", &lzs(&payload)),
        ("-lz4-", &payload),
        ("-lz5-", &lz5(&payload)),
        ("-pm0-", &payload),
    ] {
        samples.push(sample(method.trim_matches('-'), archive(1, method, data)));
    }
    for level in [0, 2, 3] {
        samples.push(sample(&format!("level-{level}"), archive(level, "-lh5-", &lh5)));
    }
    let lh5 = archive(2, "-lh5-", &lh5);
    let wrong_crc = member(2, "-lh0-", NAME, &payload, b"other");
    samples.extend([
        sample("without-end", lh5[..lh5.len() - 1].to_vec()),
        sample("after-program", [b"MZ\x90\0program", &lh5[..]].concat()),
        sample("truncated", archive(0, "-lh0-", &payload)[..190].to_vec()),
        sample("wrong-crc", wrong_crc),
    ]);
    let note = |name: &str, bytes, kind| {
        ContainerSample::new(format!("lzh-{name}"), bytes, Expected::Note(kind))
    };
    let damaged = [member(0, "-lh0-", "a", b"first", b"first"), b"no header".to_vec()].concat();
    samples.extend([
        note("unknown-method", archive(1, "-lh9-", &payload), NoteKind::Unreadable),
        note("damaged", damaged, NoteKind::Unreadable),
    ]);
    samples
}

#[test]
fn samples_give_what_is_expected() {
    const NOTED: [&str; 2] = ["truncated", "wrong-crc"];
    for sample in samples() {
        sample.check();
        if sample.expected == Expected::Payload {
            let is_noted = NOTED.iter().any(|name| sample.name.ends_with(name));
            let collected = collect(&sample.bytes);
            let unreadable = collected.note(NoteKind::Unreadable);
            assert_eq!(unreadable.is_some(), is_noted, "{}: {collected:?}", sample.name);
        }
    }
}

#[test]
fn names_are_those_of_the_headers() {
    for level in 0..=3 {
        let bytes = [member(level, "-lh0-", "dir/a.exe", b"first", b"first"), vec![0]].concat();
        assert_eq!(collect(&bytes).paths(), ["dir/a.exe"], "level {level}");
    }
}

/// 7-Zip ignores the total length of a header, and expects the data behind the extended headers.
#[test]
fn data_behind_the_extended_headers_are_examined() {
    let payload = payload();
    let of_length = |name: &str, length: usize| {
        let mut archive = member(2, "-lh0-", name, &payload, &payload);
        let end = archive.len() - payload.len();
        archive[..2].copy_from_slice(&u16::try_from(length).unwrap().to_le_bytes());
        archive.extend([b'x'; 16]);
        (archive, end)
    };
    let (_, end) = of_length(NAME, 0);
    for length in [end - 3, end + 1, end + 3, 60_000] {
        let collected = collect(&of_length(NAME, length).0);
        assert!(collected.has_payload(), "{length}: {collected:?}");
        assert!(collected.note(NoteKind::Inconsistent).is_some(), "{length}: {collected:?}");
    }
    // A total length that programs write with a byte of padding.
    let name = "n".repeat(NAME.len() + 256 - end);
    let collected = collect(&of_length(&name, 257).0);
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Inconsistent).is_none(), "{collected:?}");
}

#[test]
fn text_about_methods_is_no_archive() {
    for text in ["x -lh5- is a method of LHA, as are -lh6- and -lh7-", "  -lh5-"] {
        let collected = collect(text.repeat(5).as_bytes());
        assert!(collected.notes.is_empty() && collected.paths().is_empty(), "{collected:?}");
    }
}
