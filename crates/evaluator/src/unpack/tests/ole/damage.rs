//! Tests of damaged compound files.

use std::io::{Cursor, Read};

use proptest::{collection::vec, prelude::*};

use super::{NATIVE, compound, large, native_stream, payload, vba};
use crate::{
    report::NoteKind,
    unpack::{
        UnpackSettings,
        tests::{Collected, ContainerSample, Expected, collect, collect_within},
    },
};

/// Returns a compound file with the payload in both kinds of streams.
fn file() -> Vec<u8> {
    compound(&[("a", &[1; 9000]), ("large", &large()), ("b", &[2; 9000]), ("small", &payload())])
}

/// Returns the position of the directory entry of a stream.
fn entry(file: &[u8], name: &str) -> usize {
    let mut name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    name.extend([0, 0]);
    file.chunks(128).position(|entry| entry.starts_with(&name)).unwrap() * 128
}

/// Returns a file with bytes changed.
fn changed(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let file = file();
    let only_small = compound(&[("small", &payload())]);
    let small = entry(&file, "small");
    let cases = [
        // Fields of the header: version, byte order, sizes, counts.
        ("version", changed(file.clone(), 26, &[9, 0])),
        ("byte-order", changed(file.clone(), 28, &[0, 0])),
        ("sector-size", changed(file.clone(), 30, &[0, 0])),
        ("mini-sector-size", changed(file.clone(), 32, &[0, 0])),
        ("counts", changed(file.clone(), 40, &[0xff; 8])),
        ("cutoff", changed(file.clone(), 56, &[0; 4])),
        ("large-cutoff", changed(only_small.clone(), 56, &[0xff; 4])),
        ("mini-counts", changed(file.clone(), 64, &[0xff; 4])),
        ("list", changed(file.clone(), 68, &[1, 0, 0, 0, 0xff, 0, 0, 0])),
        // Fields of the directory: color, siblings, name.
        ("color", changed(file.clone(), small + 67, &[7])),
        ("siblings", changed(only_small.clone(), entry(&only_small, "small") + 68, &[0; 12])),
        ("name", changed(file.clone(), small, &[0x00, 0xd8])),
        ("no-tree", changed(file.clone(), entry(&file, "Root Entry") + 76, &[0xff; 4])),
        ("root-size", changed(file.clone(), entry(&file, "Root Entry") + 120, &[0; 4])),
    ];
    let mut samples: Vec<_> = cases
        .into_iter()
        .map(|(name, bytes)| ContainerSample::payload(format!("ole-wrong-{name}"), bytes))
        .collect();
    let unreadable = Expected::Note(NoteKind::Unreadable);
    samples.push(ContainerSample::new("ole-header-only", file[..512].to_vec(), unreadable));
    samples.push(ContainerSample::new("ole-signature-only", file[..8].to_vec(), unreadable));
    samples.push(ContainerSample::new(
        "ole-no-directory",
        changed(file, 48, &[0xff, 0xff, 0, 0]),
        unreadable,
    ));
    samples
}

#[test]
fn truncated_stream_is_noted_and_examined() {
    let large = [payload(), vec![3; 20_000]].concat();
    let file = compound(&[("small", b"1"), ("large", &large)]);
    let collected = collect(&file[..file.len() - 10_000]);
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
    // The last sector does not have to be complete.
    let file = compound(&[("large", &large)]);
    let last = file.len() - file.iter().rev().take_while(|byte| **byte == 0).count();
    assert!(collect(&file[..last]).notes.is_empty());
}

#[test]
fn loops_end() {
    let file = compound(&[("large", &[3; 5000])]);
    // Each number except for those of the stream refers to each of the first sectors.
    let numbers = file.chunks(4).enumerate().filter(|(_, number)| **number != [3; 4]);
    for position in numbers.map(|(index, _)| index * 4) {
        for sector in 0..3 {
            let collected = collect(&changed(file.clone(), position, &[sector, 0, 0, 0]));
            assert!(collected.objects.len() < 10, "{collected:?}");
        }
    }
}

#[test]
fn many_streams_of_the_same_sectors_reach_a_limit() {
    // A directory of 400 entries for the stream with the directory.
    let file = compound(&[("large", &vec![1; 400 * 128])]);
    let root = file[entry(&file, "Root Entry")..][..128].to_vec();
    let stream = file[entry(&file, "large")..][..128].to_vec();
    let content = file.windows(128).position(|bytes| *bytes == [1; 128]).unwrap();
    let directory = [root, stream.repeat(399)].concat();
    let file = changed(changed(file, content, &directory), 48, &stream[116..120]);
    let settings = UnpackSettings { max_total: 2 << 20, ..UnpackSettings::default() };
    let collected = collect_within(&file, &settings);
    assert_eq!(collected.note(NoteKind::Limit).unwrap().reason, "unpack.max_total");
    assert_eq!(collected.objects.len(), 1 + (2 << 20) / directory.len());
}

/// Returns a file with objects of all kinds.
fn rich_file() -> Vec<u8> {
    let mut streams = vba::project("Macros", &[("Module1", b"Attribute VB_Name = \"x\"")]);
    streams.push((NATIVE.into(), native_stream(["a.txt"; 3], b"text", true)));
    streams.push(("large".into(), vec![7; 5000]));
    let streams: Vec<_> = streams.iter().map(|(path, bytes)| (&**path, &**bytes)).collect();
    compound(&streams)
}

#[test]
fn truncated_files_are_examined() {
    let file = rich_file();
    for length in 0..file.len() {
        collect(&file[..length]);
    }
}

/// Returns the streams that the crate `cfb` reads.
fn reference(file: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut file = cfb::CompoundFile::open(Cursor::new(file)).ok()?;
    let paths: Vec<_> =
        file.walk().filter(cfb::Entry::is_stream).map(|entry| entry.path().to_owned()).collect();
    let mut streams = Vec::new();
    for path in paths {
        let mut bytes = Vec::new();
        let stream = file.open_stream(path).ok()?;
        if stream.take(1 << 20).read_to_end(&mut bytes).is_ok() && !bytes.is_empty() {
            streams.push(bytes);
        }
    }
    Some(streams)
}

fn assert_has_streams(file: &[u8], collected: &Collected) {
    for stream in reference(file).unwrap_or_default() {
        let is_found = collected.objects.iter().any(|(_, bytes)| *bytes == stream);
        assert!(is_found, "{} bytes {}", stream.len(), stream.escape_ascii());
    }
}

#[test]
fn another_reader_finds_the_same_streams() {
    for sample in super::samples() {
        if !sample.bytes.starts_with(b"Active") {
            assert_has_streams(&sample.bytes, &collect(&sample.bytes));
        }
    }
    assert_eq!(reference(&rich_file()).unwrap().len(), 6);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn changed_files_are_examined(
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        header in vec((0_usize..512, any::<u8>()), 0..2),
    ) {
        let mut file = rich_file();
        for (index, value) in edits {
            *index.get_mut(&mut file) = value;
        }
        for (index, value) in header {
            file[index] = value;
        }
        let collected = collect(&file);
        if file.starts_with(b"\xd0\xcf\x11\xe0") {
            assert_has_streams(&file, &collected);
        }
    }
}
