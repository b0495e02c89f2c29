//! What a homeserver can do wrong: each has its answer, and nothing of it is scanned, kept or left.

use std::{io::Write, time::Duration};

use flate2::{Compression, write::GzEncoder};
use tokio::net::TcpListener;

use crate::harness::{
    Builder, Homeserver, Media, RawServer, Scanner, Then, client::send, homeserver::Gate, noise,
    png,
};

/// Finds everything clean, and notes each run.
const CLEAN: &str = r#"echo run >> "$MARKS/runs""#;

/// For who is silent. Ample for who is not, on a machine that is slow or stops for a moment.
const SHORT_PATIENCE: &str = r#"download.idle_timeout = "2s""#;

const FAILED: &str = "MCS_MEDIA_REQUEST_FAILED";

/// A scanner in front of a server that says what no library would.
async fn before(server: &RawServer) -> Scanner {
    Builder::new(CLEAN).base_url(&server.url()).start().await
}

async fn is_refused(scanner: &Scanner, media: &str, status: u16, reason: &str) {
    for route in ["scan", "download"] {
        let reply = scanner.client.get(&format!("/{route}/{media}")).await;
        assert_eq!(reply.status, status, "{route} {media}: {:?}", reply.body);
        reply.is_error(status, reason);
    }
}

async fn nothing_came_of_it(scanner: &Scanner) {
    assert_eq!(scanner.place.marks("runs"), 0, "something was scanned");
    scanner.idle().await;
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_homeserver_that_refuses_connections_is_a_bad_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let scanner = Builder::new(CLEAN).base_url(&url).start().await;

    is_refused(&scanner, "hs.example/abc", 502, FAILED).await;
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn a_homeserver_that_hangs_is_a_gateway_timeout_before_and_in_the_body() {
    let homeserver = Homeserver::start().await;
    let gate = Gate::default();
    let silent = homeserver.has("silent", Media::new("image/png", png()).behind(&gate));
    let stalled = homeserver.has("stalled", Media::new("image/png", "").stalled(png()));
    let scanner = Builder::new(CLEAN).homeserver(&homeserver).config(SHORT_PATIENCE).start().await;

    is_refused(&scanner, &silent, 504, FAILED).await;
    is_refused(&scanner, &stalled, 504, FAILED).await;
    nothing_came_of_it(&scanner).await;
    // It was the homeserver's fault, and is not held against the media.
    gate.open();
    scanner.client.get(&format!("/scan/{silent}")).await.is_clean();
}

#[tokio::test]
async fn a_body_that_drips_for_ever_is_a_gateway_timeout() {
    let homeserver = Homeserver::start().await;
    let piece = Duration::from_millis(20);
    let drip = Media::new("image/png", "").dripping("x", usize::MAX, piece);
    let media = homeserver.has("drip", drip);
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.total_timeout = "300ms""#)
        .start()
        .await;

    is_refused(&scanner, &media, 504, FAILED).await;
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_or_is_shorter_than_it_said_is_a_bad_gateway() {
    let server = RawServer::start().await;
    let scanner = before(&server).await;
    for (id, answer) in [
        ("short", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n1234"),
        ("none", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n"),
        ("chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\na\r\n1234"),
        ("end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\n1234\r\n"),
        ("two", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n1234"),
        ("minus", "HTTP/1.1 200 OK\r\ncontent-length: -4\r\n\r\n1234"),
        ("word", "HTTP/1.1 200 OK\r\ncontent-length: four\r\n\r\n1234"),
        ("sum", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n1234\r\n0\r\n\r\n"),
    ] {
        let media = server.says(id, answer, Then::Close);
        is_refused(&scanner, &media, 502, FAILED).await;
    }
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn a_body_that_is_longer_than_it_said_ends_where_it_said() {
    let server = RawServer::start().await;
    let scanner = before(&server).await;
    let next = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let long = server.says(
        "long",
        format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n1234{next}"),
        Then::Hold,
    );
    let other =
        server.says("other", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood", Then::Hold);

    scanner.client.get(&format!("/download/{long}")).await.is_media(b"1234");
    // What came after it is not taken for the answer to the next question.
    scanner.client.get(&format!("/download/{other}")).await.is_media(b"good");
    scanner.idle().await;
}

#[tokio::test]
async fn what_is_not_http_is_a_bad_gateway() {
    let server = RawServer::start().await;
    let scanner = before(&server).await;
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "x".repeat(1 << 20));
    for (id, answer) in [
        ("nothing", &b""[..]),
        ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
        ("zeros", &[0; 4096]),
        ("tls", b"\x15\x03\x01\x00\x02\x02\x46"),
        ("status", b"HTTP/1.1 abc OK\r\n\r\n"),
        ("version", b"HTTP/9.9 200 OK\r\ncontent-length: 1\r\n\r\nx"),
        ("header", b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n"),
        ("endless", endless.as_bytes()),
    ] {
        let media = server.says(id, answer.to_vec(), Then::Close);
        is_refused(&scanner, &media, 502, FAILED).await;
    }
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn a_homeservers_refusals_keep_their_meaning_and_are_never_scanned_or_kept() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
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
        (500, "M_UNKNOWN", 502, FAILED),
        (502, "", 502, FAILED),
        (503, "M_LIMIT_EXCEEDED", 502, FAILED),
        (504, "", 502, FAILED),
        (504, "M_NOT_YET_UPLOADED", 504, FAILED),
        (599, "", 502, FAILED),
    ] {
        let id = format!("e{upstream}{errcode}");
        let media = homeserver.has(&id, Media::error(upstream, errcode));
        let reply = scanner.client.get(&format!("/download/{media}")).await;
        assert_eq!(reply.status, status, "{upstream} {errcode}");
        reply.is_error(status, reason);
        nothing_came_of_it(&scanner).await;
        // None of them is remembered.
        homeserver.has(&id, Media::new("image/png", png()));
        scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
        std::fs::remove_file(scanner.place.path("marks/runs")).ok();
    }
    scanner.idle().await;
}

#[tokio::test]
async fn what_is_neither_media_nor_a_refusal_is_a_bad_gateway() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let page = |status| Media::new("image/png", png()).status(status);
    for (id, media) in [
        ("created", page(201)),
        ("empty", Media::new("image/png", "").status(204)),
        ("part", page(206).with("content-range", "bytes 0-68/1000")),
        ("choice", Media::new("image/png", "").status(300)),
        ("nowhere", Media::new("image/png", "").status(302)),
        ("unchanged", Media::new("image/png", "").status(304)),
        ("round", Media::new("", "").status(302).with("location", "round")),
        ("file", Media::new("", "").status(302).with("location", "file:///etc/passwd")),
        ("six", page(600)),
    ] {
        let media = homeserver.has(id, media);
        is_refused(&scanner, &media, 502, FAILED).await;
    }
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn a_429_keeps_when_to_come_back_and_nothing_else_does() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let limited = Media::error(429, "M_LIMIT_EXCEEDED");
    let media = homeserver.has("limited", limited.clone().with("retry-after", "17"));
    let silent = homeserver.has("silent", limited);
    let failing = homeserver.has("failing", Media::error(503, "").with("retry-after", "17"));

    let reply = scanner.client.get(&format!("/scan/{media}")).await;
    reply.is_error(429, "M_UNKNOWN");
    assert_eq!(reply.header("retry-after"), "17");
    for (media, status) in [(silent, 429), (failing, 502)] {
        let reply = scanner.client.get(&format!("/scan/{media}")).await;
        assert_eq!(reply.status, status);
        assert!(!reply.headers.contains_key("retry-after"), "{:?}", reply.headers);
    }
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn gzip_that_was_not_asked_for_is_opened_and_other_encodings_are_not() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, CLEAN).await;
    let plain = noise(1, 3_000_000);
    let zipped = gzip(&plain);
    let whole = Media::new("image/png", zipped.clone()).with("content-encoding", "gzip");
    let media = homeserver.has("zipped", whole.clone());

    let reply = scanner.client.get(&format!("/download/{media}")).await;
    reply.is_media(&plain);
    assert!(!reply.headers.contains_key("content-encoding"), "{:?}", reply.headers);
    assert_eq!(reply.header("content-length"), plain.len().to_string());
    assert_eq!(scanner.place.marks("runs"), 1);

    let cut = zipped[..zipped.len() / 2].to_vec();
    let encoded = |encoding, bytes: &[u8]| {
        Media::new("image/png", bytes.to_vec()).with("content-encoding", encoding)
    };
    for (id, media) in [
        ("br", encoded("br", &zipped)),
        ("zstd", encoded("zstd", &zipped)),
        ("twice", encoded("gzip, gzip", &gzip(&zipped))),
        ("cut", encoded("gzip", &cut)),
        ("none", encoded("gzip", &png())),
        ("empty", encoded("gzip", b"")),
        ("doubled", whole.with_another("content-encoding", "br")),
    ] {
        let media = homeserver.has(id, media);
        is_refused(&scanner, &media, 502, FAILED).await;
    }
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.idle().await;
}

#[tokio::test]
async fn a_gzip_bomb_is_too_large_and_takes_no_memory() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.max_size = "20MB""#)
        .start()
        .await;
    let bomb = gzip(&vec![0; 200_000_000]);
    assert!(bomb.len() < 2_000_000, "it passes by its Content-Length");
    let media = Media::new("image/png", bomb).with("content-encoding", "gzip");
    let media = homeserver.has("bomb", media);
    let before = scanner.peak_memory();

    is_refused(&scanner, &media, 413, FAILED).await;
    let more = scanner.peak_memory() - before;
    assert!(more < 20_000_000, "{more} bytes of memory for a bomb");
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn media_over_the_limit_is_refused_by_its_length_before_its_body() {
    let server = RawServer::start().await;
    let scanner = Builder::new(CLEAN)
        .base_url(&server.url())
        .config("download.max_size = 1000")
        .start()
        .await;
    // The body never comes: who waits for it is not done within a test's patience.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n";
    let media = server.says("large", head, Then::Hold);
    let absurd = "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551614\r\n\r\n";
    let most = server.says("most", absurd, Then::Hold);
    let begun = std::time::Instant::now();

    is_refused(&scanner, &media, 413, FAILED).await;
    let reply = scanner.client.get(&format!("/scan/{most}")).await;
    assert!([413, 502].contains(&reply.status.as_u16()), "{reply:?}");
    assert!(begun.elapsed() < Duration::from_secs(25), "it waited for the body");
    nothing_came_of_it(&scanner).await;
}

#[tokio::test]
async fn media_over_the_limit_is_refused_by_counting_and_media_of_the_limit_passes() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config("download.max_size = 1000000")
        .start()
        .await;
    let pieces =
        |count| Media::new("image/png", "").dripping(vec![7; 10_000], count, Duration::ZERO);
    let endless = homeserver.has("endless", pieces(usize::MAX));
    let one_more = homeserver.has("more", pieces(101));
    let just = homeserver.has("just", pieces(100));
    let whole = homeserver.has("whole", Media::new("image/png", vec![7; 1_000_000]));

    is_refused(&scanner, &endless, 413, FAILED).await;
    is_refused(&scanner, &one_more, 413, FAILED).await;
    nothing_came_of_it(&scanner).await;
    for media in [just, whole] {
        scanner.client.get(&format!("/download/{media}")).await.is_media(&vec![7; 1_000_000]);
    }
    scanner.idle().await;
}

#[tokio::test]
async fn a_homeserver_that_fails_when_asked_for_permission_gives_nothing_away() {
    let homeserver = Homeserver::start().await;
    let scanner = Builder::new(CLEAN)
        .homeserver(&homeserver)
        .config(r#"download.authorisation_ttl = "0s""#)
        .config(SHORT_PATIENCE)
        .start()
        .await;
    let media = homeserver.has_bytes("abc", png());
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());

    let gate = Gate::default();
    for (failure, status, reason) in [
        (Media::error(500, ""), 502, FAILED),
        (Media::error(429, "M_LIMIT_EXCEEDED"), 429, "M_UNKNOWN"),
        (Media::error(403, "M_FORBIDDEN"), 403, "M_UNKNOWN"),
        (Media::error(404, "M_NOT_FOUND"), 404, "M_NOT_FOUND"),
        (Media::new("image/png", png()).behind(&gate), 504, FAILED),
    ] {
        homeserver.has("abc", failure);
        is_refused(&scanner, &media, status, reason).await;
        let request = scanner.client.request(reqwest::Method::HEAD, &format!("/download/{media}"));
        let head = send(request.bearer_auth("good-token")).await;
        assert_eq!(head.status, status);
        assert!(!head.headers.contains_key("etag"), "{:?}", head.headers);
    }
    gate.open();
    scanner.client.get(&format!("/download/{media}")).await.is_media(&png());
    assert_eq!(scanner.place.marks("runs"), 1);
    scanner.idle().await;
}
