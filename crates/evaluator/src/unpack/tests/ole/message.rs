//! Tests of messages and Windows Installer packages in compound files. Python's `olefile` reads the written files.

use super::{compound, native_stream, payload};
use crate::unpack::tests::{
    ContainerSample, Expected, collect,
    tnef::{compressed_rtf, rtf_with_payload, utf16},
    zip::stored_zip,
};

const ATTACHMENT: &str = "__attach_version1.0_#00000000";
const CONTENT: &str = "__substg1.0_37010102";
const LONG_NAME: &str = "__substg1.0_3707001F";
const SHORT_NAME: &str = "__substg1.0_3704001E";

/// Encodes the name of a stream as Windows Installer does.
fn installer_name(name: &str) -> String {
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._";
    let digit = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).unwrap();
    let encode = |pair: &[u8]| match pair {
        [low, high] => 0x3800 + digit(low) + (digit(high) << 6),
        single => 0x4800 + digit(&single[0]),
    };
    let codes = name.as_bytes().chunks(2).map(encode);
    codes.map(|code| char::from_u32(u32::try_from(code).unwrap()).unwrap()).collect()
}

/// Returns the streams of an attachment in a storage.
fn attachment(storage: &str, content: &[u8]) -> Vec<(String, Vec<u8>)> {
    [
        (CONTENT, content.to_vec()),
        (LONG_NAME, utf16("invoice (long).exe")),
        (SHORT_NAME, b"INVOIC~1.EXE\0".to_vec()),
        ("__substg1.0_3703001F", utf16(".exe")),
        ("__properties_version1.0", vec![0; 40]),
    ]
    .map(|(name, value)| (format!("{storage}/{name}"), value))
    .into()
}

fn message(streams: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut all = vec![
        ("__properties_version1.0", &[0; 32][..]),
        ("__substg1.0_0037001F", b"s\0u\0b\0"),
        ("__nameid_version1.0/__substg1.0_00020102", b"x"),
    ];
    all.extend(streams.iter().map(|(path, bytes)| (&**path, &**bytes)));
    compound(&all)
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let embedded = format!("{ATTACHMENT}/__substg1.0_3701000D");
    let inner = attachment(&format!("{embedded}/{ATTACHMENT}"), &payload);
    let native = native_stream(["a.exe", "C:\\a.exe", "C:\\a.exe"], &payload, false);
    let object = vec![(format!("{embedded}/\u{1}Ole10Native"), native)];
    let body = vec![("__substg1.0_10090102".to_owned(), compressed_rtf(&rtf_with_payload()))];
    let cabinet = installer_name("product.cab");
    let package =
        |content: &[u8]| compound(&[(&cabinet, content), ("\u{5}SummaryInformation", b"x")]);
    vec![
        ContainerSample::payload("msg-attachment", message(&attachment(ATTACHMENT, &payload))),
        ContainerSample::payload("msg-embedded-message", message(&inner)),
        ContainerSample::payload("msg-embedded-object", message(&object)),
        ContainerSample::payload("msg-rtf-body", message(&body)),
        ContainerSample::new("msg-plain", message(&attachment(ATTACHMENT, b"x")), Expected::Clean),
        ContainerSample::payload("msi", package(&stored_zip(&[("a.exe", &payload)]))),
        ContainerSample::new("msi-plain", package(b"text"), Expected::Clean),
    ]
}

#[test]
fn attachments_have_all_their_names() {
    let message = message(&attachment(ATTACHMENT, b"MZ"));
    let collected = collect(&message);
    let mut names: Vec<_> = collected.objects.iter().filter(|(_, bytes)| bytes == b"MZ").collect();
    names.sort();
    let names: Vec<_> = names.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(names, ["INVOIC~1.EXE", "invoice (long).exe"]);
}

#[test]
fn streams_of_packages_have_decoded_names() {
    let package = compound(&[(&installer_name("product.cab"), b"MSCF")]);
    assert_eq!(collect(&package).paths(), ["product.cab"]);
}

#[test]
fn names_of_other_storages_do_not_count() {
    let mut streams = attachment(ATTACHMENT, b"MZ");
    streams[1].0 = format!("__attach_version1.0_#00000001/{LONG_NAME}");
    let collected = collect(&message(&streams));
    assert!(collected.paths().contains(&"INVOIC~1.EXE"), "{collected:?}");
    assert!(!collected.paths().contains(&"invoice (long).exe"), "{collected:?}");
}
