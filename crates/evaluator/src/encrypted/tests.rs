//! Real archives and documents from fuzz/corpus/encrypted, whose names state which are encrypted, and generated ones.

use std::{fs, path::Path};

use proptest::prelude::*;

use super::{
    encryption::Encryption::{self, *},
    fuzz, ole,
};

fn examine(bytes: &[u8]) -> Option<Encryption> {
    fuzz::examine(bytes, usize::MAX, bytes.len() as u64)
}

/// Returns the samples whose names start with `prefix`.
fn samples(prefix: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/encrypted");
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let samples = paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path));
    let samples = samples.filter(|(name, _)| name.starts_with(prefix));
    samples.map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

#[test]
fn distinguishes_real_encrypted_files_from_plain_ones() {
    let encrypted = samples("encrypted");
    assert!(encrypted.len() >= 13);
    for (name, bytes) in encrypted {
        let expected = match name.rsplit_once('.').unwrap().1 {
            "zip" => Zip,
            "7z" => SevenZip,
            "docx" => OlePackage,
            "rar" => Rar,
            other => panic!("{other}"),
        };
        assert_eq!(examine(&bytes), Some(expected), "{name}");
    }
    let plain = samples("plain");
    assert!(plain.len() >= 9);
    for (name, bytes) in plain {
        assert_eq!(examine(&bytes), None, "{name}");
    }
}

mod zip {
    use super::*;

    /// An entry: flags and method in the local header and in the directory, and the data.
    struct ZipEntry {
        local: [u16; 2],
        directory: [u16; 2],
        data: &'static [u8],
    }

    fn entry(local: [u16; 2], directory: [u16; 2]) -> ZipEntry {
        ZipEntry { local, directory, data: b"some data" }
    }

    /// Builds an archive after `prefix` whose offsets count from `origin`.
    fn archive(prefix: &[u8], origin: usize, entries: &[ZipEntry]) -> Vec<u8> {
        let mut out = prefix.to_vec();
        let mut directory = Vec::new();
        for ZipEntry { local: [flags, method], directory: central, data } in entries {
            let [central_flags, central_method] = central;
            let offset = u32::try_from(out.len() - origin).unwrap();
            let size = u32::try_from(data.len()).unwrap();
            let sizes = [[0; 4], size.to_le_bytes(), size.to_le_bytes()].concat();
            let name = [1, 0, 0, 0];
            out.extend_from_slice(b"PK\x03\x04\x14\0");
            out.extend([flags.to_le_bytes(), method.to_le_bytes(), [0; 2], [0; 2]].concat());
            out.extend([&sizes[..], &name, b"a", data].concat());
            directory.extend_from_slice(b"PK\x01\x02\x14\0\x14\0");
            directory.extend(
                [central_flags.to_le_bytes(), central_method.to_le_bytes(), [0; 2], [0; 2]]
                    .concat(),
            );
            directory.extend([&sizes[..], &name, &[0; 10], &offset.to_le_bytes(), b"a"].concat());
        }
        let offset = u32::try_from(out.len() - origin).unwrap();
        let size = u32::try_from(directory.len()).unwrap();
        let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
        out.extend(directory);
        out.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count].concat());
        out.extend([size.to_le_bytes(), offset.to_le_bytes()].concat());
        out.extend([0; 2]);
        out
    }

    const PLAIN: [u16; 2] = [0, 8];

    #[test]
    fn examines_both_headers_of_all_entries() {
        for marks in [[1, 8], [1 | 1 << 6, 8], [1 << 13, 8], [0, 99], [0x801, 0]] {
            for (prefix, origin) in [(b"".as_slice(), 0), (b"stub", 0), (b"stub", 4)] {
                for encrypted in [entry(marks, PLAIN), entry(PLAIN, marks), entry(marks, marks)] {
                    let entries = [entry(PLAIN, PLAIN), encrypted, entry(PLAIN, PLAIN)];
                    let zip = archive(prefix, origin, &entries);
                    assert_eq!(examine(&zip), Some(Zip), "{marks:?} {prefix:?} {origin}");
                }
            }
        }
        // Flags for UTF-8 names, compression options and patched data.
        for flags in [0, 1 << 1, 1 << 2, 1 << 5, 1 << 11] {
            for prefix in [b"".as_slice(), b"stub"] {
                let zip = archive(prefix, 0, &[entry([flags, 8], [flags, 8])]);
                assert_eq!(examine(&zip), None, "{flags}");
            }
        }
    }

    #[test]
    fn finds_archive_before_comment_and_after_other_data() {
        let mut zip = archive(b"\xff\xd8\xff\xe0 a picture", 0, &[entry([1, 0], [1, 0])]);
        let length = zip.len();
        zip.extend(vec![b' '; 65_535]);
        assert_eq!(examine(&zip), Some(Zip));
        // An end record in the comment must not hide the real one.
        zip.truncate(length);
        zip.extend_from_slice(&archive(b"", 0, &[]));
        assert_eq!(examine(&zip), Some(Zip));
    }

    #[test]
    fn follows_local_headers_without_directory() {
        let entries = [entry(PLAIN, PLAIN), entry([1, 8], PLAIN)];
        let zip = archive(b"", 0, &entries);
        let cut = zip.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        assert_eq!(examine(&zip[..cut]), Some(Zip));
        assert_eq!(examine(&[b"PK00", &zip[..cut]].concat()), Some(Zip));
    }

    #[test]
    fn searches_for_next_header_after_data_descriptor() {
        let mut streamed = archive(b"", 0, &[entry([8, 8], PLAIN)]);
        // The sizes in the header are 0.
        streamed[18..26].fill(0);
        let cut = streamed.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        streamed.truncate(cut);
        for gap in [0, 1, 4065, 4066, 4096, 100_000] {
            let noise = vec![b'P'; gap];
            let next = archive(b"", 0, &[entry([9, 8], [9, 8])]);
            let cut = next.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
            let zip = [&streamed[..], &noise, &next[..cut]].concat();
            assert_eq!(examine(&zip), Some(Zip), "{gap}");
        }
    }

    #[test]
    fn examines_zip64_records() {
        // The end record has no values, and the offset of the entry is in an extra field.
        let mut zip = b"PK\x03\x04\x2d\0\x01\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        zip.extend([[0xff; 8].as_slice(), &[1, 0, 0, 0], b"a"].concat());
        let prefix = b"prefix of another kind".len();
        let zip_at = prefix as u64;
        let zip = [b"prefix of another kind".as_slice(), &zip].concat();
        for in_directory in [0_u8, 1] {
            let mut zip = zip.clone();
            if in_directory == 1 {
                zip[prefix + 6] = 0;
            }
            let offset = zip.len() as u64;
            zip.extend_from_slice(b"PK\x01\x02\x2d\0\x2d\0");
            zip.extend([in_directory, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            zip.extend([[0xff; 8].as_slice(), &[1, 0, 28, 0], &[0; 10], &[0xff; 4], b"a"].concat());
            zip.extend([[1, 0, 24, 0].as_slice(), &[0; 16], &zip_at.to_le_bytes()].concat());
            let end = zip.len() as u64;
            zip.extend([b"PK\x06\x06".as_slice(), &44_u64.to_le_bytes(), &[0; 28]].concat());
            zip.extend([end - offset, offset].map(u64::to_le_bytes).concat());
            zip.extend(
                [b"PK\x06\x07\0\0\0\0".as_slice(), &end.to_le_bytes(), &[1, 0, 0, 0]].concat(),
            );
            zip.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &[0xff; 12], &[0; 2]].concat());
            assert_eq!(examine(&zip), Some(Zip), "{in_directory}");
        }
    }
}

mod rar {
    use super::*;

    const MARKER_4: &[u8] = b"Rar!\x1a\x07\x00";
    const MARKER_5: &[u8] = b"Rar!\x1a\x07\x01\x00";

    /// Builds a RAR 4 block without data.
    fn block(kind: u8, flags: u16, rest: &[u8]) -> Vec<u8> {
        let size = u16::try_from(7 + rest.len()).unwrap();
        [&[0, 0, kind], &flags.to_le_bytes()[..], &size.to_le_bytes(), rest].concat()
    }

    /// Builds a RAR 4 file block with data.
    fn file_4(flags: u16, data: &[u8]) -> Vec<u8> {
        let mut rest = u32::try_from(data.len()).unwrap().to_le_bytes().to_vec();
        rest.extend([0; 21]);
        if flags & 0x100 != 0 {
            rest.extend([0; 8]);
        }
        rest.push(b'a');
        [block(0x74, flags | 0x8000, &rest), data.to_vec()].concat()
    }

    fn rar_4(main: u16, files: &[Vec<u8>]) -> Vec<u8> {
        let main = block(0x73, main, &[0; 6]);
        [MARKER_4, &main, &files.concat(), &block(0x7b, 0x4000, b"")].concat()
    }

    /// Builds a RAR 5 header from its fields after the type, its extra area and its data.
    fn header(kind: u8, fields: &[u8], extra: &[u8], data: &[u8]) -> Vec<u8> {
        let flags = u8::from(!extra.is_empty()) | u8::from(!data.is_empty()) << 1;
        let mut rest = vec![kind, flags];
        // Two-byte sizes, with the continuation bit in the first byte.
        let size = |bytes: &[u8]| [0x80 | u8::try_from(bytes.len()).unwrap(), 0];
        if !extra.is_empty() {
            rest.extend(size(extra));
        }
        if !data.is_empty() {
            rest.extend(size(data));
        }
        rest.extend([fields, extra].concat());
        [&[0; 4], &size(&rest)[..], &rest, data].concat()
    }

    const ENCRYPTION: &[u8] = &[4, 1, 0, 1, 15];
    const TIMES: &[u8] = &[3, 3, 0, 0];

    fn rar_5(headers: &[Vec<u8>]) -> Vec<u8> {
        let main = header(1, &[0], b"", b"");
        [MARKER_5, &main, &headers.concat(), &header(5, &[0], b"", b"")].concat()
    }

    #[test]
    fn detects_rar_4_encryption_flags() {
        let plain = file_4(0, b"data");
        assert_eq!(examine(&rar_4(0, std::slice::from_ref(&plain))), None);
        assert_eq!(examine(&rar_4(0x80, &[])), Some(Rar));
        for flags in [4, 4 | 0x100, 4 | 0xe0] {
            let files = [plain.clone(), file_4(0x100, b"more"), file_4(flags, b"data")];
            assert_eq!(examine(&rar_4(0, &files)), Some(Rar), "{flags}");
        }
        // The same bits in data, in a comment, and after the end.
        let data = file_4(0, &file_4(4, b"data"));
        assert_eq!(examine(&rar_4(0, &[block(0x75, 4, &[0; 6]), data])), None);
        let after_end = [rar_4(0, &[plain]), file_4(4, b"data")].concat();
        assert_eq!(examine(&after_end), None);
    }

    #[test]
    fn detects_rar_5_encryption_records() {
        let fields = [0, 4, 0, 0, 0, 1, b'a'];
        let plain = header(2, &fields, TIMES, b"data");
        assert_eq!(examine(&rar_5(std::slice::from_ref(&plain))), None);
        assert_eq!(examine(&rar_5(&[header(2, &fields, b"", ENCRYPTION)])), None, "data");
        for extra in [ENCRYPTION.to_vec(), [TIMES, ENCRYPTION].concat()] {
            for kind in [2, 3] {
                let encrypted = header(kind, &fields, &extra, b"data");
                assert_eq!(examine(&rar_5(&[plain.clone(), encrypted])), Some(Rar));
            }
        }
        let headers = [MARKER_5, &header(4, &[0, 0, 15], b"", b""), b"noise"].concat();
        assert_eq!(examine(&headers), Some(Rar));
    }

    #[test]
    fn finds_archive_after_other_data() {
        for length in [1, 256 * 1024 - 9, 256 * 1024 - 4, 1 << 20, (4 << 20) - 8] {
            for archive in [rar_4(0x80, &[]), rar_5(&[header(2, &[0], ENCRYPTION, b"")])] {
                // A signature without an archive must not hide the real one.
                let mut prefix = vec![b'R'; length];
                let decoy = length / 2;
                if length > 100 {
                    prefix[decoy..decoy + 7].copy_from_slice(MARKER_4);
                }
                assert_eq!(examine(&[prefix, archive].concat()), Some(Rar), "{length}");
            }
        }
    }
}

#[test]
fn stops_at_read_bound_and_reports_unbounded() {
    // Many markers, each followed by minimal blocks to the end of the file.
    let mut markers = Vec::new();
    while markers.len() < 2 << 20 {
        markers.extend_from_slice(b"Rar!\x1a\x07\x00\0\0\x75\0\0\x07\0");
    }
    markers.extend(b"\0\0\x75\0\0\x07\0".repeat(1 << 18));
    assert_eq!(examine(&markers), Some(Unbounded));
    // Many end records, each for another part of one directory.
    let entry = [b"PK\x01\x02".as_slice(), &[0; 42]].concat();
    let mut directory = entry.repeat(20_000);
    for offset in (0..2900_u32).map(|index| index * 46) {
        directory
            .extend([b"PK\x05\x06".as_slice(), &[0; 12], &offset.to_le_bytes(), &[0; 2]].concat());
    }
    assert_eq!(examine(&directory), Some(Unbounded));
}

#[test]
fn many_small_entries_stay_below_read_bound() {
    let local = [b"PK\x03\x04\x14\0\0\0\0\0".as_slice(), &[0; 16], &[1, 0, 0, 0], b"a"].concat();
    let entries = 60_000;
    let mut zip = local.repeat(entries);
    let offset = u32::try_from(zip.len()).unwrap();
    for entry in 0..entries {
        let offset = u32::try_from(entry * local.len()).unwrap().to_le_bytes();
        zip.extend([b"PK\x01\x02".as_slice(), &[0; 24], &[1], &[0; 13], &offset, b"a"].concat());
    }
    let size = u32::try_from(zip.len()).unwrap() - offset;
    zip.extend([b"PK\x05\x06".as_slice(), &[0; 8]].concat());
    zip.extend([size.to_le_bytes(), offset.to_le_bytes()].concat());
    zip.extend([0; 2]);
    assert_eq!(examine(&zip), None);
}

/// Generates samples with changed bytes and a random length.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let all: Vec<Vec<u8>> = ["encrypted", "plain"]
        .iter()
        .flat_map(|prefix| samples(prefix))
        .map(|(_, bytes)| bytes)
        .collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20);
    (prop::sample::select(all), changes, any::<prop::sample::Index>()).prop_map(
        |(mut bytes, changes, end)| {
            for (offset, byte) in changes {
                let offset = offset.index(bytes.len());
                bytes[offset] = byte;
            }
            bytes.truncate(end.index(bytes.len()) + 1);
            bytes
        },
    )
}

proptest! {
    #[test]
    fn examines_any_bytes_within_bound(
        signature in prop::sample::select(vec![
            b"".as_slice(), b"PK\x03\x04", b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00",
            b"7z\xbc\xaf\x27\x1c", &ole::SIGNATURE,
        ]),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        fuzz::check(&[signature, &bytes].concat());
    }

    #[test]
    fn examines_damaged_archives_within_bound(bytes in mutated()) {
        fuzz::check(&bytes);
    }
}

mod binary_office;
mod malformed_rar;
mod seven_zip;
mod zip_disguise;
