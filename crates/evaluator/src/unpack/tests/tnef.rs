//! TNEF, and compressed RTF.

use proptest::{collection::vec, prelude::*};

use super::{
    ContainerSample, Expected, check_truncated, check_without_notes, collect, mail, ole, payload,
    rtf::hex,
};
use crate::report::NoteKind;

const STRING8: u16 = 0x1e;
const UNICODE: u16 = 0x1f;
const OBJECT: u16 = 0x0d;
const BINARY: u16 = 0x102;

const TITLE: u32 = 0x0001_8010;
const DATA: u32 = 0x0006_800f;
const RENDER_DATA: u32 = 0x0006_9002;
const ATTACHMENT: u32 = 0x0006_9005;
const MESSAGE: u32 = 0x0006_9003;

const CONTENT: u16 = 0x3701;
const LONG_NAME: u16 = 0x3707;
const RTF_BODY: u16 = 0x1009;

/// Identifiers of the interfaces `IMessage` and `IStorage`.
const MESSAGE_INTERFACE: [u8; 16] = [7, 3, 2, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46];
const STORAGE_INTERFACE: [u8; 16] = [11, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0x46];

fn attribute(id: u32, data: &[u8]) -> Vec<u8> {
    let level = if matches!(id, MESSAGE | 0x0002_800c) { 1 } else { 2 };
    let sum = data.iter().fold(0_u16, |sum, byte| sum.wrapping_add((*byte).into()));
    [&[level][..], &id.to_le_bytes(), &ole::size(data), data, &sum.to_le_bytes()].concat()
}

fn tnef(attributes: &[Vec<u8>]) -> Vec<u8> {
    let version = attribute(0x0008_9006, &0x0001_0000_u32.to_le_bytes());
    [&b"\x78\x9f\x3e\x22\x01\0"[..], &version, &attributes.concat()].concat()
}

/// Returns a property of variable length.
fn property(id: u16, kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = [&kind.to_le_bytes()[..], &id.to_le_bytes()].concat();
    if id >= 0x8000 {
        let name = utf16("a name");
        bytes.extend([&[7; 16][..], &[1, 0, 0, 0], &ole::size(&name), &name].concat());
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes.extend([&[1, 0, 0, 0][..], &ole::size(value), value].concat());
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn list(properties: &[Vec<u8>]) -> Vec<u8> {
    [&u32::try_from(properties.len()).unwrap().to_le_bytes(), &properties.concat()[..]].concat()
}

pub(super) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Returns properties of each type of fixed length, and of several values.
fn fixed_properties() -> Vec<Vec<u8>> {
    let mut properties: Vec<_> =
        [(2_u16, 4), (3, 4), (4, 4), (5, 8), (6, 8), (7, 8), (0xa, 4), (0xb, 4), (0x14, 8)]
            .into_iter()
            .chain([(0x40, 8), (0x48, 16)])
            .map(|(kind, length)| [&kind.to_le_bytes()[..], &[1, 0x0e], &vec![9; length]].concat())
            .collect();
    properties.push([&[3, 0x10, 2, 0x0e, 3, 0, 0, 0][..], &[9; 12]].concat());
    properties.push(
        [&[0x1e, 0x10, 3, 0x0e, 2, 0, 0, 0][..], b"\x02\0\0\0a\0\0\0\x01\0\0\0\0\0\0\0"].concat(),
    );
    properties
}

/// Returns a file with an attachment of these properties.
fn attached(properties: &[Vec<u8>]) -> Vec<u8> {
    tnef(&[attribute(RENDER_DATA, &[1; 14]), attribute(ATTACHMENT, &list(properties))])
}

fn plain(content: &[u8]) -> Vec<u8> {
    tnef(&[
        attribute(0x0002_800c, b"body\0"),
        attribute(RENDER_DATA, &[1; 14]),
        attribute(TITLE, b"A.TXT\0"),
        attribute(DATA, content),
        attribute(ATTACHMENT, &list(&[property(LONG_NAME, UNICODE, &utf16("a long name.txt"))])),
    ])
}

/// Compresses to bytes only, without references.
pub(super) fn compressed_rtf(content: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    for chunk in content.chunks(8) {
        data.push(0);
        data.extend_from_slice(chunk);
    }
    // The mark at the end needs flags of its own, unless the last ones are not all used.
    match content.chunks(8).last() {
        Some(last) if last.len() < 8 => {
            let flags = data.len() - last.len() - 1;
            data[flags] = 1 << last.len();
        }
        _ => data.push(1),
    }
    let end = u16::try_from((207 + content.len()) % 4096).unwrap() << 4;
    data.extend(end.to_be_bytes());
    let length = u32::try_from(data.len() + 12).unwrap().to_le_bytes();
    [&length, &ole::size(content), &b"LZFu"[..], &[0; 4], &data].concat()
}

/// Returns RTF with the payload as data of an object.
pub(super) fn rtf_with_payload() -> Vec<u8> {
    let hex = hex(&payload());
    format!("{{\\rtf1 {{\\object\\objemb{{\\*\\objdata {hex}}}}}}}").into_bytes()
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let with_payload = with_payload()
        .into_iter()
        .map(|(name, bytes)| ContainerSample::payload(format!("tnef {name}"), bytes));
    with_payload.chain(rtf_samples()).chain(without_payload()).collect()
}

fn with_payload() -> Vec<(&'static str, Vec<u8>)> {
    let payload = payload();
    let content = |kind: u16, value: &[u8]| property(CONTENT, kind, value);
    let nested = [&MESSAGE_INTERFACE[..], &plain(&payload)].concat();
    let storage = ole::compound(&[("CONTENTS", &payload)]);
    let storage = [&STORAGE_INTERFACE[..], &storage].concat();
    let ole1 = [
        &[1, 5, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0][..],
        b"Package\0\0\0\0\0\0\0\0\0",
        &ole::native_stream(["a.exe", "C:\\a.exe", "C:\\a.exe"], &payload, false),
    ]
    .concat();
    let mut all = fixed_properties();
    all.push(property(0x8001, STRING8, b"named"));
    all.push(content(BINARY, &payload));
    let body = |kind: u16, value: &[u8]| {
        tnef(&[attribute(MESSAGE, &list(&[property(RTF_BODY, kind, value)]))])
    };
    let mut wrong_checksum = plain(&payload);
    *wrong_checksum.last_mut().unwrap() ^= 1;
    vec![
        ("attachment", plain(&payload)),
        ("binary property", attached(&[content(BINARY, &payload)])),
        ("embedded message", attached(&[content(OBJECT, &nested)])),
        ("embedded message in binary", attached(&[content(BINARY, &nested)])),
        ("embedded storage", attached(&[content(OBJECT, &storage)])),
        ("object of OLE 1", plain(&ole1)),
        ("all types", attached(&all)),
        ("wrong checksum", wrong_checksum),
        ("line break at the end", [&plain(&payload)[..], b"\r\n"].concat()),
        ("without render data", tnef(&[attribute(DATA, &payload)])),
        ("other type", tnef(&[attribute(0x0002_800f, &payload)])),
        ("body in RTF", body(BINARY, &compressed_rtf(&rtf_with_payload()))),
        ("in mail", mail::usual(&plain(&payload))),
    ]
}

fn rtf_samples() -> Vec<ContainerSample> {
    let not_compressed = [&[0; 8][..], b"MELA\0\0\0\0", &rtf_with_payload()].concat();
    let plain = compressed_rtf(b"{\\rtf1 a}");
    let truncated = compressed_rtf(b"{\\rtf1 a text}")[..24].to_vec();
    vec![
        ContainerSample::payload("rtf compressed", compressed_rtf(&rtf_with_payload())),
        ContainerSample::payload("rtf not compressed", not_compressed),
        ContainerSample::new("rtf compressed plain", plain, Expected::Clean),
        ContainerSample::new(
            "rtf compressed truncated",
            truncated,
            Expected::Note(NoteKind::Unreadable),
        ),
    ]
}

fn without_payload() -> Vec<ContainerSample> {
    let unreadable = Expected::Note(NoteKind::Unreadable);
    let file = plain(&payload());
    let truncated = file[..file.len() - 205].to_vec();
    let unknown_type = attached(&[property(CONTENT, 0x99, &payload())]);
    vec![
        ContainerSample::new("tnef truncated", truncated, unreadable),
        ContainerSample::new("tnef unknown type", unknown_type, unreadable),
        ContainerSample::new("tnef plain", plain(b"text"), Expected::Clean),
    ]
}

#[test]
fn samples_are_unpacked() {
    check_without_notes(samples());
}

#[test]
fn attachments_have_all_their_names() {
    let two = [plain(b"first")[6..].to_vec(), plain(b"second")[6..].to_vec()];
    let collected = collect(&tnef(&two));
    let attachments: Vec<_> =
        collected.paths().into_iter().filter(|path| *path != "body").collect();
    assert_eq!(attachments, ["A.TXT", "a long name.txt", "A.TXT", "a long name.txt"]);
    assert!(collected.notes.is_empty(), "{collected:?}");
    assert!(collect(&attached(&[property(CONTENT, BINARY, b"x")])).paths() == ["attachment"]);
}

#[test]
fn many_names_cost_little() {
    let title = |number: u32| attribute(TITLE, format!("{number}.txt\0").as_bytes());
    let mut attributes: Vec<_> = (0..100_000).map(title).collect();
    attributes.push(attribute(DATA, &payload()));
    let collected = collect(&tnef(&attributes));
    assert!(collected.has_payload());
    assert_eq!(collected.paths().len(), 16);
}

#[test]
fn content_before_the_end_of_a_truncated_file_is_examined() {
    check_truncated(&plain(&[payload(), vec![b'x'; 1000]].concat()));
}

/// The examples of [MS-OXRTFCP] 3.1 and 3.2: references into the dictionary, also to bytes that the reference writes.
#[test]
fn references_are_decoded() {
    let simple = b"\x2d\0\0\0\x2b\0\0\0LZFu\xf1\xc5\xc7\xa7\x03\0\x0a\0rcpg125\x422\x0a\xf3 \
        hel\x09\0\x20bw\x05\xb0ld}\x0a\x80\x0f\xa0";
    let collected = collect(simple);
    assert!(collected.notes.is_empty(), "{collected:?}");
    assert_eq!(collected.objects[1].1, b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n");
    let crossing =
        b"\x1a\0\0\0\x1c\0\0\0LZFu\xe2\xd4\x4b\x51\x41\0\x04\x20WXYZ\x0d\x6e\x7d\x01\x0e\xb0";
    assert_eq!(collect(crossing).objects[1].1, b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}");
}

#[test]
fn compressed_rtf_without_a_mark_ends_at_its_size() {
    let content = b"{\\rtf1 some text}";
    let compressed = compressed_rtf(content);
    let collected = collect(&compressed[..compressed.len() - 2]);
    assert_eq!(collected.objects[1].1, content);
    assert!(collected.notes.is_empty(), "{collected:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_compressed_rtf_is_decoded(data in vec(any::<u8>(), 0..3000)) {
        let file = [&[0, 0, 0, 0, 0, 0, 0, 0][..], b"LZFu\0\0\0\0", &data].concat();
        let collected = collect(&file);
        // Each reference of two bytes gives at most 17 bytes.
        prop_assert!(collected.objects[1].1.len() <= 9 * data.len());
    }

    #[test]
    fn changed_files_are_examined(
        edits in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        sample in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let mut file = sample.get(&samples).bytes.clone();
        for (index, value) in edits {
            *index.get_mut(&mut file) = value;
        }
        collect(&file);
    }
}
