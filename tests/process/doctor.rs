//! `doctor`: lines, states and exit codes.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::harness::{
    MockHomeserver, png,
    scanner::{ScannerBuilder, run},
};

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

/// Accepts connections and sends this response to each request. Returns the address.
pub(crate) async fn start_server(response: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(response).await;
        }
    });
    address
}

const CLAMD: &[u8] = b"ClamAV 1.4.3\0";
const ICAP: &[u8] = b"ICAP/1.0 200 OK\r\nMethods: RESPMOD\r\nISTag: \"one\"\r\nAllow: 204\r\n\
    Connection: close\r\nEncapsulated: null-body=0\r\n\r\n";

#[tokio::test]
async fn each_server_of_an_engine_that_is_down_is_named() {
    for (engine, key, prefix, suffix, response) in [
        ("clamd", "clamd.addresses", "", "", CLAMD),
        ("icap", "icap.urls", "icap://", "/avscan", ICAP),
    ] {
        let up = start_server(response).await;
        let examine_with = async |second: &str| {
            let config = format!(
                "scan.engines = [\"{engine}\"]\n\
                 {key} = [\"{prefix}{up}{suffix}\", \"{prefix}{second}{suffix}\", \"{prefix}127.0.0.1:2{suffix}\"]"
            );
            examine(ScannerBuilder::new("exit 0").config(&config)).await
        };
        let (code, report) = examine_with("127.0.0.1:1").await;
        assert_eq!((code, &report["health"]), (Some(1), &Value::from("degraded")), "{report}");
        let found = checks(&report, "engines");
        assert_eq!(found.len(), 3, "{report}");
        for down in ["127.0.0.1:1", "127.0.0.1:2"] {
            let is_named = |(health, text): &(String, String)| {
                let expected = format!("{engine} does not answer at {prefix}{down}{suffix}: ");
                health == "degraded"
                    && text.starts_with(&expected)
                    && text.contains("cannot connect")
            };
            assert!(found.iter().any(is_named), "{down} in {report}");
        }
        let is_good = |(health, text): &(String, String)| health == "well" && text.contains(&up);
        assert!(found.iter().any(is_good), "{up} in {report}");
    }
}

#[tokio::test]
async fn store_is_examined_while_the_service_uses_it() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new("exit 0")
        .homeserver(&homeserver)
        .config("store.path = \"state/store.db\"");
    let state = builder.dir().path("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let mut scanner = builder.start().await;
    let config = scanner.dir.path("config.toml");
    let examine_store = async || {
        let config = config.clone();
        let run = move || run(&["-c", config.to_str().unwrap(), "doctor", "--json"], &[]);
        let (code, stdout, stderr) = tokio::task::spawn_blocking(run).await.unwrap();
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{stderr}"));
        (code, checks(&report, "store"))
    };
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    let (_, found) = examine_store().await;
    let [(health, text)] = &found[..] else { panic!("{found:?}") };
    let records = |text: &str| {
        let (_, number) = text.split_once("store.db has ")?;
        number.split_once(" records in ")?.0.parse::<u64>().ok()
    };
    let before = records(text).unwrap_or_else(|| panic!("{text}"));
    assert_eq!(health, "well", "{found:?}");
    assert!(text.ends_with(" KiB, and is in use or was not closed"), "{found:?}");
    let other = homeserver.add_bytes("other", "other");
    scanner.client.get(&format!("/scan/{other}")).await.assert_clean();
    scanner.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    // The records have been written at the latest now.
    let (_, found) = examine_store().await;
    let [(health, text)] = &found[..] else { panic!("{found:?}") };
    assert!(health == "well" && records(text).is_some_and(|after| after > before), "{found:?}");
    assert!(text.ends_with(" KiB"), "{found:?}");
    assert!(!state.join("store.db-wal").exists());
    fs::write(state.join("store.db"), "no database".repeat(1000)).unwrap();
    let (code, found) = examine_store().await;
    let [(health, text)] = &found[..] else { panic!("{found:?}") };
    assert!(code == Some(1) && health == "degraded", "{found:?}");
    assert!(text.contains("the database is damaged"), "{found:?}");
    fs::set_permissions(state.join("store.db"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, found) = examine_store().await;
    let [(health, text)] = &found[..] else { panic!("{found:?}") };
    assert!(code == Some(2) && health == "broken", "{found:?}");
    assert!(text.contains("chmod 600"), "{found:?}");
}
