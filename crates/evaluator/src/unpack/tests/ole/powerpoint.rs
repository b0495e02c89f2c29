//! Tests of compressed objects in presentations.

use std::io::Write;

use super::{NATIVE, compound, native_stream, payload, size};
use crate::{
    report::NoteKind,
    unpack::tests::{ContainerSample, collect},
};

pub(crate) fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Returns a record of an embedded object.
fn record(compressed: bool, data: &[u8]) -> Vec<u8> {
    [&[u8::from(compressed) << 4, 0, 0x11, 0x10], size(data).as_slice(), data].concat()
}

fn compressed_record(content: &[u8], omitted: usize) -> Vec<u8> {
    let data = zlib(content);
    record(true, &[&size(content), &data[..data.len() - omitted]].concat())
}

/// Returns a presentation with a text record before the objects.
fn presentation(objects: &[u8]) -> Vec<u8> {
    let document = [b"\0\0\xa8\x0f\x04\0\0\0text".as_slice(), objects].concat();
    compound(&[("PowerPoint Document", &document), ("Current User", &[0; 40])])
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let names = ["a.txt"; 3];
    let object = compound(&[(NATIVE, &native_stream(names, &payload(), false))]);
    vec![
        ContainerSample::payload(
            "ole-ppt-compressed",
            presentation(&compressed_record(&object, 0)),
        ),
        ContainerSample::payload("ole-ppt-plain", presentation(&record(false, &object))),
        ContainerSample::payload(
            "ole-ppt-second-object",
            presentation(&[compressed_record(b"other", 0), compressed_record(&object, 0)].concat()),
        ),
        // A record in the data of another one.
        ContainerSample::payload(
            "ole-ppt-hidden-object",
            presentation(&record(false, &[&object[..8], &compressed_record(&object, 0)].concat())),
        ),
    ]
}

#[test]
fn stream_without_its_checksum_is_complete() {
    let collected = collect(&presentation(&compressed_record(b"object", 4)));
    assert!(collected.contains(b"object") && collected.notes.is_empty(), "{collected:?}");
    let collected = collect(&presentation(&compressed_record(&[b'x'; 5000], 12)));
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}

#[test]
fn overlapping_objects_reach_a_limit() {
    // Each record contains the rest of the stream as a stream of empty blocks.
    let unit =
        [b"\x10\0\x11\x10\xff\xff\xff\x0f\0\0\0\0\x78\x9c".as_slice(), &[0, 0, 0, 0xff, 0xff]];
    let document = unit.concat().repeat(20_000);
    let start = std::time::Instant::now();
    let collected = collect(&presentation(&document));
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    assert!(!collected.notes.is_empty());
}
