//! cpio archives. 7-Zip and bsdtar extract the samples with the payload, GNU cpio most of them.

use super::{ContainerSample, Expected, collect, payload};
use crate::report::NoteKind;

const NAME: &str = "payload.txt";
const FILE: u32 = 0o100_644;

/// The formats.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum CpioFormat {
    New,
    Checksum,
    Old,
    Large,
    LittleEndian,
    BigEndian,
}

impl CpioFormat {
    const ALL: [(&'static str, Self); 6] = [
        ("newc", Self::New),
        ("crc", Self::Checksum),
        ("odc", Self::Old),
        ("afio", Self::Large),
        ("binary-le", Self::LittleEndian),
        ("binary-be", Self::BigEndian),
    ];

    fn alignment(self) -> usize {
        match self {
            Self::New | Self::Checksum => 4,
            Self::Old | Self::Large => 1,
            Self::LittleEndian | Self::BigEndian => 2,
        }
    }

    fn header(self, name_size: usize, mode: u32, content: &[u8]) -> Vec<u8> {
        let size = content.len();
        let checksum: u32 = content.iter().map(|byte| u32::from(*byte)).sum();
        let ascii = |magic: &str, checksum: u32| {
            let numbers = format!("{mode:08x}{0:08x}{0:08x}{1:08x}{0:08x}{size:08x}", 0, 1);
            let zeros = "0".repeat(32);
            format!("{magic}00000001{numbers}{zeros}{name_size:08x}{checksum:08x}").into_bytes()
        };
        match self {
            Self::New => ascii("070701", 0),
            Self::Checksum => ascii("070702", checksum),
            Self::Old => format!(
                "070707000000000001{mode:06o}0000000000000000010000000{:010o}{name_size:06o}{size:011o}",
                0
            )
            .into_bytes(),
            Self::Large => format!(
                "07072700000000{:016x}m{mode:06o}{:08x}{:08x}{:08x}{:08x}{:016x}n{name_size:04x}00000000s{size:016x}:",
                1, 0, 0, 1, 0, 0
            )
            .into_bytes(),
            Self::LittleEndian | Self::BigEndian => {
                let half = |number: usize| u16::try_from(number & 0xffff).unwrap();
                let mode = half(usize::try_from(mode).unwrap());
                let sizes = [half(name_size), half(size >> 16), half(size)];
                let numbers = [0o070_707, 0, 1, mode, 0, 0, 1, 0, 0, 0].into_iter().chain(sizes);
                let is_little_endian = self == Self::LittleEndian;
                let bytes = |number: u16| if is_little_endian { number.to_le_bytes() } else { number.to_be_bytes() };
                numbers.flat_map(bytes).collect()
            }
        }
    }

    fn member(self, name: &str, mode: u32, content: &[u8]) -> Vec<u8> {
        let header = self.header(name.len() + 1, mode, content);
        let mut bytes = [&header, name.as_bytes(), &[0]].concat();
        bytes.resize(bytes.len().next_multiple_of(self.alignment()), 0);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(self.alignment()), 0);
        bytes
    }

    fn end(self) -> Vec<u8> {
        self.member("TRAILER!!!", 0, b"")
    }

    fn archive(self, files: &[(&str, &[u8])]) -> Vec<u8> {
        let members = files.iter().map(|(name, content)| self.member(name, FILE, content));
        members.chain([self.end()]).collect::<Vec<_>>().concat()
    }
}

/// Writes an archive in the new format.
pub(super) fn cpio(files: &[(&str, &[u8])]) -> Vec<u8> {
    CpioFormat::New.archive(files)
}

pub(crate) fn samples() -> Vec<ContainerSample> {
    let payload = payload();
    let files = [("a", &b"first"[..]), ("dir/b.txt", b"second one"), (NAME, &payload)];
    let mut samples = Vec::new();
    for (name, format) in CpioFormat::ALL {
        let archive = format.archive(&files);
        let sample = |variant: &str, bytes: Vec<u8>| {
            ContainerSample::payload(format!("cpio-{name}{variant}"), bytes)
        };
        samples.push(sample("", archive.clone()));
        // 7-Zip does not read archives of afio.
        if format != CpioFormat::Large {
            samples.push(sample("-after-byte", [b"x", &archive[..]].concat()));
        }
        let truncated = archive[..archive.len() - format.end().len() - 20].to_vec();
        samples.push(sample("-truncated", truncated));
        let damaged = [&b"0707"[..], &format.archive(&files)].concat();
        let damaged = [&format.member("a", FILE, b"first")[..], &damaged].concat();
        samples.push(sample("-damaged", damaged));
    }
    let two = [cpio(&files[..2]), vec![0; 100], cpio(&files[2..])].concat();
    samples.push(ContainerSample::payload("cpio-two", two));
    let link = [CpioFormat::New.member("link", 0o120_777, b"target"), cpio(&[])].concat();
    samples.push(ContainerSample::new("cpio-link", link, Expected::Clean));
    samples
}

#[test]
fn samples_give_what_is_expected() {
    for sample in samples() {
        sample.check();
    }
}

#[test]
fn only_damaged_samples_have_notes() {
    for sample in samples() {
        let collected = collect(&sample.bytes);
        let is_damaged = ["truncated", "damaged"].iter().any(|name| sample.name.contains(name));
        assert_eq!(!collected.notes.is_empty(), is_damaged, "{}: {collected:?}", sample.name);
        let unreadable = collected.note(NoteKind::Unreadable).is_some();
        assert_eq!(unreadable, is_damaged, "{}: {collected:?}", sample.name);
    }
}

#[test]
fn names_and_contents_are_those_of_the_members() {
    for (_, format) in CpioFormat::ALL {
        let archive = format.archive(&[("../a", b"one"), ("empty", b""), ("a b", b"three")]);
        let collected = collect(&archive);
        assert_eq!(collected.paths(), ["../a", "a b"], "{format:?}");
        assert_eq!(collected.objects[2].1, b"three", "{format:?}");
    }
}

#[test]
fn numbers_with_other_characters_are_inconsistent() {
    let mut archive = cpio(&[(NAME, &payload())]);
    // The size of the file, 0x80.
    assert_eq!(&archive[54..62], b"00000080");
    archive[54..62].copy_from_slice(b"80 xxxxx");
    let collected = collect(&archive);
    assert!(collected.has_payload() && collected.note(NoteKind::Inconsistent).is_some());
}

#[test]
fn sizes_beyond_the_file_are_truncated() {
    for (_, format) in CpioFormat::ALL {
        let header = format.header(2, FILE, b"");
        let mut archive = [&header[..], b"x\0content"].concat();
        let size = match format {
            CpioFormat::New | CpioFormat::Checksum => 54..62,
            CpioFormat::Old => 65..76,
            CpioFormat::Large => 99..115,
            CpioFormat::LittleEndian | CpioFormat::BigEndian => 22..26,
        };
        let largest = if size.len() == 4 { 0xff } else { b'7' };
        archive[size].fill(largest);
        let collected = collect(&archive);
        assert!(collected.contains(b"content"), "{format:?}: {collected:?}");
        assert!(collected.note(NoteKind::Unreadable).is_some(), "{format:?}: {collected:?}");
    }
}

#[test]
fn archive_inside_of_a_damaged_header_is_found() {
    let format = CpioFormat::LittleEndian;
    let mut archive = format.archive(&[("a", b"first"), ("b.txt", b""), (NAME, &payload())]);
    // The name of the second file reaches into the header of the third one.
    let second = format.member("a", FILE, b"first").len();
    archive[second + 20] = 20;
    assert!(collect(&[b"x", &archive[..]].concat()).has_payload());
}

/// bsdtar checks neither the end of the name nor the type of the file.
#[test]
fn headers_with_an_invalid_name_or_type_are_read() {
    for (name, format) in CpioFormat::ALL {
        let archive = format.archive(&[(NAME, &payload()), ("b", b"second")]);
        let start = archive.windows(NAME.len()).position(|part| part == NAME.as_bytes()).unwrap();
        let mut without_zero = archive.clone();
        without_zero[start + NAME.len()] = 0x7f;
        let mut with_zero = archive;
        with_zero[start + 3] = 0;
        for archive in [without_zero, with_zero] {
            assert!(collect(&archive).has_payload(), "{name}");
        }
    }
    let of_type = CpioFormat::New.member(NAME, 0o110_644, &payload());
    let mut without_zero = of_type.clone();
    without_zero[110 + NAME.len()] = 0x7f;
    assert!(collect(&of_type).has_payload());
    // Behind damage.
    let damaged = [cpio(&[("a", b"first")]), cpio(&[("a", b"first")])[1..112].to_vec()].concat();
    let damaged =
        [&CpioFormat::New.member("a", FILE, b"first")[..], b"0707", &without_zero, &damaged];
    assert!(collect(&damaged.concat()).has_payload());
}

/// bsdtar checks the magic number of binary archives only where they start.
#[test]
fn binary_headers_with_another_magic_number_are_read() {
    for (format, magic) in [
        (CpioFormat::LittleEndian, [0xc6, 0x71]),
        (CpioFormat::BigEndian, [0, 0]),
        // That of the other byte order.
        (CpioFormat::LittleEndian, [0x71, 0xc7]),
    ] {
        let first = format.member("a", FILE, b"first");
        let mut archive =
            [&first[..], &format.archive(&[("b", b"second"), (NAME, &payload())])].concat();
        archive[first.len()..first.len() + 2].copy_from_slice(&magic);
        let payload_start = archive.windows(NAME.len()).position(|part| part == NAME.as_bytes());
        archive[payload_start.unwrap() - 26] = 0;
        assert!(collect(&archive).has_payload(), "{format:?}");
    }
}

/// Behind damage, bytes look like a header with an empty name. The next header is inside of it.
#[test]
fn header_inside_of_what_looks_like_one_is_found() {
    let format = CpioFormat::LittleEndian;
    let first = format.member("a", FILE, b"first");
    let rest = format.archive(&[(NAME, &payload())]);
    let archive = [&first[..], b"0707", &rest[..10], b"first\0", &rest].concat();
    assert!(collect(&archive).has_payload());
}

#[test]
fn text_with_the_magic_number_is_no_archive() {
    for text in [&b"070701 is the number of a format.".repeat(10)[..], b"070707", b"\xc7\x71"] {
        assert!(collect(text).notes.is_empty());
    }
}
