//! Keys of the configuration: applied at once, applied to new jobs only, or after a restart.

use std::{fs, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    BLOCKING_SCRIPT, RECORDING_SCRIPT, reload_fails, reload_succeeds, spawn_get, traffic::Traffic,
};
use crate::harness::{
    Attachment, MockHomeserver, ScannerBuilder,
    attachment::seal,
    png,
    scanner::{list_dir, restart},
    wait_until,
};

#[tokio::test]
async fn reload_applies_every_kind_of_key_without_failing_requests() {
    let homeserver = Arc::new(MockHomeserver::start().await);
    let elsewhere = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let traffic = Traffic::start(&homeserver, &scanner.client);
    traffic.wait_for_progress().await;
    let scan = async |id: &str, bytes: &[u8]| {
        let media = homeserver.add_bytes(id, bytes.to_vec());
        scanner.client.get(&format!("/scan/{media}")).await
    };

    // A limit.
    scan("large", &[1; 9000]).await.assert_clean();
    let log = reload_succeeds(&scanner, "download.max_size = 8000").await;
    assert!(log.contains("\"changed\":\"download.max_size\""), "{log}");
    scan("larger", &[2; 9000]).await.assert_error(413, "MCS_MEDIA_REQUEST_FAILED");
    traffic.wait_for_progress().await;
    reload_succeeds(&scanner, "-download.max_size").await;
    scan("larger", &[2; 9000]).await.assert_clean();

    // A list of types; it applies to cached verdicts too.
    scan("listed", b"just text\n").await.assert_clean();
    reload_succeeds(&scanner, "scan.allowed_mimetypes = [\"image/png\"]").await;
    scan("listed", b"just text\n").await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    traffic.wait_for_progress().await;
    reload_succeeds(&scanner, "-scan.allowed_mimetypes").await;
    scan("listed", b"just text\n").await.assert_clean();

    // The limit of request bodies.
    let padded = format!("{{\"padding\": \"{}\"}}", "x".repeat(2000));
    let post = async || scanner.client.post_bytes("/scan_encrypted", padded.clone()).await;
    post().await.assert_error(400, "MCS_MALFORMED_JSON");
    reload_succeeds(&scanner, "web.max_body_size = 1500").await;
    post().await.assert_error(413, "MCS_MALFORMED_JSON");

    // Headers, and the map of homeservers.
    reload_succeeds(&scanner, "download.additional_headers = { X-From = \"scanner\" }").await;
    scan("headers", b"headers").await.assert_clean();
    let requests = homeserver.requests();
    let last = requests.iter().rfind(|request| request.uri.contains("/headers")).unwrap();
    assert_eq!(last.headers["x-from"], "scanner");
    let map = format!("download.homeservers = {{ \"other.example\" = \"{}\" }}", elsewhere.url());
    reload_succeeds(&scanner, &map).await;
    let media = elsewhere.add_bytes("over-there", "over there");
    let request = scanner.client.request(reqwest::Method::GET, &format!("/download/{media}"));
    let request = request.bearer_auth("good-token").header("host", "other.example");
    crate::harness::client::send(request).await.assert_media(b"over there");
    traffic.wait_for_progress().await;

    // The script, its arguments and its exit codes: cached verdicts of the previous engine are not used.
    scanner.dir.write_script("by-argument.sh", "[ $# = 1 ] || exit \"$1\"");
    reload_succeeds(&scanner, "scan.script = \"by-argument.sh\"").await;
    scan("listed", b"just text\n").await.assert_clean();
    traffic.stop().await;
    reload_succeeds(&scanner, "scan.script_args = [\"3\"]").await;
    scan("listed", b"just text\n").await.assert_not_clean("File not clean (no output)");
    reload_succeeds(&scanner, "scan.failure_exit_codes = [3]").await;
    scan("listed", b"just text\n").await.assert_error(500, "M_UNKNOWN");

    // The log level.
    reload_succeeds(&scanner, "log.level = \"info,matrix_content_scanner::http=error\"").await;
    let quiet = scanner.log().len();
    scan("listed", b"just text\n").await.assert_error(500, "M_UNKNOWN");
    reload_succeeds(&scanner, "log.level = \"debug\"").await;
    assert!(!scanner.log()[quiet..].contains("answered"), "{}", &scanner.log()[quiet..]);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn running_job_keeps_its_initial_settings() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(BLOCKING_SCRIPT).homeserver(&homeserver).start().await;
    scanner.dir.make_fifo("go");
    let media = homeserver.add_bytes("abc", "content");
    let running = spawn_get(&scanner, format!("/download/{media}"));
    wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;

    scanner.dir.write_script("strict.sh", "echo no\nexit 1");
    reload_succeeds(&scanner, "scan.script = \"strict.sh\"").await;
    // A new request for the same file does not join the running job.
    scanner
        .client
        .get(&format!("/scan/{media}"))
        .await
        .assert_not_clean("File not clean. Output: 'no'");
    reload_succeeds(&scanner, "scan.timeout = \"100ms\"").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    scanner.dir.release_fifo("go").await;
    running.await.unwrap().assert_media(b"content");
    reload_succeeds(&scanner, "-scan.timeout").await;
    // The verdict of the running job is not used for the current script.
    scanner
        .client
        .get(&format!("/scan/{media}"))
        .await
        .assert_not_clean("File not clean. Output: 'no'");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn reload_rotates_key_and_keeps_previous_key_for_its_ttl() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let attachment = Attachment::encrypt(&png(), 1);
    let media = homeserver.add_bytes("abc", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{media}")).to_string();
    let old = scanner.client.public_key().await;
    let scan =
        async |key: &str| scanner.client.post("/scan_encrypted", &seal(key, body.as_bytes())).await;
    scan(&old).await.assert_clean();

    let secret = scanner.dir.path("request_secret");
    fs::write(&secret, STANDARD.encode([7; 32])).unwrap();
    let log = reload_succeeds(&scanner, "").await;
    assert!(log.contains("\"changed\":\"the request key\""), "{log}");
    let new = scanner.client.public_key().await;
    assert_ne!(new, old);
    scan(&new).await.assert_clean();
    scan(&old).await.assert_clean();

    // A new TTL applies to a key that was replaced before.
    reload_succeeds(&scanner, "crypto.previous_key_ttl = \"1ms\"").await;
    scan(&old).await.assert_error(403, "MCS_BAD_DECRYPTION");
    scan(&new).await.assert_clean();

    // A TTL that expires without a reload.
    reload_succeeds(&scanner, "crypto.previous_key_ttl = \"300ms\"").await;
    fs::write(&secret, STANDARD.encode([8; 32])).unwrap();
    reload_succeeds(&scanner, "").await;
    scanner.wait_for_log("replaced request key expired", 1).await;
    scan(&new).await.assert_error(403, "MCS_BAD_DECRYPTION");
    scan(&scanner.client.public_key().await).await.assert_clean();

    // An invalid key file does not replace the current key.
    fs::write(&secret, "hush-hush").unwrap();
    let log = reload_fails(&scanner, "").await;
    assert!(log.contains("request_secret") && !log.contains("hush-hush"), "{log}");
    scan(&scanner.client.public_key().await).await.assert_clean();
}

#[tokio::test]
async fn reload_warns_about_each_key_that_needs_a_restart() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    fs::create_dir(scanner.dir.path("temp2")).unwrap();
    let lines = "web.port = 1\nscan.workers = 3\nscan.max_scripts = 1\nscan.queue_capacity = 7\n\
                 scan.temp_directory = \"temp2\"\nweb.max_connections = 9\nlog.format = \"human\"\n\
                 result_cache.max_size = 5\nresult_cache.max_file_size = 6\n\
                 result_cache.max_total_size = 7\ndownload.max_size = 1000";
    let log = reload_succeeds(&scanner, lines).await;
    for key in [
        "web.port",
        "web.max_connections",
        "scan.workers",
        "scan.queue_capacity",
        "scan.temp_directory",
        "result_cache.max_size",
        "result_cache.max_file_size",
        "result_cache.max_total_size",
        "log.format",
    ] {
        let line = log.lines().find(|line| line.contains(&format!("\"key\":\"{key}\"")));
        let line = line.unwrap_or_else(|| panic!("{key} in {log}"));
        assert!(line.contains("\"WARN\"") && line.contains("restart required"), "{line}");
    }
    assert!(log.contains("download.max_size"), "{log}");
    let media = homeserver.add_bytes("abc", [1; 5000].to_vec());
    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.assert_error(413, "MCS_MEDIA_REQUEST_FAILED");
    assert!(list_dir(&scanner.dir.path("temp2")).is_empty());
    assert_eq!(list_dir(&scanner.dir.path("temp")).len(), 1, "the run directory was moved");
    // The next reload reports the key that is still different.
    let log =
        reload_succeeds(&scanner, "web.port = 0\nscan.workers = 3\nlog.format = \"json\"").await;
    assert!(log.contains("\"key\":\"scan.workers\"") && !log.contains("web.port"), "{log}");
    drop(restart(scanner.kill()).await);
}

#[tokio::test]
async fn reload_changes_script_concurrency() {
    let homeserver = MockHomeserver::start().await;
    // Each scan waits for its own FIFO.
    let script = r#"echo run >> "$MARKS/runs"; read go < "$MARKS/$(cat "$1")""#;
    let builder = ScannerBuilder::new(script).homeserver(&homeserver);
    let scanner = builder.config("scan.workers = 16\nscan.max_scripts = 2").start().await;
    for name in ["one", "two", "three", "four"] {
        scanner.dir.make_fifo(name);
    }
    let scan = |id: &str| {
        spawn_get(&scanner, format!("/scan/{}", homeserver.add_bytes(id, id.to_owned())))
    };
    let mut running = vec![scan("one"), scan("two")];
    wait_until("two scripts run", || scanner.dir.mark_count("runs") == 2).await;
    reload_succeeds(&scanner, "scan.max_scripts = 1").await;
    running.push(scan("three"));
    homeserver.wait_for_requests(3).await;
    scanner.dir.release_fifo("one").await;
    running.remove(0).await.unwrap().assert_clean();
    // One script still runs, so the limit of one is reached.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(scanner.dir.mark_count("runs"), 2);
    reload_succeeds(&scanner, "scan.max_scripts = 3").await;
    running.push(scan("four"));
    wait_until("the remaining scripts run", || scanner.dir.mark_count("runs") == 4).await;
    for name in ["two", "three", "four"] {
        scanner.dir.release_fifo(name).await;
    }
    for reply in running {
        reply.await.unwrap().assert_clean();
    }
}

#[tokio::test]
async fn changed_ttl_applies_to_cached_entries() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(RECORDING_SCRIPT).homeserver(&homeserver).start().await;
    let media = homeserver.add_bytes("abc", png());
    let runs_after_a_scan = async || {
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
        scanner.dir.mark_count("runs")
    };
    assert_eq!(runs_after_a_scan().await, 1);
    reload_succeeds(&scanner, "download.max_size = 9000000").await;
    assert_eq!(runs_after_a_scan().await, 1, "the reload dropped the cache");
    reload_succeeds(&scanner, "result_cache.ttl = \"1ms\"").await;
    assert_eq!(runs_after_a_scan().await, 2, "the shorter ttl did not expire the entry");
    reload_succeeds(&scanner, "result_cache.ttl = \"1h\"").await;
    assert_eq!(runs_after_a_scan().await, 2, "the longer ttl did not keep the entry");
}
