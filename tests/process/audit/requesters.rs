//! Lines about requesters, and about responses without a scan.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::*;
use crate::harness::{
    MockMedia,
    client::send,
    homeserver::Gate,
    scanner::{restart, run},
};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";
const ALL: &str = "audit = { path = \"audit.jsonl\", all_responses = true, client_address = true, user = \"full\" }";

/// Has the homeserver answer with this user ID.
fn add_user(homeserver: &MockHomeserver, user_id: &str) {
    let body = json!({ "user_id": user_id, "device_id": "DEVICE" }).to_string();
    let answer = MockMedia::new("application/json", body);
    homeserver.add_media("whoami", answer.served_before_authentication());
}

/// Returns the tokens of the questions that the homeserver received.
fn questions(homeserver: &MockHomeserver) -> Vec<String> {
    let requests = homeserver.requests().into_iter().filter(|request| request.uri == WHOAMI);
    requests.map(|request| request.headers["authorization"].to_str().unwrap().to_owned()).collect()
}

async fn start_with(homeserver: &MockHomeserver, lines: &str) -> ScannerProcess {
    ScannerBuilder::new(SCRIPT).homeserver(homeserver).config(lines).start().await
}

fn field(lines: &[Value], name: &str) -> Vec<Value> {
    lines.iter().map(|line| line[name].clone()).collect()
}

#[tokio::test]
async fn one_question_for_all_requests_with_a_token() {
    let homeserver = MockHomeserver::start().await;
    add_user(&homeserver, "@alice:hs.example");
    homeserver.add_token("second");
    let media = homeserver.add_bytes("dirty", "DIRTY");
    let scanner = start_with(&homeserver, ALL).await;
    let (path, client) = (scanner.dir.path("audit.jsonl"), &scanner.client);
    let request = format!("/download/{media}");
    for _ in 0..3 {
        let responses = join_all((0..10).map(|_| client.get(&request))).await;
        for response in responses {
            response.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
        }
    }
    let lines = wait_for_lines(&path, 30).await;
    assert_eq!(lines.len(), 30);
    let expected = |name: &str, value: Value| {
        assert!(field(&lines, name).iter().all(|found| *found == value), "{name}: {lines:?}");
    };
    expected("user", json!("@alice:hs.example"));
    expected("client_address", json!("127.0.0.1"));
    expected("outcome", json!("infected"));
    expected("sha256", json!(sha256(b"DIRTY")));
    expected("type", json!("text/plain"));
    let outputs = field(&lines, "output");
    let output =
        |found: &Value| found.as_str().is_some_and(|text| text.starts_with("looked at media"));
    assert!(outputs.iter().all(output), "{outputs:?}");
    let sources = field(&lines, "source");
    let count = |source: &str| sources.iter().filter(|found| *found == source).count();
    assert_eq!(count("scan"), 1, "{sources:?}");
    assert_eq!(count("scan") + count("shared") + count("memory"), 30, "{sources:?}");
    assert!(count("memory") >= 20, "{sources:?}");
    for line in lines.iter().filter(|line| line["source"] != "scan") {
        assert!(line["exit_code"].is_null() && line.get("engines").is_none(), "{line}");
    }
    assert_eq!(questions(&homeserver), [format!("Bearer {TOKEN}")]);
    // Another token is another question.
    add_user(&homeserver, "@bob:hs.example");
    let by_bob = || send(client.request(reqwest::Method::GET, &request).bearer_auth("second"));
    by_bob().await.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    by_bob().await.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    let lines = wait_for_lines(&path, 32).await;
    assert_eq!(field(&lines[30..], "user"), ["@bob:hs.example", "@bob:hs.example"]);
    assert_eq!(questions(&homeserver).len(), 2);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(TOKEN) && !text.contains("second"), "{text}");
    // A request that the homeserver refuses has no line.
    send(client.request(reqwest::Method::GET, &request).bearer_auth("wrong"))
        .await
        .assert_error(401, "M_UNKNOWN_TOKEN");
    let operations = scanner.operations_client().await;
    let metrics = scrape_until(&operations, "mcs_user_lookups_total{result=\"found\"} 2").await;
    assert!(metrics.contains("mcs_user_lookups_total{result=\"failed\"} 0\n"), "{metrics}");
    assert_eq!((wait_for_lines(&path, 32).await.len(), questions(&homeserver).len()), (32, 2));
}

#[tokio::test]
async fn waiting_requests_of_one_scan_have_lines_of_their_own() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    let media = homeserver.add_media("gated", MockMedia::new("image/png", png()).gated_by(&gate));
    let scanner =
        start_with(&homeserver, "audit = { path = \"audit.jsonl\", all_responses = true }").await;
    let (client, request) = (scanner.client.clone(), format!("/scan/{media}"));
    let first = tokio::spawn(async move { client.get(&request).await });
    homeserver.wait_for_requests(1).await;
    let (client, request) = (scanner.client.clone(), format!("/scan/{media}"));
    let second = tokio::spawn(async move { client.get(&request).await });
    let operations = scanner.operations_client().await;
    scrape_until(&operations, "mcs_http_requests_in_flight 2").await;
    gate.open();
    first.await.unwrap().assert_clean();
    second.await.unwrap().assert_clean();
    let lines = wait_for_lines(&scanner.dir.path("audit.jsonl"), 2).await;
    let mut sources: Vec<_> = field(&lines, "source").iter().map(ToString::to_string).collect();
    sources.sort();
    assert_eq!(sources, ["\"scan\"", "\"shared\""]);
    assert!(
        lines.iter().all(|line| line.get("user").is_none() && line.get("client_address").is_none())
    );
    assert!(questions(&homeserver).is_empty(), "audit.user is off");
}

#[tokio::test]
async fn unanswered_question_delays_the_line_and_not_the_response() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    let body = json!({ "user_id": "@alice:hs.example" }).to_string();
    let answer = MockMedia::new("application/json", body).served_before_authentication();
    homeserver.add_media("whoami", answer.clone().gated_by(&gate));
    let media = homeserver.add_bytes("clean", png());
    let mut scanner = start_with(&homeserver, ALL).await;
    let path = scanner.dir.path("audit.jsonl");
    scanner.client.get(&format!("/download/{media}")).await.assert_media(&png());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    assert_eq!(read_lines(&path).len(), 0, "the lines wait for the user");
    gate.open();
    let lines = wait_for_lines(&path, 2).await;
    assert_eq!(field(&lines, "user"), ["@alice:hs.example", "@alice:hs.example"]);
    assert_eq!(questions(&homeserver).len(), 1);
    // Without an answer until the end of the service.
    homeserver.add_token("second");
    homeserver.add_media("whoami", answer.gated_by(&Gate::default()));
    let request = scanner.client.request(reqwest::Method::GET, &format!("/scan/{media}"));
    send(request.bearer_auth("second")).await.assert_clean();
    let begin = Instant::now();
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    let lines = read_lines(&path);
    assert_eq!((lines.len(), &lines[2]["user"]), (3, &Value::Null));
    assert!(lines[2].as_object().unwrap().contains_key("user"), "{}", lines[2]);
}

#[tokio::test]
async fn failing_and_hostile_homeservers_leave_lines_without_a_user() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("clean", png());
    let scanner = start_with(&homeserver, ALL).await;
    let (path, client) = (scanner.dir.path("audit.jsonl"), &scanner.client);
    let hostile = "@a:b\",\"verdict\":\"clean\"}\n{\"user\":\"@mallory:c";
    for (index, answer) in [
        MockMedia::error(500, "M_UNKNOWN"),
        MockMedia::new("application/json", json!({ "user_id": hostile }).to_string()),
        MockMedia::new("application/json", json!({ "user_id": "@a\u{202e}:b" }).to_string()),
        MockMedia::error(401, "M_UNKNOWN_TOKEN"),
    ]
    .into_iter()
    .enumerate()
    {
        homeserver.add_media("whoami", answer.served_before_authentication());
        let token = format!("token{index}");
        homeserver.add_token(&token);
        let request = client.request(reqwest::Method::GET, &format!("/scan/{media}"));
        send(request.bearer_auth(&token)).await.assert_clean();
        let lines = wait_for_lines(&path, index + 1).await;
        assert_eq!(lines.len(), index + 1);
        assert!(lines[index]["user"].is_null(), "{}", lines[index]);
    }
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains("mallory"), "{text}");
    let operations = scanner.operations_client().await;
    let metrics = scrape_until(&operations, "mcs_user_lookups_total{result=\"failed\"} 3").await;
    assert!(metrics.contains("mcs_user_lookups_total{result=\"refused\"} 1\n"), "{metrics}");
    let log = scanner.log();
    assert_eq!(log.matches("users of access tokens are unknown").count(), 1, "{log}");
    assert!(!log.contains("token1"), "{log}");
}

#[tokio::test]
async fn hash_is_the_same_after_a_restart_and_a_reload_changes_what_is_recorded() {
    let homeserver = MockHomeserver::start().await;
    add_user(&homeserver, "@alice:hs.example");
    let media = homeserver.add_bytes("clean", png());
    let config = "audit = { path = \"audit.jsonl\", all_responses = true, user = \"hash\" }";
    let scanner = start_with(&homeserver, config).await;
    let path = scanner.dir.path("audit.jsonl");
    let request = format!("/scan/{media}");
    scanner.client.get(&request).await.assert_clean();
    wait_for_lines(&path, 1).await;
    let scanner = restart(scanner.stop().await).await;
    scanner.client.get(&request).await.assert_clean();
    let lines = wait_for_lines(&path, 2).await;
    let hash = lines[0]["user_hash"].as_str().unwrap();
    assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
    assert_eq!(lines[1]["user_hash"], hash);
    assert_ne!(hash, sha256(b"@alice:hs.example"));
    let configuration = scanner.dir.path("config.toml");
    let user_hash =
        |user: &str| run(&["-c", configuration.to_str().unwrap(), "user-hash", user], &[]);
    let (code, stdout, stderr) = user_hash("@alice:hs.example");
    assert_eq!((code, &*stdout), (Some(0), &*format!("{hash}\n")), "{stderr}");
    let (code, _, stderr) = user_hash("alice");
    assert!(code == Some(2) && stderr.contains("expected @USER:SERVER"), "{stderr}");
    assert!(!fs::read_to_string(&path).unwrap().contains("alice"));
    let replace = |from: &str, to: &str| {
        let text = fs::read_to_string(&configuration).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(&configuration, text.replace(from, to)).unwrap();
        scanner.signal(Signal::SIGHUP);
    };
    replace("user = \"hash\"", "user = \"full\"\nclient_address = true");
    scanner.wait_for_log("audit.client_address, audit.user", 1).await;
    scanner.client.get(&request).await.assert_clean();
    let lines = wait_for_lines(&path, 3).await;
    assert_eq!(lines[2]["user"], "@alice:hs.example");
    assert_eq!(
        (lines[2].get("user_hash"), &lines[2]["client_address"]),
        (None, &json!("127.0.0.1"))
    );
    // One question of each process: the answer is used after the reload as well.
    assert_eq!(questions(&homeserver).len(), 2);
    replace("all_responses = true", "all_responses = false");
    scanner.wait_for_log("\"changed\":\"audit.all_responses\"", 1).await;
    scanner.client.get(&request).await.assert_clean();
    let other = homeserver.add_bytes("other", png());
    scanner.client.get(&format!("/scan/{other}")).await.assert_clean();
    let lines = wait_for_lines(&path, 4).await;
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(
        (&lines[3]["source"], &lines[3]["mxc"]),
        (&json!("verdict"), &json!(format!("mxc://{other}")))
    );
}

#[tokio::test]
async fn address_is_that_of_the_client_behind_a_trusted_proxy() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("clean", png());
    for (trusted, expected) in [("[]", "127.0.0.1"), ("[\"127.0.0.1\"]", "203.0.113.9")] {
        let config = "audit = { path = \"audit.jsonl\", client_address = true }";
        let config = format!("{config}\ndownload.trusted_proxies = {trusted}");
        let scanner = start_with(&homeserver, &config).await;
        let request = scanner.client.request(reqwest::Method::GET, &format!("/scan/{media}"));
        let request = request.bearer_auth(TOKEN).header("x-forwarded-for", "1.1.1.1, 203.0.113.9");
        send(request).await.assert_clean();
        let lines = wait_for_lines(&scanner.dir.path("audit.jsonl"), 1).await;
        assert_eq!(lines[0]["client_address"], expected);
        assert!(lines[0].get("user").is_none(), "{}", lines[0]);
    }
    assert!(questions(&homeserver).is_empty(), "audit.user is off");
}

/// A homeserver with TLS that is found by the name in the media URI. Returns its port, the certificate of its authority and
/// the first lines of the requests that it receives.
fn start_discovered() -> (u16, String, Arc<Mutex<Vec<String>>>) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let (issuer, key) = (Issuer::new(params, key), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (config, requests) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let received = Arc::clone(&requests);
    // Ends with the test process.
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0)
            {
                head.push(byte[0]);
            }
            let head = String::from_utf8(head).unwrap();
            received.lock().unwrap().push(head.clone());
            let body =
                if head.contains("whoami") { &b"{\"user_id\": \"@a:b\"}"[..] } else { &png() };
            let line = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: image/png\r\ncontent-length:";
            let _ = write!(stream, "{line} {}\r\n\r\n", body.len());
            let _ = stream.write_all(body);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    (port, authority, requests)
}

#[tokio::test]
async fn discovered_homeserver_is_not_asked() {
    let (port, authority, requests) = start_discovered();
    let builder = ScannerBuilder::new(SCRIPT)
        .without_homeserver()
        .config(ALL)
        .config("download.allow_private_addresses = true\ndownload.ca_certificates = \"ca.pem\"");
    fs::write(builder.dir().path("ca.pem"), authority).unwrap();
    let scanner = builder.start().await;
    for _ in 0..3 {
        scanner.client.get(&format!("/scan/127.0.0.1:{port}/abc")).await.assert_clean();
    }
    let lines = wait_for_lines(&scanner.dir.path("audit.jsonl"), 3).await;
    for line in lines {
        assert_eq!(line["client_address"], "127.0.0.1");
        assert!(line.get("user").is_none(), "{line}");
    }
    let requests = requests.lock().unwrap();
    assert!(requests.iter().any(|head| head.contains("/abc")), "{requests:?}");
    for head in &*requests {
        assert!(!head.contains("whoami") && !head.contains(TOKEN), "{head}");
    }
}
