//! Files that take much time or memory to unpack.

use std::time::{Duration, Instant};

use super::{
    super::collect,
    writer::{ZipEntrySpec, ZipWriter, deflate, zip},
};
use crate::{report::NoteKind, unpack::tests::Collected};

/// Maximum time, with a margin for builds without optimization on a loaded machine.
const MAX_TIME: Duration = Duration::from_secs(15);

fn collect_in_time(file: &[u8]) -> Collected {
    let start = Instant::now();
    let collected = collect(file);
    assert!(start.elapsed() < MAX_TIME, "{:?}", start.elapsed());
    collected
}

#[test]
fn entries_that_share_data_are_one_object() {
    let first = ZipEntrySpec::deflated("0", &vec![b' '; 100_000]);
    let rest = (1..20_000).map(|_| ZipEntrySpec { local: None, ..first.clone() });
    let collected =
        collect_in_time(&ZipWriter::new([first.clone()].into_iter().chain(rest)).build());
    assert_eq!(collected.paths(), ["0"]);
    assert!(collected.notes.is_empty(), "{:?}", collected.notes);
}

#[test]
fn shared_data_are_examined_under_each_extension() {
    let entry = ZipEntrySpec::stored("a.txt", b"MZ");
    let mut other = ZipEntrySpec { local: None, ..entry.clone() };
    other.central.as_mut().unwrap().name = b"b.exe".to_vec();
    let collected = collect(&ZipWriter::new([entry, other]).build());
    assert!(collected.paths().contains(&"b.exe"), "{collected:?}");
}

/// Like 42.zip: five levels of 16 equal archives, 4 GiB at the end of each path.
#[test]
fn equal_archives_are_unpacked_once() {
    let mut file = deflate(&vec![0; 1 << 20]);
    let mut archive =
        ZipWriter::new([ZipEntrySpec::packed("0.dll", 8, file, &vec![0; 1 << 20])]).build();
    for _ in 0..5 {
        let names: Vec<_> = (0..16).map(|i| format!("{i}.zip")).collect();
        file = archive;
        archive = zip(&names.iter().map(|name| (&**name, &file[..])).collect::<Vec<_>>());
    }
    let collected = collect_in_time(&archive);
    assert_eq!(collected.objects.len(), 1 + 5 * 16 + 1);
    assert!(collected.notes.is_empty(), "{:?}", collected.notes);
}

#[test]
fn file_above_the_maximum_is_a_limit() {
    let collected = collect_in_time(&zip(&[("zeros", &vec![0; 65 << 20]), ("after", b"after")]));
    assert!(collected.note(NoteKind::Limit).is_some());
    assert!(collected.contains(b"after"));
}

/// Streams without output, which overlap: each entry reads the rest of the file.
#[test]
fn overlapping_streams_without_output_are_a_limit() {
    let empty_block = [0, 0, 0, 0xff, 0xff];
    let streams: Vec<_> = (0..4000)
        .map(|i| {
            let entry = ZipEntrySpec::packed(format!("{i}"), 8, empty_block.repeat(100), b"");
            entry.central(|fields| fields.compressed = 4000 * 540 - i * 540)
        })
        .collect();
    let collected = collect_in_time(&ZipWriter::new(streams.clone()).build());
    assert!(collected.note(NoteKind::Limit).is_some(), "{:?}", collected.notes);
    // Without a directory, from the local headers.
    let open = streams
        .into_iter()
        .map(|entry| entry.local(|fields| (fields.flags, fields.compressed) = (8, 0)));
    collect_in_time(&ZipWriter::new(open).build_without_directory());
}

/// Stored entries whose length is stated nowhere.
#[test]
fn stored_entries_of_unknown_length_end_at_the_next_header() {
    let entries = (0..5000).map(|i| {
        let entry = ZipEntrySpec::stored(format!("{i}"), &[b'x'; 200]);
        entry.local(|fields| (fields.flags, fields.compressed, fields.size) = (8, 0, 0))
    });
    let collected = collect_in_time(&ZipWriter::new(entries).build_without_directory());
    assert!(collected.objects.iter().skip(1).all(|(_, file)| file.len() == 200));
}

#[test]
fn signatures_alone_take_no_time() {
    for signature in [b"PK\x03\x04", b"PK\x05\x06", b"PK\x01\x02", b"PK\x07\x08"] {
        let signatures = signature.repeat(1 << 20);
        collect_in_time(&[b"PK\x03\x04", &signatures[..]].concat());
    }
}

#[test]
fn many_directories_are_a_limit() {
    let mut file = Vec::new();
    for i in 0..40 {
        file.extend(zip(&[("a.txt", format!("{i}").as_bytes())]));
    }
    let collected = collect_in_time(&file);
    assert!(collected.note(NoteKind::Limit).is_some());
    assert!(collected.contains(b"0") && collected.contains(b"39"), "{collected:?}");
}

#[test]
fn entries_without_content_are_counted() {
    let files = (0..11_000).map(|i| ZipEntrySpec::deflated(format!("{i}"), b""));
    let collected = collect_in_time(&ZipWriter::new(files).build());
    assert!(collected.note(NoteKind::Limit).is_some());
    let directories = (0..11_000).map(|i| ZipEntrySpec::deflated(format!("{i}/"), b""));
    let collected = collect_in_time(&ZipWriter::new(directories).build());
    assert!(collected.notes.is_empty() && collected.objects.len() == 1, "{:?}", collected.notes);
}
