//! 7z archives. 7-Zip extracts the samples with the payload.

mod writer;

use std::time::{Duration, Instant};

use self::writer::{CoderSpec, FolderSpec, SevenWriter, archive, methods, number};
use super::{ContainerSample, Expected, collect, collect_within, payload};
use crate::{report::NoteKind, unpack::UnpackSettings};

const NAME: &str = "payload.txt";

/// Method of encryption.
const AES: &[u8] = &[6, 0xf1, 7, 1];

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let with_payload = |name: &str, writer: &SevenWriter| {
        ContainerSample::payload(format!("7z-{name}"), writer.build())
    };
    let variants = methods(NAME, &payload);
    let mut samples: Vec<_> = variants
        .into_iter()
        .map(|(name, folder)| with_payload(name, &SevenWriter::new([folder])))
        .collect();
    let files = [("a.txt", &b"first"[..]), ("b.txt", b"second"), (NAME, &payload)];
    let solid = SevenWriter::new([FolderSpec::lzma2(&files)]);
    let separate = files.map(|file| FolderSpec::lzma(&[file]));
    samples.extend([
        with_payload("solid", &solid),
        with_payload("separate", &SevenWriter::new(separate)),
        with_payload("without-names", &SevenWriter { without_names: true, ..solid.clone() }),
        with_payload(
            "directories",
            &SevenWriter { directories: vec!["a", "a/b"], ..solid.clone() },
        ),
        with_payload(
            "header-lzma",
            &SevenWriter { header_folder: Some(lzma_header), ..solid.clone() },
        ),
        with_payload(
            "header-copy",
            &SevenWriter { header_folder: Some(copied_header), ..solid.clone() },
        ),
        with_payload("wrong-crc", &SevenWriter { crc_change: 1, ..solid.clone() }),
        with_payload(
            "parent-name",
            &SevenWriter::new([FolderSpec::lzma(&[("../../x", &payload)])]),
        ),
    ]);
    let bytes = solid.build();
    let mut unfinished = bytes.clone();
    unfinished[8..32].fill(0);
    // bsdtar ignores the version, the checksum of the start header, and the size of the header.
    let mut other_version = bytes.clone();
    other_version[6] = 1;
    let mut wrong_size = bytes.clone();
    wrong_size[27] = 0x80;
    let mut small_size = bytes.clone();
    small_size[20] -= 9;
    let prefixed = |prefix: &[u8]| [prefix, &bytes].concat();
    let others = [
        ("unfinished", unfinished),
        ("damaged-version", other_version),
        ("damaged-size", wrong_size),
        ("damaged-small-size", small_size),
        ("self-extracting", prefixed(b"MZ\x90\0 program")),
        ("after-pdf", prefixed(b"%PDF-1.4\n%%EOF\n")),
        ("with-suffix", [&bytes, &b"suffix"[..]].concat()),
        ("nested", SevenWriter::new([FolderSpec::lzma2(&[("inner.7z", &bytes)])]).build()),
    ];
    let others = others.map(|(name, bytes)| ContainerSample::payload(format!("7z-{name}"), bytes));
    samples.extend(others);
    samples.extend(noted());
    samples
}

fn lzma_header(header: &[u8]) -> FolderSpec {
    FolderSpec::lzma(&[("", header)])
}

fn copied_header(header: &[u8]) -> FolderSpec {
    FolderSpec::copied(&[("", header)])
}

/// A folder that needs a password.
fn encrypted(content: &[u8]) -> FolderSpec {
    let noise = (0..=255_u8).cycle().map(|byte| byte.wrapping_mul(167) ^ 0x0d);
    let noise = noise.take(content.len().next_multiple_of(16)).collect();
    FolderSpec::one(AES, &[0x13, 0, 1, 2, 3, 4], noise, &[(NAME, content)])
}

/// A folder that a dictionary or model of this many bytes is stated for.
fn with_window(method: &'static [u8], properties: &[u8], size: u64) -> SevenWriter {
    let mut folder = FolderSpec::one(method, properties, vec![0; 40], &[(NAME, b"content")]);
    folder.sizes = vec![size];
    SevenWriter::new([folder])
}

fn noted() -> Vec<ContainerSample> {
    let payload = payload();
    let note = |name: &str, bytes: Vec<u8>, kind| {
        ContainerSample::new(format!("7z-{name}"), bytes, Expected::Note(kind))
    };
    let solid = SevenWriter::new([FolderSpec::lzma2(&[("a.txt", b"first"), (NAME, &payload)])]);
    let bytes = solid.build();
    let size = 4 << 30;
    let swapped = |method| {
        SevenWriter::new([FolderSpec::one(method, &[], payload.clone(), &[(NAME, &payload)])])
    };
    let additional = archive(&payload, &[0x01, 0x03, 0x00, 0x00]);
    let mut external_names = vec![0x01, 0x05, 0x01];
    external_names.extend([&[0x11], &*number(2), &[1, 0, 0, 0]].concat());
    let encrypted_header = SevenWriter { header_folder: Some(encrypted), ..solid };
    vec![
        note("encrypted", SevenWriter::new([encrypted(&payload)]).build(), NoteKind::Encrypted),
        note("encrypted-header", encrypted_header.build(), NoteKind::Encrypted),
        note(
            "lzma-dictionary",
            with_window(&[3, 1, 1], &[93, 0, 0, 0, 0x10], size).build(),
            NoteKind::Limit,
        ),
        note("lzma2-dictionary", with_window(&[0x21], &[40], size).build(), NoteKind::Limit),
        note(
            "ppmd-memory",
            with_window(&[3, 4, 1], &[6, 0, 0, 0, 0x10], 7).build(),
            NoteKind::Limit,
        ),
        note("swap2", swapped(&[2, 3, 2]).build(), NoteKind::Inconsistent),
        note("rar-method", swapped(&[4, 3, 5]).build(), NoteKind::Inconsistent),
        note("brotli", swapped(&[4, 0xf7, 0x11, 2]).build(), NoteKind::Unreadable),
        note("additional-streams", additional, NoteKind::Inconsistent),
        note("external-names", archive(&[], &external_names), NoteKind::Inconsistent),
        note("first-volume", bytes[..bytes.len() - 60].to_vec(), NoteKind::Unreadable),
        note("start-header", bytes[..20].to_vec(), NoteKind::Unreadable),
        ContainerSample::new("7z-empty", SevenWriter::default().build(), Expected::Clean),
    ]
}

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn ordinary_samples_have_no_notes() {
    for sample in samples().into_iter().filter(|sample| sample.expected == Expected::Payload) {
        let collected = collect(&sample.bytes);
        let is_ordinary = !sample.name.contains("wrong-crc") && !sample.name.contains("damaged");
        assert_eq!(collected.notes.is_empty(), is_ordinary, "{}: {collected:?}", sample.name);
    }
}

#[test]
fn names_belong_to_the_files_with_content() {
    let files = [("a.txt", &b"first"[..]), ("empty", b""), ("ü.exe", b"third")];
    let writer = SevenWriter {
        directories: vec!["dir"],
        ..SevenWriter::new([FolderSpec::lzma(&files), FolderSpec::copied(&[("last", b"fourth")])])
    };
    let collected = collect(&writer.build());
    assert_eq!(collected.paths(), ["a.txt", "ü.exe", "last"]);
    assert!(collected.contains(b"third") && collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn files_behind_a_too_large_one_are_examined() {
    let large = vec![b'x'; 1000];
    let writer = SevenWriter::new([FolderSpec::lzma2(&[("large", &large), ("b.txt", b"second")])]);
    let settings = UnpackSettings { max_file: 999, ..UnpackSettings::default() };
    // The header is smaller than the limit.
    let collected = collect_within(&writer.build(), &settings);
    assert!(collected.contains(b"second"), "{collected:?}");
    assert_eq!(collected.note(NoteKind::Limit).unwrap().reason, "unpack.max_file");
    let settings = UnpackSettings { max_file: 1000, ..UnpackSettings::default() };
    assert!(collect_within(&writer.build(), &settings).notes.is_empty());
}

#[test]
fn files_before_a_damaged_part_are_examined() {
    let noise: Vec<u8> =
        (0..5000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let files = [("a.txt", &b"first"[..]), ("noise", &noise), ("lost", b"lost")];
    let x86 =
        FolderSpec::filtered(&[3, 3, 1, 3], &[], &files.map(|(_, file)| file).concat(), files[0]);
    let filtered = FolderSpec { files: FolderSpec::copied(&files).files, ..x86 };
    for mut folder in [FolderSpec::copied(&files), FolderSpec::lzma(&files), filtered] {
        let length = folder.packs[0].len();
        folder.packs[0].truncate(length / 2);
        let other = FolderSpec::lzma(&[("b.txt", b"other folder")]);
        let collected = collect(&SevenWriter::new([folder, other]).build());
        assert_eq!(collected.paths(), ["a.txt", "noise", "b.txt"], "{collected:?}");
        assert!(collected.contains(&noise[..50]) && collected.contains(b"other folder"));
        assert!(collected.note(NoteKind::Unreadable).is_some());
    }
}

#[test]
fn file_before_a_wrong_checksum_of_bzip2_is_examined() {
    let (_, mut folder) = methods(NAME, &payload()).swap_remove(4);
    // The checksum of the block is behind the magic numbers of the stream and of the block.
    assert!(folder.packs[0].starts_with(b"BZh9\x31\x41\x59\x26\x53\x59"));
    folder.packs[0][10] ^= 1;
    assert!(collect(&SevenWriter::new([folder]).build()).has_payload());
}

#[test]
fn decoders_that_are_connected_in_a_circle_end() {
    let coder = CoderSpec(&[0], 1, Vec::new());
    let two = CoderSpec(&[3, 3, 1, 0x1b], 2, Vec::new());
    let base = FolderSpec::copied(&[(NAME, b"content")]);
    let circle = FolderSpec {
        coders: vec![coder.clone(), coder.clone(), coder],
        bonds: vec![(0, 1), (1, 1)],
        sizes: vec![7; 3],
        ..base.clone()
    };
    let same = FolderSpec {
        coders: vec![two, CoderSpec(&[0], 1, Vec::new())],
        bonds: vec![(0, 1)],
        sizes: vec![7; 2],
        packs: vec![b"content".to_vec(), b"content".to_vec()],
        ..base
    };
    for folder in [circle, same] {
        let collected = collect(&SevenWriter::new([folder]).build());
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
    }
}

#[test]
fn counts_without_content_take_little_time() {
    let start = Instant::now();
    // Four billion files and folders in a header of a few bytes.
    for header in [
        [&[0x01, 0x05][..], &number(u64::from(u32::MAX)), &[0, 0]].concat(),
        [&[0x01, 0x04, 0x07, 0x0b], &*number(u64::MAX >> 1), &[0, 0, 0]].concat(),
        [&[0x01, 0x04, 0x06, 0x00], &*number(u64::MAX >> 1), &[0x09, 1, 0]].concat(),
    ] {
        collect(&archive(&[], &header));
    }
    // Compressed headers in each other.
    let mut bytes = SevenWriter::new([FolderSpec::lzma(&[(NAME, &payload())])]);
    bytes.header_folder = Some(|header| FolderSpec::lzma(&[("", header)]));
    assert!(collect(&bytes.build()).has_payload());
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn windows_of_nested_archives_count_as_memory() {
    // Each level has a window of the size of its content.
    let mut bytes = SevenWriter::new([FolderSpec::lzma2(&[("x", &vec![b'x'; 60_000])])]).build();
    for _ in 0..3 {
        let mut padded = bytes.clone();
        padded.resize(padded.len() + 60_000, 0);
        bytes = SevenWriter::new([FolderSpec::lzma2(&[("inner.7z", &padded)])]).build();
    }
    let settings = UnpackSettings { max_file: 150_000, ..UnpackSettings::default() };
    let collected = collect_within(&bytes, &settings);
    assert!(collected.notes.is_empty(), "{collected:?}");
}
