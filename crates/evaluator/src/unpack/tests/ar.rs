//! ar archives. 7-Zip, bsdtar and GNU ar extract the samples with the payload.

use super::{
    ContainerSample, Expected, collect, collect_within, payload, streams::gzip, tar::tar, zip::zip,
};
use crate::{report::NoteKind, unpack::UnpackSettings};

const NAME: &str = "payload.txt";
const MAGIC: &[u8] = b"!<arch>\n";

fn header(name: &str, size: &str) -> Vec<u8> {
    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{size:<10}`\n", 0, 0, 0, 100_644).into_bytes()
}

fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = [&header(name, &content.len().to_string())[..], content].concat();
    if bytes.len() % 2 != 0 {
        bytes.push(b'\n');
    }
    bytes
}

/// Writes an archive with names that are at most 15 characters long.
fn ar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let members = files.iter().map(|(name, content)| member(&format!("{name}/"), content));
    [MAGIC.to_vec()].into_iter().chain(members).collect::<Vec<_>>().concat()
}

/// Writes a Debian package with the payload.
fn deb() -> Vec<u8> {
    let files = [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.gz", gzip(&tar("./control", b"Package: test\n"))),
        ("data.tar.gz", gzip(&tar("./usr/bin/payload", &payload()))),
    ];
    let files: Vec<_> = files.iter().map(|(name, content)| (*name, &content[..])).collect();
    ar(&files)
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let sample = |name: &str, parts: &[&[u8]]| {
        ContainerSample::payload(format!("ar-{name}"), [&[MAGIC], parts].concat().concat())
    };
    let names = b"a-file-with-a-long-name.txt/\nanother-file-with-a-long-name.txt/\n";
    let bsd = [&b"payload-with-a-long-name.txt"[..], &payload].concat();
    let odd = b"first";
    vec![
        ContainerSample::payload("ar-gnu", ar(&[("a", odd), (NAME, &payload)])),
        sample("bsd", &[&member("a", odd), &member(NAME, &payload)]),
        sample(
            "gnu-long-name",
            &[&member("//", names), &member("/0", odd), &member("/29", &payload)],
        ),
        sample("bsd-long-name", &[&member("#1/28", &bsd)]),
        sample(
            "symbols",
            &[&member("/", &[0; 4]), &member("__.SYMDEF", &[0; 8]), &member("x/", &payload)],
        ),
        sample("in-symbols", &[&member("/", &payload)]),
        sample("truncated", &[&member("a/", &payload)[..180]]),
        sample("not-padded", &[&member("a/", odd)[..65], &member(NAME, &payload)]),
        sample("size-with-letters", &[&header("a/", "128x"), &payload]),
        ContainerSample::payload("deb", deb()),
        ContainerSample::new("ar-empty", MAGIC.to_vec(), Expected::Clean),
        ContainerSample::new("ar-thin", b"!<thin>\n".to_vec(), Expected::Clean),
        ContainerSample::new(
            "ar-damaged",
            [MAGIC, &[b' '; 80]].concat(),
            Expected::Note(NoteKind::Unreadable),
        ),
    ]
}

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn ambiguous_and_damaged_samples_have_notes() {
    for sample in samples() {
        let expected = match sample.name.as_str() {
            "ar-truncated" | "ar-damaged" => Some(NoteKind::Unreadable),
            "ar-not-padded" | "ar-size-with-letters" => Some(NoteKind::Inconsistent),
            _ => None,
        };
        let collected = collect(&sample.bytes);
        let kinds: Vec<_> = collected.notes.iter().map(|note| note.kind).collect();
        assert_eq!(kinds, Vec::from_iter(expected), "{}: {collected:?}", sample.name);
    }
}

#[test]
fn long_names_are_found() {
    let paths = |name: &str| {
        let sample = samples().into_iter().find(|sample| sample.name == name).unwrap();
        collect(&sample.bytes).paths().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        paths("ar-gnu-long-name"),
        ["/", "a-file-with-a-long-name.txt", "another-file-with-a-long-name.txt"]
    );
    assert_eq!(paths("ar-bsd-long-name"), ["payload-with-a-long-name.txt"]);
    assert_eq!(paths("ar-gnu"), ["a", NAME]);
}

/// Returns an import library with 12,000 objects, and these files at its end.
fn library(files: &[&[u8]]) -> Vec<u8> {
    let objects = (0..12_000_u32).map(|number| {
        // The symbol and the library follow a header of 20 bytes.
        let names = format!("Function{number}\0library.dll\0");
        let mut object = b"\0\0\xff\xff\0\0\x64\x86".to_vec();
        object.resize(20, 0);
        object.extend_from_slice(names.as_bytes());
        member("library.dll/", &object)
    });
    let files = files.iter().map(|file| member("library.dll/", file));
    [MAGIC.to_vec()].into_iter().chain(objects).chain(files).collect::<Vec<_>>().concat()
}

#[test]
fn object_files_of_large_libraries_reach_no_limit() {
    let collected = collect(&library(&[]));
    assert!(collected.notes.is_empty(), "{:?}", collected.notes);
    // Some of the objects are LZMA by chance.
    let members = collected.paths().into_iter().filter(|path| !path.contains(" > "));
    assert_eq!(members.count(), 1000);
}

#[test]
fn files_that_are_no_object_files_are_found_in_large_libraries() {
    assert!(collect(&library(&[&payload()])).has_payload());
    // These begin as object files.
    let pdf = [
        &b"\x7fELF\n"[..],
        b"%PDF-1.4\n1 0 obj\n<</Type/Catalog>>\nendobj\ntrailer<</Root 1 0 R>>",
    ]
    .concat();
    let archive = [&b"\x64\x86"[..], &zip(&[(NAME, &payload())])].concat();
    assert!(collect(&library(&[&archive])).has_payload());
    // Programs are ELF and Mach-O as well.
    let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0; 9], b"\x03\0program"].concat();
    let mach_o = [&b"\xcf\xfa\xed\xfe"[..], &[0; 8], b"\x02\0\0\0program"].concat();
    for file in [pdf, elf, mach_o] {
        let collected = collect(&library(&[&file]));
        assert_eq!(collected.objects.iter().filter(|(_, object)| *object == file).count(), 1);
    }
}

#[test]
fn other_files_count() {
    let settings = UnpackSettings { max_files: 20, ..UnpackSettings::default() };
    let members = (0..21_u32).map(|number| member("a", &number.to_le_bytes()));
    let archive = [MAGIC.to_vec()].into_iter().chain(members).collect::<Vec<_>>().concat();
    assert!(collect_within(&archive, &settings).note(NoteKind::Limit).is_some());
}
