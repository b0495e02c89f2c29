//! Sections of `OneNote`.

use super::{ContainerSample, Expected, collect, payload, zip::stored_zip};
use crate::report::NoteKind;

const HEADER: &[u8] = b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3";
const FILE_START: &[u8] = b"\xe7\x16\xe3\xbd\x65\x26\x11\x45\xa4\xc4\x8d\x4d\x0b\x7a\x9e\xac";
const FILE_END: &[u8] = b"\x22\xa7\xfb\x71\x79\x0f\x0b\x4a\xbb\x13\x89\x92\x56\x42\x6b\x24";

/// Returns a section with files in it.
fn section(files: &[&[u8]]) -> Vec<u8> {
    let mut section = HEADER.to_vec();
    section.resize(1024, 0);
    for file in files {
        let size = u64::try_from(file.len()).unwrap().to_le_bytes();
        section.extend([FILE_START, &size, &[0; 12], file].concat());
        section.resize(section.len().next_multiple_of(8), 0);
        section.extend(FILE_END);
    }
    section.extend([0; 64]);
    section
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let archive = stored_zip(&[("a.exe", &payload)]);
    let truncated = section(&[&[&payload[..], &[b'x'; 200]].concat()]);
    let nested = section(&[&section(&[&payload])]);
    let hidden = {
        let mut section = section(&[b"picture", &payload]);
        // The size of the first file reaches over the second one.
        section[1024 + 16] = 250;
        section
    };
    let encrypted = [section(&[]), b"\x67\xa0\xd1\xda\x85\xa3\x6b\xfb".to_vec()].concat();
    vec![
        ContainerSample::payload("onenote file", section(&[b"picture", &payload])),
        ContainerSample::payload("onenote archive", section(&[&archive])),
        ContainerSample::payload("onenote section", nested),
        ContainerSample::payload("onenote hidden file", hidden),
        ContainerSample::payload(
            "onenote truncated file",
            truncated[..truncated.len() - 200].to_vec(),
        ),
        ContainerSample::new("onenote plain", section(&[b"picture", b""]), Expected::Clean),
        ContainerSample::new("onenote encrypted", encrypted, Expected::Note(NoteKind::Encrypted)),
    ]
}

#[test]
fn samples_are_unpacked() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn files_are_numbered_and_truncated_ones_noted() {
    let file = section(&[b"one", b"two"]);
    assert_eq!(collect(&file).paths(), ["file 1", "file 2"]);
    for length in 0..file.len() {
        collect(&file[..length]);
    }
    // The mark, eight bytes of the size, reserved fields, and one byte of three.
    let collected = collect(&file[..=1024 + 16 + 8 + 12]);
    assert_eq!(collected.objects[1].1, b"o");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
    let mut huge = file;
    huge[1024 + 16..1024 + 24].fill(0xff);
    assert!(collect(&huge).note(NoteKind::Unreadable).is_some());
}

#[test]
fn many_marks_reach_a_limit() {
    let mark = [FILE_START, &u64::MAX.to_le_bytes(), &[0; 12]].concat();
    let file = [HEADER, &mark.repeat(100_000)].concat();
    assert!(collect(&file).note(NoteKind::Limit).is_some());
}
