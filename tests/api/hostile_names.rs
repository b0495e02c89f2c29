//! Invalid and malicious media names: none is requested from a homeserver, creates a file, or is cached.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    MockHomeserver, ScannerProcess, TEST_TIMEOUT, client::PREFIX, homeserver::TOKEN,
};

/// Sends GET with this unescaped path, which client libraries would reject. Returns status and body.
async fn get_raw_path(scanner: &ScannerProcess, path: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(&scanner.address).await.unwrap();
    let mut request = [b"GET ", PREFIX.as_bytes(), path].concat();
    request.extend_from_slice(
        format!(
            " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    stream.write_all(&request).await.unwrap();
    let mut response = Vec::new();
    let read = tokio::time::timeout(TEST_TIMEOUT, stream.read_to_end(&mut response)).await;
    read.expect("response in time").unwrap();
    let response = String::from_utf8(response).unwrap();
    let status = response.split(' ').nth(1).expect("status").parse().unwrap();
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

#[tokio::test]
async fn rejects_invalid_media_names_without_upstream_request() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
    let long = "a".repeat(256);
    let servers = [
        "..",
        ".",
        "%2e%2e",
        "%2E.",
        "a..b",
        ".a",
        "a.",
        "a%2fb",
        "a%2Fb",
        "a%5cb",
        "a%00b",
        "%00",
        "a%20b",
        "a@b",
        "user:pass@host",
        "a:b",
        "a:",
        "a:123456",
        "a:65536",
        "a:-1",
        "%5b::1",
        "::1",
        "%5b::1%5d:",
        "%5b1.2.3.4%5d",
        "%5bzz%5d",
        "a_b",
        "%c3%a4.example",
        "%ff",
        "%c0%ae%c0%ae",
        "a%0d%0aHost:%20x",
        "a%23b",
        "a%3fb",
        "a;b",
        "a,b",
        "*",
        "-%20-",
        "%",
        "%zz",
        "%2",
        long.as_str(),
        "http:%2f%2fx",
        "%252e%252e",
        "a%09b",
        "$a",
        "a'b",
        "a%22b",
        "a%7cb",
        "`id`",
        "$(id)",
    ];
    let ids = [
        "..",
        ".",
        "%2e%2e",
        "a.b",
        "a%2fb",
        "a%2F..%2Fb",
        "a%5c..%5cb",
        "a%00",
        "%00",
        "a%20b",
        "a@b",
        "a:b",
        "a=b",
        "a+b",
        "a~b",
        "%c3%a4",
        "%ff",
        "%",
        "%zz",
        "%f0%9f",
        long.as_str(),
        "a%0ab",
        "a%0d%0a%0d%0aGET%20/",
        "a%23",
        "a%3f",
        "a;b",
        "*",
        "'%22",
        "`id`",
        "$(id)",
        "%252e%252e%252f",
        "a,b",
        "(a)",
        "-%20-",
        "a%7f",
        "a%c2%a0",
    ];
    let mut paths: Vec<String> = Vec::new();
    for route in ["download", "scan", "thumbnail"] {
        paths.extend(servers.iter().map(|server| format!("/{route}/{server}/abc")));
        paths.extend(ids.iter().map(|id| format!("/{route}/hs.example/{id}")));
    }
    assert!(paths.len() >= 200, "{}", paths.len());
    for path in &paths {
        let (status, body) = get_raw_path(&scanner, path.as_bytes()).await;
        if status == 400 && body.is_empty() {
            // Characters that are invalid in a request line: rejected by the HTTP parser.
            assert!(path.contains(['`', '"', '|']), "{path}");
            continue;
        }
        assert_eq!(status, 404, "{path}: {body}");
        let not_found = body.contains(r#""reason":"M_NOT_FOUND""#);
        // `.` and `..` are dot segments of the URL path, so the request matches another route.
        assert!(not_found || body.contains("M_UNRECOGNIZED"), "{path}: {body}");
    }
    // Additional or missing segments, and invalid paths.
    for path in [
        &b"/download/../../../../etc/passwd"[..],
        b"/download//abc",
        b"/download/hs.example//",
        b"/download/hs.example/abc/a/b",
        b"/download/hs.example/abc/..%2f..%2fx",
        b"/download/\xff/abc",
        b"/..%2f..%2fetc",
    ] {
        let (status, body) = get_raw_path(&scanner, path).await;
        let path = String::from_utf8_lossy(path);
        assert!(matches!(status, 400 | 404), "{path}: {status} {body}");
    }
    assert!(homeserver.requests().is_empty(), "{:?}", homeserver.requests());
    assert_eq!(scanner.dir.mark_count("runs"), 0);
    assert!(scanner.is_idle());
}
