//! `doctor`: lines, states and exit codes.

use std::fs;

use serde_json::Value;

use crate::harness::{MockHomeserver, scanner::ScannerBuilder};

const CANARY: &str = "scan.canary = \"eicar\"";
const DETECTS: &str = r#"if grep -q EICAR-STANDARD "$1"; then exit 1; fi"#;

/// Returns exit code and the object of `--json`.
async fn examine(builder: ScannerBuilder) -> (Option<i32>, Value) {
    // The homeserver of the test runs on this thread.
    let run = move || builder.run(&["doctor", "--json"]);
    let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
    let report = serde_json::from_str(&stdout);
    (code, report.unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
}

/// Returns the states and texts of the checks of this part.
fn checks(report: &Value, part: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = report["checks"].as_array().unwrap();
    let of_part = all.iter().filter(|check| check["part"] == part);
    of_part.map(|check| (text(&check["health"]), text(&check["text"]))).collect()
}

#[tokio::test]
async fn healthy_parts_are_reported_as_such() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(DETECTS).homeserver(&homeserver).config(CANARY);
    fs::write(builder.dir().path("request_secret"), "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=")
        .unwrap();
    let (code, report) = examine(builder).await;
    for part in ["homeserver", "canary", "disk"] {
        let found = checks(&report, part);
        assert!(!found.is_empty(), "{part} in {report}");
        assert!(found.iter().all(|(health, _)| health != "broken"), "{report}");
    }
    // The key is readable by others, and scripts may write to a directory.
    assert_eq!((code, &report["health"]), (Some(1), &Value::from("degraded")), "{report}");
    assert!(checks(&report, "configuration").iter().all(|(health, _)| health == "degraded"));
}

#[tokio::test]
async fn broken_parts_are_named_and_decide_the_exit_code() {
    for (script, config, part, expected) in [
        ("exit 0", CANARY, "canary", "reports the infected sample as clean"),
        ("exit 0", "crypto.generate = false", "key", "the file does not exist"),
        (
            "exit 0",
            "download.base_homeserver_url = \"http://127.0.0.1:1\"",
            "homeserver",
            "download.base_homeserver_url: http://127.0.0.1:1: ",
        ),
        (
            "exit 0",
            "scan.engines = [\"clamd\"]\nclamd.addresses = [\"127.0.0.1:1\"]",
            "engines",
            "clamd does not answer",
        ),
        ("exit 0", "web.prot = 1", "configuration", "expected web.port?"),
    ] {
        let (code, report) = examine(ScannerBuilder::new(script).config(config)).await;
        assert_eq!((code, &report["health"]), (Some(2), &Value::from("broken")), "{report}");
        let found = checks(&report, part);
        let is_named =
            |(health, text): &(String, String)| health == "broken" && text.contains(expected);
        assert!(found.iter().any(is_named), "{expected} in {report}");
    }
}

#[test]
fn text_has_a_line_for_each_check_and_ends_with_the_state() {
    let (code, stdout, _) = ScannerBuilder::new("exit 0").run(&["doctor"]);
    assert_eq!(code, Some(1), "{stdout}");
    let lines: Vec<_> = stdout.lines().collect();
    let (last, checks) = lines.split_last().unwrap();
    assert_eq!(*last, "degraded");
    let has_state =
        |line: &&str| ["ok    ", "warn  ", "fail  "].iter().any(|word| line.starts_with(word));
    assert!(checks.iter().all(has_state), "{stdout}");
    assert!(
        stdout.contains("\nwarn  homeserver: download.base_homeserver_url: not set"),
        "{stdout}"
    );
}
