//! Tests of `scan.on_encrypted`: reload, the `scan` command, and the canary.

use std::fs;

use crate::{
    harness::{MockHomeserver, ScannerBuilder, ScannerProcess},
    reload::reload_succeeds,
};

const ZIP: &[u8] = include_bytes!("../../fuzz/corpus/encrypted/encrypted.zip");

const REFUSED_INFO: &str = "File not clean. Output: 'encrypted contents (zip)'";

#[tokio::test]
async fn reload_applies_policy_to_next_request() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new("echo run >> \"$MARKS/runs\"")
        .homeserver(&homeserver)
        .config("result_cache.failure_ttl = \"1h\"")
        .start()
        .await;
    let path = format!("/scan/{}", homeserver.add_bytes("zip", ZIP));
    let scan = async |scanner: &ScannerProcess| scanner.client.get(&path).await;
    scan(&scanner).await.assert_not_clean(REFUSED_INFO);
    reload_succeeds(&scanner, "scan.on_encrypted = \"fail\"").await;
    scan(&scanner).await.assert_error(422, "M_UNKNOWN");
    reload_succeeds(&scanner, "scan.on_encrypted = \"pass\"").await;
    scan(&scanner).await.assert_clean();
    reload_succeeds(&scanner, "scan.on_encrypted = \"fail\"").await;
    scan(&scanner).await.assert_error(422, "M_UNKNOWN");
    reload_succeeds(&scanner, "-scan.on_encrypted").await;
    scan(&scanner).await.assert_not_clean(REFUSED_INFO);
    assert_eq!(scanner.dir.mark_count("runs"), 1, "a changed policy applies without a scan");
}

#[test]
fn scan_command_applies_policy() {
    for (value, code, message) in [
        ("refuse", 1, "encrypted contents (zip)"),
        ("fail", 2, "the contents need a password: zip"),
        ("pass", 0, "clean"),
    ] {
        let builder =
            ScannerBuilder::new("exit 0").config(&format!("scan.on_encrypted = {value:?}"));
        let file = builder.dir().path("encrypted.zip");
        fs::write(&file, ZIP).unwrap();
        let (exit_code, stdout, stderr) = builder.run(&["scan", file.to_str().unwrap()]);
        let output = stdout + &stderr;
        assert_eq!(exit_code, Some(code), "{value}: {output}");
        assert!(output.contains(message), "{value}: {output}");
    }
}

#[test]
fn canary_ignores_policy() {
    // An infected sample in an encrypted archive must not hide an engine that detects nothing.
    let builder = ScannerBuilder::new("exit 0").config(
        "scan.canary = { infected = \"infected.zip\", clean = \"clean\" }\nscan.on_encrypted = \"refuse\"",
    );
    fs::write(builder.dir().path("infected.zip"), ZIP).unwrap();
    fs::write(builder.dir().path("clean"), "clean").unwrap();
    let (exit_code, stdout, stderr) = builder.run(&["check-config"]);
    let output = stdout + &stderr;
    assert_ne!(exit_code, Some(0), "{output}");
    assert!(output.contains("reports the infected sample as clean"), "{output}");
}
