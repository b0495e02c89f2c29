//! Names that no media can have: none leaves this program, makes a file, or is remembered.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Homeserver, PATIENCE, Scanner, client::PREFIX, homeserver::TOKEN};

/// Sends a path as it is, which no client library would; gives status and body.
async fn ask(scanner: &Scanner, path: &[u8]) -> (u16, String) {
    let mut stream = TcpStream::connect(&scanner.address).await.unwrap();
    let mut request = [b"GET ", PREFIX.as_bytes(), path].concat();
    request.extend_from_slice(
        format!(
            " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
        )
        .as_bytes(),
    );
    stream.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    read.expect("an answer in time").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let status = answer.split(' ').nth(1).expect("a status").parse().unwrap();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, body.to_owned())
}

#[tokio::test]
async fn a_walk_over_two_hundred_hostile_paths_goes_nowhere() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, r#"echo run >> "$MARKS/runs""#).await;
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
        let (status, body) = ask(&scanner, path.as_bytes()).await;
        if status == 400 && body.is_empty() {
            // Characters that no request line may have: the HTTP parser's own refusal.
            assert!(path.contains(['`', '"', '|']), "{path}");
            continue;
        }
        assert_eq!(status, 404, "{path}: {body}");
        let not_found = body.contains(r#""reason":"M_NOT_FOUND""#);
        // `.` and `..` are segments to a URL, and so another route.
        assert!(not_found || body.contains("M_UNRECOGNIZED"), "{path}: {body}");
    }
    // More segments, or fewer, and what is no path at all.
    for path in [
        &b"/download/../../../../etc/passwd"[..],
        b"/download//abc",
        b"/download/hs.example//",
        b"/download/hs.example/abc/a/b",
        b"/download/hs.example/abc/..%2f..%2fx",
        b"/download/\xff/abc",
        b"/..%2f..%2fetc",
    ] {
        let (status, body) = ask(&scanner, path).await;
        let shown = String::from_utf8_lossy(path);
        assert!(matches!(status, 400 | 404), "{shown}: {status} {body}");
    }
    assert!(homeserver.asked().is_empty(), "{:?}", homeserver.asked());
    assert_eq!(scanner.place.marks("runs"), 0);
    assert!(scanner.is_idle());
}
