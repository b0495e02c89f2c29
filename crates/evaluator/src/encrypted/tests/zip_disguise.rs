//! zip archives whose encrypted entries are not found by following one chain of headers.

use super::*;

const DESCRIPTOR: u16 = 8;

/// Fields of a local header or directory entry.
#[derive(Clone, Copy)]
struct Fields {
    version: u16,
    flags: u16,
    method: u16,
    size: u32,
    name: &'static [u8],
}

const PLAIN: Fields = Fields { version: 20, flags: 0, method: 8, size: 20, name: b"a.txt" };
const ENCRYPTED: Fields = Fields { flags: 1, ..PLAIN };

impl Fields {
    /// Builds the part that both kinds of headers contain, from the version to the length of the extra area.
    fn common(self) -> Vec<u8> {
        let [version, flags, method] =
            [self.version, self.flags, self.method].map(u16::to_le_bytes);
        let size = self.size.to_le_bytes();
        let name = u16::try_from(self.name.len()).unwrap().to_le_bytes();
        [&version[..], &flags, &method, &[0; 8], &size, &size, &name, &[0; 2]].concat()
    }

    fn local(self) -> Vec<u8> {
        [b"PK\x03\x04", &self.common()[..], self.name].concat()
    }

    /// Builds a local header and its data.
    fn entry(self, data: &[u8]) -> Vec<u8> {
        [&self.local(), data].concat()
    }

    fn directory(self, offset: usize) -> Vec<u8> {
        let offset = u32::try_from(offset).unwrap().to_le_bytes();
        [b"PK\x01\x02\x14\0", &self.common()[..], &[0; 10], &offset, self.name].concat()
    }
}

/// Builds an archive. Returns the entries, and the directory with its end record.
fn archive(entries: &[(Fields, &[u8])]) -> (Vec<u8>, Vec<u8>) {
    let (mut body, mut directory) = (Vec::new(), Vec::new());
    for (fields, data) in entries {
        directory.extend(fields.directory(body.len()));
        body.extend(fields.entry(data));
    }
    let [size, offset] = [directory.len(), body.len()].map(|n| u32::try_from(n).unwrap());
    let count = u16::try_from(entries.len()).unwrap().to_le_bytes();
    directory.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count].concat());
    directory.extend([&size.to_le_bytes()[..], &offset.to_le_bytes(), &[0; 2]].concat());
    (body, directory)
}

/// Returns pseudo-random bytes (xorshift).
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Builds an entry with a data descriptor. Its data contains a second local header, whose size reaches beyond the end
/// of the file.
fn entry_with_decoy() -> Vec<u8> {
    let decoy = Fields { size: 0x7fff_0000, ..PLAIN }.local();
    let streamed = Fields { flags: DESCRIPTOR, size: 0, ..PLAIN };
    [streamed.local(), noise(50), decoy, noise(50), b"PK\x07\x08".to_vec(), vec![0; 12]].concat()
}

#[test]
fn finds_directory_before_trailing_data() {
    let (body, directory) = archive(&[(PLAIN, b"data"), (ENCRYPTED, b"data")]);
    for trailing in [0, 65_536, 70_000, 80_000, 200_000] {
        for prefix in [b"".as_slice(), b"\xff\xd8stub"] {
            let zip = [prefix, &body, &directory, &vec![b'A'; trailing]].concat();
            assert_eq!(examine(&zip), Some(Zip), "{trailing} {}", prefix.len());
        }
    }
    // Only the directory has the flag.
    let (_, directory) = archive(&[(ENCRYPTED, b"data")]);
    let zip = [PLAIN.entry(b"data"), directory, vec![b'A'; 70_000]].concat();
    assert_eq!(examine(&zip), Some(Zip));
}

#[test]
fn headers_in_data_do_not_hide_later_entries() {
    for gap in [0, 100, (1 << 20) + 100] {
        let zip = [entry_with_decoy(), vec![0; gap], ENCRYPTED.entry(b"data")].concat();
        assert_eq!(examine(&zip), Some(Zip), "{gap}");
    }
    // The size of an entry without a descriptor exceeds the file.
    let oversized = Fields { size: 0x7fff_0000, ..PLAIN }.local();
    assert_eq!(examine(&[oversized, ENCRYPTED.entry(b"data")].concat()), Some(Zip));
}

#[test]
fn finds_entries_without_directory_after_other_data() {
    for length in [1, 5, 262_144 - 302, 262_144 - 20, 262_144 - 2, 3 << 20, (8 << 20) - 4] {
        let zip = [vec![b'P'; length], ENCRYPTED.entry(b"data")].concat();
        assert_eq!(examine(&zip), Some(Zip), "{length}");
    }
    // The end of the archive is missing as well, and the plain entry before is long.
    let zip = [b"stub".to_vec(), PLAIN.entry(&noise(600_000)), ENCRYPTED.entry(b"")].concat();
    assert_eq!(examine(&zip), Some(Zip));
    for marker in [b"PK\x07\x08", b"PK00"] {
        let zip = [&marker[..], &vec![b'A'; 9 << 20], &ENCRYPTED.entry(b"data")].concat();
        assert_eq!(examine(&zip), Some(Zip));
    }
}

#[test]
fn accepts_unusual_headers_that_extractors_accept() {
    for fields in [
        Fields { version: 256, ..ENCRYPTED },
        Fields { version: 0xffff, ..ENCRYPTED },
        Fields { flags: 0xd781, ..ENCRYPTED },
        Fields { flags: 0xd781, name: b"a.txt\0", ..ENCRYPTED },
        Fields { name: b"", ..ENCRYPTED },
        Fields { name: b"a\0b", ..ENCRYPTED },
        Fields { name: &[b'a'; 5000], ..ENCRYPTED },
        Fields { method: 99, ..ENCRYPTED },
        Fields { method: 99, ..PLAIN },
        Fields { flags: 1 << 6, ..PLAIN },
        Fields { flags: 1 << 13, method: 0, ..PLAIN },
    ] {
        let zip = [entry_with_decoy(), fields.entry(b"data")].concat();
        let Fields { version, flags, method, name, .. } = fields;
        assert_eq!(examine(&zip), Some(Zip), "{version} {flags} {method} {}", name.len());
    }
    // A directory entry whose end record is missing.
    let zip = [entry_with_decoy(), ENCRYPTED.directory(0)].concat();
    assert_eq!(examine(&zip), Some(Zip));
}

#[test]
fn stored_inner_archive_counts_if_encrypted() {
    for (inner, expected) in [(ENCRYPTED, Some(Zip)), (PLAIN, None)] {
        let (body, directory) = archive(&[(PLAIN, b"data"), (inner, b"data")]);
        let inner = [body, directory].concat();
        let stored = Fields { method: 0, size: u32::try_from(inner.len()).unwrap(), ..PLAIN };
        let (body, directory) = archive(&[(PLAIN, b"data"), (stored, &inner), (PLAIN, b"data")]);
        assert_eq!(examine(&[&body[..], &directory].concat()), expected);
        assert_eq!(examine(&[b"stub", &body[..], &directory].concat()), expected);
    }
}

#[test]
fn honest_files_are_plain() {
    let (body, directory) = archive(&[(PLAIN, &noise(5000)), (PLAIN, &entry_with_decoy())]);
    let zip = [body, directory].concat();
    for prefix in [b"".as_slice(), b"\x7fELF stub", &noise(300_000)] {
        assert_eq!(examine(&[prefix, &zip].concat()), None, "{}", prefix.len());
    }
    assert_eq!(examine(&[entry_with_decoy(), PLAIN.entry(b"data")].concat()), None);
    assert_eq!(examine(&[PLAIN.local(), noise(2 << 20)].concat()), None);
    assert_eq!(examine(&[b"PK\x03\x04".to_vec(), noise(2 << 20)].concat()), None);
    // Machine code of gzip, 7-Zip and Go programs, and constants of a compiled Python module.
    for code in [
        b"PK\x03\x04\x0f\x84\x7d\x01\0\0\xc7\x05\x9f\x34\x0d\0\0\0\0\0\xc7\x05\x91\x34\x0d\0\0\0\0\0".as_slice(),
        b"PK\x03\x04\x75\xa0\xb9\x02\0\0\0\x48\x83\xfa\x1d\x76\x95\x31\xc9\xeb\x18\x66\x2e\x0f\x1f\x84\0\0\0\0",
        b"PK\x01\x02\x48\xc7\x84\x24\xf8\0\0\0\x2a\0\0\0\x48\xc7\x84\x24\0\x01\0\0\x2a\0\0\0\x48\x89",
        b"PK\x01\x02\xe9\x08\0\0\0\xe9\x0a\0\0\0\xe9\x0e\0\0\0\xe9\x18\0\0\0\xe9\x1c\0\0\0\xe9",
    ] {
        let rest = vec![0; 100_000];
        assert_eq!(examine(&[b"\x7fELF", code, &rest].concat()), None, "{code:02x?}");
        assert_eq!(examine(&[&PLAIN.entry(b"data"), code, &rest].concat()), None, "{code:02x?}");
    }
}

#[test]
fn cost_of_pass_does_not_depend_on_number_of_headers() {
    // `examine` checks the bound.
    assert_eq!(examine(&b"PK\x03\x04".repeat(1 << 19)), None);
    let minimal = Fields { name: b"a", ..PLAIN };
    assert_eq!(examine(&minimal.local().repeat(60_000)), None);
    assert_eq!(examine(&[minimal.local(), minimal.directory(0).repeat(60_000)].concat()), None);
}
