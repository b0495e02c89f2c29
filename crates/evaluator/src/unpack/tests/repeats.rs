//! Objects that occur several times, and second interpretations.

use super::{
    collect,
    streams::gzip,
    tar::tar,
    zip::{ZipEntrySpec, ZipWriter, stored_zip},
};
use crate::report::NoteKind;

/// Returns an archive whose entry needs a password: bit 0 of the flags.
fn encrypted_zip() -> Vec<u8> {
    let entry = ZipEntrySpec::deflated("a.txt", b"text that nothing decrypts");
    ZipWriter::new([entry.both(|fields| {
        fields.flags |= 1;
        fields.crc ^= 1;
    })])
    .build()
}

#[test]
fn second_copy_of_an_object_causes_the_same_notes() {
    let damaged = gzip(&[b'a'; 1000]);
    let damaged = damaged[..damaged.len() - 9].to_vec();
    for (kind, file) in [(NoteKind::Encrypted, encrypted_zip()), (NoteKind::Unreadable, damaged)] {
        assert!(collect(&file).note(kind).is_some(), "{kind:?}");
        // Found by the search for archives behind other content, which notes no unreadable files.
        let hidden = [&b"x"[..], &tar("file", &file)].concat();
        let (hidden, file) = (("hidden", hidden.as_slice()), ("file", file.as_slice()));
        for files in [[hidden, file], [file, hidden]] {
            let collected = collect(&stored_zip(&files));
            assert!(collected.note(kind).is_some(), "{kind:?}: {collected:?}");
        }
    }
}

#[test]
fn encrypted_file_in_an_archive_behind_other_content_is_noted() {
    let media = [&b"x"[..], &tar("secret.zip", &encrypted_zip())].concat();
    assert!(collect(&media).note(NoteKind::Encrypted).is_some());
}

#[test]
fn parts_of_a_file_in_a_second_interpretation_are_not_noted() {
    // The first member alone is a truncated archive.
    let archive = stored_zip(&[("a.txt", b"one"), ("b.txt", b"two")]);
    let (start, end) = archive.split_at(archive.len() / 2);
    let collected = collect(&[gzip(start), gzip(end)].concat());
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn streams_that_look_like_tar_add_levels() {
    // The magic number of tar at its offset in the header, after the extra field that begins there.
    let with_magic = |content: &[u8]| {
        let stream = gzip(content);
        let mut extra = vec![b' '; 257 - 12];
        extra.extend_from_slice(b"ustar");
        let length = u16::try_from(extra.len()).unwrap().to_le_bytes();
        [&stream[..3], &[stream[3] | 4], &stream[4..10], &length, &extra, &stream[10..]].concat()
    };
    let mut media = b"innermost".to_vec();
    for _ in 0..60 {
        media = with_magic(&media);
    }
    let collected = collect(&media);
    assert!(collected.note(NoteKind::Limit).is_some(), "{collected:?}");
}
