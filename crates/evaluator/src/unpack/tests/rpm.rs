//! RPM packages. 7-Zip extracts the payload of the samples.

use super::{
    ContainerSample, Expected, collect,
    cpio::cpio,
    payload,
    streams::{bzip2, gzip, xz, zstd},
};
use crate::report::NoteKind;

/// Returns a header with an entry.
fn header() -> Vec<u8> {
    let fields = [0x8ead_e801, 0, 1, 5, 1000, 6, 0, 1].map(u32::to_be_bytes);
    [&fields.concat()[..], b"test\0"].concat()
}

/// Writes a package with this payload.
fn rpm(payload: &[u8]) -> Vec<u8> {
    let mut package = [&[0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 0, 0, 1][..], b"test-1.0-1"].concat();
    package.resize(76, 0);
    // The operating system, and the type of the signature.
    package.extend([0, 1, 0, 5]);
    package.resize(96, 0);
    package.extend(header());
    package.resize(package.len().next_multiple_of(8), 0);
    package.extend(header());
    package.extend_from_slice(payload);
    package
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let archive = cpio(&[("./usr/bin/payload", &payload())]);
    let payloads = [
        ("stored", archive.clone()),
        ("gzip", gzip(&archive)),
        ("bzip2", bzip2(&archive)),
        ("xz", xz(&archive, 1 << 16)),
        ("zstd", zstd(&archive)),
    ];
    let mut samples: Vec<_> = payloads
        .into_iter()
        .map(|(name, payload)| ContainerSample::payload(format!("rpm-{name}"), rpm(&payload)))
        .collect();
    let mut old = rpm(&gzip(&archive));
    old.drain(96..96 + header().len().next_multiple_of(8));
    old[79] = 0;
    let embedded = [b"x", &rpm(&gzip(&archive))[..]].concat();
    let truncated = rpm(b"")[..150].to_vec();
    let stripped = rpm(&gzip(b"07070X00000000content of the first file"));
    samples.extend([
        ContainerSample::payload("rpm-without-signature", old),
        ContainerSample::payload("rpm-after-byte", embedded),
        ContainerSample::new("rpm-truncated", truncated, Expected::Note(NoteKind::Unreadable)),
        ContainerSample::new("rpm-stripped-cpio", stripped, Expected::Note(NoteKind::Unreadable)),
    ]);
    samples
}

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
        if sample.expected == Expected::Payload {
            let collected = collect(&sample.bytes);
            assert!(collected.notes.is_empty(), "{}: {collected:?}", sample.name);
        }
    }
}

#[test]
fn sizes_beyond_the_file_are_unreadable() {
    for offset in [96 + 8, 96 + 12, 96 + 37 + 3 + 8] {
        let mut package = rpm(b"payload");
        package[offset..offset + 4].fill(0xff);
        let collected = collect(&package);
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{offset}: {collected:?}");
    }
}
