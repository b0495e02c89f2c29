//! tar archives. GNU tar and Python's tarfile extract the written archives.

use proptest::{collection::vec, prelude::*};

use super::{
    ContainerSample, Expected, collect, payload,
    streams::{gzip, xz},
};
use crate::report::NoteKind;

/// A header, as bytes that tests change.
struct TarHeader([u8; 512]);

impl TarHeader {
    fn v7(name: &str, kind: u8, size: usize) -> Self {
        let mut header = Self([0; 512]);
        header.put(0, name.as_bytes());
        header.put(100, b"0000644\0");
        header.put(108, b"0000000\0");
        header.put(116, b"0000000\0");
        header.put(124, format!("{size:011o}\0").as_bytes());
        header.put(136, b"00000000000\0");
        header.0[156] = kind;
        header
    }

    fn ustar(name: &str, kind: u8, size: usize) -> Self {
        let mut header = Self::v7(name, kind, size);
        header.put(257, b"ustar\x0000");
        header
    }

    fn gnu(name: &str, kind: u8, size: usize) -> Self {
        let mut header = Self::v7(name, kind, size);
        header.put(257, b"ustar  \0");
        header
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn with(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.put(offset, bytes);
        self
    }

    /// Returns the header with its checksum, and the padded content.
    fn followed_by(mut self, content: &[u8]) -> Vec<u8> {
        self.put(148, b"        ");
        let sum: u32 = self.0.iter().map(|byte| u32::from(*byte)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = [&self.0[..], content].concat();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    TarHeader::ustar(name, b'0', content.len()).followed_by(content)
}

/// Writes an archive with one file.
pub(super) fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    [file(name, content), end()].concat()
}

fn pax(records: &[(&str, &str)], kind: u8) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let length = key.len() + value.len() + 3;
        let total =
            (length..length + 9).find(|total| length + total.to_string().len() == *total).unwrap();
        content.extend_from_slice(format!("{total} {key}={value}\n").as_bytes());
    }
    TarHeader::ustar("pax", kind, content.len()).followed_by(&content)
}

/// Writes a sparse file in the old GNU format: the payload in two parts around a hole of 1000 bytes at its end.
fn gnu_sparse(content: &[u8]) -> Vec<u8> {
    let parts = [(0, 512), (1512, content.len() - 512)];
    let mut header = TarHeader::gnu("sparse", b'S', content.len());
    for (index, (offset, length)) in parts.iter().enumerate() {
        let field = format!("{offset:011o}\0{length:011o}\0");
        header.put(386 + 24 * index, field.as_bytes());
    }
    header.put(483, format!("{:011o}\0", content.len() + 1000).as_bytes());
    header.followed_by(content)
}

/// Writes a sparse file whose map needs an extension header: a hole of 512 bytes before each part of 512 bytes but the
/// first.
fn gnu_sparse_extended(content: &[u8]) -> Vec<u8> {
    let mut header = TarHeader::gnu("sparse", b'S', content.len());
    let mut extension = vec![0; 512];
    for part in 0..content.len() / 512 {
        let field = format!("{:011o}\0{:011o}\0", part * 1024, 512);
        if part < 4 {
            header.put(386 + 24 * part, field.as_bytes());
        } else {
            extension[24 * (part - 4)..][..24].copy_from_slice(field.as_bytes());
        }
    }
    header.0[482] = 1;
    header.put(483, format!("{:011o}\0", content.len() * 2).as_bytes());
    header.followed_by(&[extension, content.to_vec()].concat())
}

/// Returns the payload and enough bytes for several parts.
fn long_payload() -> Vec<u8> {
    let mut content = payload();
    content.resize(512 * 6, b'.');
    content
}

fn pax_sparse_samples() -> Vec<ContainerSample> {
    let content = long_payload();
    let size = content.len().to_string();
    let real_size = (content.len() + 1000).to_string();
    let map = format!("2\n0\n512\n1512\n{}\n", content.len() - 512);
    let mut stored = map.into_bytes();
    stored.resize(512, 0);
    stored.extend_from_slice(&content);
    let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    let map_in_content =
        [&version[..], &[("GNU.sparse.name", "x"), ("GNU.sparse.realsize", &real_size)]];
    let list = format!("0,512,1512,{}", content.len() - 512);
    let map_in_record = [
        ("GNU.sparse.size", real_size.as_str()),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.map", &list),
    ];
    let rest = (content.len() - 512).to_string();
    let map_in_records = [
        ("GNU.sparse.size", real_size.as_str()),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "0"),
        ("GNU.sparse.numbytes", "512"),
        ("GNU.sparse.offset", "1512"),
        ("GNU.sparse.numbytes", &rest),
    ];
    assert_eq!(size, "3072");
    vec![
        ContainerSample::payload(
            "tar/sparse-1.0.tar",
            [pax(&map_in_content.concat(), b'x'), file("s", &stored), end()].concat(),
        ),
        ContainerSample::payload(
            "tar/sparse-0.1.tar",
            [pax(&map_in_record, b'x'), file("s", &content), end()].concat(),
        ),
        ContainerSample::payload(
            "tar/sparse-0.0.tar",
            [pax(&map_in_records, b'x'), file("s", &content), end()].concat(),
        ),
    ]
}

/// Writes an archive of members.
fn archive(members: &[&[u8]]) -> Vec<u8> {
    [&members.concat()[..], &end()].concat()
}

/// Writes a file whose checksum is the sum of signed bytes.
fn with_signed_checksum(content: &[u8]) -> Vec<u8> {
    let name = "\u{e9}t\u{e9}";
    let mut member = TarHeader::v7(name, b'0', content.len()).followed_by(content);
    let sum = u32::from_str_radix(std::str::from_utf8(&member[148..154]).unwrap(), 8).unwrap();
    // Each letter has two bytes above 127.
    member[148..154].copy_from_slice(format!("{:06o}", sum - 4 * 256).as_bytes());
    member
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let groups = [
        common_samples(),
        damaged_samples(),
        ambiguous_samples(),
        size_samples(),
        unusual_sparse_samples(),
        pax_sparse_samples(),
    ];
    groups.into_iter().flatten().collect()
}

/// Returns archives that most programs read in the same way.
fn common_samples() -> Vec<ContainerSample> {
    let content = payload();
    let size = content.len();
    let of_kind = |kind| archive(&[&TarHeader::ustar("f", kind, size).followed_by(&payload())]);
    let long_name = "d/".repeat(80) + "setup.exe";
    let long_link = TarHeader::gnu("././@LongLink", b'L', long_name.len() + 1)
        .followed_by(&[long_name.as_bytes(), b"\0"].concat());
    let gnu_long_name = archive(&[&long_link, &file("short", &content)]);
    let pax_name = archive(&[&pax(&[("path", &long_name)], b'x'), &file("f", &content)]);
    let base_256 = [0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128];
    let base_256 = TarHeader::gnu("f", b'0', 0).with(124, &base_256).followed_by(&content);
    let v7 = TarHeader::v7("f", 0, size).followed_by(&content);
    vec![
        ContainerSample::payload("tar/v7.tar", archive(&[&v7])),
        ContainerSample::payload("tar/ustar.tar", tar("f", &content)),
        ContainerSample::payload("tar/gnu-long-name.tar", gnu_long_name),
        ContainerSample::payload("tar/pax.tar", pax_name),
        ContainerSample::payload("tar/base-256-size.tar", archive(&[&base_256])),
        ContainerSample::payload(
            "tar/signed-checksum.tar",
            archive(&[&with_signed_checksum(&content)]),
        ),
        ContainerSample::payload("tar/gnu-sparse.tar", archive(&[&gnu_sparse(&long_payload())])),
        ContainerSample::payload(
            "tar/gnu-sparse-extended.tar",
            archive(&[&gnu_sparse_extended(&long_payload())]),
        ),
        ContainerSample::payload("tar/no-end.tar", file("f", &content)),
        ContainerSample::payload("tar/absolute-name.tar", tar("/../../etc/f", &content)),
        ContainerSample::payload("tar/unknown-type.tar", of_kind(b'Z')),
        ContainerSample::payload("tar/contiguous-file.tar", of_kind(b'7')),
        ContainerSample::payload("tar/in-tar.tar", tar("a.tar", &tar("inner", &content))),
        ContainerSample::payload("tar/tar.gz", gzip(&tar("f", &content))),
        ContainerSample::payload("tar/tar.xz", xz(&tar("f", &content), 4096)),
        ContainerSample::new("tar/text.tar", tar("f", b"text"), Expected::Clean),
    ]
}

fn damaged_samples() -> Vec<ContainerSample> {
    let content = payload();
    let (text, member) = (file("text", b"text"), file("f", &content));
    let mut changed = file("changed", &content);
    changed[0] = b'C';
    let mut wrong = TarHeader::ustar("x", b'0', 4).followed_by(b"text");
    wrong[0] = b'X';
    vec![
        ContainerSample::payload("tar/truncated.tar", tar("f", &content)[..512 + 100].to_vec()),
        ContainerSample::payload("tar/first-checksum-wrong.tar", archive(&[&changed, &text])),
        ContainerSample::payload(
            "tar/checksum-wrong-before.tar",
            archive(&[&text, &wrong, &member]),
        ),
        ContainerSample::payload("tar/garbage-first.tar", archive(&[&[b'g'; 512], &member])),
        ContainerSample::payload(
            "tar/garbage-before.tar",
            archive(&[&text, &[b'g'; 1024], &member]),
        ),
    ]
}

/// Returns archives that programs read in different ways.
fn ambiguous_samples() -> Vec<ContainerSample> {
    let content = payload();
    let (text, member) = (file("text", b"text"), file("f", &content));
    let inner = tar("inner", &content);
    let after_end = [archive(&[&text]), vec![0; 4096], archive(&[&member])].concat();
    let device = TarHeader::ustar("device", b'3', content.len()).followed_by(&content);
    // GNU tar expects no content after a link.
    let link = TarHeader::ustar("l", b'1', 4096).followed_by(b"");
    let link_with_content = TarHeader::ustar("l", b'2', 4096).followed_by(&[b'x'; 512]);
    let pax_size = pax(&[("size", &inner.len().to_string())], b'x');
    let without_size = TarHeader::ustar("f", b'0', 0).followed_by(&inner);
    vec![
        ContainerSample::payload("tar/after-end.tar", after_end),
        ContainerSample::payload("tar/device-with-size.tar", archive(&[&device])),
        ContainerSample::payload("tar/link-with-size.tar", archive(&[&link, &member])),
        ContainerSample::payload(
            "tar/link-hides-file.tar",
            archive(&[&link_with_content, &member]),
        ),
        ContainerSample::payload("tar/pax-size.tar", archive(&[&pax_size, &without_size])),
        ContainerSample::payload(
            "tar/pax-size-zero.tar",
            archive(&[&pax(&[("size", "0")], b'x'), &member]),
        ),
    ]
}

/// Returns archives with sizes that programs parse in different ways.
fn size_samples() -> Vec<ContainerSample> {
    // The payload is also a header without content, so that it is found only if the size is known.
    let mut hidden = TarHeader([0; 512]);
    hidden.put(0, &payload()[..100]);
    let hidden = hidden.with(124, b"00000000000").followed_by(b"");
    let of_size = |size: &[u8]| {
        archive(&[&TarHeader::ustar("f", b'0', 0).with(124, size).followed_by(&hidden)])
    };
    let with_pax = |size: &str, kind| {
        let header = TarHeader::ustar("f", b'0', 0).followed_by(&hidden);
        archive(&[&pax(&[("size", size)], kind), &header])
    };
    let link = TarHeader::ustar("l", b'1', 512).followed_by(&hidden);
    vec![
        ContainerSample::payload("tar/size-wrong-letter.tar", of_size(b"00000001000M")),
        ContainerSample::payload("tar/size-wrong-sign.tar", of_size(b"0000001000-\0")),
        ContainerSample::payload("tar/pax-size-space.tar", with_pax(" 512", b'x')),
        ContainerSample::payload("tar/pax-size-underscore.tar", with_pax("5_12", b'x')),
        ContainerSample::payload("tar/pax-size-end.tar", with_pax("512\0", b'x')),
        ContainerSample::payload("tar/pax-size-global.tar", with_pax("512", b'g')),
        ContainerSample::payload(
            "tar/pax-link.tar",
            archive(&[&pax(&[("comment", "a")], b'x'), &link]),
        ),
    ]
}

/// Returns sparse files that only some programs unpack.
fn unusual_sparse_samples() -> Vec<ContainerSample> {
    let content = payload();
    let with_map = |records: &[(&str, &str)], content: &[u8]| {
        let member = TarHeader::ustar("f", b'0', content.len()).followed_by(content);
        archive(&[&pax(records, b'x'), &member])
    };
    let mut stored = b"1\n0\n128\n".to_vec();
    stored.resize(512, 0);
    stored.extend_from_slice(&content);
    let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0")];
    let unsorted = [("GNU.sparse.size", "256"), ("GNU.sparse.map", "128,128,0,128")];
    let reversed = [&[b'B'; 128][..], &content].concat();
    vec![
        ContainerSample::payload("tar/sparse-without-size.tar", with_map(&version, &stored)),
        ContainerSample::payload("tar/sparse-wrong-order.tar", with_map(&unsorted, &reversed)),
    ]
}

#[test]
fn archives_are_unpacked() {
    samples().iter().for_each(ContainerSample::check);
}

#[test]
fn valid_archives_cause_no_notes() {
    let defects = ["wrong", "truncated", "garbage", "pax-size", "first"];
    for sample in samples() {
        let notes = collect(&sample.bytes).notes;
        let is_defective = defects.iter().any(|defect| sample.name.contains(defect))
            && sample.name != "tar/garbage-first.tar";
        assert_eq!(!notes.is_empty(), is_defective, "{}: {notes:?}", sample.name);
    }
    let two_sizes = samples().into_iter().find(|sample| sample.name == "tar/pax-size.tar").unwrap();
    assert!(collect(&two_sizes.bytes).note(NoteKind::Inconsistent).is_some());
}

#[test]
fn holes_of_sparse_files_are_zeros() {
    let content = long_payload();
    let mut expected = content[..512].to_vec();
    expected.resize(1512, 0);
    expected.extend_from_slice(&content[512..]);
    for sample in [gnu_sparse(&content)]
        .into_iter()
        .chain(pax_sparse_samples().into_iter().map(|sample| sample.bytes))
    {
        let collected = collect(&sample);
        assert_eq!(collected.objects[1].1, expected, "{:?}", collected.paths());
    }
    let extended = collect(&gnu_sparse_extended(&content));
    assert_eq!(extended.objects[1].1.len(), content.len() * 2);
    assert!(extended.objects[1].1[5 * 1024..].starts_with(&content[5 * 512..]));
}

#[test]
fn headers_that_programs_read_differently_are_inconsistent() {
    let sparse = |map| {
        let records = [("GNU.sparse.size", "128"), ("GNU.sparse.map", map)];
        let header = pax(&records, b'x');
        let stored = TarHeader::ustar("s", b'0', 128).followed_by(&payload());
        (header, stored)
    };
    let (mut header, stored) = sparse("0,64,64,64");
    assert!(collect(&archive(&[&header, &stored])).notes.is_empty());
    // Python finds the map after an invalid record.
    header[512] = b'x';
    // Programs that write the parts to their offsets swap the halves of this file.
    let (backwards, _) = sparse("64,64,0,64");
    for header in [header, backwards] {
        let collected = collect(&archive(&[&header, &stored]));
        assert!(collected.note(NoteKind::Inconsistent).is_some(), "{collected:?}");
    }
}

/// GNU tar writes none of these. Python and bsdtar read other contents.
#[test]
fn sparse_records_in_disorder_are_inconsistent() {
    let inconsistent = |records: &[(&str, &str)], kind| {
        let records = records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value));
        let records: Vec<_> = records.collect();
        let records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        let archive = archive(&[&pax(&records, kind), &file("s", &long_payload())]);
        collect(&archive).note(NoteKind::Inconsistent).is_some()
    };
    let map = ("map", "0,64,64,64");
    let version = [("major", "1"), ("minor", "0")];
    for records in [
        // Size of the file without a map.
        &[("realsize", "4072")][..],
        &[("name", "x"), ("minor", "0"), ("realsize", "4072")],
        // Offsets and lengths that are no pairs.
        &[("size", "4072"), ("offset", "0"), ("offset", "1512"), ("numbytes", "2560")],
        &[("size", "4072"), ("numbytes", "512"), ("offset", "0")],
        &[("size", "4072"), ("offset", "0"), ("numbytes", "+512")],
        // Several maps or sizes, or a map that is none.
        &[("size", "128"), map, ("offset", "0"), ("numbytes", "512")],
        &[("size", "128"), map, map],
        &[("size", "128"), map, ("realsize", "64")],
        &[("size", "128"), ("map", "0,64,64")],
        &[("size", "128"), map, version[0], version[1]],
        &[version[0], ("minor", "1"), ("realsize", "128")],
    ] {
        assert!(inconsistent(records, b'x'), "{records:?}");
    }
    assert!(!inconsistent(&[("size", "128"), map], b'x'));
    assert!(inconsistent(&[("size", "128"), map], b'g'));
}

#[test]
fn two_extended_headers_with_sizes_are_inconsistent() {
    let header = |size| pax(&[("size", size)], b'x');
    let member = file("f", &payload());
    let collected = collect(&archive(&[&header("64"), &header("128"), &member]));
    assert!(collected.note(NoteKind::Inconsistent).is_some(), "{collected:?}");
    let other = pax(&[("comment", "a")], b'x');
    let collected = collect(&archive(&[&other, &header("128"), &member]));
    assert!(collected.notes.is_empty(), "{collected:?}");
}

#[test]
fn names_are_reported() {
    let paths = |name: &str| {
        let sample = samples().into_iter().find(|sample| sample.name == name).unwrap();
        collect(&sample.bytes).paths().join(", ")
    };
    assert_eq!(paths("tar/ustar.tar"), "f");
    assert_eq!(paths("tar/tar.gz"), "content, content > f");
    for name in ["tar/gnu-long-name.tar", "tar/pax.tar"] {
        assert!(paths(name).ends_with("d/d/setup.exe"), "{}", paths(name));
    }
}

#[test]
fn other_files_are_not_taken_for_archives() {
    for bytes in
        [vec![0; 10_240], vec![b' '; 2048], b"text, and more text\n".repeat(200), vec![0xff; 2048]]
    {
        let collected = collect(&bytes);
        assert!(collected.notes.is_empty() && collected.objects.len() == 1, "{collected:?}");
    }
}

#[test]
fn truncated_archives_are_bounded() {
    for sample in samples() {
        for length in (0..sample.bytes.len()).step_by(37) {
            collect(&sample.bytes[..length]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_archives_are_bounded(
        index in any::<prop::sample::Index>(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let samples = samples();
        let mut bytes = index.get(&samples).bytes.clone();
        for (offset, value) in changes {
            *offset.get_mut(&mut bytes) = value;
        }
        collect(&bytes);
    }
}
