//! Tests of the operator's listener: metrics, health and separation from the public listener.

mod monitoring;

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::timeout,
};

use crate::harness::{
    MockHomeserver, MockMedia, RawClient, ScannerBuilder, ScannerProcess, TEST_TIMEOUT, TestClient,
    TestResponse,
    client::{PREFIX, send},
    homeserver::Gate,
    png, wait_until,
};

/// Finds `DIRTY` and fails on `BROKEN`.
const SCRIPT: &str = r#"
    if grep -q DIRTY "$1"; then echo found; exit 1; fi
    if grep -q BROKEN "$1"; then exit 126; fi
"#;

pub(crate) async fn get(operations: &TestClient, path: &str) -> TestResponse {
    send(operations.request_outside_prefix(Method::GET, path)).await
}

async fn scrape(operations: &TestClient) -> String {
    let reply = get(operations, "/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(reply.body.to_vec()).expect("text")
}

/// Waits until the metrics contain `line`; returns the metrics.
pub(crate) async fn scrape_until(operations: &TestClient, line: &str) -> String {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        let metrics = scrape(operations).await;
        if metrics.lines().any(|found| found == line) {
            return metrics;
        }
        assert!(Instant::now() < deadline, "no line {line}:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(reply: &TestResponse) -> &str {
    str::from_utf8(&reply.body).expect("text")
}

/// Starts a service and requests every kind of response; also returns the number of body bytes sent.
async fn generate_traffic() -> (MockHomeserver, ScannerProcess, usize) {
    let homeserver = MockHomeserver::start().await;
    homeserver.add_token("other-token");
    let builder = ScannerBuilder::new(SCRIPT).homeserver(&homeserver);
    let scanner = builder.config("download.authorisation_ttl = \"1h\"").start().await;
    let client = &scanner.client;
    let (clean, copy) = (homeserver.add_bytes("clean", png()), homeserver.add_bytes("copy", png()));
    let dirty = homeserver.add_bytes("dirty", "DIRTY");
    let broken = homeserver.add_bytes("broken", "BROKEN");
    let by_other = |media: &str| {
        client.request(Method::GET, &format!("/download/{media}")).bearer_auth("other-token")
    };
    let mut replies = vec![
        client.get(&format!("/download/{clean}")).await,
        // Answered from the cache: for the same token, another token, and no token.
        client.get(&format!("/download/{clean}")).await,
        send(by_other(&clean)).await,
        client.get_without_token(&format!("/download/{clean}")).await,
        // Fetched; the verdict on its content is cached.
        client.get(&format!("/scan/{copy}")).await,
        client.get(&format!("/scan/{dirty}")).await,
        client.get(&format!("/download/{dirty}")).await,
        client.get(&format!("/scan/{broken}")).await,
        client.get("/scan/hs.example/missing").await,
        client.get_without_token("/public_key").await,
        client.post_bytes("/scan_encrypted", "no JSON").await,
        send(client.request_outside_prefix(Method::GET, "/elsewhere")).await,
        send(client.request(Method::OPTIONS, "/download/a/b")).await,
    ];
    // Two concurrent requests for the same file.
    let gate = Gate::default();
    let shared =
        homeserver.add_media("shared", MockMedia::new("image/png", "shared").gated_by(&gate));
    let requests_before = homeserver.requests().len();
    let first = tokio::spawn(send(
        client.request(Method::GET, &format!("/download/{shared}")).bearer_auth("good-token"),
    ));
    homeserver.wait_for_requests(requests_before + 1).await;
    let second = tokio::spawn(send(by_other(&shared)));
    scanner.wait_for_log("joined a job in progress for the same media", 1).await;
    gate.open();
    replies.extend([first.await.unwrap(), second.await.unwrap()]);
    let sent = replies.iter().map(|reply| reply.body.len()).sum();
    scanner.wait_until_idle().await;
    (homeserver, scanner, sent)
}

#[tokio::test]
async fn metrics_match_known_traffic() {
    // Durations, properties of the machine, and the number of idle connections.
    const VARIABLE: [&str; 6] = [
        "_sum",
        "_bucket{",
        "mcs_build_info",
        "mcs_sandbox_layer",
        "mcs_http_connections ",
        "_timestamp_seconds ",
    ];
    let (homeserver, scanner, sent) = generate_traffic().await;
    let operations = scanner.operations_client().await;
    let metrics = scrape(&operations).await;
    let is_predictable = |line: &&str| {
        let is_variable = VARIABLE.iter().any(|part| line.contains(part));
        line.starts_with("mcs_") && !line.ends_with(" 0") && !is_variable
    };
    let mut found: Vec<_> = metrics.lines().filter(is_predictable).collect();
    found.sort_unstable();
    let hs = homeserver.url().trim_end_matches('/').replace("http://", "");
    let fetched = 2 * png().len() + "DIRTY".len() + "BROKEN".len() + "shared".len();
    let bodies = png().len() + "shared".len() + 2 * 128;
    let expected = format!(
        r#"
mcs_authorisations_total{{result="granted"}} 2
mcs_authorisations_total{{result="refused"}} 1
mcs_authorisations_total{{result="remembered"}} 2
mcs_cache_body_bytes {bodies}
mcs_cache_entries{{kind="body"}} 2
mcs_cache_entries{{kind="media"}} 5
mcs_cache_entries{{kind="verdict"}} 4
mcs_cache_hits_total{{kind="answer"}} 3
mcs_cache_hits_total{{kind="flight"}} 1
mcs_cache_hits_total{{kind="verdict"}} 1
mcs_config_last_reload_successful 1
mcs_engine_scans_total{{engine="script",result="clean"}} 2
mcs_engine_scans_total{{engine="script",result="failed"}} 1
mcs_engine_scans_total{{engine="script",result="infected"}} 1
mcs_engine_seconds_count{{engine="script"}} 4
mcs_fetched_bytes_total {fetched}
mcs_homeserver_media_responses_total{{homeserver="{hs}",route="client_v1",result="recognized"}} 8
mcs_homeserver_media_responses_total{{homeserver="{hs}",route="r0",result="recognized"}} 1
mcs_homeserver_media_responses_total{{homeserver="{hs}",route="v3",result="recognized"}} 1
mcs_homeserver_reachable{{homeserver="{hs}"}} 1
mcs_http_connections_limit 2048
mcs_http_request_duration_seconds_count{{route="download"}} 8
mcs_http_request_duration_seconds_count{{route="public_key"}} 1
mcs_http_request_duration_seconds_count{{route="scan"}} 4
mcs_http_request_duration_seconds_count{{route="scan_encrypted"}} 1
mcs_http_request_duration_seconds_count{{route="unknown"}} 1
mcs_http_requests_total{{route="download",method="GET",status="200",reason=""}} 5
mcs_http_requests_total{{route="download",method="GET",status="403",reason="MCS_MEDIA_NOT_CLEAN"}} 1
mcs_http_requests_total{{route="download",method="GET",status="404",reason="M_NOT_FOUND"}} 1
mcs_http_requests_total{{route="download",method="OPTIONS",status="200",reason=""}} 1
mcs_http_requests_total{{route="public_key",method="GET",status="200",reason=""}} 1
mcs_http_requests_total{{route="scan",method="GET",status="200",reason=""}} 2
mcs_http_requests_total{{route="scan",method="GET",status="404",reason="M_NOT_FOUND"}} 1
mcs_http_requests_total{{route="scan",method="GET",status="500",reason="M_UNKNOWN"}} 1
mcs_http_requests_total{{route="scan_encrypted",method="POST",status="400",reason="MCS_MALFORMED_JSON"}} 1
mcs_http_requests_total{{route="unknown",method="GET",status="404",reason=""}} 1
mcs_http_sent_bytes_total {sent}
mcs_job_download_seconds_count 5
mcs_job_queue_seconds_count 6
mcs_job_scan_seconds_count 5
mcs_jobs_total{{result="clean"}} 3
mcs_jobs_total{{result="no_verdict"}} 2
mcs_jobs_total{{result="not_clean"}} 1
mcs_queue_capacity 256
mcs_ready 1
mcs_scan_errors_total{{cause="not_found"}} 2
mcs_scan_errors_total{{cause="script_exit_code"}} 1
mcs_script_seconds_count 4
mcs_spool_limit_bytes 4294967296
mcs_upstream_requests_total{{status="200"}} 5
mcs_upstream_requests_total{{status="304"}} 2
mcs_upstream_requests_total{{status="404"}} 3
mcs_verdicts_total{{verdict="clean"}} 6
mcs_verdicts_total{{verdict="not_clean"}} 2
mcs_workers 32
"#
    );
    let expected: Vec<_> = expected.lines().skip(1).collect();
    assert_eq!(found, expected, "{metrics}");
    assert!(
        metrics
            .contains(&format!("mcs_build_info{{version=\"{}\"}} 1\n", env!("CARGO_PKG_VERSION")))
    );
    assert!(metrics.contains("mcs_sandbox_layer{layer=\"seccomp\"} 1\n"), "{metrics}");
    assert!(!metrics.contains("mcs_canary_passed"), "metric of a canary that is off");
    for name in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "mcs_config_last_reload_success_timestamp_seconds",
    ] {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0, "{line}");
    }
}

#[tokio::test]
async fn counts_requests_aborted_by_client() {
    let homeserver = MockHomeserver::start().await;
    let gate = Gate::default();
    let media = homeserver.add_media("abc", MockMedia::new("image/png", png()).gated_by(&gate));
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    let operations = scanner.operations_client().await;
    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let aborted = tokio::spawn(request.bearer_auth("good-token").send());
    homeserver.wait_for_requests(1).await;
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("mcs_http_requests_in_flight 1\n"), "{metrics}");
    assert!(metrics.contains("mcs_workers_busy 1\n"), "{metrics}");
    aborted.abort();
    scanner.wait_for_log("request cancelled", 1).await;
    gate.open();
    // The job continues and its result is cached.
    let metrics = scrape_until(&operations, "mcs_jobs_total{result=\"clean\"} 1").await;
    assert!(metrics.contains("mcs_http_requests_in_flight 0\n"), "{metrics}");
    assert!(
        metrics.contains("mcs_http_requests_unanswered_total{route=\"scan\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn metric_labels_contain_no_external_input() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "echo needle; exit 1").await;
    let operations = scanner.operations_client().await;
    let series = |metrics: &str| metrics.lines().filter(|line| !line.starts_with('#')).count();
    let mut before = 0;
    for round in 0..12 {
        let word = format!("needle{round}");
        homeserver.add_media(&word, MockMedia::new(&format!("image/{word}"), word.clone()));
        let error = MockMedia::error(460 + round, &format!("M_{word}"));
        let refused = homeserver.add_media(&format!("error{word}"), error);
        let client = &scanner.client;
        for path in [
            format!("/scan/hs.example/{word}?{word}={word}"),
            format!("/scan/{refused}"),
            format!("/{word}/{word}"),
            format!("/thumbnail/hs.example/{word}?method={word}"),
        ] {
            client.get(&path).await;
        }
        let method = Method::from_bytes(word.to_uppercase().as_bytes()).unwrap();
        let request = client.request(method, &format!("/scan/hs.example/{word}"));
        send(request.bearer_auth(&word).header("x-forwarded-for", &word)).await;
        let metrics = scrape(&operations).await;
        assert!(!metrics.to_lowercase().contains("needle"), "{metrics}");
        if round == 0 {
            before = series(&metrics);
        }
        assert_eq!(series(&metrics), before, "{metrics}");
    }
}

#[tokio::test]
async fn each_listener_serves_only_its_own_routes() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    let operations = scanner.operations_client().await;
    for path in ["/metrics", "/health/live", "/health/ready", "/health"] {
        for path in [path.to_owned(), format!("{PREFIX}{path}")] {
            let reply = send(scanner.client.request_outside_prefix(Method::GET, &path)).await;
            assert_eq!(reply.status, 404, "{path}");
            assert_eq!(reply.json()["errcode"], "M_UNRECOGNIZED", "{path}");
        }
    }
    for path in ["/public_key".to_owned(), format!("/scan/{media}")] {
        assert_eq!(operations.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(send(operations.request_outside_prefix(Method::POST, "/metrics")).await.status, 405);
    assert_eq!(homeserver.requests().len(), 0);
}

#[tokio::test]
async fn ready_from_canary_success_until_shutdown() {
    const EICAR_SCRIPT: &str = r#"
        if grep -q EICAR-STANDARD "$1"; then exit 1; fi
        if grep -q waits "$1"; then echo run >> "$MARKS/runs"; read go < "$MARKS/go"; fi
    "#;
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", "waits");
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let mut scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.dir.make_fifo("go");
    let operations = scanner.operations_client().await;
    scanner.wait_for_log("not ready", 1).await;
    let log = scanner.log();
    let line = log.lines().find(|line| line.contains("not ready: the canary failed")).unwrap();
    assert!(line.contains("\"address\":\"127.0.0.1:0\""), "{line}");
    let reply = get(&operations, "/health/ready").await;
    assert_eq!(reply.status, 503);
    assert!(text(&reply).contains("reports the infected sample as clean"), "{}", text(&reply));
    assert_eq!(get(&operations, "/health/live").await.status, 200);
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("\nmcs_ready 0\n") && metrics.contains("\nmcs_canary_passed 0\n"));

    scanner.dir.write_script("script.sh", EICAR_SCRIPT);
    scanner.wait_for_log("ready: the canary passed", 1).await;
    assert_eq!(get(&operations, "/health/ready").await.status, 200);
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("\nmcs_ready 1\n") && metrics.contains("\nmcs_canary_passed 1\n"));

    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let waiting = tokio::spawn(send(request.bearer_auth("good-token")));
    wait_until("the script runs", || scanner.dir.mark_count("runs") == 1).await;
    scanner.signal(Signal::SIGTERM);
    scanner.wait_for_log("stopping, waiting for running requests and scans", 1).await;
    let reply = get(&operations, "/health/ready").await;
    assert_eq!((reply.status.as_u16(), text(&reply)), (503, "the service is stopping\n"));
    assert_eq!(get(&operations, "/health/live").await.status, 200);
    scanner.dir.release_fifo("go").await;
    waiting.await.unwrap().assert_clean();
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
}

#[tokio::test]
async fn reports_operations_address_in_use_unless_disabled() {
    let homeserver = MockHomeserver::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!("operations.port = {port}");
    let builder = || ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&config);
    let (code, stderr) = builder().run_to_exit();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("[operations]"), "{stderr}");
    assert!(stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{stderr}");

    let scanner = builder().config("operations.enabled = false").start().await;
    scanner.client.public_key().await;
    assert!(!scanner.log().contains("metrics and health"), "{}", scanner.log());
}

#[tokio::test]
async fn health_is_answered_among_open_connections() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    let operations = scanner.operations_client().await;
    let mut open = Vec::new();
    for start in ["", "GET /health/live HTTP/1.1\r\n", "GET /metrics HTTP/1.1\r\nhost"] {
        for _ in 0..40 {
            let mut client = RawClient::connect(operations.address()).await;
            client.write(start.as_bytes()).await;
            open.push(client);
        }
        assert_eq!(text(&get(&operations, "/health/live").await), "alive\n");
    }
    // Each response closes its connection, so that no connection waits for a second request.
    for path in ["/health/live", "/metrics", "/none"] {
        for _ in 0..40 {
            let mut client = RawClient::connect(operations.address()).await;
            client.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await;
            let response = String::from_utf8_lossy(&client.read_to_end().await).into_owned();
            assert!(response.contains("\r\nconnection: close\r\n"), "{path}: {response}");
            open.push(client);
        }
        assert_eq!(text(&get(&operations, "/health/live").await), "alive\n");
    }
}

#[tokio::test]
async fn operations_listener_accepts_on_unix_socket() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("operations.socket = \"operations.sock\"")
        .env("MCS_OPERATIONS__PORT", "");
    let path = builder.dir().path("operations.sock");
    let mut scanner = builder.start().await;
    scanner.wait_for_log("serving metrics and health", 1).await;
    let mut stream = UnixStream::connect(&path).await.expect("connection to the socket");
    let request = b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut response = String::new();
    timeout(TEST_TIMEOUT, stream.read_to_string(&mut response)).await.expect("a response").unwrap();
    assert!(response.starts_with("HTTP/1.1 200 OK") && response.ends_with("ready\n"), "{response}");
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    assert!(!path.exists(), "the socket remains after the exit");
}
