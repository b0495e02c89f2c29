//! ARJ archives. 7-Zip and arj extract the samples with the payload.

use super::{
    ContainerSample, Expected,
    bit_writer::{BitWriter, static_huffman},
    collect, payload,
    zip::crc,
};
use crate::report::NoteKind;

const NAME: &str = "payload.txt";

/// What a header states.
#[derive(Clone, Copy)]
struct ArjFields<'a> {
    flags: u8,
    method: u8,
    file_type: u8,
    name: &'a str,
    content: &'a [u8],
}

fn header(fields: ArjFields<'_>, packed: usize) -> Vec<u8> {
    let ArjFields { flags, method, file_type, name, content } = fields;
    let mut header = vec![30, 11, 1, 2, flags, method, file_type, 0, 0, 0, 0x21, 0x5a];
    header.extend(u32::try_from(packed).unwrap().to_le_bytes());
    header.extend(u32::try_from(content.len()).unwrap().to_le_bytes());
    header.extend(crc(content).to_le_bytes());
    header.extend([0; 6]);
    header.extend([name.as_bytes(), &[0, 0]].concat());
    let size = u16::try_from(header.len()).unwrap().to_le_bytes();
    [&[0x60, 0xea], &size[..], &header, &crc(&header).to_le_bytes(), &[0, 0]].concat()
}

fn member(fields: ArjFields<'_>, data: &[u8]) -> Vec<u8> {
    [&header(fields, data.len())[..], data].concat()
}

fn stored<'a>(name: &'a str, content: &'a [u8]) -> ArjFields<'a> {
    ArjFields { flags: 0, method: 0, file_type: 0, name, content }
}

fn archive(members: &[Vec<u8>]) -> Vec<u8> {
    let main = header(ArjFields { file_type: 2, ..stored("archive.arj", b"") }, 0);
    [&main[..], &members.concat(), &[0x60, 0xea, 0, 0]].concat()
}

/// Compresses a text that repeats the bytes before by method 4.
fn fastest(content: &[u8]) -> Vec<u8> {
    let mut bits = BitWriter::default();
    let mut index = 0;
    while index < content.len() {
        let copied = |start: usize| {
            let pairs = content[index..].iter().zip(&content[index - start..]);
            pairs.take_while(|(byte, other)| byte == other).count().min(255)
        };
        match (1..=index).map(|distance| (copied(distance), distance)).max() {
            Some((length, distance)) if length > 3 => {
                push_variable(&mut bits, length - 2, 0, 7);
                push_variable(&mut bits, distance - 1, 9, 13);
                index += length;
            }
            _ => {
                bits.push(0, 1);
                bits.push(u32::from(content[index]), 8);
                index += 1;
            }
        }
    }
    bits.push(0, 16);
    bits.into_bytes()
}

fn push_variable(bits: &mut BitWriter, number: usize, min: u32, max: u32) {
    let (mut width, mut base) = (min, 0);
    while width < max && number >= base + (1 << width) {
        bits.push(1, 1);
        base += 1 << width;
        width += 1;
    }
    if width < max {
        bits.push(0, 1);
    }
    bits.push(u32::try_from(number - base).unwrap(), width);
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let compressed = static_huffman(&payload, 5);
    let first = member(stored("a", b"first"), b"first");
    let sample = |name: &str, fields: ArjFields<'_>, data: &[u8]| {
        let bytes = archive(&[first.clone(), member(fields, data)]);
        ContainerSample::payload(format!("arj-{name}"), bytes)
    };
    let fields = stored(NAME, &payload);
    let mut samples = vec![
        sample("stored", fields, &payload),
        sample("method-1", ArjFields { method: 1, ..fields }, &compressed),
        sample("method-2", ArjFields { method: 2, ..fields }, &compressed),
        sample("method-3", ArjFields { method: 3, ..fields }, &compressed),
        sample("method-4", ArjFields { method: 4, ..fields }, &fastest(&payload)),
        sample("text", ArjFields { method: 1, file_type: 1, ..fields }, &compressed),
        sample("volume", ArjFields { flags: 4, ..fields }, &payload),
    ];
    let bytes = samples[1].bytes.clone();
    samples.push(ContainerSample::payload(
        "arj-after-program",
        [b"MZ\x90\0program", &bytes[..]].concat(),
    ));
    let truncated = archive(&[member(fields, &payload)]);
    samples.push(ContainerSample::payload(
        "arj-truncated",
        truncated[..truncated.len() - 24].to_vec(),
    ));
    let note = |name: &str, members: &[Vec<u8>], kind| {
        ContainerSample::new(format!("arj-{name}"), archive(members), Expected::Note(kind))
    };
    let garbled: Vec<_> = payload.iter().map(|byte| byte ^ 0x55).collect();
    samples.extend([
        note("garbled", &[member(ArjFields { flags: 1, ..fields }, &garbled)], NoteKind::Encrypted),
        note(
            "method-9",
            &[member(ArjFields { method: 9, ..fields }, &garbled)],
            NoteKind::Unreadable,
        ),
        note("damaged", &[b"no header".to_vec()], NoteKind::Unreadable),
    ]);
    samples
}

#[test]
fn samples_give_what_is_expected() {
    const NOTED: [&str; 2] = ["volume", "truncated"];
    for sample in samples() {
        sample.check();
        if sample.expected == Expected::Payload {
            let is_noted = NOTED.iter().any(|name| sample.name.ends_with(name));
            let collected = collect(&sample.bytes);
            assert_eq!(!collected.notes.is_empty(), is_noted, "{}: {collected:?}", sample.name);
        }
    }
}

#[test]
fn copies_of_all_distances_are_decoded() {
    let mut content: Vec<u8> =
        (0..12_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    content.extend_from_within(..300);
    content.extend_from_within(11_000..11_100);
    let fields = ArjFields { method: 4, ..stored("x", &content) };
    let collected = collect(&archive(&[member(fields, &fastest(&content))]));
    assert!(collected.notes.is_empty() && collected.contains(&content), "{:?}", collected.notes);
}

#[test]
fn directories_and_comments_are_no_files() {
    let directory = ArjFields { file_type: 3, ..stored("dir", b"") };
    let collected = collect(&archive(&[member(directory, b""), member(stored("a", b"a"), b"a")]));
    assert_eq!(collected.paths(), ["a"]);
}
