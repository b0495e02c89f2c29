//! RAR archives. bsdtar extracts the samples with the payload.

use super::{ContainerSample, Expected, collect, payload, zip::crc};
use crate::report::NoteKind;

const NAME: &str = "payload.txt";

/// Writes a header of RAR 4, whose fields follow the common ones.
fn block4(kind: u8, flags: u16, fields: &[u8]) -> Vec<u8> {
    let length = u16::try_from(7 + fields.len()).unwrap().to_le_bytes();
    let header = [&[kind], &flags.to_le_bytes()[..], &length, fields].concat();
    [&crc(&header).to_le_bytes()[..2], &header].concat()
}

fn file4(flags: u16, method: u8, content: &[u8]) -> Vec<u8> {
    let size = u32::try_from(content.len()).unwrap().to_le_bytes();
    let mut fields = [size, size].concat();
    fields.push(3);
    fields.extend(crc(content).to_le_bytes());
    fields.extend([0, 0, 0x21, 0x5a, 20, method]);
    fields.extend(u16::try_from(NAME.len()).unwrap().to_le_bytes());
    fields.extend(0o100_644_u32.to_le_bytes());
    if flags & 0x100 != 0 {
        fields.extend([0; 8]);
    }
    fields.extend(NAME.as_bytes());
    [&block4(0x74, 0x8000 | flags, &fields)[..], content].concat()
}

fn archive4(main_flags: u16, files: &[Vec<u8>]) -> Vec<u8> {
    let main = block4(0x73, main_flags, &[0; 6]);
    [b"Rar!\x1a\x07\0", &main[..], &files.concat(), &block4(0x7b, 0x4000, b"")].concat()
}

/// Writes a header of RAR 5. All numbers are below 128, those of sizes excepted.
fn block5(fields: &[u8]) -> Vec<u8> {
    let header = [&[u8::try_from(fields.len()).unwrap()], fields].concat();
    [&crc(&header).to_le_bytes()[..], &header].concat()
}

fn file5(flags: u8, method: u8, extra: &[u8], content: &[u8]) -> Vec<u8> {
    let size = content.len();
    let size = [u8::try_from(size & 0x7f).unwrap() | 0x80, u8::try_from(size >> 7).unwrap()];
    let mut fields = vec![2, flags | 2];
    if !extra.is_empty() {
        fields[1] |= 1;
        fields.push(u8::try_from(extra.len()).unwrap());
    }
    fields.extend(size);
    fields.push(4);
    fields.extend(size);
    fields.push(0x20);
    fields.extend(crc(content).to_le_bytes());
    // The method is in the bits 7 to 9, the system is Unix.
    fields.extend([0x80, method, 1, u8::try_from(NAME.len()).unwrap()]);
    fields.extend([NAME.as_bytes(), extra].concat());
    [&block5(&fields)[..], content].concat()
}

fn archive5(files: &[Vec<u8>]) -> Vec<u8> {
    let (main, end) = (block5(&[1, 0, 0]), block5(&[5, 0, 0]));
    [b"Rar!\x1a\x07\x01\0", &main[..], &files.concat(), &end].concat()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let sample =
        |name: &str, bytes: Vec<u8>| ContainerSample::payload(format!("rar-{name}"), bytes);
    let note = |name: &str, bytes: Vec<u8>, kind| {
        ContainerSample::new(format!("rar-{name}"), bytes, Expected::Note(kind))
    };
    let garbled: Vec<_> = payload.iter().map(|byte| byte ^ 0x55).collect();
    let stored4 = archive4(0, &[file4(0, 0x30, b"first"), file4(0, 0x30, &payload)]);
    let stored5 = archive5(&[file5(0, 0, &[], b"first"), file5(0, 0, &[], &payload)]);
    // Type of the record, and its content.
    let encryption = [3, 1, 0, 0];
    let header = [&b"Rar!\x1a\x07\x01\0"[..], &block5(&[4, 0, 0, 0, 15]), &garbled].concat();
    vec![
        sample("4-stored", stored4.clone()),
        sample("4-large", archive4(0, &[file4(0x100, 0x30, &payload)])),
        sample("4-volume", archive4(1, &[file4(2, 0x30, &payload)])),
        sample("4-after-program", [b"MZ\x90\0program", &stored4[..]].concat()),
        sample("4-truncated", archive4(0, &[file4(0, 0x30, &payload)])[..160].to_vec()),
        sample("5-stored", stored5.clone()),
        sample("5-volume", archive5(&[file5(16, 0, &[], &payload)])),
        sample("5-after-program", [b"MZ\x90\0program", &stored5[..]].concat()),
        note("4-compressed", archive4(0, &[file4(0, 0x33, &garbled)]), NoteKind::Unreadable),
        note("5-compressed", archive5(&[file5(0, 3, &[], &garbled)]), NoteKind::Unreadable),
        note("4-encrypted", archive4(0, &[file4(4, 0x30, &garbled)]), NoteKind::Encrypted),
        note("5-encrypted", archive5(&[file5(0, 0, &encryption, &garbled)]), NoteKind::Encrypted),
        note("4-encrypted-header", archive4(0x80, &[garbled]), NoteKind::Encrypted),
        note("5-encrypted-header", header, NoteKind::Encrypted),
        note("4-damaged", archive4(0, &[b"no header".to_vec()]), NoteKind::Unreadable),
        note("5-damaged", archive5(&[b"no header".to_vec()]), NoteKind::Unreadable),
        note("old", b"RE~^\x07\0\0".to_vec(), NoteKind::Unreadable),
    ]
}

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
        if sample.expected == Expected::Payload {
            let is_noted = sample.name.contains("volume") || sample.name.contains("truncated");
            let collected = collect(&sample.bytes);
            assert_eq!(!collected.notes.is_empty(), is_noted, "{}: {collected:?}", sample.name);
            assert!(collected.paths().contains(&NAME), "{}: {collected:?}", sample.name);
        }
    }
}

#[test]
fn data_of_comments_are_no_contents() {
    // A compressed comment.
    let mut comment = file5(0, 3, &[], b"comment");
    comment[5] = 3;
    let collected = collect(&archive5(&[comment, file5(0, 0, &[], b"text")]));
    assert!(collected.notes.is_empty() && collected.contains(b"text"), "{collected:?}");
}
