//! Alerts and the dashboard in `config/monitoring`, checked against the metrics and with promtool.
#![expect(clippy::disallowed_methods, reason = "promtool is not the program under test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use reqwest::Method;

use super::{generate_traffic, scrape, scrape_until};
use crate::doctor::start_server;
use crate::harness::{
    MockMedia, RedisServer, ScannerBuilder, homeserver::Gate, report_skipped, wait_until,
};

/// Returns the path of a shipped file for Prometheus or Grafana.
fn monitoring_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/monitoring").join(name)
}

/// Runs promtool on `input`; returns its output on failure. Reports the test as skipped if promtool is not installed.
fn promtool(test: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let mut command = Command::new("promtool");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        report_skipped(test, "promtool is not installed (Debian: prometheus)");
        return Ok(());
    };
    // Fails only if promtool does not read its input; promtool then reports the reason.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("promtool exits");
    let printed = [output.stdout, output.stderr].concat();
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&printed).into_owned())
    }
}

#[tokio::test]
async fn promtool_accepts_metrics() {
    const TEST: &str = "promtool_accepts_metrics";
    let (_homeserver, scanner, _) = generate_traffic().await;
    let metrics = scrape(&scanner.operations_client().await).await;
    promtool(TEST, &["check", "metrics"], &metrics).unwrap_or_else(|output| panic!("{output}"));
}

#[test]
fn alert_rules_pass_their_promtool_tests() {
    const TEST: &str = "alert_rules_pass_their_promtool_tests";
    for (what, file) in [("check", "alerts.yml"), ("test", "alerts.test.yml")] {
        let file = monitoring_file(file);
        promtool(TEST, &[what, "rules", file.to_str().unwrap()], "")
            .unwrap_or_else(|output| panic!("{output}"));
    }
    let rules = fs::read_to_string(monitoring_file("alerts.yml")).unwrap();
    let tests = fs::read_to_string(monitoring_file("alerts.test.yml")).unwrap();
    let alerts: Vec<_> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        for outcome in ["fires", "is silent"] {
            assert!(tests.contains(&format!("- name: {alert} {outcome}\n")), "{alert} {outcome}");
        }
    }
}

/// Returns the queries of the dashboard panels, with the dashboard variables replaced as Grafana does.
fn dashboard_queries() -> Vec<String> {
    let dashboard = fs::read_to_string(monitoring_file("dashboard.json")).unwrap();
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
fn dashboard_queries_are_valid() {
    const TEST: &str = "dashboard_queries_are_valid";
    let queries = dashboard_queries();
    assert!(queries.len() > 20);
    let rule = |(number, query): (usize, &String)| {
        // A JSON string is a valid YAML string.
        let query = serde_json::Value::from(query.as_str());
        format!("      - {{ record: 'panel{number}', expr: {query} }}\n")
    };
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    let rules = format!("groups:\n  - name: panels\n    rules:\n{}", rules.concat());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("panels.yml");
    fs::write(&file, rules).unwrap();
    promtool(TEST, &["check", "rules", file.to_str().unwrap()], "")
        .unwrap_or_else(|output| panic!("{output}"));
}

/// Returns the names of this program's metrics in `text`.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_name_char(c));
    words.filter(|word| word.starts_with("mcs_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn alerts_and_dashboard_use_existing_metrics_and_dashboard_shows_all() {
    const TEST: &str = "alerts_and_dashboard_use_existing_metrics_and_dashboard_shows_all";
    if !RedisServer::is_installed(TEST) {
        return;
    }
    let redis = RedisServer::start(&[]).await;
    let (homeserver, scanner, _) = generate_traffic().await;
    let operations = scanner.operations_client().await;
    // Some metrics exist only with a canary, a store and incidents.
    let builder = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("scan.canary = \"eicar\"\nstore.path = \"store.db\"")
        .config("notify = [{ webhook = \"https://a.example\", secret_path = \"hook\" }]");
    let secret = builder.dir().path("hook");
    fs::write(&secret, "0123456789abcdef").unwrap();
    fs::set_permissions(secret, fs::Permissions::from_mode(0o600)).unwrap();
    let with_canary = builder.start().await;
    let mut metrics = scrape(&with_canary.operations_client().await).await;
    // Only clamd reports the time of its signatures.
    let clamd = start_server(b"ClamAV 1.4.3/27832/Mon Nov 30 09:26:32 2026\0").await;
    let config = format!("scan.engines = [\"clamd\"]\nclamd.addresses = [\"{clamd}\"]");
    let with_clamd = ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&config);
    let with_clamd = with_clamd.start().await;
    let engine = "mcs_engine_signatures_timestamp_seconds{engine=\"clamd\"} 1796030792";
    metrics += &scrape_until(&with_clamd.operations_client().await, engine).await;
    let shared = format!("store.kind = \"shared\"\nstore.urls = [{:?}]", redis.url());
    let replica =
        ScannerBuilder::new("exit 0").homeserver(&homeserver).config(&shared).start().await;
    let replica = replica.operations_client().await;
    scrape_until(&replica, "mcs_replica_keys 1").await;
    scrape_until(&replica, "mcs_store_clock_difference_seconds 0").await;
    metrics += &scrape(&replica).await;
    // A request aborted by the client.
    let gate = Gate::default();
    let media = homeserver.add_media("slow", MockMedia::new("image/png", "slow").gated_by(&gate));
    let request = scanner.client.request(Method::GET, &format!("/scan/{media}"));
    let aborted = tokio::spawn(request.bearer_auth("good-token").send());
    scanner.wait_for_log("\"route\":\"scan\"", 1).await;
    wait_until("the homeserver receives the request", || {
        homeserver.requests().iter().any(|request| request.uri.contains("slow"))
    })
    .await;
    aborted.abort();
    scanner.wait_for_log("request cancelled", 1).await;
    gate.open();
    metrics += &scrape(&operations).await;
    let series: BTreeSet<_> = metrics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let alerts = fs::read_to_string(monitoring_file("alerts.yml")).unwrap();
    let panels = dashboard_queries().join("\n");
    let (alerts, panels) = (metric_names(&alerts), metric_names(&panels));
    for name in alerts.union(&panels) {
        assert!(series.contains(name), "no series {name} in\n{metrics}");
    }
    let families =
        metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for family in families {
        let is_shown =
            panels.iter().any(|name| *name == family || *name == format!("{family}_bucket"));
        assert!(is_shown, "{family} is not on the dashboard");
    }
}
