//! Requests to the listener: what is accepted, and what is rejected.

use std::time::{Duration, Instant};

use super::*;

/// Returns a request with the token, further lines of the header, and a body.
fn request(first: &str, lines: &[&str], body: &str) -> String {
    let length = format!("Content-Length: {}", body.len());
    let bearer = format!("Authorization: Bearer {TOKEN}");
    let lines: Vec<_> =
        [first, &bearer, &length].into_iter().chain(lines.iter().copied()).collect();
    format!("{}\r\n\r\n{body}", lines.join("\r\n"))
}

const HOST: &str = "Host: localhost";
const JSON: &str = "Content-Type: application/json";
const LIST: &str = "GET /v1/verdicts HTTP/1.1";
const FORGET: &str = "POST /v1/forget HTTP/1.1";
const LISTENING: &str = "listening for operators' changes";
const ALL: &str = "{\"all\":true}";

#[tokio::test]
async fn requests_are_checked() {
    let scanner = listening(with_store("").start().await).await;
    let socket = || scanner.dir.path("admin.sock");
    let too_long = format!("{{\"all\":true,\"comment\":\"{}\"}}", "x".repeat(1001));
    let huge = format!("{{\"comment\":\"{}\"}}", "x".repeat(5000));
    let missing_content = format!("GET /v1/contents/{} HTTP/1.1", "0".repeat(64));
    for (first, lines, body, status, error) in [
        (LIST, &[HOST][..], "", 200, ""),
        (LIST, &["Host: 127.0.0.1:8082"], "", 200, ""),
        (LIST, &["Host: [::1]"], "", 200, ""),
        (LIST, &["Host: LOCALHOST:80"], "", 200, ""),
        ("GET http://127.0.0.1/v1/verdicts HTTP/1.1", &["Host: 127.0.0.1"], "", 200, ""),
        (&missing_content, &[HOST], "", 200, ""),
        ("GET /v1/media?mxc=mxc%3A%2F%2Fa%2Fb HTTP/1.1", &[HOST], "", 200, ""),
        (FORGET, &[HOST, JSON], ALL, 200, ""),
        (FORGET, &[HOST, "content-type: Application/JSON; charset=utf-8"], ALL, 200, ""),
        (FORGET, &[HOST, JSON, "Origin: http://localhost"], ALL, 200, ""),
        (FORGET, &[HOST, JSON, "Sec-Fetch-Site: same-origin"], ALL, 200, ""),
        // A rebound name.
        (LIST, &["Host: attacker.example"], "", 421, "host"),
        (LIST, &["Host: localhost.attacker.example"], "", 421, "host"),
        (LIST, &[HOST, "Host: attacker.example"], "", 421, "host"),
        (LIST, &[], "", 421, "host"),
        (FORGET, &["Host: attacker.example", JSON], ALL, 421, "host"),
        // Pages of other origins.
        (FORGET, &[HOST, JSON, "Origin: http://attacker.example"], ALL, 403, "cross_origin"),
        (FORGET, &[HOST, JSON, "Origin: http://localhost:81"], ALL, 403, "cross_origin"),
        (FORGET, &[HOST, JSON, "Origin: null"], ALL, 403, "cross_origin"),
        (FORGET, &[HOST, JSON, "Sec-Fetch-Site: cross-site"], ALL, 403, "cross_origin"),
        (FORGET, &[HOST, JSON, "Sec-Fetch-Site: same-site"], ALL, 403, "cross_origin"),
        (FORGET, &[HOST], ALL, 415, "content_type"),
        (FORGET, &[HOST, "Content-Type: text/plain"], ALL, 415, "content_type"),
        (FORGET, &[HOST, JSON, JSON], ALL, 415, "content_type"),
        // Methods and paths.
        ("GET /v1/forget HTTP/1.1", &[HOST], "", 405, "method"),
        ("POST /v1/verdicts HTTP/1.1", &[HOST, JSON], ALL, 405, "method"),
        ("OPTIONS /v1/forget HTTP/1.1", &[HOST], "", 405, "method"),
        ("GET /v1/ HTTP/1.1", &[HOST], "", 404, "not_found"),
        ("GET /v1/metrics HTTP/1.1", &[HOST], "", 404, "not_found"),
        ("GET /v1/rescan HTTP/1.1", &[HOST], "", 405, "method"),
        // Parameters and bodies.
        ("GET /v1/verdicts?limit=x HTTP/1.1", &[HOST], "", 400, "invalid"),
        ("GET /v1/contents/abc HTTP/1.1", &[HOST], "", 400, "invalid"),
        ("GET /v1/contents/%FF HTTP/1.1", &[HOST], "", 400, "invalid"),
        ("GET /v1/media HTTP/1.1", &[HOST], "", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{\"all\":false}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{\"all\":true,\"mxc\":\"mxc://a/b\"}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{\"all\":true,\"other\":1}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{\"content\":\"abc\"}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "{\"mxc\":\"abc\"}", 400, "invalid"),
        (FORGET, &[HOST, JSON], "not JSON", 400, "invalid"),
        (FORGET, &[HOST, JSON], &too_long, 400, "invalid"),
        (FORGET, &[HOST, JSON], &huge, 413, "body_too_large"),
    ] {
        let (found, reply) = ask(socket(), &request(first, lines, body)).await;
        assert_eq!(found, status, "{first} {lines:?} {body}: {reply}");
        assert_eq!(
            reply["error"].as_str().unwrap_or_default(),
            error,
            "{first} {lines:?}: {reply}"
        );
    }
}

#[tokio::test]
async fn wrong_tokens_are_limited_and_the_right_one_is_accepted() {
    let scanner = listening(with_store("").start().await).await;
    let socket = || scanner.dir.path("admin.sock");
    for lines in [
        "",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer wrong\r\n",
        &format!("Authorization: Basic {TOKEN}\r\n"),
        &format!("Authorization: {TOKEN}\r\n"),
        &format!("Authorization: Bearer {TOKEN}x\r\n"),
        &format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
        &format!("Cookie: token={TOKEN}\r\n"),
        "Authorization: Bearer wrong\r\n",
    ] {
        let (status, reply) = ask(socket(), &format!("{LIST}\r\n{HOST}\r\n{lines}\r\n")).await;
        assert_eq!((status, &reply["error"]), (401, &json!("unauthorized")), "{lines}");
    }
    // Not in the URL either.
    let in_query = format!("GET /v1/verdicts?token={TOKEN} HTTP/1.1\r\n{HOST}\r\n\r\n");
    assert_eq!(ask(socket(), &in_query).await.0, 401);
    let wrong = format!("{LIST}\r\n{HOST}\r\nAuthorization: Bearer wrong\r\n\r\n");
    assert_eq!(ask(socket(), &wrong).await.0, 429);
    assert_eq!(ask(socket(), &request(LIST, &[HOST], "")).await.0, 200);
    assert_eq!(ask(socket(), &wrong).await.0, 429);
    scanner.wait_for_log("without the right token", 2).await;
    let warnings = scanner.log().matches("without the right token").count();
    assert_eq!(warnings, 2, "the first one, and the first one that is limited");
    assert!(!scanner.log().contains(TOKEN));
}

#[tokio::test]
async fn slow_requests_end_and_do_not_block_others() {
    let scanner = listening(with_store("").start().await).await;
    let socket = scanner.dir.path("admin.sock");
    let connect = async || UnixStream::connect(&socket).await.unwrap();
    let mut slow_header = connect().await;
    slow_header.write_all(b"GET /v1/ver").await.unwrap();
    let start = Instant::now();
    let mut slow_body = connect().await;
    let unfinished = request(FORGET, &[HOST, JSON], ALL);
    slow_body.write_all(&unfinished.as_bytes()[..unfinished.len() - 3]).await.unwrap();
    store_succeeds(&scanner.dir, &["list"]).await;
    let mut response = Vec::new();
    timeout(TEST_TIMEOUT, slow_header.read_to_end(&mut response)).await.unwrap().unwrap();
    timeout(TEST_TIMEOUT, slow_body.read_to_end(&mut response)).await.unwrap().unwrap();
    assert!(start.elapsed() >= Duration::from_secs(2));
    assert!(String::from_utf8_lossy(&response).contains("body_timeout"), "{response:?}");
    assert!(audit_lines(&scanner.dir).is_empty());
}

#[tokio::test]
async fn tcp_address_is_possible() {
    let builder = builder(SCRIPT, "");
    let config = builder.write_config();
    let lines = fs::read_to_string(&config).unwrap();
    let lines = lines.replace("socket = \"admin.sock\"", "host = \"::1\"\nport = 0");
    fs::write(&config, lines).unwrap();
    let scanner = restart(builder.into_dir()).await;
    scanner.wait_for_log(LISTENING, 1).await;
    let log = scanner.log();
    let line = log.lines().find(|line| line.contains(LISTENING)).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    let address = line["address"].as_str().unwrap();
    store_succeeds(&scanner.dir, &["list", "--address", address]).await;
    store(&scanner.dir, &["forget", &sha256(b""), "--address", address]).await;
    assert_eq!(audit_lines(&scanner.dir)[0]["peer"], "::1");
}
