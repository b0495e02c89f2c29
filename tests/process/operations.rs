//! The operator's listener: what it counts, what it says of the service's health, and that nobody else
//! is told. Alerts and dashboard are held against what it gives.
#![expect(clippy::disallowed_methods, reason = "promtool is started as an operator would start it")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
    Builder, Client, Homeserver, Media, PATIENCE, Reply, Scanner,
    client::{PREFIX, send},
    homeserver::Gate,
    png, skipped, until,
};

/// Knows a bad file, and one that it cannot judge.
const SCRIPT: &str = r#"
    if grep -q DIRTY "$1"; then echo found; exit 1; fi
    if grep -q BROKEN "$1"; then exit 126; fi
"#;

async fn ask(operations: &Client, path: &str) -> Reply {
    send(operations.elsewhere(Method::GET, path)).await
}

async fn scrape(operations: &Client) -> String {
    let reply = ask(operations, "/metrics").await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(reply.body.to_vec()).expect("text")
}

/// The metrics, once they have this line.
pub(crate) async fn scraped(operations: &Client, line: &str) -> String {
    let end = Instant::now() + PATIENCE;
    loop {
        let metrics = scrape(operations).await;
        if metrics.lines().any(|found| found == line) {
            return metrics;
        }
        assert!(Instant::now() < end, "{line} never came:\n{metrics}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn text(reply: &Reply) -> &str {
    str::from_utf8(&reply.body).expect("text")
}

/// A service with every kind of answer behind it, and how many bytes it has sent.
async fn with_traffic() -> (Homeserver, Scanner, usize) {
    let homeserver = Homeserver::start().await;
    homeserver.knows("other-token");
    let builder = Builder::new(SCRIPT).homeserver(&homeserver);
    let scanner = builder.config("download.authorisation_ttl = \"1h\"").start().await;
    let client = &scanner.client;
    let (clean, copy) = (homeserver.has_bytes("clean", png()), homeserver.has_bytes("copy", png()));
    let dirty = homeserver.has_bytes("dirty", "DIRTY");
    let broken = homeserver.has_bytes("broken", "BROKEN");
    let by_other = |media: &str| {
        client.request(Method::GET, &format!("/download/{media}")).bearer_auth("other-token")
    };
    let mut replies = vec![
        client.get(&format!("/download/{clean}")).await,
        // From memory: for the same token, for another one, for none.
        client.get(&format!("/download/{clean}")).await,
        send(by_other(&clean)).await,
        client.get_without_token(&format!("/download/{clean}")).await,
        // Fetched, and its content is known.
        client.get(&format!("/scan/{copy}")).await,
        client.get(&format!("/scan/{dirty}")).await,
        client.get(&format!("/download/{dirty}")).await,
        client.get(&format!("/scan/{broken}")).await,
        client.get("/scan/hs.example/missing").await,
        client.get_without_token("/public_key").await,
        client.post_bytes("/scan_encrypted", "no JSON").await,
        send(client.elsewhere(Method::GET, "/elsewhere")).await,
        send(client.request(Method::OPTIONS, "/download/a/b")).await,
    ];
    // Two who want the same at the same time.
    let gate = Gate::default();
    let shared = homeserver.has("shared", Media::new("image/png", "shared").behind(&gate));
    let asked = homeserver.asked().len();
    let first = tokio::spawn(send(
        client.request(Method::GET, &format!("/download/{shared}")).bearer_auth("good-token"),
    ));
    homeserver.was_asked(asked + 1).await;
    let second = tokio::spawn(send(by_other(&shared)));
    scanner.logged("waits with others for the same media", 1).await;
    gate.open();
    replies.extend([first.await.unwrap(), second.await.unwrap()]);
    let sent = replies.iter().map(|reply| reply.body.len()).sum();
    scanner.idle().await;
    (homeserver, scanner, sent)
}

#[tokio::test]
async fn known_traffic_gives_the_expected_numbers() {
    // Times, the machine's sandbox, and how many connections a client keeps open.
    const UNKNOWN: [&str; 5] =
        ["_sum", "_bucket{", "mcs_build_info", "mcs_sandbox_layer", "mcs_http_connections "];
    let (_homeserver, scanner, sent) = with_traffic().await;
    let operations = scanner.operations().await;
    let metrics = scrape(&operations).await;
    let known = |line: &&str| {
        let is_unknown = UNKNOWN.iter().any(|part| line.contains(part));
        line.starts_with("mcs_") && !line.ends_with(" 0") && !is_unknown
    };
    let mut found: Vec<_> = metrics.lines().filter(known).collect();
    found.sort_unstable();
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
mcs_engine_scans_total{{engine="script",result="clean"}} 2
mcs_engine_scans_total{{engine="script",result="failed"}} 1
mcs_engine_scans_total{{engine="script",result="not_clean"}} 1
mcs_fetched_bytes_total {fetched}
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
    assert!(!metrics.contains("mcs_canary_passed"), "there is no canary here");
    for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
        let line = metrics.lines().find(|line| line.starts_with(name)).expect(name);
        let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(value > 0.0, "{line}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    let homeserver = Homeserver::start().await;
    let gate = Gate::default();
    let media = homeserver.has("abc", Media::new("image/png", png()).behind(&gate));
    let scanner = Scanner::start(&homeserver, "exit 0").await;
    let operations = scanner.operations().await;
    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let leaving = tokio::spawn(request.bearer_auth("good-token").send());
    homeserver.was_asked(1).await;
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("mcs_http_requests_in_flight 1\n"), "{metrics}");
    assert!(metrics.contains("mcs_workers_busy 1\n"), "{metrics}");
    leaving.abort();
    scanner.logged("ended without an answer", 1).await;
    gate.open();
    // What it had begun was of use all the same.
    let metrics = scraped(&operations, "mcs_jobs_total{result=\"clean\"} 1").await;
    assert!(metrics.contains("mcs_http_requests_in_flight 0\n"), "{metrics}");
    assert!(
        metrics.contains("mcs_http_requests_unanswered_total{route=\"scan\"} 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn nothing_that_a_client_or_a_homeserver_writes_becomes_a_label() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, "echo needle; exit 1").await;
    let operations = scanner.operations().await;
    let series = |metrics: &str| metrics.lines().filter(|line| !line.starts_with('#')).count();
    let mut before = 0;
    for round in 0..12 {
        let word = format!("needle{round}");
        homeserver.has(&word, Media::new(&format!("image/{word}"), word.clone()));
        let odd = Media::error(460 + round, &format!("M_{word}"));
        let refused = homeserver.has(&format!("odd{word}"), odd);
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
async fn the_public_listener_gives_none_of_it_and_the_operators_none_of_the_contract() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let scanner = Scanner::start(&homeserver, "exit 0").await;
    let operations = scanner.operations().await;
    for path in ["/metrics", "/health/live", "/health/ready", "/health"] {
        for path in [path.to_owned(), format!("{PREFIX}{path}")] {
            let reply = send(scanner.client.elsewhere(Method::GET, &path)).await;
            assert_eq!(reply.status, 404, "{path}");
            assert_eq!(reply.json()["errcode"], "M_UNRECOGNIZED", "{path}");
        }
    }
    for path in ["/public_key".to_owned(), format!("/scan/{media}")] {
        assert_eq!(operations.get(&path).await.status, 404, "{path}");
    }
    assert_eq!(send(operations.elsewhere(Method::POST, "/metrics")).await.status, 405);
    assert_eq!(homeserver.asked().len(), 0);
}

#[tokio::test]
async fn it_is_ready_once_the_canary_has_passed_and_until_it_stops() {
    const KNOWS: &str = r#"
        if grep -q EICAR-STANDARD "$1"; then exit 1; fi
        if grep -q waits "$1"; then echo run >> "$MARKS/runs"; read go < "$MARKS/go"; fi
    "#;
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", "waits");
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let mut scanner = builder.config("scan.canary = \"eicar\"").start().await;
    scanner.place.make_fifo("go");
    let operations = scanner.operations().await;
    scanner.logged("not ready", 1).await;
    let reply = ask(&operations, "/health/ready").await;
    assert_eq!(reply.status, 503);
    assert!(text(&reply).contains("calls the infected sample clean"), "{}", text(&reply));
    assert_eq!(ask(&operations, "/health/live").await.status, 200);
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("\nmcs_ready 0\n") && metrics.contains("\nmcs_canary_passed 0\n"));

    scanner.place.write_script("script.sh", KNOWS);
    scanner.logged("ready: each engine knows", 1).await;
    assert_eq!(ask(&operations, "/health/ready").await.status, 200);
    let metrics = scrape(&operations).await;
    assert!(metrics.contains("\nmcs_ready 1\n") && metrics.contains("\nmcs_canary_passed 1\n"));

    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let waiting = tokio::spawn(send(request.bearer_auth("good-token")));
    until("the script runs", || scanner.place.marks("runs") == 1).await;
    scanner.signal(Signal::SIGTERM);
    scanner.logged("stopping; what runs may end", 1).await;
    let reply = ask(&operations, "/health/ready").await;
    assert_eq!((reply.status.as_u16(), text(&reply)), (503, "the service is stopping\n"));
    assert_eq!(ask(&operations, "/health/live").await.status, 200);
    scanner.place.let_go("go").await;
    waiting.await.unwrap().is_clean();
    assert_eq!(scanner.ended().await.code(), Some(0));
}

#[tokio::test]
async fn an_address_that_is_taken_is_a_clear_error_unless_it_is_not_wanted() {
    let homeserver = Homeserver::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = format!("operations.port = {port}");
    let builder = || Builder::new("exit 0").homeserver(&homeserver).config(&config);
    let (code, said) = builder().fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("[operations]"), "{said}");
    assert!(said.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{said}");

    let scanner = builder().config("operations.enabled = false").start().await;
    scanner.client.public_key().await;
    assert!(!scanner.log().contains("metrics and health"), "{}", scanner.log());
}

#[tokio::test]
async fn it_listens_on_a_unix_socket() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0")
        .homeserver(&homeserver)
        .config("operations.socket = \"operations.sock\"")
        .environment("MCS_OPERATIONS__PORT", "");
    let path = builder.place().path("operations.sock");
    let mut scanner = builder.start().await;
    scanner.logged("metrics and health are here", 1).await;
    let mut stream = UnixStream::connect(&path).await.expect("somebody listens");
    let request = b"GET /health/ready HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an answer").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("ready\n"), "{answer}");
    scanner.signal(Signal::SIGTERM);
    assert_eq!(scanner.ended().await.code(), Some(0));
    assert!(!path.exists(), "it goes with its server");
}

/// A file of those that operators give to Prometheus and Grafana.
fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring").join(name)
}

/// Runs promtool on this input; what it says if it finds fault. Says that a test is skipped where there is
/// none.
fn promtool(test: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        skipped(test, "there is no promtool (Debian: prometheus)");
        return Ok(());
    };
    // Fails only where promtool does not read it; then it says why.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&said).into_owned()) }
}

#[tokio::test]
async fn promtool_finds_no_fault_with_the_metrics() {
    const TEST: &str = "promtool_finds_no_fault_with_the_metrics";
    let (_homeserver, scanner, _) = with_traffic().await;
    let metrics = scrape(&scanner.operations().await).await;
    promtool(TEST, &["check", "metrics"], &metrics).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn every_alert_fires_where_it_should_and_nowhere_else() {
    const TEST: &str = "every_alert_fires_where_it_should_and_nowhere_else";
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let file = shipped(file);
        promtool(TEST, &[what, "rules", file.to_str().unwrap()], "")
            .unwrap_or_else(|said| panic!("{said}"));
    }
    let rules = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let tests = fs::read_to_string(shipped("alerts.test.yml")).unwrap();
    let alerts: Vec<_> =
        rules.lines().filter_map(|it| it.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        for says in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {says}\n")), "{alert} {says}");
        }
    }
}

/// The queries of the dashboard's panels, with its variables filled in as Grafana would.
fn queries() -> Vec<String> {
    let dashboard = fs::read_to_string(shipped("dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let query = |target: &serde_json::Value| {
        let query = target["expr"].as_str().expect("a query");
        query.replace("$__rate_interval", "5m").replace("$instance", ".*")
    };
    targets.map(query).collect()
}

#[test]
fn every_query_of_the_dashboard_is_one() {
    const TEST: &str = "every_query_of_the_dashboard_is_one";
    let queries = queries();
    assert!(queries.len() > 20);
    let rule = |(number, query): (usize, &String)| {
        // A string of JSON is one of YAML.
        let query = serde_json::Value::from(query.as_str());
        format!("      - {{ record: 'panel{number}', expr: {query} }}\n")
    };
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    let rules = format!("groups:\n  - name: panels\n    rules:\n{}", rules.concat());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("panels.yml");
    fs::write(&file, rules).unwrap();
    promtool(TEST, &["check", "rules", file.to_str().unwrap()], "")
        .unwrap_or_else(|said| panic!("{said}"));
}

/// Names of our metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_of_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    let words = text.split(|it| !is_of_name(it));
    words.filter(|word| word.starts_with("mcs_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn every_metric_in_alerts_and_dashboard_is_one_and_each_is_on_the_dashboard() {
    let (homeserver, scanner, _) = with_traffic().await;
    let operations = scanner.operations().await;
    // The canary's is there where one is.
    let builder = Builder::new("exit 0").homeserver(&homeserver).config("scan.canary = \"eicar\"");
    let with_canary = builder.start().await;
    let mut metrics = scrape(&with_canary.operations().await).await;
    // One that a client gave up.
    let gate = Gate::default();
    let media = homeserver.has("slow", Media::new("image/png", "slow").behind(&gate));
    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let leaving = tokio::spawn(request.bearer_auth("good-token").send());
    scanner.logged("\"route\":\"scan\"", 1).await;
    until("it is asked for", || homeserver.asked().iter().any(|it| it.uri.contains("slow"))).await;
    leaving.abort();
    scanner.logged("ended without an answer", 1).await;
    gate.open();
    metrics += &scrape(&operations).await;
    let series: BTreeSet<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let alerts = fs::read_to_string(shipped("alerts.yml")).unwrap();
    let panels = queries().join("\n");
    let (alerts, panels) = (names(&alerts), names(&panels));
    for name in alerts.union(&panels) {
        assert!(series.contains(name), "{name} is no series of\n{metrics}");
    }
    let families =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families {
        let shown =
            panels.iter().any(|name| *name == family || *name == format!("{family}_bucket"));
        assert!(shown, "{family} is not on the dashboard");
    }
}
