//! Log line for each request. `process/secrets` tests what must never appear in it.

use serde_json::{Value, json};

use crate::harness::{
    MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, client::send, homeserver::TOKEN, png,
};

/// Log entries of answered requests.
fn answered_entries(scanner: &ScannerProcess) -> Vec<Value> {
    let log = scanner.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter(|line| line["message"] == "answered").collect()
}

#[tokio::test]
async fn logs_media_verdict_and_durations_for_each_request() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"! grep -q dirty "$1""#).await;
    let clean = homeserver.add_bytes("clean", png());
    let dirty = homeserver.add_bytes("dirty", "dirty");
    let failing = homeserver.add_media("failing", MockMedia::error(503, ""));
    scanner.client.get(&format!("/download/{clean}")).await.assert_media(&png());
    scanner.client.get(&format!("/scan/{dirty}")).await;
    scanner.client.get(&format!("/thumbnail/{failing}")).await;
    scanner.client.get(&format!("/download/{clean}")).await.assert_media(&png());
    let head = scanner.client.request(reqwest::Method::HEAD, "/scan/a..b/abc");
    send(head.bearer_auth(TOKEN)).await;
    scanner.wait_for_log("\"answered\"", 5).await;

    let lines = answered_entries(&scanner);
    let expected = [
        ("INFO", "GET", "download", 200, json!(format!("mxc://{clean}")), json!("clean")),
        ("INFO", "GET", "scan", 200, json!(format!("mxc://{dirty}")), json!("not_clean")),
        ("INFO", "GET", "thumbnail", 502, json!(format!("mxc://{failing}")), json!(null)),
        // Served from the cache.
        ("DEBUG", "GET", "download", 200, json!(format!("mxc://{clean}")), json!("clean")),
        ("INFO", "HEAD", "scan", 404, json!(null), json!(null)),
    ];
    assert_eq!(lines.len(), expected.len());
    for (id, (line, (level, method, route, status, media, verdict))) in
        lines.iter().zip(expected).enumerate()
    {
        assert_eq!(line["level"], level, "{line}");
        let span = &line["span"];
        assert_eq!((&span["id"], &span["method"]), (&json!(id), &json!(method)), "{line}");
        assert_eq!(span["route"], route, "{line}");
        assert_eq!((&line["status"], &line["media"]), (&json!(status), &media), "{line}");
        assert_eq!(line["verdict"], verdict, "{line}");
        assert!(line["total_ms"].is_u64(), "{line}");
        let from_job = id < 2;
        for duration in ["queue_ms", "download_ms", "scan_ms"] {
            assert_eq!(line[duration].is_u64(), from_job, "{duration} in {line}");
        }
    }
    assert_eq!(lines[0]["bytes"], png().len());
    assert_eq!(lines[2]["reason"], "MCS_MEDIA_REQUEST_FAILED");
    assert_eq!(lines[4]["reason"], "M_NOT_FOUND");
}

#[tokio::test]
async fn level_of_responses_from_memory_is_separate() {
    for (level, from_memory) in [("info", 0), ("info,from_memory=debug", 2)] {
        let homeserver = MockHomeserver::start().await;
        let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
        let canary = "scan.canary = \"off\"";
        let scanner = builder.config(&format!("log.level = {level:?}\n{canary}")).start().await;
        let media = homeserver.add_bytes("clean", png());
        for _ in 0..3 {
            scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
        }
        // Logged at debug as well, but not from memory.
        scanner.client.get("/public_key").await;
        let other = homeserver.add_bytes("other", png());
        scanner.client.get(&format!("/scan/{other}")).await;
        let count = from_memory + 2;
        scanner.wait_for_log("\"answered\"", count).await;
        let lines = answered_entries(&scanner);
        assert_eq!(lines.len(), count, "{level}: {lines:?}");
        let debug = lines.iter().filter(|line| line["level"] == "DEBUG");
        assert_eq!(debug.count(), from_memory, "{level}: {lines:?}");
    }
}
