//! Archives at an offset. 7-Zip extracts all samples.

use std::time::{Duration, Instant};

use super::{
    ContainerSample, collect,
    cpio::cpio,
    iso, payload,
    streams::{bzip2, gzip, xz, zstd},
    tar::tar,
    zip::{ZipEntrySpec, ZipWriter, stored_zip, zip},
};
use crate::report::NoteKind;

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let mut damaged_zip = zip(&[("payload.txt", &payload)]);
    damaged_zip.truncate(damaged_zip.len() - 22);
    let archives = [
        ("zip-without-end", damaged_zip),
        ("tar", tar("payload.txt", &payload)),
        ("gzip", gzip(&payload)),
        ("bzip2", bzip2(&payload)),
        ("xz", xz(&payload, 1 << 16)),
        ("zstd", zstd(&payload)),
        ("iso", iso::plain()),
    ];
    let prefixed = archives.into_iter().flat_map(|(name, archive)| {
        [("byte", &b"x"[..]), ("pdf", &b"%PDF-1.4\n%%EOF\n"[..])].map(|(kind, prefix)| {
            ContainerSample::payload(
                format!("embedded-{name}-after-{kind}"),
                [prefix, &archive].concat(),
            )
        })
    });
    let mut samples: Vec<_> = prefixed.collect();
    // The second archive is not at a multiple of the block size. The header of the first one is damaged.
    let mut two = [tar("a.txt", b"a"), vec![b' '; 7], tar("payload.txt", &payload)].concat();
    two[0] ^= 1;
    samples.push(ContainerSample::payload("embedded-tar-after-tar", two));
    samples
}

#[test]
fn archives_at_an_offset_are_unpacked() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn archives_that_are_examined_as_objects_are_unpacked_once() {
    let inner = tar("a.txt", b"a");
    for outer in [tar("x/inner.tar", &inner), stored_zip(&[("x/inner.tar", &inner)])] {
        let collected = collect(&outer);
        assert_eq!(collected.paths(), ["x/inner.tar", "x/inner.tar > a.txt"]);
        assert!(collected.notes.is_empty(), "{collected:?}");
    }
}

/// 7-Zip unpacks the second archive if it rejects the first one for a reason that this crate ignores.
#[test]
fn archives_behind_another_one_are_unpacked() {
    let payload = payload();
    let first = [
        ("gzip", gzip(b"text")),
        ("bzip2", bzip2(b"text")),
        ("xz", xz(b"text", 1 << 16)),
        ("zstd", zstd(b"text")),
        ("tar", tar("a.txt", b"text")),
        ("cpio", cpio(&[("a.txt", b"text")])),
        ("iso", iso::plain()),
    ];
    let second = [
        ("zip", zip(&[("payload.txt", &payload)])),
        ("gzip", gzip(&payload)),
        ("bzip2", bzip2(&payload)),
        ("xz", xz(&payload, 1 << 16)),
        ("zstd", zstd(&payload)),
        ("cpio", cpio(&[("payload.txt", &payload)])),
    ];
    for (first_name, first) in &first {
        for (second_name, second) in &second {
            let collected = collect(&[first, &b"between"[..], second].concat());
            assert!(collected.has_payload(), "{second_name} after {first_name}: {collected:?}");
        }
    }
}

#[test]
fn compressed_data_are_no_archives() {
    let text = b"text ".repeat(100);
    let members = [bzip2(&text), bzip2(b"more")].concat();
    let entry = |method, data: Vec<u8>, file: &[u8]| ZipEntrySpec::packed("a", method, data, file);
    let (bzip2_entry, xz_entry) = (bzip2(&text), xz(&text, 1 << 16));
    for (archive, paths) in [
        (members, &["content", "first member"][..]),
        (ZipWriter::new([entry(12, bzip2_entry, &text)]).build(), &["a"]),
        (ZipWriter::new([entry(95, xz_entry, &text)]).build(), &["a"]),
    ] {
        let collected = collect(&archive);
        assert_eq!(collected.paths(), paths, "{collected:?}");
        assert!(collected.notes.is_empty(), "{collected:?}");
    }
}

/// 7-Zip rejects reserved flags, and unpacks from the second member on.
#[test]
fn members_behind_a_doubtful_one_are_examined_alone() {
    let mut members = [gzip(b"text"), gzip(&payload())].concat();
    assert!(!collect(&members).has_payload());
    members[3] |= 0xe0;
    assert!(collect(&members).has_payload());
}

/// In damaged archives, 7-Zip finds archives that start in a file and continue behind it.
#[test]
fn archives_that_continue_behind_a_file_are_unpacked() {
    let payload = payload();
    let two = [("a.txt", &b"text"[..]), ("payload.txt", &payload)];
    let mut two_in_tar = tar("a.txt", b"text");
    two_in_tar.truncate(1024);
    two_in_tar.extend(tar("payload.txt", &payload));
    let archives = [
        ("gzip", 30, gzip(&payload)),
        ("bzip2", 30, bzip2(&payload)),
        ("xz", 30, xz(&payload, 1 << 16)),
        ("zstd", 30, zstd(&payload)),
        ("tar", 1529, two_in_tar),
        ("zip", 50, stored_zip(&two)),
        ("cpio", 150, cpio(&two)),
    ];
    for (name, inside, archive) in archives {
        let length = (inside + 7_usize).next_multiple_of(512);
        let mut outer = tar("a.bin", &vec![b'x'; length]);
        outer.truncate(512 + length - inside);
        outer.extend_from_slice(&archive);
        let collected = collect(&outer);
        assert!(collected.has_payload(), "{name}: {collected:?}");
        // Of the whole archive in the file, nothing is examined twice.
        let complete = [&[b'x'; 7][..], &archive].concat();
        let mut outer = tar("a.bin", &complete);
        outer.truncate(outer.len() - 1024);
        let collected = collect(&[outer, vec![b'x'; 512]].concat());
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{name}: {collected:?}");
        assert!(collected.has_payload(), "{name}: {collected:?}");
        // Programs find the directory of the zip at the end of the file around it.
        let is_in_file = |path: &&str| path.starts_with("a.bin") || name == "zip";
        assert!(collected.paths().iter().all(is_in_file), "{name}: {collected:?}");
    }
}

#[test]
fn copies_of_complete_archives_are_unpacked_once() {
    let inner = [("tar", tar("a.txt", b"a")), ("cpio", cpio(&[("a.txt", b"a")]))];
    for (name, inner) in inner {
        // Without an end, so that the rest is a damaged header.
        let file = |name: &str| {
            tar(name, &inner).split_at(512 + inner.len().next_multiple_of(512)).0.to_vec()
        };
        let collected = collect(&[file("a.bin"), file("b.bin"), vec![b'x'; 512]].concat());
        assert_eq!(collected.paths(), ["a.bin", "a.bin > a.txt", "b.bin"], "{name}");
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{name}");
    }
}

#[test]
fn header_at_the_end_of_a_file_in_an_archive_is_followed_beyond_it() {
    let inner = tar("payload.txt", &payload());
    // The first file has the header of the second archive, without its content.
    let mut outer = tar("a.bin", &[&b"x"[..], &inner[..512]].concat());
    outer.truncate(512 + 513);
    outer.extend_from_slice(&inner[512..]);
    assert!(collect(&outer).has_payload());
}

#[test]
fn signatures_in_other_files_cause_no_notes() {
    let signatures = [
        &b"PK\x03\x04"[..],
        b"\x1f\x8b\x08",
        b"BZh91AY&SY",
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"ustar",
        b"\x01CD001\x01",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        b"7z\xbc\xaf\x27\x1c",
        b"070701",
        b"\xc7\x71",
        b"\x71\xc7",
        b"MSCF\0\0\0\0",
        b"\xed\xab\xee\xdb",
        b"-lh5-",
        b"\x60\xea",
        b"Rar!\x1a\x07\0",
        b"EFI PART\0\0\x01\0",
        b"conectix\0\0\0\x02",
        b"KDMV\x01\0\0\0",
        b"QFI\xfb\0\0\0\x02",
    ];
    for signature in signatures {
        let file = [&b"\x7fELF"[..], signature, &[0; 100]].concat().repeat(1000);
        let start = Instant::now();
        let collected = collect(&file);
        assert!(collected.notes.is_empty(), "{}: {collected:?}", signature.escape_ascii());
        assert!(start.elapsed() < Duration::from_secs(5), "{}", signature.escape_ascii());
    }
}
