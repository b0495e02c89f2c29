//! Zip files of all variants, with the payload.

use std::io::Write;

use lzma_rust2::{LzmaOptions, LzmaWriter, XzOptions, XzWriter};
use ppmd_rust::{Ppmd8Encoder, RestoreMethod};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::writer::{ZipEntrySpec, ZipFields, ZipWriter, deflate, stored_zip, zip};
use crate::{
    report::NoteKind,
    unpack::tests::{ContainerSample, Expected, payload},
};

/// Name of the payload's entry.
const NAME: &str = "payload.txt";

/// All variants.
pub(crate) fn samples() -> Vec<ContainerSample> {
    let parts = [methods(), sizes(), differing(), directories(), local_headers(), surrounded()];
    let mut samples: Vec<_> = parts.into_iter().flatten().collect();
    samples.extend(names());
    samples.extend(nested());
    samples.extend(others());
    samples
}

fn sample(name: &str, writer: &ZipWriter) -> ContainerSample {
    ContainerSample::payload(format!("zip-{name}"), writer.build())
}

/// A file with one entry.
fn one(name: &str, entry: ZipEntrySpec) -> ContainerSample {
    sample(name, &ZipWriter::new([entry]))
}

fn stored() -> ZipEntrySpec {
    ZipEntrySpec::stored(NAME, &payload())
}

fn deflated() -> ZipEntrySpec {
    ZipEntrySpec::deflated(NAME, &payload())
}

fn other() -> ZipEntrySpec {
    ZipEntrySpec::deflated("other.txt", b"something else")
}

fn packed(method: u16, data: Vec<u8>) -> ZipEntrySpec {
    ZipEntrySpec::packed(NAME, method, data, &payload())
}

/// The payload by LZMA with the header of zip.
fn lzma(has_marker: bool) -> Vec<u8> {
    let options = LzmaOptions::with_preset(1);
    let mut writer = LzmaWriter::new_no_header(Vec::new(), &options, has_marker).unwrap();
    writer.write_all(&payload()).unwrap();
    let mut data = vec![9, 20, 5, 0, writer.props()];
    data.extend(options.dict_size.to_le_bytes());
    data.extend(writer.finish().unwrap());
    data
}

pub(super) fn methods() -> Vec<ContainerSample> {
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    bzip2.write_all(&payload()).unwrap();
    let mut xz = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).unwrap();
    xz.write_all(&payload()).unwrap();
    let zstd = compress_to_vec(&payload()[..], CompressionLevel::Fastest);
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 7, 7][..], &zstd].concat();
    let known_size = lzma(false);
    let too_small = packed(14, known_size.clone()).both(|fields| fields.size = 10);
    vec![
        one("stored", stored()),
        one("deflate", deflated()),
        // Without matches of 258 bytes, deflate and deflate64 are the same.
        one("deflate64", packed(9, deflate(&payload()))),
        one("bzip2", packed(12, bzip2.finish().unwrap())),
        one("lzma", packed(14, known_size)),
        one("lzma-marker", packed(14, lzma(true)).both(|fields| fields.flags |= 2)),
        one("lzma-false-size", too_small),
        one("lzma-false-marker", packed(14, lzma(false)).both(|fields| fields.flags |= 2)),
        one("zstd", packed(93, zstd.clone())),
        one("zstd-old-number", packed(20, zstd)),
        one("zstd-skippable-frame", packed(93, skippable)),
        one("xz", packed(95, xz.finish().unwrap())),
        one("ppmd", packed(98, ppmd())),
        one("implode", packed(6, implode(false))),
        one("implode-literal-codes", packed(6, implode(true)).both(|fields| fields.flags |= 6)),
    ]
}

/// The payload by `PPMd` of order 6 with a memory of 1 MiB.
fn ppmd() -> Vec<u8> {
    let mut encoder = Ppmd8Encoder::new(Vec::new(), 6, 1 << 20, RestoreMethod::Restart).unwrap();
    encoder.write_all(&payload()).unwrap();
    [&[5, 0], &*encoder.finish(false).unwrap()].concat()
}

/// The payload by implode: literals, and one copy for the spaces at its end. All codes of a kind have the same length.
fn implode(has_literal_codes: bool) -> Vec<u8> {
    let mut bits: Vec<u8> = Vec::new();
    let number = |bits: &mut Vec<u8>, value: usize, length: usize| {
        bits.extend((0..length).map(|index| u8::from(value >> index & 1 == 1)));
    };
    // Codes are inverted, and their most significant bit is first.
    let code = |bits: &mut Vec<u8>, value: usize, length: usize| {
        bits.extend((0..length).rev().map(|index| u8::from(value >> index & 1 == 0)));
    };
    let content = payload();
    for byte in &content[..69] {
        number(&mut bits, 1, 1);
        if has_literal_codes {
            code(&mut bits, usize::from(*byte), 8);
        } else {
            number(&mut bits, usize::from(*byte), 8);
        }
    }
    // 59 spaces more.
    let (low_bits, min_length) = if has_literal_codes { (7, 3) } else { (6, 2) };
    number(&mut bits, 0, 1);
    number(&mut bits, 0, low_bits);
    code(&mut bits, 0, 6);
    code(&mut bits, 59 - min_length, 6);
    // Runs of 16 codes of the same length.
    let codes =
        |count: u8, length: u8| [vec![count - 1], vec![0xf0 | (length - 1); count.into()]].concat();
    let mut data = if has_literal_codes { codes(16, 8) } else { Vec::new() };
    data.extend([codes(4, 6), codes(4, 6)].concat());
    data.extend(
        bits.chunks(8).map(|chunk| {
            chunk.iter().enumerate().fold(0, |byte, (index, bit)| byte | bit << index)
        }),
    );
    data
}

pub(super) fn sizes() -> Vec<ContainerSample> {
    // The zip64 extra field has both sizes.
    let zip64 = deflated().both(|fields| {
        let sizes = [fields.size, fields.compressed].map(|size| u64::from(size).to_le_bytes());
        fields.extra = [&[1, 0, 16, 0], &sizes.concat()[..]].concat();
        (fields.size, fields.compressed) = (u32::MAX, u32::MAX);
    });
    let cut = |fields: &mut ZipFields| fields.compressed = 5;
    let small = |fields: &mut ZipFields| fields.size = 5;
    let large = |fields: &mut ZipFields| (fields.size, fields.compressed) = (9999, 9999);
    let padded = [&deflate(&payload())[..], &[7; 100]].concat();
    vec![
        one("zip64-sizes", zip64),
        one("descriptor", deflated().streamed(true)),
        one("descriptor-without-signature", deflated().streamed(false)),
        one("descriptor-stored", stored().streamed(true)),
        one("false-length-deflate", deflated().both(cut)),
        one("false-length-deflate-directory", deflated().central(cut)),
        one("false-length-deflate-local", deflated().local(cut)),
        one("false-length-stored", stored().both(cut)),
        one("false-length-stored-directory", stored().central(cut)),
        one("false-length-stored-local", stored().local(cut)),
        one("false-length-zero", deflated().both(|fields| fields.compressed = 0)),
        one("false-length-zero-stored", stored().both(|fields| fields.compressed = 0)),
        one("false-size", deflated().both(small)),
        one("false-size-stored", stored().both(small)),
        one("beyond-the-end-deflate", deflated().both(large)),
        one("beyond-the-end-stored", stored().both(large)),
        one("padded-stream", packed(8, padded)),
    ]
}

pub(super) fn differing() -> Vec<ContainerSample> {
    let encrypted = |fields: &mut ZipFields| fields.flags |= 1;
    let strong = |fields: &mut ZipFields| fields.flags |= 1 << 13 | 1 << 6;
    let no_data = |fields: &mut ZipFields| {
        (fields.method, fields.crc, fields.compressed, fields.size) = (0, 0, 0, 0);
    };
    let directory = |entry: ZipEntrySpec| {
        entry.streamed(true).central(no_data).both(|fields| fields.name = b"payload/".to_vec())
    };
    let is = |method: u16| move |fields: &mut ZipFields| fields.method = method;
    vec![
        one("wrong-crc", deflated().both(|fields| fields.crc ^= 1)),
        one("wrong-crc-stored", stored().both(|fields| fields.crc ^= 1)),
        one("false-encrypted", deflated().both(encrypted)),
        one("false-encrypted-stored", stored().both(encrypted)),
        one("false-encrypted-directory", deflated().central(encrypted)),
        one("false-encrypted-local", stored().local(encrypted)),
        one("false-encrypted-strong", deflated().both(strong)),
        one("method-directory-false", deflated().central(is(0))),
        one("method-local-false", deflated().local(is(0))),
        one("method-stored-directory-false", stored().central(is(8))),
        one("method-stored-local-false", stored().local(is(8))),
        one("method-directory-unknown", deflated().central(is(77))),
        one("method-local-unknown", deflated().local(is(77))),
        one("streamed-local-only", deflated().streamed(true).central(no_data)),
        one("streamed-local-only-directory", directory(deflated())),
        one("streamed-local-only-stored", directory(stored())),
        one("size-local-false", deflated().local(|fields| fields.size = 9)),
        one("method-directory-aes", deflated().central(is(99))),
    ]
}

pub(super) fn directories() -> Vec<ContainerSample> {
    let good = ZipWriter::new([stored()]).build();
    let bad = ZipWriter::new([other()]).build();
    let both = |first: &[u8], last: &[u8]| [first, last].concat();
    let with_comment = |entry: ZipEntrySpec, comment: Vec<u8>| {
        let writer = ZipWriter { comment, ..ZipWriter::new([entry]) };
        writer.build()
    };
    let writer = ZipWriter::new([other(), stored()]);
    let one_record = u32::try_from(46 + other().central.unwrap().name.len()).unwrap();
    let of = |name: &str, bytes| ContainerSample::payload(format!("zip-{name}"), bytes);
    let [two_zip64, junk] = hidden_by_directory();
    vec![
        of("two-zip64-ends", two_zip64),
        of("junk-in-directory", junk),
        sample("zip64-end", &ZipWriter { has_zip64_end: true, ..writer.clone() }),
        of("two-directories-first-bad", both(&bad, &good)),
        of("two-directories-last-bad", both(&good, &bad)),
        of("archive-in-comment", with_comment(other(), good.clone())),
        of("archive-as-comment-bad", with_comment(stored(), bad.clone())),
        of("end-in-comment", with_comment(stored(), bad[bad.len() - 22..].to_vec())),
        sample("hidden-record-by-number", &ZipWriter { stated_entries: Some(1), ..writer.clone() }),
        sample(
            "hidden-record-by-size",
            &ZipWriter { stated_size: Some(one_record), ..writer.clone() },
        ),
        sample("false-number-zero", &ZipWriter { stated_entries: Some(0), ..writer.clone() }),
        sample("false-number-large", &ZipWriter { stated_entries: Some(99), ..writer.clone() }),
        sample("false-disk", &ZipWriter { disk: 3, ..writer.clone() }),
        sample("false-comment-length", &ZipWriter { stated_comment: Some(999), ..writer.clone() }),
        of(
            "empty-directory",
            both(&writer.build_without_directory(), &ZipWriter::default().build()),
        ),
        sample("duplicate-names", &ZipWriter::new([ZipEntrySpec::stored(NAME, b"no"), stored()])),
        sample(
            "many",
            &ZipWriter::new(
                (0..999).map(|i| ZipEntrySpec::deflated(format!("{i}"), b"x")).chain([deflated()]),
            ),
        ),
    ]
}

/// Returns archives with a directory that only some programs find. The local header has no name, so that it is not found
/// without the directory.
fn hidden_by_directory() -> [Vec<u8>; 2] {
    let nameless = stored().local(|fields| fields.name.clear());
    let local = ZipWriter::new([nameless.clone()]).build_without_directory();
    let archive = ZipWriter { prefix: b"text".to_vec(), ..ZipWriter::new([nameless]) }.build();
    let end = archive.len() - 22;
    let start = 4 + local.len();
    // Bytes before the directory that its size counts.
    let mut junk = [&archive[..start], &[b'j'; 10], &archive[start..]].concat();
    junk[end + 10 + 12] += 10;

    // The locator refers to the zip64 record of another directory, before the directory of the payload.
    let outer = ZipEntrySpec::stored("a.txt", &archive[..start]);
    let mut two = ZipWriter { has_zip64_end: true, ..ZipWriter::new([outer]) }.build();
    let (record, locator) = (two.len() - 22 - 20 - 56, two.len() - 22 - 20);
    let mut second = two[record..locator].to_vec();
    let size = u64::try_from(end - start).unwrap();
    second[40..48].copy_from_slice(&size.to_le_bytes());
    second[48..56].copy_from_slice(&(locator as u64).to_le_bytes());
    let mut central = archive[start..end].to_vec();
    // The archive is the file with the name `a.txt`.
    central[42..46].copy_from_slice(&(4_u32 + 30 + 5).to_le_bytes());
    two.splice(locator..locator, [central, second].concat());
    [two, junk]
}

pub(super) fn local_headers() -> Vec<ContainerSample> {
    let listed = |entry: ZipEntrySpec| ZipWriter::new([entry.unlisted(), other()]);
    let without = |name: &str, entries: &[ZipEntrySpec]| {
        let bytes = ZipWriter::new(entries.to_vec()).build_without_directory();
        ContainerSample::payload(format!("zip-{name}"), bytes)
    };
    let no_length = |fields: &mut ZipFields| (fields.size, fields.compressed) = (0, 0);
    let last = ZipWriter::new([other(), deflated().unlisted()]);
    let hidden = ZipWriter::new([deflated().unlisted()]).build_without_directory();
    let in_gap = ZipWriter { before_directory: hidden.clone(), ..ZipWriter::new([other()]) };
    // The directory states a length that covers the entry after it.
    let covering = other().central(|fields| fields.compressed += 300);
    let no_signature = ZipEntrySpec { signature: *b"JUNK", ..deflated() };
    vec![
        sample("unlisted", &listed(deflated())),
        sample("unlisted-stored", &listed(stored())),
        sample(
            "unlisted-streamed-after-prefix",
            &ZipWriter {
                prefix: b"other content".to_vec(),
                is_relative: true,
                ..listed(deflated().streamed(true))
            },
        ),
        sample("unlisted-streamed", &listed(deflated().streamed(true))),
        sample("unlisted-stored-streamed", &listed(stored().streamed(true))),
        sample("unlisted-stored-streamed-without-signature", &listed(stored().streamed(false))),
        sample("unlisted-false-length", &listed(deflated().local(no_length))),
        sample("unlisted-false-encrypted", &listed(stored().local(|fields| fields.flags |= 1))),
        sample("unlisted-last", &last),
        sample("unlisted-in-gap", &in_gap),
        sample("unlisted-covered", &ZipWriter::new([covering, stored().unlisted(), other()])),
        sample("unlisted-after-end", &ZipWriter { suffix: hidden, ..ZipWriter::new([other()]) }),
        without("no-directory", &[stored()]),
        without("no-directory-streamed", &[other(), deflated().streamed(true), other()]),
        without(
            "no-directory-nested",
            &[ZipEntrySpec::stored("a.zip", &stored_zip(&[(NAME, &payload())]))],
        ),
        one("without-local-signature", no_signature),
    ]
}

/// Files with something around the archive.
pub(super) fn surrounded() -> Vec<ContainerSample> {
    let zip = ZipWriter::new([deflated()]);
    let program = [&b"MZ"[..], &[0x90; 3000]].concat();
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[0; 300]].concat();
    let truncated = zip.build()[..zip.build().len() - 60].to_vec();
    let relative =
        |prefix: &[u8]| ZipWriter { prefix: prefix.to_vec(), is_relative: true, ..zip.clone() };
    let zip64 = ZipWriter { has_zip64_end: true, ..relative(b"#!/bin/sh\n") };
    let suffix = |length: usize| ZipWriter { suffix: vec![b'.'; length], ..zip.clone() };
    let behind_prefix = ZipWriter { suffix: vec![0; 60_000], ..relative(&png) };
    vec![
        sample("self-extracting", &ZipWriter { prefix: program.clone(), ..zip.clone() }),
        sample("self-extracting-relative", &relative(&program)),
        sample("self-extracting-zip64", &zip64),
        sample("png", &relative(&png)),
        sample("png-suffix", &behind_prefix),
        sample("suffix", &suffix(100)),
        sample("suffix-long", &suffix(200_000)),
        sample("split-marker", &ZipWriter { prefix: b"PK00".to_vec(), ..zip.clone() }),
        sample("split-marker-7-8", &ZipWriter { prefix: b"PK\x07\x08".to_vec(), ..zip.clone() }),
        ContainerSample::payload("zip-truncated", truncated),
    ]
}

pub(super) fn names() -> Vec<ContainerSample> {
    let mut unicode = vec![0x75, 0x70, 16, 0, 1, 0, 0, 0, 0];
    unicode.extend(b"payload.exe");
    let named = |name: &[u8]| ZipEntrySpec::stored(name, &payload());
    vec![
        one("absolute-name", named(b"/etc/payload.txt")),
        one("parent-name", named(b"../../payload.txt")),
        one("backslash-name", named(b"a\\b\\payload.txt")),
        one("drive-name", named(b"C:\\payload.txt")),
        one("zero-in-name", named(b"payload.exe\0.txt")),
        one("empty-name", named(b"")),
        one("long-name", named(&[b'n'; 60_000])),
        one("directory-with-content", named(b"payload/")),
        one("directory-with-content-deflate", ZipEntrySpec::deflated("payload/", &payload())),
        one("names-differ", stored().local(|fields| fields.name = b"payload.exe".to_vec())),
        one("unicode-path", stored().both(|fields| fields.extra.clone_from(&unicode))),
    ]
}

/// Returns the payload in `depth` archives.
pub(super) fn nest(depth: u32, is_stored: bool) -> Vec<u8> {
    let pack = if is_stored { stored_zip } else { zip };
    (0..depth).fold(payload(), |inner, level| {
        pack(&[(if level == 0 { NAME } else { "inner.zip" }, &inner)])
    })
}

fn nested() -> Vec<ContainerSample> {
    let mut samples = Vec::new();
    for depth in [1, 2, 3, 5, 8, 10, 11, 12] {
        samples.push(ContainerSample::payload(format!("zip-depth-{depth}"), nest(depth, false)));
        samples
            .push(ContainerSample::payload(format!("zip-depth-{depth}-stored"), nest(depth, true)));
    }
    for depth in [13, 17, 20, 40] {
        let limit = Expected::Note(NoteKind::Limit);
        samples.push(ContainerSample::new(format!("zip-depth-{depth}"), nest(depth, false), limit));
    }
    samples
}

/// Files without the payload.
fn others() -> Vec<ContainerSample> {
    let note = |name: &str, entry: ZipEntrySpec, kind| {
        ContainerSample::new(
            format!("zip-{name}"),
            ZipWriter::new([entry]).build(),
            Expected::Note(kind),
        )
    };
    let random: Vec<u8> =
        payload().iter().zip(1_u8..).map(|(byte, i)| byte ^ i.wrapping_mul(37)).collect();
    let zipcrypto = packed(8, random.clone()).both(|fields| fields.flags |= 1);
    let aes = packed(99, random.clone()).both(|fields| fields.flags |= 1);
    let method = |method| packed(method, random.clone());
    let entries = (0..200_000).map(|i| ZipEntrySpec::stored(format!("{i}"), b""));
    let many = ZipWriter::new(entries).build();
    vec![
        note("zipcrypto", zipcrypto, NoteKind::Encrypted),
        note("aes", aes, NoteKind::Encrypted),
        note("shrink", method(1), NoteKind::Unreadable),
        note("damaged-implode", method(6), NoteKind::Unreadable),
        // 256 MiB.
        note("ppmd-memory", packed(98, vec![0xf5, 0x0f, 0, 0, 0, 0]), NoteKind::Limit),
        ContainerSample::new("zip-200000", many, Expected::Note(NoteKind::Limit)),
        ContainerSample::new(
            "zip-clean",
            zip(&[("a.txt", b"a"), ("b/c.txt", b"c")]),
            Expected::Clean,
        ),
    ]
}
