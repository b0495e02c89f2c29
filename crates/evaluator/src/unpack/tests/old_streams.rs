//! Compression of single files by old programs: `compress` (Z), and `COMPRESS.EXE` of MS-DOS (SZDD). gzip and 7-Zip
//! decode the written files, those of `QBasic` excepted; files by ncompress 5.0 were unpacked, too.

use std::collections::HashMap;

use proptest::{collection::vec, prelude::*};

use super::{ContainerSample, Expected, check_without_notes, collect, payload, tar::tar};
use crate::report::NoteKind;

/// Writer of codes in groups of eight.
struct LzwCodeWriter {
    bytes: Vec<u8>,
    bits: usize,
    width: usize,
}

impl LzwCodeWriter {
    fn put(&mut self, code: usize) {
        for bit in 0..self.width {
            if self.bits.is_multiple_of(8) {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= u8::from(code >> bit & 1 == 1) << (self.bits % 8);
            self.bits += 1;
        }
    }

    /// Fills the group and changes the width.
    fn set_width(&mut self, width: usize) {
        self.bits = self.bits.next_multiple_of(self.width * 8);
        self.bytes.resize(self.bits / 8, 0);
        self.width = width;
    }
}

/// Compresses like `compress`. The groups of one width start where the width changed, which is a multiple of eight
/// codes of the former width. Clears the table after each `clear_after` codes.
fn compress(content: &[u8], max_width: u8, clear_after: Option<usize>) -> Vec<u8> {
    let flags = max_width | if clear_after.is_some() { 0x80 } else { 0 };
    let first_code = if clear_after.is_some() { 257 } else { 256 };
    let mut file = vec![0x1f, 0x9d, flags];
    let mut writer = LzwCodeWriter { bytes: Vec::new(), bits: 0, width: 9 };
    let mut table: HashMap<(usize, u8), usize> = HashMap::new();
    // The decoder adds an entry one code later.
    let mut next = first_code;
    let mut entries = first_code;
    let mut current: Option<usize> = None;
    let mut codes = 0;
    let mut emit = |writer: &mut LzwCodeWriter, code: usize, entries: &mut usize| {
        let mut put = |writer: &mut LzwCodeWriter, code: usize, entries: usize| {
            if entries >= 1 << writer.width && writer.width < usize::from(max_width) {
                let width = writer.width + 1;
                writer.set_width(width);
                file.append(&mut writer.bytes);
                writer.bits = 0;
            }
            writer.put(code);
        };
        put(writer, code, *entries);
        if codes > 0 && *entries < 1 << max_width {
            *entries += 1;
        }
        codes += 1;
        if clear_after.is_some_and(|after| codes % after == 0) {
            put(writer, 256, *entries);
            writer.set_width(9);
            file.append(&mut writer.bytes);
            writer.bits = 0;
            *entries = 256;
            return true;
        }
        false
    };
    for byte in content {
        let Some(code) = current else {
            current = Some((*byte).into());
            continue;
        };
        if let Some(known) = table.get(&(code, *byte)) {
            current = Some(*known);
            continue;
        }
        if emit(&mut writer, code, &mut entries) {
            table.clear();
            // The first entry after a cleared table has the number of the code that clears.
            next = 257;
        } else if next < 1 << max_width {
            table.insert((code, *byte), next);
            next += 1;
        }
        current = Some((*byte).into());
    }
    if let Some(code) = current {
        emit(&mut writer, code, &mut entries);
    }
    file.extend(writer.bytes);
    file
}

/// Returns a file of bytes only, without references.
fn szdd(content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut file = [&b"SZDD\x88\xf0\x27\x33Ax"[..], &size].concat();
    for chunk in content.chunks(8) {
        file.push(0xff);
        file.extend_from_slice(chunk);
    }
    file
}

fn qbasic(content: &[u8]) -> Vec<u8> {
    let file = szdd(content);
    [&b"SZ \x88\xf0\x27\x33\xd1"[..], &file[10..]].concat()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let unreadable = Expected::Note(NoteKind::Unreadable);
    vec![
        ContainerSample::payload("z", compress(&payload, 16, Some(1_000_000))),
        ContainerSample::payload("z without clear code", compress(&payload, 12, None)),
        ContainerSample::payload("z with cleared table", compress(&payload, 16, Some(20))),
        ContainerSample::payload("tar.z", compress(&tar("a.txt", &payload), 16, Some(1_000_000))),
        ContainerSample::payload("szdd", szdd(&payload)),
        ContainerSample::payload("szdd qbasic", qbasic(&payload)),
        ContainerSample::new("z damaged", b"\x1f\x9d\x90a\xff\xff\xff\xff".to_vec(), unreadable),
        ContainerSample::new("szdd truncated", szdd(&[b'x'; 20])[..25].into(), unreadable),
    ]
}

#[test]
fn samples_are_unpacked() {
    check_without_notes(samples());
}

#[test]
fn tables_grow_to_their_limit() {
    let content: Vec<_> =
        (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect();
    for (width, clear) in [(9, None), (12, Some(100_000)), (16, None), (16, Some(70_000))] {
        let collected = collect(&compress(&content, width, clear));
        assert!(collected.objects[1].1 == content, "{width} {clear:?}");
        assert!(collected.notes.is_empty(), "{collected:?}");
    }
}

/// A run gives the code that is added in the same step.
#[test]
fn new_code_is_decoded() {
    let content = [b'a'; 1000];
    let file = compress(&content, 16, Some(1_000_000));
    assert!(file.len() < 100);
    assert_eq!(collect(&file).objects[1].1, content);
}

#[test]
fn references_of_szdd_are_decoded() {
    let mut file = b"SZDD\x88\xf0\x27\x33Ax\x0c\0\0\0".to_vec();
    // Two bytes; three of them from the window, which the copy itself fills; and seven from before the content.
    file.extend([0b0011, b'a', b'b', 0xf0, 0xf0, 0x00, 0x04]);
    let collected = collect(&file);
    assert_eq!(collected.objects[1].1, b"ababa       ");
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn bytes_before_the_damage_are_examined() {
    let mut file = compress(&payload(), 16, Some(1_000_000));
    file.extend([0xff; 20]);
    let collected = collect(&file);
    assert!(collected.has_payload(), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_codes_are_decoded(flags in any::<u8>(), data in vec(any::<u8>(), 0..3000)) {
        collect(&[&[0x1f, 0x9d, flags][..], &data].concat());
    }

    #[test]
    fn compressed_content_is_decoded(content in vec(0_u8..4, 1..3000), clear in 1_usize..300) {
        let collected = collect(&compress(&content, 16, Some(clear)));
        prop_assert_eq!(&collected.objects[1].1, &content);
    }
}
