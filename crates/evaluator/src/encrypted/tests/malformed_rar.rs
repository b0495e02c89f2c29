//! Generated RAR archives that extractors read in different ways, or only in part.

use super::*;
use crate::encrypted::reader::crc32;

const MARKER_4: &[u8] = b"Rar!\x1a\x07\x00";
const MARKER_5: &[u8] = b"Rar!\x1a\x07\x01\x00";

/// Builds a RAR 4 block.
fn block(kind: u8, flags: u16, rest: &[u8], data: &[u8]) -> Vec<u8> {
    let size = u16::try_from(7 + rest.len()).unwrap();
    let fields = [&[kind], &flags.to_le_bytes()[..], &size.to_le_bytes(), rest].concat();
    let crc = crc32(&fields).to_le_bytes();
    [&crc[..2], &fields, data].concat()
}

fn file_4(flags: u16) -> Vec<u8> {
    let rest = [&4_u32.to_le_bytes()[..], &[0; 21], b"a"].concat();
    block(0x74, flags | 0x8000, &rest, b"data")
}

fn rar_4(blocks: &[Vec<u8>]) -> Vec<u8> {
    [MARKER_4, &block(0x73, 0, &[0; 6], b""), &blocks.concat()].concat()
}

#[test]
fn follows_both_readings_of_data_size() {
    // A size field, read only by some extractors, whose value reaches beyond the end of the file.
    let far = [0, 0, 0, 0x7f, 0, 0];
    for kind in [0x75, 0x76, 0x79] {
        let bytes = rar_4(&[block(kind, 0x8000, &far, b""), file_4(4)]);
        assert_eq!(examine(&bytes), Some(Rar), "{kind:x}");
        let bytes = rar_4(&[block(kind, 0x8000, &far, b""), file_4(0)]);
        assert_eq!(examine(&bytes), None, "{kind:x}");
    }
    let main = block(0x73, 0x8000, &far, b"");
    assert_eq!(examine(&[MARKER_4, &main, &file_4(4)].concat()), Some(Rar));
    // An end block as data without the flag.
    let end = block(0x7b, 0x4000, b"", b"");
    let size = u32::try_from(end.len()).unwrap().to_le_bytes();
    for kind in [0x77, 0x78, 0x7a] {
        let rest = [&size[..], &[0; 21]].concat();
        let bytes = rar_4(&[block(kind, 0, &rest, &end), file_4(4)]);
        assert_eq!(examine(&bytes), Some(Rar), "{kind:x}");
    }
    // An encrypted file as data, with and without the flag.
    let hidden = file_4(4);
    let size = [&u32::try_from(hidden.len()).unwrap().to_le_bytes()[..], &[0; 2]].concat();
    for (kind, flags) in [(0x75, 0x8000), (0x77, 0)] {
        let bytes = rar_4(&[block(kind, flags, &size, &hidden), file_4(0)]);
        assert_eq!(examine(&bytes), Some(Rar), "{kind:x}");
    }
    let bytes = rar_4(&[block(0x77, 0x8000, &size, &hidden), file_4(0)]);
    assert_eq!(examine(&bytes), None, "data according to all readings");
}

#[test]
fn ignores_size_fields_beyond_header() {
    // unrar reads the upper half of a size as zero if the header does not contain all of it. Here the field would
    // include the start of the next header.
    let rest = [&[0; 4][..], &[0; 21], b"a"].concat();
    let bytes = rar_4(&[block(0x74, 0x8100, &rest, b""), file_4(4)]);
    assert_eq!(examine(&bytes), Some(Rar));
}

#[test]
fn bounds_number_of_branches() {
    let branch = block(0x75, 0x8000, &[13, 0, 0, 0, 0, 0], b"");
    assert_eq!(examine(&rar_4(&vec![branch.clone(); 60])), None);
    assert_eq!(examine(&rar_4(&vec![branch; 200])), Some(Unbounded));
}

#[test]
fn unreadable_rar_4_counts_as_encrypted() {
    let damaged = b"\x01\x02\x74\x00\x80\x03\x00 and more".to_vec();
    let bytes = rar_4(&[file_4(0), damaged.clone()]);
    assert_eq!(examine(&bytes), Some(Unreadable));
    assert_eq!(examine(&[b"MZ", &bytes[..]].concat()), Some(Unreadable));
    assert_eq!(examine(&[MARKER_4, &damaged].concat()), Some(Unreadable));
    // A signature in other data.
    assert_eq!(examine(&[b"MZ", MARKER_4, &damaged].concat()), None);
    // A truncated archive, padding, and data after the end.
    let plain = rar_4(&[file_4(0), file_4(0)]);
    for length in MARKER_4.len()..plain.len() {
        assert_eq!(examine(&plain[..length]), None, "{length}");
    }
    assert_eq!(examine(&[&plain[..], &[0; 100]].concat()), None);
    let ended = rar_4(&[file_4(0), block(0x7b, 0x4000, b"", b""), damaged]);
    assert_eq!(examine(&ended), None);
}

/// Builds a RAR 5 header from its fields.
fn header(fields: &[u8], data: &[u8]) -> Vec<u8> {
    let sized = [&[u8::try_from(fields.len()).unwrap()], fields].concat();
    [&crc32(&sized).to_le_bytes()[..], &sized, data].concat()
}

fn rar_5(headers: &[Vec<u8>]) -> Vec<u8> {
    [MARKER_5, &header(&[1, 0, 0], b""), &headers.concat()].concat()
}

/// Fields of a file after the type and flags, with data of four bytes.
const FILE: &[u8] = &[4, 0, 4, 0, 0, 0, 1, b'a'];

fn file_5() -> Vec<u8> {
    header(&[&[2, 2], FILE].concat(), b"data")
}

/// Returns a file with an extra area.
fn file_5_with(extra: &[u8]) -> Vec<u8> {
    let length = u8::try_from(extra.len()).unwrap();
    header(&[&[2, 3, length], FILE, extra].concat(), b"data")
}

#[test]
fn unreadable_rar_5_counts_as_encrypted() {
    let overlong = [0x80; 10];
    let truncated_type = [&[0x82, 0x80, 0x80, 0x80, 0x10, 2], FILE].concat();
    let truncated_end = [0x85, 0x80, 0x80, 0x80, 0x10, 0];
    for (name, damaged) in [
        ("overlong data size", header(&[&[3, 2], &overlong[..], &[0; 4]].concat(), b"")),
        ("overlong flags", header(&[&[2], &overlong[..], &[0; 4]].concat(), b"")),
        ("number cut off by the header", header(&[2, 3, 0x80], b"")),
        ("type of more than 32 bits", header(&truncated_type, b"data")),
        ("end of more than 32 bits", header(&truncated_end, b"")),
        ("extra area larger than the header", header(&[2, 1, 100, 0], b"")),
        ("empty header", b"\0\0\0\0\0 and more".to_vec()),
        ("size of four bytes", b"\0\0\0\0\x84\x80\x80\0\x02\0\0\0".to_vec()),
        ("overlong extra record", file_5_with(&[0x80; 12])),
        ("extra record larger than the area", file_5_with(&[9, 3, 0])),
        ("empty extra record", file_5_with(&[0, 3, 0])),
    ] {
        let bytes = rar_5(&[file_5(), damaged.clone(), file_5()]);
        assert_eq!(examine(&bytes), Some(Unreadable), "{name}");
        assert_eq!(examine(&[b"MZ", &bytes[..]].concat()), Some(Unreadable), "{name}");
        assert_eq!(examine(&[MARKER_5, &damaged, &file_5()].concat()), Some(Unreadable), "{name}");
        // A signature in other data.
        assert_eq!(examine(&[b"MZ", MARKER_5, &damaged].concat()), None, "{name}");
    }
    let main = header(&[&[1, 2], &overlong[..], &[0]].concat(), b"");
    assert_eq!(examine(&[b"MZ", MARKER_5, &main, &file_5()].concat()), Some(Unreadable));
}

#[test]
fn truncated_rar_5_is_plain() {
    let plain = rar_5(&[file_5(), file_5_with(&[3, 3, 0, 0]), file_5_with(&[2, 3, 0, 0])]);
    for length in MARKER_5.len()..=plain.len() {
        assert_eq!(examine(&plain[..length]), None, "{length}");
    }
    let ended = rar_5(&[file_5(), header(&[5, 0, 0], b""), b"\0\0\0\0\0 data after".to_vec()]);
    assert_eq!(examine(&ended), None);
}
