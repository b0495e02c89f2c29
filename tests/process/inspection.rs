//! The inspection of each file in the evaluator's children: its failures, the lists of types, and the rules beside it.

use std::{fs, io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use nix::sys::signal::{Signal, kill};

use crate::{
    harness::{
        MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse, png, scanner::children,
    },
    reload::reload_succeeds,
};

const ENCRYPTED_ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");

const ENCRYPTED_INFO: &str = "File not clean. Output: 'encrypted contents (zip)'";

/// Never ends within a time limit. An evaluator starts with bytes of value 65.
const ENDLESS: &str = "rule Endless { condition: uint8(0) != 65 and for all i in (0..100000000000) : (uint8(i % 2) != 300) }";

const NONE: &str = "rule None { condition: false }";

/// Starts a service with the script and these rules.
async fn start(homeserver: &MockHomeserver, rules: &str, lines: &str) -> ScannerProcess {
    let builder = ScannerBuilder::new("echo run >> \"$MARKS/runs\"")
        .config(&format!("rules.paths = [\"some.yar\"]\nscan.canary = \"off\"\n{lines}"))
        .homeserver(homeserver);
    fs::write(builder.dir().path("some.yar"), rules).unwrap();
    builder.start().await
}

async fn scan(scanner: &ScannerProcess, media: &str) -> TestResponse {
    scanner.client.get(&format!("/scan/{media}")).await
}

#[tokio::test]
async fn file_is_inspected_again_if_the_evaluator_ends() {
    for lists in ["", "scan.blocked_mimetypes = [\"application/pdf\"]"] {
        let homeserver = MockHomeserver::start().await;
        let scanner = start(&homeserver, NONE, lists).await;
        let first = homeserver.add_bytes("first", png());
        scan(&scanner, &first).await.assert_clean();
        let evaluator = scanner.evaluators()[0];
        // The file waits for the evaluator, which is killed.
        kill(evaluator, Signal::SIGSTOP).unwrap();
        let waiting = homeserver.add_bytes("waiting", b"text".to_vec());
        let (inspected, ()) = tokio::join!(scan(&scanner, &waiting), async {
            homeserver.wait_for_requests(2).await;
            // Nothing shows that the file has been passed to the stopped evaluator.
            tokio::time::sleep(Duration::from_secs(1)).await;
            kill(evaluator, Signal::SIGKILL).unwrap();
        });
        inspected.assert_clean();
        assert_ne!(scanner.evaluators(), [evaluator]);
        assert!(children(scanner.evaluators()[0]).is_empty());
        scanner.wait_until_idle().await;
    }
}

#[tokio::test]
async fn scan_of_a_script_fails_without_an_evaluator() {
    for lists in ["", "scan.blocked_mimetypes = [\"application/pdf\"]"] {
        let homeserver = MockHomeserver::start().await;
        // Enough for a shell.
        let lines = format!("sandbox.limits.address_space = \"16MiB\"\n{lists}");
        let scanner = start(&homeserver, NONE, &lines).await;
        let media = homeserver.add_bytes("text", b"text".to_vec());
        scan(&scanner, &media).await.assert_error(500, "M_UNKNOWN");
        scanner.wait_for_log("the file could not be inspected", 1).await;
    }
}

#[tokio::test]
async fn media_without_a_type_is_inspected_again_for_a_list() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, NONE, "").await;
    let media = homeserver.add_bytes("png", png());
    for _ in 0..2 {
        scan(&scanner, &media).await.assert_clean();
    }
    assert_eq!(homeserver.download_count(), 1);
    reload_succeeds(&scanner, "scan.blocked_mimetypes = [\"image/png\"]").await;
    for _ in 0..2 {
        scan(&scanner, &media).await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    }
    assert_eq!(homeserver.download_count(), 2, "one more for the type");
    assert_eq!(scanner.dir.mark_count("runs"), 1, "forbidden types do not reach the script");
    // The type is known now.
    reload_succeeds(&scanner, "scan.blocked_mimetypes = [\"image/gif\"]").await;
    scan(&scanner, &media).await.assert_clean();
    let downloads = homeserver.download_count();
    for (list, is_allowed) in [("image/png", false), ("image/gif", true), ("image/png", false)] {
        reload_succeeds(&scanner, &format!("scan.blocked_mimetypes = [{list:?}]")).await;
        let response = scan(&scanner, &media).await;
        if is_allowed {
            response.assert_clean();
        } else {
            response.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
        }
    }
    reload_succeeds(&scanner, "-scan.blocked_mimetypes").await;
    scan(&scanner, &media).await.assert_clean();
    assert_eq!(homeserver.download_count(), downloads, "other lists need no download");
    assert_eq!(scanner.dir.mark_count("runs"), 2);
}

#[tokio::test]
async fn failed_rules_leave_type_and_encryption_known() {
    let engines = "scan.engines = [\"rules\", \"script\"]\nrules.timeout = \"200ms\"";
    for (policy, lists) in [
        ("skip", ""),
        ("skip", "scan.blocked_mimetypes = [\"image/png\"]"),
        ("fail", ""),
        ("fail", "scan.blocked_mimetypes = [\"image/png\"]"),
    ] {
        let homeserver = MockHomeserver::start().await;
        let lines = format!("{engines}\nrules.on_failure = {policy:?}\n{lists}");
        let scanner = start(&homeserver, ENDLESS, &lines).await;
        let text = homeserver.add_bytes("text", b"text".to_vec());
        let response = scan(&scanner, &text).await;
        match policy {
            "skip" => response.assert_clean(),
            _ => response.assert_error(500, "M_UNKNOWN"),
        }
        let encrypted = homeserver.add_bytes("zip", ENCRYPTED_ZIP);
        scan(&scanner, &encrypted).await.assert_not_clean(ENCRYPTED_INFO);
        let picture = homeserver.add_bytes("png", png());
        match (policy, lists) {
            ("skip", "") => scan(&scanner, &picture).await.assert_clean(),
            (_, "") => scan(&scanner, &picture).await.assert_error(500, "M_UNKNOWN"),
            _ => scan(&scanner, &picture).await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN"),
        }
    }
}

#[tokio::test]
async fn file_too_large_for_the_rules_is_inspected() {
    let homeserver = MockHomeserver::start().await;
    let lines = "scan.engines = [\"rules\", \"script\"]\nrules.max_size = \"10B\"\n\
                 rules.on_oversize = \"skip\"\nscan.blocked_mimetypes = [\"image/png\"]";
    let scanner = start(&homeserver, "rule All { condition: true }", lines).await;
    for (name, bytes, expected) in [
        ("small", &b"text"[..], Some("File not clean. Output: 'All'")),
        ("zip", ENCRYPTED_ZIP, Some(ENCRYPTED_INFO)),
        ("large", b"a longer text", None),
    ] {
        let response = scan(&scanner, &homeserver.add_bytes(name, bytes)).await;
        match expected {
            Some(info) => response.assert_not_clean(info),
            None => response.assert_clean(),
        }
    }
    let picture = homeserver.add_bytes("png", png());
    scan(&scanner, &picture).await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
}

#[tokio::test]
async fn lists_apply_to_unpacked_files() {
    let homeserver = MockHomeserver::start().await;
    let lines = "scan.engines = [\"rules\"]\nunpack.report_paths = false";
    let scanner = start(&homeserver, NONE, lines).await;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&png()).unwrap();
    let media = homeserver.add_bytes("packed", encoder.finish().unwrap());
    scan(&scanner, &media).await.assert_clean();
    let forbidden = "File not clean. Output: 'file type image/png is not allowed'";
    reload_succeeds(&scanner, "scan.blocked_mimetypes = [\"image/png\"]").await;
    scan(&scanner, &media).await.assert_not_clean(forbidden);
    // A changed list takes effect whatever is cached.
    for (setting, is_allowed) in [
        ("scan.blocked_mimetypes = [\"image/gif\"]", true),
        ("scan.blocked_mimetypes = [\"image/png\"]", false),
        ("unpack.mime_types = \"no\"", true),
        ("unpack.mime_types = \"both\"", false),
        ("-scan.blocked_mimetypes", true),
        ("scan.allowed_mimetypes = [\"application/gzip\", \"image/gif\"]", false),
        ("unpack.mime_types = \"blocked\"", true),
        ("unpack.mime_types = \"both\"", false),
        ("unpack.enabled = false", true),
    ] {
        reload_succeeds(&scanner, setting).await;
        let response = scan(&scanner, &media).await;
        if is_allowed {
            response.assert_clean();
        } else {
            response.assert_not_clean(forbidden);
        }
    }
}

#[tokio::test]
async fn rules_use_the_type_of_each_file() {
    let homeserver = MockHomeserver::start().await;
    let rules = "rule Picture { condition: filetype == \"image/png\" }";
    let scanner = start(&homeserver, rules, "scan.engines = [\"rules\"]").await;
    let picture = homeserver.add_bytes("png", png());
    scan(&scanner, &picture).await.assert_not_clean("File not clean. Output: 'Picture'");
    let text = homeserver.add_bytes("text", b"text".to_vec());
    scan(&scanner, &text).await.assert_clean();
}
