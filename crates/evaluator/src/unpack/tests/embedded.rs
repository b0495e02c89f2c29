//! Archives at an offset. 7-Zip extracts all samples.

use std::time::{Duration, Instant};

use super::{
    ContainerSample, collect, iso, payload,
    streams::{bzip2, gzip, xz, zstd},
    tar::tar,
    zip::{stored_zip, zip},
};

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
