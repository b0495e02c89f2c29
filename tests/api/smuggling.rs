//! Requests that a proxy in front and the service may delimit or attribute differently: request smuggling. RFC 9112,
//! sections 2.2, 3.2, 6 and 11.2.

use crate::harness::{MockHomeserver, RawClient, ScannerProcess, client::PREFIX};

/// Sends a first request, followed by a second one on the same connection, which a proxy may regard as the body of the
/// first. Returns the status of each response and all responses.
async fn exchange(scanner: &ScannerProcess, first: &[u8]) -> (Vec<u16>, String) {
    let second =
        format!("GET {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let mut client = RawClient::connect(&scanner.address).await;
    client.write(&[first, second.as_bytes()].concat()).await;
    let responses = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
    let statuses = responses
        .split("HTTP/1.")
        .skip(1)
        .map(|response| response[2..5].parse().expect("status"))
        .collect();
    (statuses, responses)
}

/// Returns a request without a body limit of its own, to a route that accepts only GET: 405 where it is accepted.
fn post(fields: &str, body: &str) -> String {
    format!("POST {PREFIX}/public_key HTTP/1.1\r\nhost: x\r\n{fields}\r\n{body}")
}

fn get(start: &str, fields: &str) -> String {
    format!("{start}\r\n{fields}\r\n")
}

async fn assert_statuses(cases: &[(String, &[u16])]) {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    for (first, expected) in cases {
        let (statuses, responses) = exchange(&scanner, first.as_bytes()).await;
        assert_eq!(statuses, *expected, "{first:?}\n{responses}");
    }
    assert_eq!(homeserver.requests().len(), 0);
}

#[tokio::test]
async fn clear_requests_are_followed_by_the_next_one() {
    let target = format!("GET {PREFIX}/public_key HTTP/1.1");
    assert_statuses(&[
        (post("", ""), &[405, 200]),
        (post("content-length: 0\r\n", ""), &[405, 200]),
        (post("content-length: 6\r\n", "a\r\n\r\nb"), &[405, 200]),
        (post("Content-Length: \t 06 \r\n", "GET / "), &[405, 200]),
        (get(&target, "host: x:80\r\n"), &[200, 200]),
        (get(&target, "host: [::1]\r\ncontent-length: 5\r\n\r\nGET"), &[200, 200]),
        // RFC 9112, section 2.2: empty lines before a request.
        (format!("\r\n\r\n{}", get(&target, "host: x\r\n")), &[200, 200]),
        (get(&format!("GET http://X{PREFIX}/public_key HTTP/1.1"), "host: x\r\n"), &[200, 200]),
        (get(&format!("OPTIONS {PREFIX}/none HTTP/1.1"), "host: x\r\n"), &[200, 200]),
        (get("OPTIONS * HTTP/1.1", "host: x\r\n"), &[200, 200]),
        // HTTP/1.0 has no persistent connections by default, and no Host.
        (get(&format!("GET {PREFIX}/public_key HTTP/1.0"), ""), &[200]),
    ])
    .await;
}

#[tokio::test]
async fn ambiguous_framing_is_rejected_and_closes() {
    let chunks = "0\r\n\r\n";
    let cases = [
        // Both lengths (CL.TE and TE.CL).
        post("content-length: 5\r\ntransfer-encoding: chunked\r\n", chunks),
        post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", chunks),
        post("content-length: 0\r\ntransfer-encoding: chunked\r\n", chunks),
        // Content-Length is not one number.
        post("content-length: 0\r\ncontent-length: 5\r\n", ""),
        post("content-length: 0\r\ncontent-length: 0\r\n", ""),
        post("content-length: 0, 0\r\n", ""),
        post("content-length: +0\r\n", ""),
        post("content-length: -0\r\n", ""),
        post("content-length: 0x0\r\n", ""),
        post("content-length: 0 0\r\n", ""),
        post("content-length: 0.0\r\n", ""),
        post("content-length: 0;\r\n", ""),
        post("content-length:\r\n", ""),
        post("content-length: \"0\"\r\n", ""),
        post("content-length: 18446744073709551616\r\n", ""),
        post("content-length: \u{0660}\r\n", ""),
        // Obfuscated Transfer-Encoding (TE.TE).
        post("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n", chunks),
        post("transfer-encoding: chunked, chunked\r\n", chunks),
        post("transfer-encoding: chunked, identity\r\n", chunks),
        post("transfer-encoding: chunked\r\ntransfer-encoding: x\r\n", chunks),
        post("transfer-encoding: xchunked\r\n", chunks),
        post("transfer-encoding: \"chunked\"\r\n", chunks),
        post("transfer-encoding: chunked;q=1\r\n", chunks),
        post("transfer-encoding:\u{b}chunked\r\n", chunks),
        post("transfer-encoding:\r\n", ""),
        post("transfer-encoding : chunked\r\n", chunks),
        post("transfer-encoding\t: chunked\r\n", chunks),
        post(" transfer-encoding: chunked\r\n", chunks),
        post("x: y\r\n transfer-encoding: chunked\r\n", chunks),
        post("transfer-encoding:\r\n chunked\r\n", chunks),
        post("x: y\ntransfer-encoding: chunked\r\n", chunks),
        post("x: y\rtransfer-encoding: chunked\r\n", chunks),
        post("x: y\0\r\n", ""),
        post("x\0: y\r\n", ""),
        post("transfer-encoding: chunked\0\r\n", chunks),
        post("\r: y\r\n", ""),
        post(": y\r\n", ""),
        post("no colon\r\n", ""),
        // Lines that end in LF alone.
        post("x: y\n", ""),
        post("", "").replace("\r\n", "\n"),
        post("content-length: 0\n", ""),
        // Transfer-Encoding does not exist in HTTP/1.0.
        post("transfer-encoding: chunked\r\n", chunks).replace("HTTP/1.1", "HTTP/1.0"),
        // Request lines.
        get(&format!("GET  {PREFIX}/public_key HTTP/1.1"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key  HTTP/1.1"), "host: x\r\n"),
        get(&format!("GET\t{PREFIX}/public_key HTTP/1.1"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key x HTTP/1.1"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key HTTP/1.1 "), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key HTTP/1.2"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key HTTP/01.1"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key"), "host: x\r\n"),
        get(&format!(" GET {PREFIX}/public_key HTTP/1.1"), "host: x\r\n"),
        get(&format!("GET {PREFIX}/public_key\0 HTTP/1.1"), "host: x\r\n"),
    ];
    assert_statuses(&cases.map(|case| (case, &[400_u16][..]))).await;
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_not_implemented() {
    let cases = [
        post("transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: identity, chunked\r\n", "0\r\n\r\n"),
        post("transfer-encoding: , chunked\r\n", "0\r\n\r\n"),
    ];
    assert_statuses(&cases.map(|case| (case, &[501_u16][..]))).await;
}

#[tokio::test]
async fn chunked_request_is_the_last_of_its_connection() {
    // The second request is never read, wherever a proxy regards the end of the chunks.
    let scan = |body: &str| {
        let start = format!("POST {PREFIX}/scan_encrypted HTTP/1.1");
        get(&start, "host: x\r\nTransfer-Encoding: Chunked\r\n") + body
    };
    let cases = [
        scan("2\r\n{}\r\n0\r\n\r\n"),
        scan("2;extension=value\r\n{}\r\n0\r\ntrailer: x\r\n\r\n"),
        scan("2 \r\n{}\r\n0\r\n\r\n"),
        scan("2\n{}\r\n0\r\n\r\n"),
        scan("2;\n{}\r\n0\r\n\r\n"),
        scan("2;x\ny\r\n{}\r\n0\r\n\r\n"),
        scan("2\r\n{}\n0\r\n\r\n"),
        scan("2\r\n{}xx0\r\n\r\n"),
        scan("0x2\r\n{}\r\n0\r\n\r\n"),
        scan("+2\r\n{}\r\n0\r\n\r\n"),
        scan("-1\r\n{}\r\n0\r\n\r\n"),
        scan("\r\n{}\r\n0\r\n\r\n"),
        scan("10000000000000002\r\n{}\r\n0\r\n\r\n"),
        scan("2\r\n{}\r\n0\n\n"),
        scan("2\r\n{}\r\n0\r\nx\r\n\r\n"),
    ];
    // `{}` is not a valid body either: 400 from the framing or from the JSON.
    assert_statuses(&cases.map(|case| (case, &[400_u16][..]))).await;
}

#[tokio::test]
async fn host_must_be_present_once_and_possible() {
    let start = format!("GET {PREFIX}/public_key HTTP/1.1");
    let start_10 = format!("GET {PREFIX}/public_key HTTP/1.0");
    let absolute = format!("GET http://x{PREFIX}/public_key HTTP/1.1");
    let cases = [
        get(&start, ""),
        get(&absolute, ""),
        get(&start, "host: x\r\nhost: x\r\n"),
        get(&start, "host: x\r\nHost: y\r\n"),
        get(&start_10, "host: x\r\nhost: y\r\n"),
        get(&start, "host:\r\n"),
        get(&start, "host: a b\r\n"),
        get(&start, "host: a, b\r\n"),
        get(&start, "host: a/b\r\n"),
        get(&start, "host: user@a\r\n"),
        get(&start, "host: a:b\r\n"),
        get(&start, "host: a:99999\r\n"),
        get(&start, "host: [::1\r\n"),
        get(&start, "host: \u{e9}\r\n"),
        get(&absolute, "host: y\r\n"),
        get(&absolute, "host: x:81\r\n"),
        get(&format!("GET http://u@x{PREFIX}/public_key HTTP/1.1"), "host: x\r\n"),
        get(&format!("OPTIONS {PREFIX}/public_key HTTP/1.1"), ""),
    ];
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    for first in cases {
        let (statuses, responses) = exchange(&scanner, first.as_bytes()).await;
        assert_eq!(statuses, [400], "{first:?}\n{responses}");
        assert!(responses.contains(r#"{"reason":"M_UNKNOWN","info":"Invalid request: "#));
    }
}

#[tokio::test]
async fn nothing_follows_connect() {
    assert_statuses(&[(get("CONNECT x:443 HTTP/1.1", "host: x:443\r\n"), &[404])]).await;
}
