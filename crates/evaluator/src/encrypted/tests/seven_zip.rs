//! Generated 7z archives.

use super::*;
use crate::encrypted::reader::crc32;

const AES: &[u8] = &[0x24, 0x06, 0xf1, 0x07, 0x01, 0];
const COPY: &[u8] = &[0x01, 0];
const SIGNATURE: &[u8] = b"7z\xbc\xaf\x27\x1c\0\x04";

/// Data before the header.
const BODY: &[u8] = b"data of the entries";

/// Builds an archive with a header.
fn archive(header: &[u8]) -> Vec<u8> {
    let fields = [BODY.len() as u64, header.len() as u64].map(u64::to_le_bytes).concat();
    let fields = [fields, crc32(header).to_le_bytes().to_vec()].concat();
    [SIGNATURE, &crc32(&fields).to_le_bytes(), &fields, BODY, header].concat()
}

/// Builds an archive with a folder of one coder, and properties before and after the required ones.
fn with_properties(before: &[u8], coder: &[u8], after: &[u8]) -> Vec<u8> {
    let pack_info = [&[0x06, 0, 1], before, &[0x09, 5], after, &[0]].concat();
    let folders = [&[0x07], before, &[0x0b, 1, 0, 1], coder].concat();
    let sizes = [before, &[0x0c, 5], after, &[0]].concat();
    archive(&[&[0x01, 0x04], &pack_info[..], &folders, &sizes, &[0, 0]].concat())
}

fn with_coder(coder: &[u8]) -> Vec<u8> {
    with_properties(b"", coder, b"")
}

#[test]
fn reads_method_as_big_endian_number() {
    assert_eq!(examine(&with_coder(AES)), Some(SevenZip));
    for zeros in 1..=11 {
        let id = [&vec![0; zeros][..], &[0x06, 0xf1, 0x07, 0x01]].concat();
        let flags = 0x20 | u8::try_from(id.len()).unwrap();
        let coder = [&[flags], &id[..], &[0]].concat();
        assert_eq!(examine(&with_coder(&coder)), Some(SevenZip), "{zeros}");
    }
    for plain in
        [COPY, &[0x03, 0x03, 0x01, 0x01], &[0x23, 0x04, 0x06, 0xf1, 0], &[0x02, 0x06, 0xef]]
    {
        assert_eq!(examine(&with_coder(plain)), None, "{plain:?}");
    }
}

#[test]
fn skips_unknown_properties() {
    for property in [&[0x19, 0][..], &[0x19, 3, 1, 2, 3], &[0x55, 1, 0], &[0x19, 0, 0x19, 1, 7]] {
        for (before, after) in [(property, &b""[..]), (b"", property), (property, property)] {
            assert_eq!(examine(&with_properties(before, AES, after)), Some(SevenZip));
            assert_eq!(examine(&with_properties(before, COPY, after)), None);
        }
    }
    // Archive properties, and digests of which the first is defined.
    let digests = [0x0a, 0, 0x80, 1, 2, 3, 4];
    assert_eq!(examine(&with_properties(b"", AES, &digests)), Some(SevenZip));
    let with_archive_properties = |coder: &[u8]| {
        let folders = [&[0x07, 0x0b, 1, 0, 1], coder, &[0x0c, 5, 0, 0, 0]].concat();
        archive(&[&[0x01, 0x02, 0x19, 2, 9, 9, 0, 0x04], &folders[..]].concat())
    };
    assert_eq!(examine(&with_archive_properties(AES)), Some(SevenZip));
    assert_eq!(examine(&with_archive_properties(COPY)), None);
}

#[test]
fn unreadable_header_counts_as_encrypted() {
    let external_folders = [0x01, 0x04, 0x07, 0x0b, 1, 1, 0];
    let additional_streams = [0x01, 0x03, 0x00, 0x04];
    for header in [
        &external_folders[..],
        &additional_streams,
        // Unknown types of headers and streams, an end in a number, no coders, a coder with reserved flags.
        &[0x02],
        &[0x01, 0x44],
        &[0x01, 0x04, 0x44],
        &[0x01, 0x04, 0x07, 0xff],
        &[0x01, 0x04, 0x07, 0x0b, 1, 0, 0],
        &[0x01, 0x04, 0x07, 0x0b, 1, 0, 1, 0x81, 0],
    ] {
        let bytes = archive(header);
        assert_eq!(examine(&bytes), Some(Unreadable), "{header:x?}");
        assert_eq!(examine(&[b"MZ", &bytes[..]].concat()), Some(Unreadable), "{header:x?}");
    }
    let bytes = with_coder(COPY);
    assert_eq!(examine(&bytes[..bytes.len() - 1]), Some(Unreadable), "first volume of several");
    // Entries without contents, and no entries.
    assert_eq!(examine(&archive(&[0x01, 0x05, 0])), None);
    assert_eq!(examine(&archive(&[])[..32]), None);
}

#[test]
fn damaged_start_header_counts_as_encrypted() {
    let bytes = with_coder(AES);
    let mut zero = bytes.clone();
    zero[8..32].fill(0);
    let mut damaged = bytes.clone();
    damaged[8] ^= 1;
    assert_eq!(examine(&zero), Some(Unreadable));
    assert_eq!(examine(&[b"MZ", &zero[..]].concat()), Some(Unreadable));
    assert_eq!(examine(&damaged), Some(Unreadable));
    // 7-Zip does not accept a signature with a damaged start header after other data.
    assert_eq!(examine(&[b"MZ", &damaged[..]].concat()), None);
    assert_eq!(examine(&[SIGNATURE, &[0; 24]].concat()), None, "no entries");
    assert_eq!(examine(&[&archive(&[])[..], b"data"].concat()), Some(Unreadable));
}

#[test]
fn finds_archive_in_search_range() {
    let bytes = with_coder(AES);
    let chunk = 256 * 1024;
    let across_chunks = (chunk - 10..chunk + 10).chain(2 * chunk - 20..2 * chunk);
    for length in across_chunks.chain([5 << 20, 8 << 20]) {
        assert_eq!(examine(&[&vec![1; length], &bytes[..]].concat()), Some(SevenZip), "{length}");
    }
    let beyond = [&vec![1; 9 << 20], &bytes[..]].concat();
    assert_eq!(examine(&beyond), None);
}

#[test]
fn parses_bounded_number_of_header_bytes() {
    // Many archives share one header with many folders.
    let folders: Vec<u8> = [1, 1, 0].repeat(200_000);
    let header = [&[0x01, 0x04, 0x07, 0x0b, 0xe0, 0x40, 0x0d, 0x03, 0], &folders[..]].concat();
    let count = 4000_u64;
    let mut bytes = Vec::new();
    for index in 1..=count {
        let fields = [32 * (count - index), header.len() as u64].map(u64::to_le_bytes).concat();
        let fields = [fields, vec![0; 4]].concat();
        bytes.extend([SIGNATURE, &crc32(&fields).to_le_bytes(), &fields].concat());
    }
    assert_eq!(examine(&[bytes, header].concat()), Some(Unbounded));
}
