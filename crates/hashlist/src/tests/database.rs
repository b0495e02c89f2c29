//! Databases of `ClamAV`, made by a small writer.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};

use super::*;
use crate::{
    database::read_archive,
    entry::HashEntry,
    list_reader::{EntryCounts, EntrySink},
};
use ListAction::{Allow, Block};

/// Returns the header of a file in an archive, as freshclam writes it.
fn tar_header(name: &str, size: usize, kind: u8) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    let size = format!("{size:o}");
    header[124..124 + size.len()].copy_from_slice(size.as_bytes());
    header[156] = kind;
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend(tar_header(name, content.len(), 0));
        archive.extend(content.as_bytes());
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn with_header(signatures: &str, archive: &[u8]) -> Vec<u8> {
    let header = format!("ClamAV-VDB:22 Mar 2026 10-20 -0400:26000:{signatures}:90:X:X:builder:1");
    let mut database = header.into_bytes();
    database.resize(512, b' ');
    database.extend(archive);
    database
}

/// Returns files as in a database of signatures.
fn files() -> Vec<u8> {
    tar(&[
        ("COPYING", "a licence: with colons"),
        ("daily.ndb", "Name:0:*:00ff"),
        ("daily.hdb", &format!("{EICAR_MD5}:68:Eicar-Md5\r\n")),
        ("daily.mdb", &format!("68:{EICAR_SHA1}:Section")),
        ("daily.HSB", &format!("{EICAR_SHA256}:*:Eicar-Sha256:73\n{EICAR_SHA1}:1:Old:1:2\n")),
        ("daily.fp", &format!("{EICAR_MD5}:68:false")),
        ("daily.info", ""),
    ])
}

#[test]
fn hashes_of_databases_match() {
    let padded = [files(), vec![0; 10240]].concat();
    let middle = files().len() / 2;
    let members = [gzip(&files()[..middle]), gzip(&files()[middle..])].concat();
    for archive in [files(), padded.clone(), gzip(&files()), gzip(&padded), members] {
        let database = with_header("7", &archive);
        for name in ["daily.cvd", "daily.cld", "copy of daily"] {
            let (summary, lists) = read(Block, name, &database).unwrap();
            assert_eq!((&*summary.list, summary.used, summary.total), (name, 2, 7));
            let found = lists.lookup(&eicar()).unwrap();
            assert_eq!((found.list, found.name), (name, Some("Eicar-Sha256")));
            let by_md5 = Digests { sha256: [0; 32], ..eicar() };
            assert_eq!(lists.lookup(&by_md5).unwrap().name, Some("Eicar-Md5"));
            assert_eq!(lists.block_entries(), 2);
        }
    }
}

/// A database by `sigtool --build=test.cud --unsigned` of `ClamAV` 1.4.6, with one signature each in `test.hdb`, `test.hsb`
/// and `test.ndb`.
#[test]
fn database_by_sigtool_matches() {
    let (summary, lists) = read(Block, "test.cud", include_bytes!("sigtool.cud")).unwrap();
    assert_eq!((summary.used, summary.total), (2, 3));
    assert_eq!(lists.lookup(&eicar()).unwrap().name, Some("Test.Sha256"));
    let by_md5 = Digests { sha256: [0; 32], ..eicar() };
    assert_eq!(lists.lookup(&by_md5).unwrap().name, Some("Test.Md5"));
}

#[test]
fn total_is_at_least_the_number_of_records() {
    let (summary, _) = read(Block, "a.cvd", with_header("0", &files())).unwrap();
    assert_eq!((summary.used, summary.total), (2, 3));
}

#[test]
fn databases_without_hashes_are_valid() {
    let archive = gzip(&tar(&[("bytecode.info", "x"), ("1.cbc", "ClamBC")]));
    let (summary, lists) = read(Block, "bytecode.cvd", with_header("9", &archive)).unwrap();
    assert_eq!((summary.used, summary.total), (0, 9));
    assert_eq!(lists.block_entries(), 0);
}

#[test]
fn invalid_records_are_errors_with_their_file() {
    let archive = tar(&[("COPYING", "x"), ("a\u{7}.hdb", &format!("{EICAR_MD5}:68:ok\nbad\n"))]);
    match read(Block, "a.cvd", with_header("2", &gzip(&archive))) {
        Err(ReadError::Line { member: Some(member), line: 2, problem }) => {
            assert_eq!((&*member, problem), ("a.hdb", LineProblem::InvalidRecord));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_truncation_is_detected() {
    let archive = tar(&[("COPYING", "x"), ("a.hdb", &format!("{EICAR_MD5}:68:Eicar\n"))]);
    let plain = with_header("1", &archive);
    // An archive may end between two files.
    let between = [512, 512 + 1024];
    for length in (0..plain.len()).filter(|length| !between.contains(length)) {
        let result = read(Block, "a.cld", &plain[..length]);
        assert!(matches!(result, Err(ReadError::File(_))), "{length}: {result:?}");
    }
    let compressed = with_header("1", &gzip(&archive));
    for length in (0..compressed.len()).filter(|length| *length != 512) {
        let result = read(Block, "a.cvd", &compressed[..length]);
        assert!(result.is_err(), "{length}: {result:?}");
    }
}

#[test]
fn damaged_databases_are_errors() {
    let damaged = |database: &[u8]| match file_problem(Block, "a.cvd", database) {
        FileProblem::DamagedDatabase(reason) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(damaged(b""), "invalid header");
    assert_eq!(damaged(b"<html>"), "invalid header");
    assert_eq!(damaged(&with_header("many", &files())), "invalid header");
    assert_eq!(damaged(b"ClamAV-VDB:time:1:7:90"), "truncated");
    let after_end = [files(), vec![0; 1024], vec![1]].concat();
    assert_eq!(damaged(&with_header("7", &after_end)), "data after the end of the archive");
    let invalid = "invalid header of a file in the archive";
    for kind in [b'L', b'x', b'5', b'2', b'1'] {
        let archive = [tar_header("a.hdb", 0, kind), files()].concat();
        assert_eq!(damaged(&with_header("7", &archive)), invalid, "{kind}");
    }
    let mut wrong_sum = tar(&[("a.hdb", "")]);
    wrong_sum[0] = b'b';
    assert_eq!(damaged(&with_header("7", &wrong_sum)), invalid);
    let mut wrong_size = tar_header("a.hdb", 0, b'0');
    wrong_size[124..126].copy_from_slice(b"z1");
    assert_eq!(damaged(&with_header("7", &wrong_size)), invalid);
    assert_eq!(damaged(&with_header("7", &tar_header("a.mdb", 1 << 32, b'0'))), "truncated");
}

#[test]
fn changed_compressed_data_is_an_error() {
    let database = with_header("7", &gzip(&files()));
    let mut accepted = Vec::new();
    for position in 512..database.len() {
        let mut changed = database.clone();
        changed[position] ^= 1;
        if read(Block, "a.cvd", &changed).is_ok() {
            accepted.push(position - 512);
        }
    }
    // Flags, time, level and system in the header of gzip.
    assert!(accepted.iter().all(|position| (3..10).contains(position)), "{accepted:?}");
}

#[test]
fn databases_are_no_allow_list() {
    let database = with_header("7", &gzip(&files()));
    for name in ["a.cvd", "a.txt"] {
        assert_eq!(file_problem(Allow, name, &database), FileProblem::AllowDatabase);
    }
}

#[test]
fn nothing_of_a_rejected_database_is_used() {
    let mut builder = HashListBuilder::new();
    let truncated = &with_header("7", &files())[..4096];
    assert!(builder.add_reader(Block, "a.cld", truncated).is_err());
    let lists = prepare(builder);
    assert_eq!(lists.lookup(&eicar()), None);
    assert!(!lists.needs(crate::DigestKind::Md5));
}

struct Discard;

impl EntrySink for Discard {
    fn add(&mut self, _: &HashEntry<'_>) -> Result<bool, LineProblem> {
        Ok(true)
    }
}

#[test]
fn unpacked_size_is_limited() {
    let archive = files();
    let limit = archive.len() as u64 + 1;
    let counts: EntryCounts = read_archive(&*archive, limit, &mut Discard).unwrap();
    assert_eq!((counts.used, counts.total), (2, 3));
    // Also where the archive seems to end between two files, and inside of a file.
    for limit in [limit - 1, limit - 512, 700, 0] {
        match read_archive(&*archive, limit, &mut Discard) {
            Err(ReadError::File(FileProblem::TooLarge)) => {}
            other => panic!("{limit}: {other:?}"),
        }
    }
}
