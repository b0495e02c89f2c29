//! Unpacking by the rules engine: outcomes for contents under each value of their settings, limits, and locations of
//! findings. The real program, with its evaluator in the sandbox.

use std::{fs, io::Write};

use flate2::{Compression, Crc, write::GzEncoder};

use crate::{
    harness::{MockHomeserver, ScannerBuilder, ScannerProcess, eicar, noise, wait_until},
    operations::scrape_until,
    reload::reload_succeeds,
};

const ENCRYPTED_ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");

/// Does not match archives in which the file is stored without compression.
const RULE: &str = "rule Bad { strings: $a = \"a bad payload\" condition: $a at 0 }";

const BAD: &[u8] = b"a bad payload";

const LIMIT: &str = "413 MCS_MEDIA_REQUEST_FAILED";
const FINAL: &str = "422 M_UNKNOWN";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Returns a zip archive of stored entries. APPNOTE.TXT, sections 4.3.7, 4.3.12 and 4.3.16.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    zip_with_hidden(entries, entries.len())
}

/// Returns a zip archive whose directory lists only the first entries.
fn zip_with_hidden(entries: &[(&str, &[u8])], listed: usize) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (index, (name, bytes)) in entries.iter().enumerate() {
        let mut crc = Crc::new();
        crc.update(bytes);
        let length = u32::try_from(bytes.len()).unwrap();
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend([crc.sum(), length, length].map(u32::to_le_bytes).concat());
        common.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
        common.extend([0, 0]);
        let offset = u32::try_from(archive.len()).unwrap();
        archive.extend([b"PK\x03\x04", &*common, name.as_bytes(), bytes].concat());
        if index < listed {
            let fields = [b"PK\x01\x02\x14\0", &*common, &[0; 10], &offset.to_le_bytes()].concat();
            directory.extend([&fields, name.as_bytes()].concat());
        }
    }
    let count = u16::try_from(listed).unwrap().to_le_bytes();
    let sizes = [directory.len(), archive.len()].map(|size| u32::try_from(size).unwrap());
    let end = [b"PK\x05\x06\0\0\0\0", &count[..], &count, &sizes.map(u32::to_le_bytes).concat()];
    [archive, directory, end.concat(), vec![0; 2]].concat()
}

/// Returns the innermost bytes in this number of zip archives.
fn nested(depth: usize, innermost: &[u8]) -> Vec<u8> {
    (0..depth).fold(innermost.to_vec(), |bytes, level| zip(&[(&format!("level {level}"), &bytes)]))
}

async fn start(homeserver: &MockHomeserver, lines: &str) -> ScannerProcess {
    let builder = ScannerBuilder::new("")
        .homeserver(homeserver)
        .config(
            "scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]\nscan.canary = \"off\"\n\
             audit.path = \"audit.log\"",
        )
        .config(lines);
    fs::write(builder.dir().path("some.yar"), RULE).unwrap();
    builder.start().await
}

/// Asserts the outcome of a file on the scan route: `clean`, the start of a finding, or a status and its reason.
async fn assert_outcome(scanner: &ScannerProcess, media: &str, expected: &str, case: &str) {
    println!("{case}: {expected}");
    let response = scanner.client.get(&format!("/scan/{media}")).await;
    if expected == "clean" {
        response.assert_clean();
    } else if let Some((status, reason)) = expected.split_once(' ')
        && let Ok(status) = status.parse()
    {
        response.assert_error(status, reason);
    } else {
        let json = response.json();
        let info = json["info"].as_str().unwrap();
        let is_expected = info.starts_with(&format!("File not clean. Output: '{expected}"));
        assert!(is_expected && json["clean"] == false, "{case}: {json}");
    }
}

/// Asserts that the rules have run once, with this result. A run is counted before its verdict is given.
async fn assert_one_run(scanner: &ScannerProcess, result: &str) {
    let line = format!("mcs_engine_scans_total{{engine=\"rules\",result=\"{result}\"}} 1");
    scrape_until(&scanner.operations_client().await, &line).await;
}

#[tokio::test]
async fn contents_that_are_not_examined_under_each_policy() {
    let homeserver = MockHomeserver::start().await;
    let mut truncated = gzip(&noise(1, 10_000));
    truncated.truncate(5_000);
    let hidden = zip_with_hidden(&[("listed", b"text"), ("hidden", b"other text")], 1);
    for (name, bytes, settings) in [
        (
            "unreadable",
            truncated,
            [
                ("", "clean"),
                ("unpack.on_unreadable = \"refuse\"", "unreadable contents ("),
                ("unpack.on_unreadable = \"fail\"", FINAL),
                ("unpack.on_unreadable = \"pass\"", "clean"),
            ],
        ),
        (
            "inconsistent",
            hidden,
            [
                ("", "inconsistent contents ("),
                ("unpack.on_inconsistent = \"fail\"", FINAL),
                ("unpack.on_inconsistent = \"pass\"", "clean"),
                ("unpack.on_inconsistent = \"refuse\"", "inconsistent contents ("),
            ],
        ),
        (
            "limit",
            zip(&[("1", b"1"), ("2", b"2"), ("3", b"3"), ("4", b"4")]),
            [
                ("", LIMIT),
                ("scan.on_limit = \"refuse\"", "limit exceeded (unpack.max_files)"),
                ("scan.on_limit = \"pass\"", "clean"),
                ("scan.on_limit = \"fail\"", LIMIT),
            ],
        ),
        // The service itself does not look into gzip files.
        (
            "encrypted",
            gzip(ENCRYPTED_ZIP),
            [
                ("", "encrypted contents ("),
                ("scan.on_encrypted = \"fail\"", FINAL),
                ("scan.on_encrypted = \"pass\"", "clean"),
                ("scan.on_encrypted = \"refuse\"", "encrypted contents ("),
            ],
        ),
    ] {
        let scanner = start(&homeserver, "unpack.max_files = 3").await;
        let media = homeserver.add_bytes(name, bytes.clone());
        for (setting, expected) in settings {
            if !setting.is_empty() {
                reload_succeeds(&scanner, setting).await;
            }
            assert_outcome(&scanner, &media, expected, &format!("{name}, {setting}")).await;
            let download = scanner.client.get(&format!("/download/{media}")).await;
            match expected {
                "clean" => download.assert_media(&bytes),
                FINAL => download.assert_error(422, "M_UNKNOWN"),
                LIMIT => download.assert_error(413, "MCS_MEDIA_REQUEST_FAILED"),
                _ => download.assert_error(403, "MCS_MEDIA_NOT_CLEAN"),
            }
        }
        // A changed policy applies to the cached outcome.
        assert_one_run(&scanner, name).await;
    }
}

#[tokio::test]
async fn finding_beside_contents_that_are_not_examined_counts() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "").await;
    let mut damaged = gzip(&noise(1, 10_000));
    damaged.truncate(5_000);
    let archive = zip(&[("damaged.gz", &damaged), ("locked.zip", ENCRYPTED_ZIP), ("bad", BAD)]);
    let media = homeserver.add_bytes("beside", archive);
    assert_outcome(&scanner, &media, "Bad'", "bad file beside others").await;
    let archive = zip_with_hidden(&[("listed", b"text"), ("hidden", BAD)], 1);
    let media = homeserver.add_bytes("hidden", archive);
    assert_outcome(&scanner, &media, "Bad'", "bad file that the directory does not list").await;
}

#[tokio::test]
async fn location_is_logged_and_shown_on_request() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "").await;
    let inner = zip(&[("a/setup\u{202e}\n.exe", BAD)]);
    let media = homeserver.add_bytes("packed", zip(&[("invoice.zip", &inner)]));
    assert_outcome(&scanner, &media, "Bad'", "by default").await;
    let line = "Bad in invoice.zip > a/setup  .exe";
    let path = scanner.dir.path("audit.log");
    wait_until("audit line", || fs::read_to_string(&path).is_ok_and(|log| log.contains(line)))
        .await;
    reload_succeeds(&scanner, "unpack.report_paths = true").await;
    assert_outcome(&scanner, &media, &format!("{line}'"), "report_paths").await;
    reload_succeeds(&scanner, "unpack.report_paths = false").await;
    assert_outcome(&scanner, &media, "Bad'", "without report_paths").await;
    assert_one_run(&scanner, "infected").await;
    // The media file itself has no location.
    let media = homeserver.add_bytes("plain", BAD);
    reload_succeeds(&scanner, "unpack.report_paths = true").await;
    assert_outcome(&scanner, &media, "Bad'", "not packed").await;
}

#[tokio::test]
async fn limits_apply_at_their_edge() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "scan.on_limit = \"refuse\"").await;
    let kibibyte = noise(1, 1024);
    let one_more = noise(1, 1025);
    let three: &[(&str, &[u8])] = &[("1", b"1"), ("2", b"2"), ("3", b"3")];
    for (index, (setting, inside, outside)) in [
        ("max_files = 3", zip(three), zip(&[three, &[("4", b"4")]].concat())),
        ("max_depth = 2", nested(2, b"text"), nested(3, b"text")),
        // A compressed archive counts as one level.
        ("max_depth = 2", gzip(&nested(1, b"text")), gzip(&nested(3, b"text"))),
        ("max_file = 1024", gzip(&kibibyte), gzip(&one_more)),
        ("max_total = 1024", zip(&[("a", &kibibyte)]), zip(&[("a", &one_more)])),
    ]
    .into_iter()
    .enumerate()
    {
        let key = setting.split(' ').next().unwrap();
        reload_succeeds(&scanner, &format!("unpack.{setting}")).await;
        let media = homeserver.add_bytes(&format!("inside{index}"), inside);
        assert_outcome(&scanner, &media, "clean", setting).await;
        let media = homeserver.add_bytes(&format!("outside{index}"), outside);
        let expected = format!("limit exceeded (unpack.{key})");
        assert_outcome(&scanner, &media, &expected, setting).await;
        reload_succeeds(&scanner, &format!("-unpack.{key}")).await;
    }
}

/// A higher limit, or unpacking at all, makes earlier verdicts a miss.
#[tokio::test]
async fn changed_limits_apply_to_cached_media() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "unpack.enabled = false").await;
    let media = homeserver.add_bytes("nested", nested(3, &gzip(BAD)));
    for (setting, expected) in [
        ("unpack.enabled = false", "clean"),
        ("unpack.enabled = true", "Bad'"),
        ("unpack.max_depth = 3", LIMIT),
        ("unpack.max_depth = 4", "Bad'"),
        ("unpack.enabled = false", "clean"),
    ] {
        reload_succeeds(&scanner, setting).await;
        assert_outcome(&scanner, &media, expected, setting).await;
    }
}

/// Archives of sources contain scripts.
#[tokio::test]
async fn supplied_rules_apply_to_contents_within_their_scope() {
    let homeserver = MockHomeserver::start().await;
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/config/rules");
    let builder = ScannerBuilder::new("").homeserver(&homeserver);
    let lines = format!(
        "scan.engines = [\"rules\"]\nrules.paths = [\"{rules}\"]\nscan.canary = \"eicar\"\n\
         unpack.report_paths = true"
    );
    // The canary passes, with the packed sample.
    let scanner = builder.config(&lines).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let script = b"#!/bin/sh\necho\n";
    let mut program = b"MZ".to_vec();
    program.resize(0x3c, 0);
    program.extend(b"\x40\0\0\0PE\0\0");
    program.resize(512, 0);
    for (name, bytes, expected) in [
        ("script", script.to_vec(), "Script_With_Interpreter'"),
        ("packed-script", zip(&[("run.sh", script)]), "clean"),
        ("program", zip(&[("setup.txt", &program)]), "Windows_Program in setup.txt'"),
        ("eicar", gzip(&zip(&[("x", &eicar())])), "EICAR_Test_File in "),
    ] {
        let media = homeserver.add_bytes(name, bytes);
        assert_outcome(&scanner, &media, expected, name).await;
    }
}
