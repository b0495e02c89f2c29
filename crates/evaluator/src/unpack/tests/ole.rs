//! Tests of compound files.

mod damage;
mod encrypted;
mod message;
pub(crate) mod powerpoint;
mod vba;

use std::io::{Cursor, Write};

use super::{ContainerSample, Expected, collect, payload};
use crate::report::NoteKind;

/// Writes a compound file with streams of these paths, in sectors of 512 bytes.
pub(crate) fn compound(streams: &[(&str, &[u8])]) -> Vec<u8> {
    compound_of_version(cfb::Version::V3, streams)
}

/// Writes a compound file whose streams are written alternately, so that their sectors are not adjacent.
fn compound_of_version(version: cfb::Version, streams: &[(&str, &[u8])]) -> Vec<u8> {
    let cursor = Cursor::new(Vec::new());
    let mut file = cfb::CompoundFile::create_with_version(version, cursor).unwrap();
    let mut writers = Vec::new();
    for (path, content) in streams {
        if let Some((storages, _)) = path.rsplit_once('/') {
            file.create_storage_all(format!("/{storages}")).unwrap();
        }
        writers.push((file.create_stream(format!("/{path}")).unwrap(), content.chunks(1000)));
    }
    while !writers.is_empty() {
        writers.retain_mut(|(stream, chunks)| match chunks.next() {
            Some(chunk) => stream.write_all(chunk).and_then(|()| stream.flush()).is_ok(),
            None => false,
        });
    }
    file.into_inner().into_inner()
}

/// Returns the stream `\x01Ole10Native` of a packaged file.
pub(crate) fn native_stream(names: [&str; 3], content: &[u8], with_unicode: bool) -> Vec<u8> {
    let data = native_data(names, content, with_unicode);
    [&size(&data), data.as_slice()].concat()
}

/// Returns the data of the Packager.
pub(crate) fn native_data(names: [&str; 3], content: &[u8], with_unicode: bool) -> Vec<u8> {
    let [label, path, temporary] = names.map(|name| [name.as_bytes(), b"\0"].concat());
    let mut data = [&[2, 0], label.as_slice(), &path, &[0, 0, 3, 0], &size(&temporary)].concat();
    data.extend([temporary.as_slice(), &size(content), content].concat());
    for name in names.iter().filter(|_| with_unicode) {
        let name: Vec<_> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        data.extend(u32::try_from(name.len() / 2).unwrap().to_le_bytes());
        data.extend(name);
    }
    data
}

pub(crate) fn size(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap().to_le_bytes()
}

/// Returns the payload followed by zeros: more than fits in the mini stream.
fn large() -> Vec<u8> {
    let mut content = payload();
    content.resize(9000, 0);
    content
}

const NATIVE: &str = "ObjectPool/_1/\u{1}Ole10Native";

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let large = large();
    let other = vec![1; 20_000];
    let names = ["a.txt", "C:\\in\\a.txt", "C:\\tmp\\a.txt"];
    let native = native_stream(names, &payload, true);
    let mut wrong_length = native_stream(names, &payload, false);
    let length = 4 + 2 + 6 + 12 + 4;
    wrong_length[length] = 200;
    let native_large = native_stream(names, &large, false);
    let mut samples = vec![
        ContainerSample::payload("ole-mini-stream", compound(&[("Contents", &payload)])),
        ContainerSample::payload("ole-storage", compound(&[("a/b/c/d", &payload)])),
        ContainerSample::payload(
            "ole-fragmented",
            compound(&[("a", &other), ("Contents", &large), ("b", &other)]),
        ),
        ContainerSample::payload("ole-one-piece", compound(&[("Contents", &large)])),
        ContainerSample::payload(
            "ole-large-sectors",
            compound_of_version(cfb::Version::V4, &[("a", &other), ("b", &large), ("c", &payload)]),
        ),
        ContainerSample::payload("ole-native", compound(&[(NATIVE, &native)])),
        ContainerSample::payload("ole-native-wrong-length", compound(&[(NATIVE, &wrong_length)])),
        ContainerSample::payload(
            "ole-native-fragmented",
            compound(&[("a", &other), ("\u{1}oLE10nATIVE", &native_large), ("b", &other)]),
        ),
        ContainerSample::payload(
            "ole-native-other-class",
            compound(&[(NATIVE, &[&size(&payload), payload.as_slice()].concat())]),
        ),
        ContainerSample::payload(
            "ole-in-ole",
            compound(&[("Package", &compound(&[("Contents", &payload)]))]),
        ),
        ContainerSample::payload(
            "ole-active-mime",
            active_mime(&compound(&[("Contents", &payload)])),
        ),
    ];
    samples.extend(encrypted_samples());
    samples.extend(damage::samples());
    samples.extend(encrypted::samples());
    samples.extend(message::samples());
    samples.extend(powerpoint::samples());
    samples.extend(vba::samples());
    samples
}

/// Returns the file of a compound file in a web page by Office.
fn active_mime(content: &[u8]) -> Vec<u8> {
    let mut file = b"ActiveMime\0\0\x01\xf0\x04\0\0\0\xff\xff\xff\xff\0\0\x07\xf0".to_vec();
    file.resize(50, 0);
    file[30] = 4;
    file.extend(powerpoint::zlib(content));
    file
}

fn encrypted_samples() -> Vec<ContainerSample> {
    let encrypted = Expected::Note(NoteKind::Encrypted);
    // FibBase with and without fEncrypted.
    let word = |flags: u8| [0xec, 0xa5, 0xc1, 0, 0, 0, 0, 0, 0, 0, 0, flags, 0, 0].to_vec();
    // BOF, Interface Header, and a record.
    let workbook = |record: u16| {
        let mut book = vec![9, 8, 4, 0, 0, 6, 5, 0, 0xe1, 0, 2, 0, 0xb0, 4];
        book.extend(record.to_le_bytes());
        book.extend([2, 0, 1, 0]);
        book.extend([0x2f, 0, 0, 0].iter().filter(|_| record != 0x2f));
        book
    };
    let user = |token: u32| {
        let mut user = vec![0, 0, 0xf6, 0x0f, 20, 0, 0, 0, 20, 0, 0, 0];
        user.extend(token.to_le_bytes());
        user.extend([0; 16]);
        user
    };
    let sample = |name: &str, streams: &[(&str, &[u8])], expected| {
        ContainerSample::new(name, compound(streams), expected)
    };
    vec![
        sample(
            "ole-encrypted-package",
            &[("EncryptionInfo", b"\x04\0\x04\0"), ("EncryptedPackage", &[7; 5000])],
            encrypted,
        ),
        sample("ole-encrypted-rights", &[("\tDRMContent", &[7; 50])], encrypted),
        sample("ole-encrypted-doc", &[("WordDocument", &word(1))], encrypted),
        sample("ole-encrypted-xls", &[("Workbook", &workbook(0x2f))], encrypted),
        sample("ole-encrypted-xls-old", &[("Book", &workbook(0x2f))], encrypted),
        sample("ole-encrypted-ppt", &[("Current User", &user(0xf3d1_c4df))], encrypted),
        sample(
            "ole-encrypted-inside",
            &[("Package", &compound(&[("MBD1/Workbook", &workbook(0x2f))]))],
            encrypted,
        ),
        sample("ole-plain-doc", &[("WordDocument", &word(2))], Expected::Clean),
        // The record is after the first sheet.
        sample("ole-plain-xls", &[("Workbook", &workbook(0x85))], Expected::Clean),
        sample("ole-plain-ppt", &[("Current User", &user(0xe391_c05f))], Expected::Clean),
        sample("ole-empty", &[("Empty", b"")], Expected::Clean),
    ]
}

#[test]
fn samples_are_unpacked() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn streams_have_their_path() {
    let file = compound(&[
        ("Macros/VBA/a", b"1"),
        ("\u{5}SummaryInformation", b"2"),
        // As Windows Installer encodes the name.
        ("\u{4840}\u{3f3f}\u{4577}\u{446c}\u{3b6a}\u{45e4}\u{4824}", b"3"),
        ("a/b/c/d/e/f/g/h/i/j/k", b"4"),
    ]);
    let collected = collect(&file);
    assert_eq!(
        collected.paths(),
        ["Macros/VBA/a", "[5]SummaryInformation", "!_StringData", "c/d/e/f/g/h/i/j/k"]
    );
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn packaged_files_have_all_their_names() {
    let names = ["Invoice.pdf", "C:\\in\\invoice.pdf", "C:\\tmp\\invoice.exe"];
    let collected = collect(&compound(&[(NATIVE, &native_stream(names, b"MZ", false))]));
    assert_eq!(collected.paths()[1..], ["Invoice.pdf", "invoice.pdf", "invoice.exe"]);
    assert!(collected.notes.is_empty(), "{collected:?}");

    // The names in UTF-16 differ from those in the code page.
    let mut native = native_data(["?.txt"; 3], b"x", false);
    let name: Vec<_> = "ü.txt".encode_utf16().flat_map(u16::to_le_bytes).collect();
    native.extend([&[5, 0, 0, 0], name.as_slice()].concat());
    let native = [&size(&native), native.as_slice()].concat();
    assert_eq!(collect(&compound(&[(NATIVE, &native)])).paths()[1..], ["?.txt", "ü.txt"]);
}

#[test]
fn link_to_a_file_is_not_noted() {
    let link = b"\x02\0calc.exe\0C:\\calc.exe\0\0\0\x01\0\x0c\0\0\0C:\\calc.exe\0";
    let collected = collect(&compound(&[(NATIVE, &[&size(link), link.as_slice()].concat())]));
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn incomplete_packaged_file_is_noted_and_examined() {
    let native = native_stream(["a.txt"; 3], &large(), false);
    let collected = collect(&compound(&[(NATIVE, &native[..5000])]));
    assert!(collected.has_payload() && collected.note(NoteKind::Unreadable).is_some());
}
