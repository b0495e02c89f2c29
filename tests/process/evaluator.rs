//! The resident evaluator of the rules engine: its end, and its replacement by a reload.

use std::{fs, path::PathBuf, time::Duration};

use nix::sys::signal::{Signal, kill};

use crate::harness::{
    MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse, png, scanner::children,
    wait_until,
};

/// Takes seconds for 64 MiB of zeros.
const SLOW: &str = "rule Slow { condition: for all i in (0..filesize - 1) : (uint8(i) == 0) }";

async fn start(homeserver: &MockHomeserver, rules: &str) -> (ScannerProcess, PathBuf) {
    let lines = "scan.engines = [\"rules\"]\nrules.paths = [\"some.yar\"]\nscan.canary = \"off\"\n\
                 download.max_size = \"256MiB\"";
    let builder = ScannerBuilder::new("exit 0").config(lines).homeserver(homeserver);
    let path = builder.dir().path("some.yar");
    fs::write(&path, rules).unwrap();
    (builder.start().await, path)
}

#[tokio::test]
async fn one_evaluator_serves_all_files() {
    let homeserver = MockHomeserver::start().await;
    let (scanner, _) = start(&homeserver, "rule None { condition: false }").await;
    let mut seen = Vec::new();
    for number in 0..5_u8 {
        let media = homeserver.add_bytes(&format!("media{number}"), vec![number; 1000]);
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
        seen.extend(scanner.evaluators());
    }
    assert_eq!(seen.len(), 5);
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert!(children(seen[0]).is_empty(), "children end with their file");
}

/// Kills the evaluator `times` times while it evaluates a file. Returns the response for that file.
async fn kill_while_evaluating(scanner: &ScannerProcess, media: &str, times: u32) -> TestResponse {
    let path = format!("/scan/{media}");
    let (response, ()) = tokio::join!(scanner.client.get(&path), async {
        for _ in 0..times {
            let evaluating = || {
                scanner.evaluators().into_iter().find(|evaluator| children(*evaluator).len() == 1)
            };
            wait_until("the file is evaluated", || evaluating().is_some()).await;
            let evaluator = evaluating().unwrap();
            kill(evaluator, Signal::SIGKILL).unwrap();
            wait_until("the evaluator has ended", || !scanner.evaluators().contains(&evaluator))
                .await;
        }
    });
    response
}

#[tokio::test]
async fn file_is_evaluated_again_if_the_evaluator_ends() {
    let homeserver = MockHomeserver::start().await;
    let (scanner, _) = start(&homeserver, SLOW).await;
    let slow = homeserver.add_bytes("slow", vec![0; 16 << 20]);
    let response = kill_while_evaluating(&scanner, &slow, 1).await;
    response.assert_not_clean("File not clean. Output: 'Slow'");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn evaluators_that_end_fail_a_file_and_are_replaced() {
    let homeserver = MockHomeserver::start().await;
    let (scanner, _) = start(&homeserver, SLOW).await;
    let good = homeserver.add_bytes("good", png());
    scanner.client.get(&format!("/scan/{good}")).await.assert_clean();
    let slow = homeserver.add_bytes("slow", vec![0; 64 << 20]);
    let failed = kill_while_evaluating(&scanner, &slow, 2).await;
    assert_eq!(failed.status, 500, "{:?}", failed.body);
    let next = homeserver.add_bytes("next", vec![1; 1000]);
    scanner.client.get(&format!("/scan/{next}")).await.assert_clean();
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn request_that_ends_early_does_not_end_the_evaluator() {
    let homeserver = MockHomeserver::start().await;
    let (scanner, _) = start(&homeserver, SLOW).await;
    let slow = homeserver.add_bytes("slow", vec![0; 64 << 20]);
    let path = format!("/scan/{slow}");
    let request = scanner.client.get(&path);
    assert!(tokio::time::timeout(Duration::from_millis(500), request).await.is_err());
    let next = homeserver.add_bytes("next", vec![1; 1000]);
    scanner.client.get(&format!("/scan/{next}")).await.assert_clean();
    assert_eq!(scanner.evaluators().len(), 1);
}

#[tokio::test]
async fn reload_replaces_the_evaluator() {
    let homeserver = MockHomeserver::start().await;
    let (scanner, rules) = start(&homeserver, "rule Some { condition: false }").await;
    let media = homeserver.add_bytes("some", b"some media".to_vec());
    let path = format!("/scan/{media}");
    scanner.client.get(&path).await.assert_clean();
    let first = scanner.evaluators();
    fs::write(&rules, "rule Some { strings: $a = \"some\" condition: $a }").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 1).await;
    scanner.client.get(&path).await.assert_not_clean("File not clean. Output: 'Some'");
    wait_until("the first evaluator has ended", || {
        let all = scanner.evaluators();
        all.len() == 1 && all != first
    })
    .await;
    assert!(!scanner.log().contains("did not end by itself"), "{}", scanner.log());
}
