//! Tests of zip files.

mod bombs;
mod harmless;
mod hostile;
mod samples;
mod writer;

#[expect(unused_imports, reason = "for tests of formats that contain zip files")]
pub(crate) use self::{
    samples::samples,
    writer::{ZipEntrySpec, ZipFields, ZipWriter, crc, deflate, stored_zip, zip},
};
use super::collect;
use crate::report::NoteKind;

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
    }
}

/// Programs unpack different contents of these.
#[test]
fn what_only_some_programs_unpack_is_inconsistent() {
    const HARMLESS: [&str; 4] =
        ["zip-end-in-comment", "zip-false-comment-length", "zip-false-disk", "zip-duplicate-names"];
    let unlisted = samples::local_headers().into_iter().filter(|s| s.name.contains("unlisted"));
    let directories = samples::directories().into_iter().filter(|sample| {
        sample.name.contains("two-")
            || sample.name.contains("archive-")
            || sample.name.contains("hidden")
    });
    let differing = samples::differing().into_iter().filter(|s| !s.name.contains("crc"));
    for sample in unlisted.chain(directories).chain(differing) {
        let collected = collect(&sample.bytes);
        assert!(collected.note(NoteKind::Inconsistent).is_some(), "{}: {collected:?}", sample.name);
    }
    for sample in samples::directories().into_iter().filter(|s| HARMLESS.contains(&&*s.name)) {
        assert!(collect(&sample.bytes).notes.is_empty(), "{}", sample.name);
    }
}

#[test]
fn ordinary_samples_have_no_notes() {
    let ordinary = samples::methods().into_iter().filter(|s| !s.name.contains("false"));
    let surrounded = samples::surrounded().into_iter().filter(|s| s.name != "zip-truncated");
    for sample in ordinary.chain(surrounded) {
        let collected = collect(&sample.bytes);
        assert!(collected.notes.is_empty(), "{}: {collected:?}", sample.name);
        assert_eq!(collected.paths(), ["payload.txt"], "{}", sample.name);
    }
}

#[test]
fn both_names_are_examined_where_headers_differ() {
    let paths = |name: &str| {
        let sample = samples::names().into_iter().find(|sample| sample.name == name).unwrap();
        let collected = collect(&sample.bytes);
        collected.paths().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(paths("zip-names-differ"), ["payload.txt", "payload.exe"]);
    assert_eq!(paths("zip-unicode-path"), ["payload.exe", "payload.txt"]);
    assert_eq!(paths("zip-zero-in-name"), ["payload.exe\0.txt", "payload.exe"]);
    assert_eq!(paths("zip-parent-name"), ["../../payload.txt"]);
}

#[test]
fn local_headers_in_files_of_other_kinds_cause_no_notes() {
    let archive = samples::nest(1, true);
    let without_end = [&b"\xd0\xcf\x11\xe0"[..], &archive[..archive.len() - 22]].concat();
    let collected = collect(&without_end);
    assert!(collected.has_payload() && collected.notes.is_empty(), "{collected:?}");
    // As in a tar with two zip files.
    let two = [&b"x"[..], &archive, &[0; 600], &zip(&[("b.txt", b"b")]), &[0; 600]].concat();
    let collected = collect(&two);
    assert!(collected.paths().contains(&"b.txt") && collected.has_payload(), "{collected:?}");
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn file_is_also_examined_up_to_the_stated_size() {
    let entry = ZipEntrySpec::deflated("a", b"malware and more").both(|fields| fields.size = 7);
    let collected = collect(&ZipWriter::new([entry]).build());
    assert!(collected.objects.iter().any(|(_, file)| file == b"malware"), "{collected:?}");
    assert!(collected.note(NoteKind::Inconsistent).is_some());
}

/// Compressed data contains character references by chance. Only programs that display text decode them.
#[test]
fn archive_without_its_references_is_not_another_archive() {
    let references = stored_zip(&[("a.bin", b"before &#9; &#65; &#x41; after\0")]);
    let collected = collect(&stored_zip(&[("inner.zip", &references)]));
    assert!(collected.notes.is_empty(), "{collected:?}");
    let paths = collected.paths();
    assert!(paths.iter().all(|path| !path.contains("references > ")), "{paths:?}");
    // A page behind an archive, whose picture has references.
    let page =
        "<img src='&#100;ata:image/png;base64,TVqQAAMAAAAEAAAA//8AALgAAAAAAAAAQAAAAAAAAAA='>";
    let collected = collect(&[&references[..], page.as_bytes()].concat());
    let is_found = |(_, object): &(String, Vec<u8>)| object.starts_with(b"MZ");
    assert!(collected.objects.iter().any(is_found), "{collected:?}");
}
