//! Caching of verdicts, media and failures: contract, "Caching".

use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{
    Attachment, MockHomeserver, MockMedia, ScannerBuilder, ScannerProcess, TestResponse, noise,
    png, wait_until,
};

/// Accepts every file and counts its runs.
const COUNTING: &str = r#"echo run >> "$MARKS/runs""#;

/// Counts its runs, blocks on a FIFO, then accepts the file.
const BLOCKING: &str = r#"echo run >> "$MARKS/runs"; read line < "$MARKS/gate""#;

#[tokio::test]
async fn concurrent_requests_share_one_download_and_one_scan() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, BLOCKING).await;
    scanner.dir.make_fifo("gate");
    let media = homeserver.add_bytes("one", png());

    let path = format!("/download/{media}");
    let requests = (0..50).map(|_| scanner.client.get(&path));
    let requests = futures_util::future::join_all(requests);
    let (responses, ()) = tokio::join!(requests, scanner.dir.release_fifo("gate"));

    for response in &responses {
        response.assert_media(&png());
    }
    assert_eq!((homeserver.download_count(), scanner.dir.mark_count("runs")), (1, 1));
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn media_with_identical_bytes_share_one_running_scan() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, BLOCKING).await;
    scanner.dir.make_fifo("gate");
    let (one, two) = (homeserver.add_bytes("one", png()), homeserver.add_bytes("two", png()));

    let both = async {
        let (one, two) = (format!("/scan/{one}"), format!("/download/{two}"));
        tokio::join!(scanner.client.get(&one), scanner.client.get(&two))
    };
    let gate = async {
        // Both requests have arrived before the script continues.
        wait_until("both downloads have started", || homeserver.download_count() == 2).await;
        scanner.dir.release_fifo("gate").await;
    };
    let ((one, two), ()) = tokio::join!(both, gate);

    one.assert_clean();
    two.assert_media(&png());
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn downloads_large_clean_media_again_without_scanning_again() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(COUNTING)
        .homeserver(&homeserver)
        .config("result_cache.max_file_size = 1000")
        .start()
        .await;
    let bytes = noise(1, 300_000);
    let media = homeserver.add_bytes("large", bytes.clone());
    for _ in 0..3 {
        scanner.client.get(&format!("/download/{media}")).await.assert_media(&bytes);
    }
    let attachment = Attachment::encrypt(&noise(2, 300_000), 1);
    let encrypted = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}"));
    for _ in 0..3 {
        let response = scanner.client.post("/download_encrypted", &body).await;
        response.assert_media(&attachment.ciphertext);
    }
    assert_eq!((homeserver.download_count(), scanner.dir.mark_count("runs")), (6, 2));

    // A first request for the verdict alone caches no body.
    let bytes = noise(3, 2_000_000);
    let media = homeserver.add_bytes("larger", bytes.clone());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&bytes);
    assert_eq!((homeserver.download_count(), scanner.dir.mark_count("runs")), (8, 3));
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn scans_large_media_again_when_its_bytes_changed() {
    let homeserver = MockHomeserver::start().await;
    let script = r#"echo run >> "$MARKS/runs"; ! grep -q dirty "$1""#;
    let scanner = ScannerBuilder::new(script)
        .homeserver(&homeserver)
        .config("result_cache.max_file_size = 1000")
        .start()
        .await;
    let clean = noise(1, 300_000);
    let media = homeserver.add_bytes("large", clean.clone());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&clean);

    let dirty = [&clean[..], b"dirty"].concat();
    homeserver.add_bytes("large", dirty);
    let response = scanner.client.get(&format!("/download/{media}")).await;
    response.assert_error(403, "MCS_MEDIA_NOT_CLEAN");

    let other = noise(2, 400_000);
    homeserver.add_bytes("large", other.clone());
    // The verdict "not clean" is cached, so nothing is downloaded.
    scanner
        .client
        .get(&format!("/download/{media}"))
        .await
        .assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    assert_eq!(scanner.dir.mark_count("runs"), 2);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn changed_script_invalidates_cached_verdict() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, COUNTING).await;
    let path = format!("/scan/{}", homeserver.add_bytes("one", png()));
    scanner.client.get(&path).await.assert_clean();

    scanner.dir.write_script("script.sh", "echo stricter; exit 1");
    let end = std::time::Instant::now() + crate::harness::TEST_TIMEOUT;
    loop {
        // The program checks the script's file for changes once a second.
        let response = scanner.client.get(&path).await;
        if response.json()["clean"] == false {
            response.assert_not_clean("File not clean. Output: 'stricter'");
            break;
        }
        assert!(std::time::Instant::now() < end, "the new script is not used");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn returns_but_does_not_cache_verdict_when_script_changes_during_scan() {
    let homeserver = MockHomeserver::start().await;
    for last_command in ["exit 0", "exit 127"] {
        let scanner = ScannerProcess::start(&homeserver, "").await;
        scanner.dir.make_fifo("gate");
        let script = format!("{BLOCKING}; {last_command}");
        scanner.dir.write_script("script.sh", &script);
        let path = format!("/scan/{}", homeserver.add_bytes("one", png()));
        let status = if last_command == "exit 0" { 200 } else { 500 };

        let request = scanner.client.get(&path);
        let change = async {
            wait_until("script runs", || scanner.dir.mark_count("runs") == 1).await;
            scanner.dir.write_script("script.sh", "exit 1");
            // Restored: from now on it is unknown which version of the script ran.
            scanner.dir.write_script("script.sh", &script);
            scanner.dir.release_fifo("gate").await;
        };
        let (response, ()) = tokio::join!(request, change);
        assert_eq!(response.status, status);

        let (response, ()) =
            tokio::join!(scanner.client.get(&path), scanner.dir.release_fifo("gate"));
        assert_eq!(response.status, status);
        assert_eq!(scanner.dir.mark_count("runs"), 2);
        scanner.wait_until_idle().await;
    }
}

#[tokio::test]
async fn does_not_cache_verdict_when_script_symlink_changed_temporarily() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "").await;
    let dir = &scanner.dir;
    dir.make_fifo("gate");
    let strict = dir.write_script("strict.sh", "exit 1");
    let lax = dir.write_script("lax.sh", BLOCKING);
    let script = strict.with_file_name("script.sh");
    let link_script_to = |target: &std::path::Path| {
        let link = script.with_extension("new");
        std::os::unix::fs::symlink(target, &link).unwrap();
        std::fs::rename(&link, &script).unwrap();
    };
    link_script_to(&strict);
    // After the first scan by the strict script, its file is not checked for changes for a second.
    let known = homeserver.add_bytes("known", noise(1, 1000));
    let end = std::time::Instant::now() + crate::harness::TEST_TIMEOUT;
    while scanner.client.get(&format!("/scan/{known}")).await.json()["clean"] == true {
        assert!(std::time::Instant::now() < end, "the strict script is not used");
    }

    link_script_to(&lax);
    let path = format!("/scan/{}", homeserver.add_bytes("one", png()));
    let request = scanner.client.get(&path);
    let change = async {
        wait_until("script runs", || dir.mark_count("runs") == 1).await;
        link_script_to(&strict);
        dir.release_fifo("gate").await;
    };
    let (response, ()) = tokio::join!(request, change);
    response.assert_clean();
    scanner.client.get(&path).await.assert_not_clean("File not clean (no output)");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn does_not_cache_exit_codes_to_ignore() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(r#"echo run >> "$MARKS/runs"; exit 5"#)
        .homeserver(&homeserver)
        .config("result_cache.exit_codes_to_ignore = [5]")
        .start()
        .await;
    let path = format!("/scan/{}", homeserver.add_bytes("one", png()));
    for _ in 0..3 {
        scanner.client.get(&path).await.assert_not_clean("File not clean (no output)");
    }
    assert_eq!(scanner.dir.mark_count("runs"), 3);
}

#[tokio::test]
async fn caches_failure_for_failure_ttl_on_all_routes() {
    let homeserver = MockHomeserver::start().await;
    let failing = r#"echo run >> "$MARKS/runs"; exit 127"#;
    for (ttl, runs) in [("1h", 1), ("0", 3)] {
        let scanner = ScannerBuilder::new(failing)
            .homeserver(&homeserver)
            .config(&format!("result_cache.failure_ttl = {}", toml::Value::from(ttl)))
            .start()
            .await;
        let media = homeserver.add_bytes("one", png());
        scanner.client.get(&format!("/scan/{media}")).await.assert_error(500, "M_UNKNOWN");
        scanner.client.get(&format!("/download/{media}")).await.assert_error(500, "M_UNKNOWN");
        scanner.client.get(&format!("/scan/{media}")).await.assert_error(500, "M_UNKNOWN");
        assert_eq!(scanner.dir.mark_count("runs"), runs, "with failure_ttl = {ttl}");
        scanner.wait_until_idle().await;
    }
}

#[tokio::test]
async fn checks_allowed_mimetypes_by_content_before_scanning() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(COUNTING)
        .homeserver(&homeserver)
        .config(r#"scan.allowed_mimetypes = ["image/png"]"#)
        .start()
        .await;
    let text = homeserver
        .add_media("text", MockMedia::new("image/png", "plain text that claims to be a PNG\n"));
    for route in ["scan", "download", "thumbnail"] {
        let response = scanner.client.get(&format!("/{route}/{text}")).await;
        response.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    }
    let attachment = Attachment::encrypt(b"plain text\n", 1);
    let encrypted = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}"));
    scanner
        .client
        .post("/scan_encrypted", &body)
        .await
        .assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    assert_eq!(scanner.dir.mark_count("runs"), 0);

    // Allowed content that is declared as a forbidden type is served with its detected type.
    let mislabelled = homeserver.add_media("mislabelled", MockMedia::new("text/html", png()));
    let response = scanner.client.get(&format!("/download/{mislabelled}")).await;
    response.assert_media(&png());
    assert_eq!(response.header("content-type"), "image/png");
    scanner.wait_until_idle().await;
}

/// Waits until the clock shows another second, and returns it.
async fn next_second() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let start = now();
    wait_until("the next second", || now() > start).await;
    now()
}

/// Returns the time in `info` of a clean verdict.
fn clean_since(response: &TestResponse) -> u64 {
    response.assert_clean();
    let info = response.json()["info"].as_str().unwrap().to_owned();
    let time = humantime::parse_rfc3339(info.strip_prefix("File clean at ").unwrap()).unwrap();
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn info_has_the_time_of_the_entry_and_not_of_another_users_scan() {
    let homeserver = MockHomeserver::start().await;
    // Bodies are not kept, so each download replaces its entry.
    let builder = ScannerBuilder::new(COUNTING).homeserver(&homeserver);
    let scanner = builder.config("result_cache.max_file_size = 0").start().await;
    let (one, two) = (homeserver.add_bytes("one", png()), homeserver.add_bytes("two", png()));
    let attachment = Attachment::encrypt(&png(), 1);
    let encrypted = homeserver.add_bytes("encrypted", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{encrypted}"));
    let other = Attachment::encrypt(&png(), 2);
    let other_encrypted = homeserver.add_bytes("other", other.ciphertext.clone());
    let other_body = other.body(&format!("mxc://{other_encrypted}"));
    let plain =
        async |media: &str| clean_since(&scanner.client.get(&format!("/scan/{media}")).await);
    let sealed = async |body| clean_since(&scanner.client.post("/scan_encrypted", body).await);

    let mut times = vec![plain(&one).await];
    let earliest = next_second().await;
    times.push(plain(&two).await);
    assert!(times[1] >= earliest, "the time of the scan for another entry: {times:?}");
    let earliest = next_second().await;
    // The first answer for this entry is the media.
    scanner.client.post("/download_encrypted", &body).await.assert_media(&attachment.ciphertext);
    let latest = next_second().await;
    times.push(sealed(&body).await);
    assert!((earliest..latest).contains(&times[2]), "{earliest} {latest} {times:?}");
    times.push(sealed(&other_body).await);
    assert!(times[3] >= latest, "{times:?}");
    assert_eq!(scanner.dir.mark_count("runs"), 1);

    next_second().await;
    scanner.client.get(&format!("/download/{one}")).await.assert_media(&png());
    scanner.client.post("/download_encrypted", &body).await.assert_media(&attachment.ciphertext);
    let later =
        [plain(&one).await, plain(&two).await, sealed(&body).await, sealed(&other_body).await];
    assert_eq!(later, *times);
}

#[tokio::test]
async fn spellings_of_thumbnail_parameters_share_one_entry_or_are_rejected() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, COUNTING).await;
    let media = homeserver.add_bytes("one", png());
    for width in ["10", "010", "+10", "%2B10", "0000000000000000000000000000010"] {
        let path = format!("/thumbnail/{media}?width={width}&timeout_ms=05");
        scanner.client.get(&path).await.assert_media(&png());
    }
    assert_eq!(homeserver.download_count(), 1);
    let uri = homeserver.requests()[0].uri.clone();
    assert!(uri.ends_with("?width=10&timeout_ms=5"), "{uri}");
    for query in [
        "width=99999999999999999999",
        "width=-1",
        "height=x",
        "height=",
        "method=Crop",
        "animated=yes",
        "timeout_ms=1s",
    ] {
        let path = format!("/thumbnail/{media}?{query}");
        scanner.client.get(&path).await.assert_error(400, "M_UNKNOWN");
    }
    // Parameters of thumbnails are unknown parameters of downloads.
    let path = format!("/download/{media}?width=x&method=y");
    scanner.client.get(&path).await.assert_media(&png());
    assert_eq!(homeserver.download_count(), 2);
}

#[tokio::test]
async fn long_headers_are_shortened_in_the_first_and_in_cached_answers() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, COUNTING).await;
    let name = "%E5%86%99".repeat(60);
    let media = MockMedia::new("image/png", png())
        .with_header("content-disposition", &format!("inline; filename*=utf-8''{name}.png"))
        .with_header("etag", &format!("\"{}\"", "e".repeat(600)));
    let media = homeserver.add_media("one", media);
    let path = format!("/download/{media}");
    for request in 0..2 {
        let response = scanner.client.get(&path).await;
        response.assert_media(&png());
        let disposition = response.header("content-disposition");
        assert!(disposition.len() <= 512, "{disposition}");
        assert!(disposition.starts_with("inline; filename=\"__"), "{disposition}");
        let kept = format!("filename*=UTF-8''{}.png", "%E5%86%99".repeat(46));
        assert!(disposition.ends_with(&kept), "{request}: {disposition}");
    }
    assert_eq!(homeserver.download_count(), 1);
}
