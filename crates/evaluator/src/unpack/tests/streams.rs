//! Compressed streams. gzip, bzip2, xz, lz4 and zstd decompress the written files.

use std::io::Write as _;

use flate2::{Compression, GzBuilder, write::GzEncoder};
use lzma_rust2::{LzipOptions, LzipWriter, LzmaOptions, LzmaWriter, XzOptions, XzWriter};
use proptest::{collection::vec, prelude::*};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::{ContainerSample, Expected, collect, payload, zip::stored_zip};
use crate::report::NoteKind;

/// Compresses to a gzip member without a name.
pub(super) fn gzip(content: &[u8]) -> Vec<u8> {
    gzip_with(GzBuilder::new(), content)
}

fn gzip_with(header: GzBuilder, content: &[u8]) -> Vec<u8> {
    let mut writer: GzEncoder<_> = header.write(Vec::new(), Compression::default());
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

pub(super) fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut writer = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

pub(super) fn xz(content: &[u8], dictionary: u32) -> Vec<u8> {
    let mut options = XzOptions::with_preset(1);
    options.lzma_options.dict_size = dictionary;
    let mut writer = XzWriter::new(Vec::new(), options).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn lzip(content: &[u8]) -> Vec<u8> {
    let mut writer = LzipWriter::new(Vec::new(), LzipOptions::with_preset(1));
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

/// Writes `.lzma`, with a marker at the end or with the length in the header.
fn lzma(content: &[u8], has_length: bool) -> Vec<u8> {
    let length = has_length.then_some(content.len() as u64);
    let options = LzmaOptions::with_preset(1);
    let mut writer = LzmaWriter::new_use_header(Vec::new(), &options, length).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn with_dictionary(mut lzma: Vec<u8>, dictionary: u32) -> Vec<u8> {
    lzma[1..5].copy_from_slice(&dictionary.to_le_bytes());
    lzma
}

pub(super) fn zstd(content: &[u8]) -> Vec<u8> {
    compress_to_vec(content, CompressionLevel::Fastest)
}

/// Writes a frame with one uncompressed block, as in RFC 8878, section 3.1.1.
fn zstd_with_window(content: &[u8], window_descriptor: u8) -> Vec<u8> {
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window_descriptor];
    let header = (u32::try_from(content.len()).unwrap() << 3 | 1).to_le_bytes();
    frame.extend_from_slice(&header[..3]);
    frame.extend_from_slice(content);
    frame
}

fn skippable(length: u32) -> Vec<u8> {
    let mut frame = 0x184D_2A57_u32.to_le_bytes().to_vec();
    frame.extend_from_slice(&length.to_le_bytes());
    frame.resize(8 + length as usize, b'x');
    frame
}

fn lz4(content: &[u8], info: lz4_flex::frame::FrameInfo) -> Vec<u8> {
    let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
    writer.write_all(content).unwrap();
    writer.finish().unwrap()
}

fn plain_lz4(content: &[u8]) -> Vec<u8> {
    lz4(content, lz4_flex::frame::FrameInfo::new())
}

fn lz4_legacy(contents: &[&[u8]]) -> Vec<u8> {
    let mut frame = 0x184C_2102_u32.to_le_bytes().to_vec();
    for content in contents {
        let block = lz4_flex::block::compress(content);
        frame.extend_from_slice(&u32::try_from(block.len()).unwrap().to_le_bytes());
        frame.extend_from_slice(&block);
    }
    frame
}

fn changed(mut bytes: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    bytes[offset] = value;
    bytes
}

fn truncated(mut bytes: Vec<u8>, removed: usize) -> Vec<u8> {
    bytes.truncate(bytes.len() - removed);
    bytes
}

/// Bytes that compress badly.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    std::iter::repeat_with(&mut next).take(length).collect()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let groups = [gzip_samples(), bzip2_samples(), xz_samples(), zstd_samples(), lz4_samples()];
    groups.into_iter().flatten().collect()
}

fn gzip_samples() -> Vec<ContainerSample> {
    let content = payload();
    let full = GzBuilder::new().filename("setup.exe").comment("a").extra(b"BC\x02\0\0\0".to_vec());
    let named = gzip_with(GzBuilder::new().filename("setup.exe"), &content);
    let member = gzip(&content);
    let last = member.len() - 1;
    // A header checksum after the header, which the encoder does not write.
    let header_checksum = [&changed(member.clone(), 3, 2)[..10], &[1, 2], &member[10..]].concat();
    vec![
        ContainerSample::payload("gz/plain.gz", member.clone()),
        ContainerSample::payload("gz/old-magic.gz", changed(member.clone(), 1, 0x9e)),
        ContainerSample::payload("gz/name.gz", named),
        ContainerSample::payload("gz/all-fields.gz", gzip_with(full, &content)),
        ContainerSample::payload("gz/header-checksum-wrong.gz", header_checksum),
        ContainerSample::payload("gz/reserved-flags.gz", changed(member.clone(), 3, 0xe0)),
        ContainerSample::payload("gz/checksum-wrong.gz", changed(member.clone(), last - 6, 0)),
        ContainerSample::payload("gz/size-wrong.gz", changed(member.clone(), last, 9)),
        ContainerSample::payload("gz/truncated.gz", truncated(member.clone(), 10)),
        ContainerSample::payload("gz/no-trailer.gz", truncated(member.clone(), 8)),
        ContainerSample::payload("gz/garbage-after.gz", [&member[..], b"garbage"].concat()),
        ContainerSample::payload("gz/zeros-after.gz", [&member[..], &[0; 512]].concat()),
        ContainerSample::payload(
            "gz/two-members.gz",
            [&content[..20], &content[20..]].map(gzip).concat(),
        ),
        ContainerSample::payload(
            "gz/zeros-between.gz",
            [gzip(&content[..9]), vec![0; 7], gzip(&content[9..])].concat(),
        ),
        ContainerSample::payload("gz/empty-member-first.gz", [gzip(b""), member.clone()].concat()),
        ContainerSample::payload(
            "gz/checksum-wrong-first.gz",
            [changed(gzip(&content[..9]), 22, 1), gzip(&content[9..])].concat(),
        ),
        ContainerSample::payload("gz/in-gz.gz", gzip(&member)),
        ContainerSample::new(
            "gz/second-member.gz",
            [gzip(b"text "), member].concat(),
            Expected::Clean,
        ),
    ]
}

fn bzip2_samples() -> Vec<ContainerSample> {
    let content = payload();
    let stream = bzip2(&content);
    vec![
        ContainerSample::payload("bz2/plain.bz2", stream.clone()),
        ContainerSample::payload(
            "bz2/two-streams.bz2",
            [&content[..20], &content[20..]].map(bzip2).concat(),
        ),
        ContainerSample::payload(
            "bz2/empty-stream-first.bz2",
            [bzip2(b""), stream.clone()].concat(),
        ),
        ContainerSample::payload("bz2/garbage-after.bz2", [&stream[..], b"garbage"].concat()),
        ContainerSample::payload(
            "bz2/checksum-wrong.bz2",
            changed(stream.clone(), stream.len() - 2, 0),
        ),
        ContainerSample::payload("bz2/no-end.bz2", truncated(stream, 4)),
    ]
}

fn xz_samples() -> Vec<ContainerSample> {
    let content = payload();
    let stream = xz(&content, 1 << 20);
    let member = lzip(&content);
    let large = u32::MAX - 15;
    // Check type 2, and the checksum of the flags.
    let mut unknown_check = stream.clone();
    unknown_check[6..12].copy_from_slice(&[0, 2, 0xd3, 0x73, 0xd7, 0xaf]);
    vec![
        ContainerSample::payload("xz/plain.xz", stream.clone()),
        ContainerSample::payload(
            "xz/two-streams.xz",
            [&content[..20], &content[20..]].map(|part| xz(part, 4096)).concat(),
        ),
        ContainerSample::payload("xz/padding.xz", [&stream[..], &[0; 8]].concat()),
        ContainerSample::payload(
            "xz/padding-between.xz",
            [xz(&content[..9], 4096), vec![0; 4], xz(&content[9..], 4096)].concat(),
        ),
        ContainerSample::payload("xz/garbage-after.xz", [&stream[..], b"garbage"].concat()),
        ContainerSample::payload("xz/unknown-check.xz", unknown_check),
        ContainerSample::payload(
            "xz/checksum-wrong.xz",
            changed(stream.clone(), stream.len() - 30, 0),
        ),
        ContainerSample::payload("xz/no-footer.xz", truncated(stream, 12)),
        ContainerSample::payload("lzip/plain.lz", member.clone()),
        ContainerSample::payload(
            "lzip/two-members.lz",
            [&content[..20], &content[20..]].map(lzip).concat(),
        ),
        ContainerSample::payload(
            "lzip/checksum-wrong.lz",
            changed(member.clone(), member.len() - 20, 0),
        ),
        ContainerSample::payload("lzip/no-trailer.lz", truncated(member, 20)),
        ContainerSample::payload("lzma/marker.lzma", lzma(&content, false)),
        ContainerSample::payload("lzma/length.lzma", lzma(&content, true)),
        ContainerSample::payload(
            "lzma/odd-dictionary.lzma",
            with_dictionary(lzma(&content, true), 1_234_567),
        ),
        ContainerSample::payload(
            "lzma/large-dictionary.lzma",
            with_dictionary(lzma(&content, false), u32::MAX),
        ),
        ContainerSample::payload(
            "lzma/huge-dictionary.lzma",
            with_dictionary(lzma(&content, false), large),
        ),
        ContainerSample::payload(
            "lzma/garbage-after.lzma",
            [lzma(&content, false), vec![7; 100]].concat(),
        ),
        ContainerSample::payload(
            "lzma/zip-after.lzma",
            [lzma(&content, true), stored_zip(&[("a.txt", b"harmless")])].concat(),
        ),
        ContainerSample::payload("lzma/truncated.lzma", truncated(lzma(&content, false), 9)),
    ]
}

fn zstd_samples() -> Vec<ContainerSample> {
    let content = payload();
    let frame = zstd(&content);
    let empty_block =
        [&zstd_with_window(b"", 0)[..6], &[0, 0, 0], &zstd_with_window(&content, 0)[6..]];
    let cut = [&zstd_with_window(&content, 0)[..6], &[0, 4, 0], &content, &[5; 9]].concat();
    vec![
        ContainerSample::payload("zstd/plain.zst", frame.clone()),
        ContainerSample::payload(
            "zstd/two-frames.zst",
            [&content[..20], &content[20..]].map(zstd).concat(),
        ),
        ContainerSample::payload(
            "zstd/skippable-first.zst",
            [skippable(5), skippable(0), frame.clone()].concat(),
        ),
        ContainerSample::payload(
            "zstd/skippable-many.zst",
            [skippable(1).repeat(99), frame.clone()].concat(),
        ),
        ContainerSample::payload(
            "zstd/skippable-between.zst",
            [zstd(&content[..9]), skippable(3), zstd(&content[9..])].concat(),
        ),
        ContainerSample::payload("zstd/garbage-after.zst", [&frame[..], b"garbage"].concat()),
        ContainerSample::payload("zstd/empty-block-first.zst", empty_block.concat()),
        ContainerSample::payload("zstd/large-window.zst", zstd_with_window(&content, 21 << 3)),
        ContainerSample::payload("zstd/block-truncated.zst", cut),
        ContainerSample::new(
            "zstd/old.zst",
            [&[0x27], &frame[1..]].concat(),
            Expected::Note(NoteKind::Unreadable),
        ),
    ]
}

fn lz4_samples() -> Vec<ContainerSample> {
    use lz4_flex::frame::{BlockMode, FrameInfo};
    let content = payload();
    let frame = plain_lz4(&content);
    let checked = FrameInfo::new().block_checksums(true).content_checksum(true);
    let long = [&content[..], &noise(300_000)].concat();
    let linked =
        FrameInfo::new().block_mode(BlockMode::Linked).content_size(Some(long.len() as u64));
    // An empty stored block before the first block.
    let empty_block = [&frame[..7], &[0, 0, 0, 0x80], &frame[7..]].concat();
    vec![
        ContainerSample::payload("lz4/plain.lz4", frame.clone()),
        ContainerSample::payload("lz4/checksums.lz4", lz4(&content, checked)),
        ContainerSample::payload("lz4/linked-blocks.lz4", lz4(&long, linked)),
        ContainerSample::payload(
            "lz4/two-frames.lz4",
            [&content[..20], &content[20..]].map(plain_lz4).concat(),
        ),
        ContainerSample::payload("lz4/skippable-first.lz4", [skippable(5), frame.clone()].concat()),
        ContainerSample::payload(
            "lz4/skippable-many.lz4",
            [skippable(1).repeat(99), frame.clone()].concat(),
        ),
        ContainerSample::payload(
            "lz4/skippable-between.lz4",
            [plain_lz4(&content[..9]), skippable(3), plain_lz4(&content[9..])].concat(),
        ),
        ContainerSample::payload("lz4/empty-block-first.lz4", empty_block),
        ContainerSample::payload("lz4/no-end.lz4", truncated(frame.clone(), 4)),
        ContainerSample::payload("lz4/truncated.lz4", truncated(plain_lz4(&long), 200_000)),
        ContainerSample::payload("lz4/legacy.lz4", lz4_legacy(&[&content[..20], &content[20..]])),
        ContainerSample::payload(
            "lz4/legacy-twice.lz4",
            [&content[..20], &content[20..]].map(|part| lz4_legacy(&[part])).concat(),
        ),
        ContainerSample::payload("lz4/garbage-after.lz4", [&frame[..], b"garbage"].concat()),
    ]
}

#[test]
fn streams_are_unpacked() {
    samples().iter().for_each(ContainerSample::check);
}

#[test]
fn complete_streams_cause_no_notes() {
    for compress in [
        gzip,
        bzip2,
        lzip,
        zstd,
        plain_lz4,
        |content: &[u8]| xz(content, 1 << 26),
        |content: &[u8]| lzma(content, true),
    ] {
        for content in [b"".to_vec(), payload(), noise(100_000), vec![0; 600_000]] {
            let collected = collect(&compress(&content));
            assert!(collected.notes.is_empty(), "{collected:?}");
            if !content.is_empty() {
                assert_eq!(collected.objects.last().unwrap().1, content);
            }
        }
    }
}

#[test]
fn damage_is_noted_after_the_content() {
    for sample in samples() {
        let is_damaged = [
            "wrong.",
            "wrong-first",
            "truncated",
            "no-trailer",
            "no-end",
            "no-footer",
            "unknown-check",
        ]
        .iter()
        .any(|name| sample.name.contains(name));
        let is_noted = collect(&sample.bytes).note(NoteKind::Unreadable).is_some();
        // Checksums of headers are not verified.
        if !sample.name.contains("header-checksum") && !sample.name.contains("old") {
            assert_eq!(is_noted, is_damaged, "{}: {:?}", sample.name, collect(&sample.bytes));
        }
    }
}

#[test]
fn first_member_is_also_a_file() {
    let collected = collect(&[gzip(b"first, "), gzip(b"second")].concat());
    let contents: Vec<_> =
        collected.objects[1..].iter().map(|(_, bytes)| bytes.as_slice()).collect();
    assert_eq!(contents, [&b"first, second"[..], b"first, "]);
    assert_eq!(collected.paths(), ["content", "first member"]);
}

#[test]
fn name_in_header_is_reported() {
    let collected = collect(&gzip_with(GzBuilder::new().filename("dir/setup.exe"), &payload()));
    assert_eq!(collected.paths(), ["dir/setup.exe"]);
}

/// Writes the start of an xz stream with a dictionary of `3 << (property / 2 + 10)` or half of that, and chunks that are
/// not compressed.
fn xz_of_chunks(property: u8, chunks: usize) -> Vec<u8> {
    let mut stream = vec![0xfd, b'7', b'z', b'X', b'Z', 0, 0, 0, 0xff, 0x12, 0xd9, 0x41];
    let header = [2, 0, 0x21, 1, property, 0, 0, 0];
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    stream.extend_from_slice(&header);
    stream.extend_from_slice(&crc.sum().to_le_bytes());
    for chunk in 0..chunks {
        stream.extend_from_slice(&[if chunk == 0 { 1 } else { 2 }, 0xff, 0xff]);
        stream.resize(stream.len() + 0x1_0000, b'a');
    }
    stream
}

#[test]
fn streams_that_need_a_large_window_reach_a_limit() {
    // 64 MiB and 96 MiB.
    for (property, chunks, expected) in [
        (28, 520, NoteKind::Unreadable),
        (29, 10, NoteKind::Unreadable),
        (29, 520, NoteKind::Limit),
    ] {
        let collected = collect(&xz_of_chunks(property, chunks));
        assert!(collected.note(expected).is_some(), "{property} {chunks} {:?}", collected.notes);
        assert_eq!(collected.notes.len(), 1);
    }
    // A frame in one segment of 2^40 bytes.
    let single = [0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0];
    assert!(collect(&single).note(NoteKind::Limit).is_some());
}

#[test]
fn number_of_members_is_limited() {
    let collected = collect(&gzip(b"").repeat(70_000));
    assert!(collected.note(NoteKind::Limit).is_some());
}

#[test]
fn other_files_are_not_taken_for_lzma() {
    for start in [
        &[0_u8; 64][..],
        b"\x01\0\0\x01\0\x10\0\0\0\0\0\0\0\0",
        b"\x5d\0\0\x80\0\x10\0\0\0\0\0\0\0\0abcdefgh",
    ] {
        for rest in [vec![0; 5000], noise(5000), b"text ".repeat(1000)] {
            let collected = collect(&[start, &rest].concat());
            assert!(collected.notes.is_empty(), "{start:?} {:?}", collected.notes);
        }
    }
}

#[test]
fn truncated_streams_are_bounded() {
    for sample in samples() {
        for length in 0..sample.bytes.len().min(400) {
            collect(&sample.bytes[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_streams_are_bounded(
        index in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let samples = samples();
        let mut bytes = index.get(&samples).bytes.clone();
        for (offset, value) in changes {
            *offset.get_mut(&mut bytes) = value;
        }
        collect(&bytes);
    }
}
