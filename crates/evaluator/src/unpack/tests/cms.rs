//! Cryptographic Message Syntax. The structures are those that OpenSSL 3.0 writes with `openssl cms`.

use std::io::Write;

use flate2::{Compression, write::ZlibEncoder};

use super::{ContainerSample, Expected, check_truncated, collect, mail, payload};
use crate::report::NoteKind;

/// Last bytes of identifiers of PKCS #7 (1.2.840.113549.1.7) and of S/MIME (1.2.840.113549.1.9.16.1).
const DATA: &[u8] = &[7, 1];
const SIGNED: &[u8] = &[7, 2];
const ENVELOPED: &[u8] = &[7, 3];
const DIGESTED: &[u8] = &[7, 5];
const ENCRYPTED: &[u8] = &[7, 6];
const AUTHENTICATED: &[u8] = &[9, 16, 1, 2];
const COMPRESSED: &[u8] = &[9, 16, 1, 9];
const TIME_STAMPED: &[u8] = &[9, 16, 1, 31];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const STRING: u8 = 4;
const SEGMENTS: u8 = 0x24;
const TAG_0: u8 = 0xa0;

/// How lengths are written.
#[derive(Clone, Copy)]
enum Length {
    Definite,
    /// Eight bytes.
    Long,
    Indefinite,
}

use Length::{Definite, Indefinite, Long};

fn element(tag: u8, length: Length, contents: &[&[u8]]) -> Vec<u8> {
    let content = contents.concat();
    let size = content.len() as u64;
    let length = match length {
        // The strings themselves have no other length.
        Indefinite if tag & 0x20 != 0 => return [&[tag, 0x80][..], &content, &[0, 0]].concat(),
        Long => [&[0x88][..], &size.to_be_bytes()].concat(),
        _ if size < 0x80 => vec![u8::try_from(size).unwrap()],
        _ => [&[0x84], &size.to_be_bytes()[4..]].concat(),
    };
    [&[tag], &length[..], &content].concat()
}

fn der(tag: u8, contents: &[&[u8]]) -> Vec<u8> {
    element(tag, Definite, contents)
}

fn identifier(end: &[u8]) -> Vec<u8> {
    der(6, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1], end])
}

/// Returns a type with its content.
fn info(kind: &[u8], length: Length, content: &[u8]) -> Vec<u8> {
    element(SEQUENCE, length, &[&identifier(kind), &element(TAG_0, length, &[content])])
}

/// Returns signed data around an inner type with its content.
fn signed(length: Length, inner: &[u8]) -> Vec<u8> {
    let algorithm = der(SEQUENCE, &[&identifier(DIGESTED), &[5, 0]]);
    let algorithms = element(SET, length, &[&algorithm]);
    let signers = der(SET, &[&algorithm]);
    element(SEQUENCE, length, &[&[2, 1, 1], &algorithms, inner, &signers])
}

fn signed_file(length: Length, content: &[u8]) -> Vec<u8> {
    let string = match length {
        Indefinite => {
            let halves = content.split_at(content.len() / 2);
            let inner = element(SEGMENTS, Indefinite, &[&der(STRING, &[halves.1])]);
            element(SEGMENTS, Indefinite, &[&der(STRING, &[halves.0]), &der(STRING, &[]), &inner])
        }
        _ => element(STRING, length, &[content]),
    };
    info(SIGNED, length, &signed(length, &info(DATA, length, &string)))
}

fn compressed(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    let string = der(STRING, &[&encoder.finish().unwrap()]);
    let algorithm = der(SEQUENCE, &[&identifier(&[9, 16, 3, 8])]);
    let inner = info(DATA, Definite, &string);
    info(COMPRESSED, Definite, &der(SEQUENCE, &[&[2, 1, 0], &algorithm, &inner]))
}

fn with_payload() -> Vec<(&'static str, Vec<u8>)> {
    let payload = payload();
    let string = der(STRING, &[&payload]);
    let algorithm = der(SEQUENCE, &[&identifier(DATA), &[5, 0]]);
    let inner = info(DATA, Definite, &string);
    let digested = der(SEQUENCE, &[&[2, 1, 0], &algorithm, &inner, &der(STRING, &[b"digest"])]);
    let recipients = der(SET, &[&algorithm]);
    let authenticated =
        der(SEQUENCE, &[&[2, 1, 0], &recipients, &algorithm, &inner, &der(STRING, &[b"mac"])]);
    let name = der(SEQUENCE, &[&[1, 1, 0xff], &der(12, &[b"a.exe"])]);
    let time_stamped = der(SEQUENCE, &[&[2, 1, 1], &name, &string, &der(TAG_0, &[])]);
    let in_string = signed(Definite, &inner);
    let directly = info(SIGNED, Definite, &in_string);
    let in_string = info(SIGNED, Definite, &der(STRING, &[&in_string]));
    let file = signed_file(Definite, &payload);
    let armoured = mail::base64(&file);
    let header = "Content-Type: application/pkcs7-mime; smime-type=signed-data\n\
        Content-Transfer-Encoding: base64\n\n";
    vec![
        ("definite", file.clone()),
        ("long lengths", signed_file(Long, &payload)),
        ("indefinite", signed_file(Indefinite, &payload)),
        ("signed twice", signed_file(Definite, &file)),
        ("signed data in a string", info(SIGNED, Definite, &signed(Definite, &in_string))),
        ("signed data in signed data", info(SIGNED, Definite, &signed(Definite, &directly))),
        ("data", inner.clone()),
        ("digested", info(DIGESTED, Definite, &digested)),
        ("authenticated", info(AUTHENTICATED, Definite, &authenticated)),
        ("compressed", compressed(&payload)),
        ("time-stamped", info(TIME_STAMPED, Definite, &time_stamped)),
        ("without certificates at the end", file[..file.len() - 10].to_vec()),
        (
            "armoured",
            format!("-----BEGIN PKCS7-----\n{armoured}-----END PKCS7-----\n").into_bytes(),
        ),
        ("base64", armoured.clone().into_bytes()),
        ("in mail", mail::message(&[header, &armoured].concat().into_bytes())),
        ("mail in it", signed_file(Definite, &mail::usual(&payload))),
    ]
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let with_payload = with_payload()
        .into_iter()
        .map(|(name, bytes)| ContainerSample::payload(format!("cms {name}"), bytes));
    let note = |name: &str, kind, bytes| {
        ContainerSample::new(format!("cms {name}"), bytes, Expected::Note(kind))
    };
    let secret = der(SEQUENCE, &[&[2, 1, 0], &der(STRING, &[&[7; 50]])]);
    let certificates = der(TAG_0, &[&der(SEQUENCE, &[&payload()])]);
    let detached = [der(SEQUENCE, &[&identifier(DATA)]), certificates].concat();
    let detached = signed(Definite, &detached);
    let nested = (0..20).fold(info(DATA, Definite, &der(STRING, &[b"x"])), |inner, _| {
        info(SIGNED, Definite, &signed(Definite, &inner))
    });
    let segments = (0..40).fold(der(STRING, &[b"x"]), |inner, _| der(SEGMENTS, &[&inner]));
    let mut damaged = signed_file(Definite, b"text");
    damaged[15] = 0x31;
    with_payload
        .chain([
            note("enveloped", NoteKind::Encrypted, info(ENVELOPED, Definite, &secret)),
            note("encrypted", NoteKind::Encrypted, info(ENCRYPTED, Indefinite, &secret)),
            note("damaged", NoteKind::Unreadable, damaged),
            note("deep structures", NoteKind::Unreadable, nested),
            note("deep segments", NoteKind::Unreadable, info(DATA, Definite, &segments)),
            note(
                "truncated",
                NoteKind::Unreadable,
                signed_file(Definite, &[b'x'; 300])[..200].into(),
            ),
            ContainerSample::new("cms plain", signed_file(Indefinite, b"text"), Expected::Clean),
            ContainerSample::new(
                "cms detached",
                info(SIGNED, Indefinite, &detached),
                Expected::Clean,
            ),
        ])
        .collect()
}

#[test]
fn samples_are_unpacked() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn files_with_the_payload_are_not_noted() {
    for (name, bytes) in with_payload() {
        let collected = collect(&bytes);
        assert!(collected.notes.is_empty(), "{name}: {collected:?}");
    }
}

#[test]
fn content_before_the_end_of_a_truncated_file_is_examined() {
    let content = [payload(), vec![b'x'; 1000]].concat();
    for length in [Definite, Long, Indefinite] {
        check_truncated(&signed_file(length, &content));
    }
}

#[test]
fn many_segments_take_linear_time() {
    let segment = der(STRING, &[b"x"]);
    let string = element(SEGMENTS, Indefinite, &[&segment.repeat(1_000_000)]);
    let collected = collect(&info(DATA, Indefinite, &string));
    assert_eq!(collected.objects[1].1, vec![b'x'; 1_000_000]);
    let empty = element(SEGMENTS, Indefinite, &[&der(STRING, &[]).repeat(1_000_000)]);
    assert!(collect(&info(DATA, Indefinite, &empty)).notes.is_empty());
}
