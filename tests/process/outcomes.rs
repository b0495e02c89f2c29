//! Outcomes of engines under each value of their settings. The real program asks a fake clamd, whose scans are counted:
//! a changed setting applies to cached outcomes without another scan.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::{
    audit::wait_for_lines,
    harness::{MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse},
    operations::get,
    reload::reload_succeeds,
};

/// A clamd that responds with what the file contains. Counts the scans.
struct FakeClamd {
    address: String,
    scans: Arc<AtomicUsize>,
}

impl FakeClamd {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let scans = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&scans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(respond(stream, Arc::clone(&count)));
            }
        });
        Self { address, scans }
    }

    fn scans(&self) -> usize {
        self.scans.load(Ordering::SeqCst)
    }
}

async fn respond(mut stream: TcpStream, scans: Arc<AtomicUsize>) {
    let mut received = Vec::new();
    while !received.ends_with(b"\0\0\0\0") && received != b"zVERSION\0" {
        if !matches!(stream.read_buf(&mut received).await, Ok(length) if length > 0) {
            return;
        }
    }
    let response = if received == b"zVERSION\0" {
        b"ClamAV 1.4.3/27000/Mon Nov 23 10:00:00 2026\0".to_vec()
    } else {
        scans.fetch_add(1, Ordering::SeqCst);
        // Bytes between the command with the first length and the end marker.
        let media = String::from_utf8_lossy(&received[14..received.len() - 4]).into_owned();
        format!("{}\0", media.trim()).into_bytes()
    };
    let _ = stream.write_all(&response).await;
}

/// Starts the program with these engines and settings.
async fn start(
    clamd: &FakeClamd,
    homeserver: &MockHomeserver,
    engines: &str,
    lines: &str,
) -> ScannerProcess {
    let config = format!(
        "scan.engines = {engines}\nclamd.addresses = [\"{}\"]\nresult_cache.failure_ttl = \"1h\"",
        clamd.address
    );
    ScannerBuilder::new("").homeserver(homeserver).config(&config).config(lines).start().await
}

/// Asserts the outcome: `clean`, the text of a finding, or a status with its reason.
fn assert_outcome(response: &TestResponse, expected: &str, case: &str) {
    println!("{case}: {expected}");
    if expected == "clean" {
        response.assert_clean();
    } else if let Some(reason) = expected.strip_prefix("413 ") {
        response.assert_error(413, reason);
    } else if let Some(reason) = expected.strip_prefix("422 ") {
        response.assert_error(422, reason);
    } else if let Some(reason) = expected.strip_prefix("500 ") {
        response.assert_error(500, reason);
    } else {
        response.assert_not_clean(&format!("File not clean. Output: '{expected}'"));
    }
}

const TOO_LARGE: &str = "413 MCS_MEDIA_REQUEST_FAILED";
const FAILED: &str = "500 M_UNKNOWN";

/// Responses of the daemon, and the outcome for each setting, the default first.
const TABLE: [(&str, &[(&str, &str)]); 7] = [
    ("stream: Eicar FOUND", &[("", "Eicar")]),
    ("stream: PUA.Win.Tool FOUND", &[("", "PUA.Win.Tool")]),
    (
        "stream: Heuristics.Encrypted.PDF FOUND",
        &[
            ("", "encrypted contents (Heuristics.Encrypted.PDF)"),
            ("scan.on_encrypted = \"fail\"", "422 M_UNKNOWN"),
            ("scan.on_encrypted = \"pass\"", "clean"),
            ("scan.on_encrypted = \"refuse\"", "encrypted contents (Heuristics.Encrypted.PDF)"),
        ],
    ),
    (
        "stream: Heuristics.Limits.Exceeded.MaxFiles FOUND",
        &[
            ("", TOO_LARGE),
            ("scan.on_limit = \"refuse\"", "limit exceeded (Heuristics.Limits.Exceeded.MaxFiles)"),
            ("scan.on_limit = \"pass\"", "clean"),
            ("scan.on_limit = \"fail\"", TOO_LARGE),
        ],
    ),
    (
        "INSTREAM size limit exceeded. ERROR",
        &[
            ("", TOO_LARGE),
            ("clamd.on_oversize = \"refuse\"", "too large for the engine clamd"),
            // No other engine has finished.
            ("clamd.on_oversize = \"skip\"", TOO_LARGE),
            ("clamd.on_oversize = \"fail\"", TOO_LARGE),
        ],
    ),
    (
        "stream: Can't allocate memory ERROR",
        &[
            ("", FAILED),
            ("clamd.on_failure = \"skip\"", FAILED),
            ("clamd.on_failure = \"fail\"", FAILED),
        ],
    ),
    ("stream: OK", &[("", "clean"), ("scan.on_limit = \"refuse\"", "clean")]),
];

#[tokio::test]
async fn changed_setting_applies_to_each_outcome_without_a_scan() {
    let (clamd, homeserver) = (FakeClamd::start().await, MockHomeserver::start().await);
    for (index, (answer, cases)) in TABLE.into_iter().enumerate() {
        let scanner = start(&clamd, &homeserver, "[\"clamd\"]", "").await;
        let before = clamd.scans();
        let media = homeserver.add_bytes(&format!("m{index}"), answer.as_bytes().to_vec());
        for (setting, expected) in cases {
            if !setting.is_empty() {
                reload_succeeds(&scanner, setting).await;
            }
            let case = format!("{answer}, {setting}");
            let response = scanner.client.get(&format!("/scan/{media}")).await;
            assert_outcome(&response, expected, &case);
            let download = scanner.client.get(&format!("/download/{media}")).await;
            match response.status.as_u16() {
                200 if *expected == "clean" => download.assert_media(answer.as_bytes()),
                200 => download.assert_error(403, "MCS_MEDIA_NOT_CLEAN"),
                status => {
                    assert_eq!(download.status, status, "{case}");
                    assert_eq!(download.json()["reason"], response.json()["reason"], "{case}");
                }
            }
        }
        assert_eq!(clamd.scans() - before, 1, "{answer}: every setting uses the same scan");
    }
}

/// The finding stays cached, so the setting applies without another scan.
#[tokio::test]
async fn observed_finding_is_recorded_and_refuses_after_a_reload() {
    let (clamd, homeserver) = (FakeClamd::start().await, MockHomeserver::start().await);
    let lines = "clamd.on_not_clean = \"observe\"\naudit.path = \"audit.jsonl\"";
    let scanner = start(&clamd, &homeserver, "[\"clamd\", \"script\"]", lines).await;
    scanner.dir.write_script("script.sh", "exit 0");
    let media = homeserver.add_bytes("observed", b"stream: Eicar FOUND".to_vec());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();
    let line = &wait_for_lines(&scanner.dir.path("audit.jsonl"), 1).await[0];
    assert_eq!((&line["verdict"], &line["exit_code"]), (&"clean".into(), &0.into()));
    let engine = &line["engines"][0];
    for (key, expected) in [("engine", "clamd"), ("result", "infected"), ("finding", "Eicar")] {
        assert_eq!(engine[key], expected, "{line}");
    }
    assert_eq!(engine["observed"], true, "{line}");
    scanner.wait_for_log("findings of observed engines and rules do not refuse media", 1).await;
    scanner
        .wait_for_log("finding of an observed engine or rule, media not refused for it", 1)
        .await;
    let metrics = get(&scanner.operations_client().await, "/metrics").await;
    let metrics = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        "mcs_observed_findings_total{engine=\"clamd\"} 1",
        "mcs_engine_observed{engine=\"clamd\"} 1",
        "mcs_engine_observed{engine=\"script\"} 0",
        "mcs_rules_observed 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let scans = clamd.scans();
    reload_succeeds(&scanner, "clamd.on_not_clean = \"refuse\"").await;
    assert_outcome(&scanner.client.get(&path).await, "Eicar", "refuse");
    reload_succeeds(&scanner, "clamd.on_not_clean = \"observe\"").await;
    scanner.client.get(&path).await.assert_clean();
    assert_eq!(clamd.scans(), scans, "the finding is cached");
}

#[tokio::test]
async fn file_above_max_size_is_decided_by_on_oversize_without_a_scan() {
    let (clamd, homeserver) = (FakeClamd::start().await, MockHomeserver::start().await);
    let engines = "[\"clamd\", \"script\"]";
    let scanner = start(&clamd, &homeserver, engines, "clamd.max_size = 8").await;
    scanner.dir.write_script("script.sh", "echo run >> \"$MARKS/runs\"");
    let path = format!("/scan/{}", homeserver.add_bytes("large", b"stream: OK".to_vec()));
    for (setting, expected) in [
        ("clamd.on_oversize = \"fail\"", TOO_LARGE),
        ("clamd.on_oversize = \"refuse\"", "too large for the engine clamd"),
        // The script has finished.
        ("clamd.on_oversize = \"skip\"", "clean"),
        ("clamd.on_oversize = \"fail\"", TOO_LARGE),
    ] {
        reload_succeeds(&scanner, setting).await;
        assert_outcome(&scanner.client.get(&path).await, expected, setting);
    }
    assert_eq!((clamd.scans(), scanner.dir.mark_count("runs")), (0, 1));
    // The size bound determines what is examined.
    reload_succeeds(&scanner, "clamd.max_size = 100").await;
    assert_outcome(&scanner.client.get(&path).await, "clean", "larger max_size");
    assert_eq!((clamd.scans(), scanner.dir.mark_count("runs")), (1, 2));
}

#[tokio::test]
async fn final_outcomes_outlive_failures_in_the_cache() {
    let (clamd, homeserver) = (FakeClamd::start().await, MockHomeserver::start().await);
    let scanner = start(&clamd, &homeserver, "[\"clamd\"]", "").await;
    reload_succeeds(&scanner, "result_cache.failure_ttl = \"0s\"").await;
    for (index, (answer, cases)) in TABLE.into_iter().enumerate() {
        let media = homeserver.add_bytes(&format!("m{index}"), answer.as_bytes().to_vec());
        let before = clamd.scans();
        for _ in 0..3 {
            let response = scanner.client.get(&format!("/scan/{media}")).await;
            assert_outcome(&response, cases[0].1, answer);
        }
        let expected = if cases[0].1 == FAILED { 3 } else { 1 };
        assert_eq!(clamd.scans() - before, expected, "{answer}");
    }
}

#[tokio::test]
async fn rules_report_their_kind_and_their_limit() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("").homeserver(&homeserver).config(
        "scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]\naudit.path = \"audit.log\"",
    );
    let rules = r#"
        rule Bad { strings: $a = "bad" condition: $a }
        rule Unwanted { meta: kind = "policy" strings: $a = "unwanted" condition: $a }
        rule Once { strings: $a = "ab" condition: #a == 1 }
    "#;
    fs::write(builder.dir().path("some.yar"), rules).unwrap();
    let scanner = builder.start().await;
    let scan = async |id: &str, bytes: &[u8]| {
        let media = homeserver.add_bytes(id, bytes.to_vec());
        scanner.client.get(&format!("/scan/{media}")).await
    };
    assert_outcome(&scan("bad", b"bad").await, "Bad", "malware");
    assert_outcome(&scan("unwanted", b"unwanted").await, "Unwanted", "policy");
    let repeated = b"ab".repeat(260_000);
    assert_outcome(&scan("limit", &repeated).await, TOO_LARGE, "limit");
    reload_succeeds(&scanner, "scan.on_limit = \"pass\"").await;
    assert_outcome(&scan("limit", &repeated).await, "clean", "limit");
    let log = fs::read_to_string(scanner.dir.path("audit.log")).unwrap();
    let outcomes: Vec<_> = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["outcome"].clone())
        .collect();
    assert_eq!(outcomes[..2], ["infected", "refused"]);
}

#[test]
fn unknown_kind_of_a_rule_is_a_configuration_error() {
    let builder =
        ScannerBuilder::new("").config("scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]");
    let rule = "rule Some { meta: kind = \"virus\" condition: true }";
    fs::write(builder.dir().path("some.yar"), rule).unwrap();
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("rule Some: found kind"), "{stderr}");
}
