//! Tests of encrypted documents with the password that Excel tries itself.
//!
//! The fixtures were made on 2026-11-29 with a Python script: `agile.*` with the functions
//! `ECMA376Agile.generate_encryption_parameters` and `encrypt_payload` of msoffcrypto-tool 6.1.0 and the password
//! "`VelvetSweatshop`", the others with the key functions of the same program, which also decrypts them. The encrypted
//! content is a zip with the payload in `xl/embeddings/a.bin`; in workbooks, it is at the end of a record of 1586 bytes.

use super::compound;
use crate::{
    report::NoteKind,
    unpack::tests::{ContainerSample, Expected, collect, zip::stored_zip},
};

const AGILE: (&[u8], &[u8]) =
    (include_bytes!("../fixtures/agile.info"), include_bytes!("../fixtures/agile.package"));
const STANDARD: (&[u8], &[u8]) =
    (include_bytes!("../fixtures/standard.info"), include_bytes!("../fixtures/standard.package"));
const RC4: &[u8] = include_bytes!("../fixtures/rc4.workbook");
const CRYPTO_API: &[u8] = include_bytes!("../fixtures/cryptoapi.workbook");
const CRYPTO_API_40: &[u8] = include_bytes!("../fixtures/cryptoapi40.workbook");

fn document((info, package): (&[u8], &[u8])) -> Vec<u8> {
    compound(&[("EncryptionInfo", info), ("EncryptedPackage", package)])
}

fn workbook(stream: &[u8]) -> Vec<u8> {
    compound(&[("Workbook", stream)])
}

/// Replaces a text of the same length.
fn replaced(bytes: &[u8], old: &str, new: &str) -> Vec<u8> {
    let at = bytes.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
    [&bytes[..at], new.as_bytes(), &bytes[at + old.len()..]].concat()
}

pub(super) fn samples() -> Vec<ContainerSample> {
    let encrypted = Expected::Note(NoteKind::Encrypted);
    // Another salt, and so another password.
    let mut other_standard = STANDARD.0.to_vec();
    let salt = other_standard.len() - 60;
    other_standard[salt] ^= 1;
    let mut other_rc4 = RC4.to_vec();
    other_rc4[40] ^= 1;
    let other_agile = replaced(AGILE.0, "\"100000\"", "\"099999\"");
    let many_rounds = replaced(AGILE.0, "\"100000\"", "\"999999\"");
    vec![
        ContainerSample::payload("ole-excel-password-agile", document(AGILE)),
        ContainerSample::payload("ole-excel-password-standard", document(STANDARD)),
        ContainerSample::payload("ole-excel-password-rc4", workbook(RC4)),
        ContainerSample::payload("ole-excel-password-crypto-api", workbook(CRYPTO_API)),
        ContainerSample::payload("ole-excel-password-crypto-api-40", workbook(CRYPTO_API_40)),
        ContainerSample::new("ole-password-agile", document((&many_rounds, AGILE.1)), encrypted),
        ContainerSample::new(
            "ole-password-standard",
            document((&other_standard, STANDARD.1)),
            encrypted,
        ),
        ContainerSample::new("ole-password-rc4", workbook(&other_rc4), encrypted),
        ContainerSample::new("ole-other-agile", document((&other_agile, AGILE.1)), encrypted),
    ]
}

#[test]
fn documents_that_excel_decrypts_are_not_noted() {
    for sample in samples() {
        let has_notes = !collect(&sample.bytes).notes.is_empty();
        assert_eq!(has_notes, sample.expected != Expected::Payload, "{}", sample.name);
    }
}

#[test]
fn records_are_decrypted() {
    for stream in [RC4, CRYPTO_API, CRYPTO_API_40] {
        let collected = collect(&workbook(stream));
        let decrypted = collected.objects.iter().find(|(path, _)| path == "decrypted document");
        let decrypted = &decrypted.unwrap().1;
        assert_eq!(decrypted.len(), stream.len());
        // The position of a sheet is not encrypted, its name is.
        let sheet = b"\x85\0\x0d\0\xd0\x07\0\0\0\0\x05\0Sheet";
        assert!(decrypted.windows(sheet.len()).any(|window| window == sheet));
        assert!(decrypted.ends_with(b"\x0a\0\0\0"));
    }
}

#[test]
fn truncated_package_is_noted_and_examined() {
    let collected = collect(&document((AGILE.0, &AGILE.1[..8 + 200])));
    let decrypted = collected.objects.iter().find(|(path, _)| path == "decrypted document");
    assert!(decrypted.unwrap().1.starts_with(b"PK\x03\x04"), "{collected:?}");
    assert!(collected.note(NoteKind::Unreadable).is_some(), "{collected:?}");
}

#[test]
fn few_passwords_are_tried() {
    // Documents that differ, so that each of them is unpacked.
    let documents: Vec<_> =
        (0..30_u8).map(|number| [document(STANDARD), vec![number]].concat()).collect();
    let names: Vec<_> = (0..documents.len()).map(|number| number.to_string()).collect();
    let files: Vec<_> =
        names.iter().zip(&documents).map(|(name, bytes)| (&name[..], &bytes[..])).collect();
    let collected = collect(&stored_zip(&files));
    let decrypted =
        collected.paths().into_iter().filter(|path| path.ends_with("decrypted document"));
    assert_eq!(decrypted.count(), 20);
    assert!(collected.note(NoteKind::Encrypted).is_some());
}

#[test]
fn damaged_descriptions_are_noted() {
    for (info, package) in [AGILE, STANDARD] {
        for length in (0..info.len()).step_by(97) {
            let collected = collect(&document((&info[..length], package)));
            assert!(collected.note(NoteKind::Encrypted).is_some(), "{length}: {collected:?}");
        }
    }
    for length in 0..200 {
        collect(&workbook(&CRYPTO_API[..length]));
    }
}
