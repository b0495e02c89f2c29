//! Homeserver faults: each gets its documented response, and nothing is scanned, cached or left on disk.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use tokio::net::TcpListener;

use crate::harness::{
    AfterResponse, MockHomeserver, MockMedia, RawServer, ScannerBuilder, ScannerProcess,
    client::send, homeserver::Gate, noise, png,
};

/// Accepts every file and counts its runs.
const CLEAN: &str = r#"echo run >> "$MARKS/runs""#;

/// Timeout that a working homeserver does not exceed, even on a slow machine.
const SHORT_TIMEOUT: &str = r#"download.idle_timeout = "2s""#;

const REQUEST_FAILED: &str = "MCS_MEDIA_REQUEST_FAILED";

/// Starts a scanner that uses a raw server as its homeserver.
async fn scanner_for(server: &RawServer) -> ScannerProcess {
    ScannerBuilder::new(CLEAN).base_url(&server.url()).start().await
}

async fn assert_all_routes_fail(scanner: &ScannerProcess, media: &str, status: u16, reason: &str) {
    for route in ["scan", "download"] {
        let response = scanner.client.get(&format!("/{route}/{media}")).await;
        assert_eq!(response.status, status, "{route} {media}: {:?}", response.body);
        response.assert_error(status, reason);
    }
}

async fn assert_nothing_scanned(scanner: &ScannerProcess) {
    assert_eq!(scanner.dir.mark_count("runs"), 0, "a file was scanned");
    scanner.wait_until_idle().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn returns_502_when_homeserver_refuses_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let scanner = ScannerBuilder::new(CLEAN).base_url(&url).start().await;

    assert_all_routes_fail(&scanner, "hs.example/abc", 502, REQUEST_FAILED).await;
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn returns_504_when_homeserver_stalls_before_or_in_body() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    let silent = homeserver.add_media("silent", MockMedia::new("image/png", png()).gated_by(&gate));
    let stalled =
        homeserver.add_media("stalled", MockMedia::new("image/png", "").stalling_after(png()));
    let scanner =
        ScannerBuilder::new(CLEAN).homeserver(&homeserver).config(SHORT_TIMEOUT).start().await;

    assert_all_routes_fail(&scanner, &silent, 504, REQUEST_FAILED).await;
    assert_all_routes_fail(&scanner, &stalled, 504, REQUEST_FAILED).await;
    assert_nothing_scanned(&scanner).await;
    // The failure is not cached for the media.
    gate.open();
    scanner.client.get(&format!("/scan/{silent}")).await.assert_clean();
}

#[tokio::test]
async fn returns_504_when_body_exceeds_total_timeout() {
    let homeserver = MockHomeserver::start().await;
    let interval = Duration::from_millis(20);
    let drip = MockMedia::new("image/png", "").dripping("x", usize::MAX, interval);
    let media = homeserver.add_media("drip", drip);
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.total_timeout = "300ms""#)
        .start()
        .await;

    assert_all_routes_fail(&scanner, &media, 504, REQUEST_FAILED).await;
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn returns_502_for_truncated_or_malformed_body() {
    let server = RawServer::start().await;
    let scanner = scanner_for(&server).await;
    for (id, response) in [
        ("short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1234"),
        ("none", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"),
        ("chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n1234"),
        ("end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n1234\r\n"),
        ("two", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n1234"),
        ("minus", "HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n1234"),
        ("word", "HTTP/1.1 200 OK\r\ncontent-length: four\r\n\r\n1234"),
        ("sum", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n1234\r\n0\r\n\r\n"),
    ] {
        let media = server.set_response(id, response, AfterResponse::Close);
        assert_all_routes_fail(&scanner, &media, 502, REQUEST_FAILED).await;
    }
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn ignores_data_after_declared_content_length() {
    let server = RawServer::start().await;
    let scanner = scanner_for(&server).await;
    let next = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let long = server.set_response(
        "long",
        format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n1234{next}"),
        AfterResponse::KeepOpen,
    );
    let other = server.set_response(
        "other",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood",
        AfterResponse::KeepOpen,
    );

    scanner.client.get(&format!("/download/{long}")).await.assert_media(b"1234");
    // The excess data is not taken as the response to the next request.
    scanner.client.get(&format!("/download/{other}")).await.assert_media(b"good");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_502_for_invalid_http_response() {
    let server = RawServer::start().await;
    let scanner = scanner_for(&server).await;
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    for (id, response) in [
        ("nothing", &b""[..]),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("zeros", &[0; 4096]),
        ("tls", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("status", b"HTTP/1.1 abc OK\r\n\r\n"),
        ("version", b"HTTP/9.9 200 OK\r\ncontent-length: 1\r\n\r\nx"),
        ("header", b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"),
        ("endless", endless.as_bytes()),
    ] {
        let media = server.set_response(id, response.to_vec(), AfterResponse::Close);
        assert_all_routes_fail(&scanner, &media, 502, REQUEST_FAILED).await;
    }
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn maps_homeserver_errors_without_scanning_or_caching_them() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    for (upstream, errcode, status, reason) in [
        (400, "M_UNKNOWN", 400, "M_UNKNOWN"),
        (403, "M_FORBIDDEN", 403, "M_UNKNOWN"),
        (403, "", 403, "M_UNKNOWN"),
        (404, "M_NOT_FOUND", 404, "M_NOT_FOUND"),
        (404, "", 404, "M_NOT_FOUND"),
        (405, "", 405, "M_UNKNOWN"),
        (410, "", 410, "M_UNKNOWN"),
        (413, "M_TOO_LARGE", 413, "M_UNKNOWN"),
        (451, "", 451, "M_UNKNOWN"),
        (500, "M_UNKNOWN", 502, REQUEST_FAILED),
        (502, "", 502, REQUEST_FAILED),
        (503, "M_LIMIT_EXCEEDED", 502, REQUEST_FAILED),
        (504, "", 502, REQUEST_FAILED),
        (504, "M_NOT_YET_UPLOADED", 504, REQUEST_FAILED),
        (599, "", 502, REQUEST_FAILED),
    ] {
        let id = format!("e{upstream}{errcode}");
        let media = homeserver.add_media(&id, MockMedia::error(upstream, errcode));
        let response = scanner.client.get(&format!("/download/{media}")).await;
        assert_eq!(response.status, status, "{upstream} {errcode}");
        response.assert_error(status, reason);
        assert_nothing_scanned(&scanner).await;
        // The error is not cached.
        homeserver.add_media(&id, MockMedia::new("image/png", png()));
        scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
        std::fs::remove_file(scanner.dir.path("marks/runs")).ok();
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_502_for_unexpected_status_or_redirect() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let with_status = |status| MockMedia::new("image/png", png()).with_status(status);
    for (id, media) in [
        ("created", with_status(201)),
        ("empty", MockMedia::new("image/png", "").with_status(204)),
        ("part", with_status(206).with_header("content-range", "bytes 0-68/1000")),
        ("choice", MockMedia::new("image/png", "").with_status(300)),
        ("nowhere", MockMedia::new("image/png", "").with_status(307)),
        ("unchanged", MockMedia::new("image/png", "").with_status(304)),
        ("round", MockMedia::new("", "").with_status(307).with_header("location", "round")),
        (
            "file",
            MockMedia::new("", "").with_status(307).with_header("location", "file:///etc/passwd"),
        ),
        ("six", with_status(600)),
    ] {
        let media = homeserver.add_media(id, media);
        assert_all_routes_fail(&scanner, &media, 502, REQUEST_FAILED).await;
    }
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn forwards_retry_after_of_429_and_503() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let limited = MockMedia::error(429, "M_LIMIT_EXCEEDED");
    let media = homeserver.add_media("limited", limited.clone().with_header("retry-after", "17"));
    let silent = homeserver.add_media("silent", limited);
    let failing =
        homeserver.add_media("failing", MockMedia::error(503, "").with_header("retry-after", "17"));

    let response = scanner.client.get(&format!("/scan/{media}")).await;
    response.assert_error(429, "M_UNKNOWN");
    assert_eq!(response.header("retry-after"), "17");
    let response = scanner.client.get(&format!("/scan/{silent}")).await;
    response.assert_error(429, "M_UNKNOWN");
    assert!(!response.headers.contains_key("retry-after"), "{:?}", response.headers);
    let response = scanner.client.get(&format!("/scan/{failing}")).await;
    response.assert_error(502, REQUEST_FAILED);
    assert_eq!(response.header("retry-after"), "17");
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn decodes_unrequested_gzip_and_rejects_other_encodings() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, CLEAN).await;
    let plain = noise(1, 3_000_000);
    let compressed = gzip(&plain);
    let complete =
        MockMedia::new("image/png", compressed.clone()).with_header("content-encoding", "gzip");
    let media = homeserver.add_media("compressed", complete.clone());

    let response = scanner.client.get(&format!("/download/{media}")).await;
    response.assert_media(&plain);
    assert!(!response.headers.contains_key("content-encoding"), "{:?}", response.headers);
    assert_eq!(response.header("content-length"), plain.len().to_string());
    assert_eq!(scanner.dir.mark_count("runs"), 1);

    let truncated = compressed[..compressed.len() / 2].to_vec();
    let encoded = |encoding, bytes: &[u8]| {
        MockMedia::new("image/png", bytes.to_vec()).with_header("content-encoding", encoding)
    };
    for (id, media) in [
        ("br", encoded("br", &compressed)),
        ("zstd", encoded("zstd", &compressed)),
        ("twice", encoded("gzip, gzip", &gzip(&compressed))),
        ("cut", encoded("gzip", &truncated)),
        ("none", encoded("gzip", &png())),
        ("empty", encoded("gzip", b"")),
        ("doubled", complete.with_extra_header("content-encoding", "br")),
    ] {
        let media = homeserver.add_media(id, media);
        assert_all_routes_fail(&scanner, &media, 502, REQUEST_FAILED).await;
    }
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_413_for_gzip_bomb_without_allocating_it() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.max_size = "20MB""#)
        .start()
        .await;
    let bomb = gzip(&vec![0; 200_000_000]);
    assert!(bomb.len() < 2_000_000, "the compressed size must be below the limit");
    let media = MockMedia::new("image/png", bomb).with_header("content-encoding", "gzip");
    let media = homeserver.add_media("bomb", media);
    let before = scanner.peak_memory();

    assert_all_routes_fail(&scanner, &media, 413, REQUEST_FAILED).await;
    let growth = scanner.peak_memory() - before;
    assert!(growth < 20_000_000, "peak memory grew by {growth} bytes");
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn returns_413_by_content_length_without_reading_body() {
    let server = RawServer::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .base_url(&server.url())
        .config("download.max_size = 1000")
        .start()
        .await;
    // The server never sends a body. An implementation that reads it does not finish within the test timeout.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n";
    let media = server.set_response("large", head, AfterResponse::KeepOpen);
    let huge = "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551614\r\n\r\n";
    let huge = server.set_response("most", huge, AfterResponse::KeepOpen);
    let start = std::time::Instant::now();

    assert_all_routes_fail(&scanner, &media, 413, REQUEST_FAILED).await;
    let response = scanner.client.get(&format!("/scan/{huge}")).await;
    assert!([413, 502].contains(&response.status.as_u16()), "{response:?}");
    assert!(start.elapsed() < Duration::from_secs(25), "waited for the body");
    assert_nothing_scanned(&scanner).await;
}

#[tokio::test]
async fn returns_413_by_counting_bytes_and_accepts_media_at_limit() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000")
        .start()
        .await;
    let chunks =
        |count| MockMedia::new("image/png", "").dripping(vec![7; 10_000], count, Duration::ZERO);
    let endless = homeserver.add_media("endless", chunks(usize::MAX));
    let above_limit = homeserver.add_media("more", chunks(101));
    let at_limit = homeserver.add_media("just", chunks(100));
    let with_length =
        homeserver.add_media("whole", MockMedia::new("image/png", vec![7; 1_000_000]));

    assert_all_routes_fail(&scanner, &endless, 413, REQUEST_FAILED).await;
    assert_all_routes_fail(&scanner, &above_limit, 413, REQUEST_FAILED).await;
    assert_nothing_scanned(&scanner).await;
    for media in [at_limit, with_length] {
        scanner.client.get(&format!("/download/{media}")).await.assert_media(&vec![7; 1_000_000]);
    }
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn returns_no_cached_media_when_authorisation_check_fails() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerBuilder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.authorisation_ttl = "0s""#)
        .config(SHORT_TIMEOUT)
        .start()
        .await;
    let media = homeserver.add_bytes("abc", png());
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());

    let gate = Gate::default();
    for (failure, status, reason) in [
        (MockMedia::error(500, ""), 502, REQUEST_FAILED),
        (MockMedia::error(429, "M_LIMIT_EXCEEDED"), 429, "M_UNKNOWN"),
        (MockMedia::error(403, "M_FORBIDDEN"), 403, "M_UNKNOWN"),
        (MockMedia::error(404, "M_NOT_FOUND"), 404, "M_NOT_FOUND"),
        (MockMedia::new("image/png", png()).gated_by(&gate), 504, REQUEST_FAILED),
    ] {
        homeserver.add_media("abc", failure);
        assert_all_routes_fail(&scanner, &media, status, reason).await;
        let request = scanner.client.request(reqwest::Method::HEAD, &format!("/download/{media}"));
        let head = send(request.bearer_auth("good-token")).await;
        assert_eq!(head.status, status);
        assert!(!head.headers.contains_key("etag"), "{:?}", head.headers);
    }
    gate.open();
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    assert_eq!(scanner.dir.mark_count("runs"), 1);
    scanner.wait_until_idle().await;
}
