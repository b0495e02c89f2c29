//! Canary: no verdicts are given while a script returns wrong verdicts on the canary samples.

use crate::harness::{MockHomeserver, ScannerBuilder, png, wait_until};

/// Detects the EICAR file unless `$MARKS/blind` exists.
const DETECTS_EICAR: &str = r#"
    [ -e "$MARKS/blind" ] && exit 0
    echo run >> "$MARKS/runs"
    if grep -q EICAR-STANDARD "$1"; then exit 1; fi
"#;

#[tokio::test]
async fn returns_503_until_script_detects_infected_sample() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.wait_for_log("not ready", 1).await;
    assert!(scanner.log().contains("reports the infected sample as clean"), "{}", scanner.log());
    for route in ["scan", "download"] {
        let response = scanner.client.get(&format!("/{route}/{media}")).await;
        response.assert_error(503, "M_UNKNOWN");
    }
    assert_eq!(homeserver.download_count(), 0, "downloaded media that cannot be scanned");
    scanner.client.public_key().await;

    scanner.dir.write_script("script.sh", DETECTS_EICAR);
    scanner.wait_for_log("ready: the canary passed", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
}

#[tokio::test]
async fn failed_canary_invalidates_cached_verdicts() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new(DETECTS_EICAR).homeserver(&homeserver);
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();
    std::fs::write(scanner.dir.path("marks").join("blind"), "").unwrap();
    scanner.wait_for_log("not ready", 1).await;
    scanner.client.get(&path).await.assert_error(503, "M_UNKNOWN");
    std::fs::remove_file(scanner.dir.path("marks").join("blind")).unwrap();
    scanner.wait_for_log("ready: the canary passed", 2).await;
    scanner.client.get(&path).await.assert_clean();
}

#[tokio::test]
async fn failed_canary_discards_running_scan() {
    let script = format!(
        r#"grep -qE "EICAR|scanner could object" "$1" || {{ echo scanned >> "$MARKS/scanned"; read go < "$MARKS/go"; }}{DETECTS_EICAR}"#
    );
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new(&script).homeserver(&homeserver);
    builder.dir().make_fifo("go");
    let config = "scan.canary = \"eicar\"\nscan.canary_interval = \"1s\"";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    let path = format!("/scan/{media}");
    let (response, ()) = tokio::join!(scanner.client.get(&path), async {
        wait_until("scan has started", || scanner.dir.mark_count("scanned") == 1).await;
        std::fs::write(scanner.dir.path("marks").join("blind"), "").unwrap();
        scanner.wait_for_log("not ready", 1).await;
        std::fs::remove_file(scanner.dir.path("marks").join("blind")).unwrap();
        scanner.wait_for_log("ready: the canary passed", 2).await;
        scanner.dir.release_fifo("go").await;
    });
    response.assert_error(503, "M_UNKNOWN");
    // The discarded verdict is not cached.
    let (response, ()) = tokio::join!(scanner.client.get(&path), scanner.dir.release_fifo("go"));
    response.assert_clean();
    assert_eq!(scanner.dir.mark_count("scanned"), 2);
}

#[tokio::test]
async fn returns_503_while_script_rejects_clean_sample_or_gives_no_verdict() {
    for (script, message) in [
        ("echo broken; exit 1", "reports the clean sample as not clean: \\\"broken\\\""),
        ("exit 127", "gives no verdict on the infected sample"),
        ("kill -SEGV $$", "gives no verdict on the infected sample"),
    ] {
        let homeserver = MockHomeserver::start().await;
        let media = homeserver.add_bytes("abc", png());
        let builder = ScannerBuilder::new(script).homeserver(&homeserver);
        let scanner = builder.config("scan.canary = \"eicar\"").start().await;
        scanner.wait_for_log("not ready", 1).await;
        assert!(scanner.log().contains(message), "{message}: {}", scanner.log());
        scanner.client.get(&format!("/scan/{media}")).await.assert_error(503, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn scans_immediately_when_canary_is_off() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("scan.canary = \"off\"").start().await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    assert!(!scanner.log().contains("canary"), "{}", scanner.log());
}

#[tokio::test]
async fn scans_custom_samples_regardless_of_allowed_mimetypes() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder =
        ScannerBuilder::new(r#"if grep -q WRONG "$1"; then exit 1; fi"#).homeserver(&homeserver);
    std::fs::write(builder.dir().path("wrong.txt"), "a WRONG one").unwrap();
    std::fs::write(builder.dir().path("right.txt"), "a right one").unwrap();
    let config = "scan.canary = { infected = \"wrong.txt\", clean = \"right.txt\" }\n\
                  scan.allowed_mimetypes = [\"image/png\"]";
    let scanner = builder.config(config).start().await;
    scanner.wait_for_log("ready: the canary passed", 1).await;
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
}
