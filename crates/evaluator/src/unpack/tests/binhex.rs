//! `BinHex` 4.0. The test file `clam.exe.binhex` (Debian package clamav-testfiles) was unpacked, too.

use super::{ContainerSample, Expected, check_without_notes, collect, mail, payload};
use crate::report::NoteKind;

const ALPHABET: &[u8] = b"!\"#$%&'()*+,-012345689@ABCDEFGHIJKLMNPQRSTUVXYZ[`abcdefhijklmpqr";

/// Encodes the bytes of a file, in lines of 64 characters.
fn encode(bytes: &[u8]) -> String {
    let mut text = String::from("(This file must be converted with BinHex 4.0)\n:");
    for group in bytes.chunks(3) {
        let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for index in 0..=group.len() {
            let value = bits >> (18 - 6 * index) & 63;
            text.push(char::from(ALPHABET[value as usize]));
            if text.len() % 65 == 0 {
                text.push('\n');
            }
        }
    }
    text + ":\n"
}

/// Returns a file with runs of a byte as repetitions.
fn binhex(data: &[u8], resources: &[u8]) -> String {
    let length = |fork: &[u8]| u32::try_from(fork.len()).unwrap().to_be_bytes();
    let forks = [data, &[0, 0], resources, &[0, 0]].concat();
    let header = [b"\x05a.exe\0APPLdosa\0\0", &length(data)[..], &length(resources), &[0, 0]];
    let mut packed = Vec::new();
    for run in [header.concat(), forks].concat().chunk_by(|one, other| one == other) {
        for part in run.chunks(255) {
            packed.push(part[0]);
            if part[0] == 0x90 {
                packed.push(0);
            }
            match u8::try_from(part.len()).unwrap() {
                1 => {}
                count => packed.extend([0x90, count]),
            }
        }
    }
    encode(&packed)
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let file = binhex(&payload, b"");
    let mail = format!("Content-Type: application/mac-binhex40\n\n{file}");
    let truncated = binhex(&[1, 2, 3].repeat(100), b"");
    vec![
        ContainerSample::payload("binhex data", file.clone().into_bytes()),
        ContainerSample::payload("binhex resources", binhex(b"text", &payload).into_bytes()),
        ContainerSample::payload("binhex after text", format!("hello\r\n{file}").into_bytes()),
        ContainerSample::payload(
            "binhex after another announcement",
            format!("(This file must be converted with BinHex: x:\n{file}").into_bytes(),
        ),
        ContainerSample::payload("binhex in mail", mail::message(mail.as_bytes())),
        ContainerSample::new("binhex plain", binhex(b"text", b"").into_bytes(), Expected::Clean),
        ContainerSample::new(
            "binhex truncated",
            truncated.as_bytes()[..200].to_vec(),
            Expected::Note(NoteKind::Unreadable),
        ),
        ContainerSample::new(
            "binhex announcement only",
            b"(This file must be converted with BinHex 4.0)\n".to_vec(),
            Expected::Clean,
        ),
    ]
}

#[test]
fn samples_are_unpacked() {
    check_without_notes(samples());
}

#[test]
fn repetitions_are_decoded() {
    let content = [&[b'a'; 1000][..], &[0x90], &[b'b'; 255], &[0x90; 3], b"c"].concat();
    let collected = collect(binhex(&content, b"").as_bytes());
    assert_eq!(collected.objects[1], ("a.exe".to_owned(), content));
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn repetitions_without_end_are_bounded() {
    // Marks that repeat no byte.
    let marks = encode(&[0x90, 1].repeat(1_000_000));
    assert!(collect(marks.as_bytes()).note(NoteKind::Unreadable).is_some());
}
