//! Files that operators allow or block.

use std::fs;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::reload::{reload_fails, reload_succeeds};

async fn check_undecided(fixture: &AdminFixture, scanner: &ScannerProcess) {
    scanner.client.get(&format!("/scan/{}", fixture.clean)).await.assert_clean();
    let response = scanner.client.get(&format!("/scan/{}", fixture.infected)).await;
    assert_eq!(response.json()["clean"], false, "{}", scanner.log());
}

#[tokio::test]
async fn decisions_apply_at_once_and_survive_a_restart() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let (clean, infected) = (sha256(&png()), sha256(INFECTED));
    check_undecided(&fixture, &scanner).await;
    let why = ["--comment", "false positive"];
    let allow = store_succeeds(&scanner.dir, &["allow", &infected, why[0], why[1]]).await;
    assert!(allow.contains("allow until 2"), "{allow}");
    store_succeeds(&scanner.dir, &["block", &clean, why[0], "campaign", "--for", "2d"]).await;
    let path = |media: &str| format!("/scan/{media}");
    let blocked = "File not clean. Output: 'Blocked by the operator'";
    let expect_decided = async |scanner: &ScannerProcess| {
        scanner.client.get(&path(&fixture.infected)).await.assert_clean();
        scanner.client.get(&path(&fixture.clean)).await.assert_not_clean(blocked);
    };
    expect_decided(&scanner).await;
    let shown = store_succeeds(&scanner.dir, &["show", &infected]).await;
    assert!(shown.contains("allowed by a decision"), "{shown}");
    let scanner = listening(restart(scanner.stop().await).await).await;
    expect_decided(&scanner).await;
    let listed = store_succeeds(&scanner.dir, &["decisions"]).await;
    assert!(listed.contains("campaign") && listed.contains("false positive"), "{listed}");
    for content in [&clean, &infected] {
        store_succeeds(&scanner.dir, &["withdraw", content, "--comment", "done"]).await;
    }
    check_undecided(&fixture, &scanner).await;
    let (code, _, errors) = store(&scanner.dir, &["withdraw", &clean, "--comment", "again"]).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("there is no decision about this file"), "{errors}");
    let changes = audit_lines(&scanner.dir);
    let made = changes.iter().find(|line| line["change"] == "block" && line["state"] == "done");
    let made = made.unwrap();
    assert_eq!((&made["before"], &made["after"]), (&json!("none"), &json!("block")));
    assert_eq!(made["comment"], "campaign");
}

#[tokio::test]
async fn decision_ends_at_its_time() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let arguments = ["allow", &sha256(INFECTED), "--comment", "short", "--for", "2s"];
    store_succeeds(&scanner.dir, &arguments).await;
    let path = format!("/scan/{}", fixture.infected);
    scanner.client.get(&path).await.assert_clean();
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    let response = scanner.client.get(&path).await;
    assert_eq!(response.json()["clean"], false, "{}", scanner.log());
    let listed = store_succeeds(&scanner.dir, &["decisions"]).await;
    assert!(listed.contains("no file is allowed or blocked"), "{listed}");
}

#[tokio::test]
async fn decisions_need_a_place() {
    let (_fixture, scanner) = AdminFixture::start(builder(SCRIPT, "")).await;
    let scanner = listening(scanner).await;
    let arguments = ["block", &sha256(INFECTED), "--comment", "why"];
    let (code, _, errors) = store(&scanner.dir, &arguments).await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("decisions are not kept: set store.path"), "{errors}");
}

/// The key also protects the store. A restart after the reload has the new key only.
#[tokio::test]
async fn decisions_and_verdicts_survive_a_new_request_key() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    check_undecided(&fixture, &scanner).await;
    let runs = scanner.dir.mark_count("runs");
    let blocked = sha256(b"blocked");
    store_succeeds(&scanner.dir, &["block", &blocked, "--comment", "campaign"]).await;
    fs::write(scanner.dir.path("request_secret"), STANDARD.encode([7; 32])).unwrap();
    reload_succeeds(&scanner, "").await;
    check_undecided(&fixture, &scanner).await;
    let listed = store_succeeds(&scanner.dir, &["list"]).await;
    assert_eq!(listed.matches("mxc://").count(), 2, "{listed}");
    let scanner = listening(restart(scanner.stop().await).await).await;
    check_undecided(&fixture, &scanner).await;
    assert_eq!(scanner.dir.mark_count("runs"), runs, "{}", scanner.log());
    let decisions = store_succeeds(&scanner.dir, &["decisions"]).await;
    assert!(decisions.contains(&blocked), "{decisions}");
}

/// A directory is in the place of the file.
#[tokio::test]
async fn reload_is_rejected_if_the_decisions_cannot_be_protected() {
    let (_fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let blocked = sha256(b"blocked");
    store_succeeds(&scanner.dir, &["block", &blocked, "--comment", "campaign"]).await;
    let key = scanner.client.public_key().await;
    let file = scanner.dir.path("state/store.db.decisions");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(scanner.dir.path("request_secret"), STANDARD.encode([7; 32])).unwrap();
    let log = reload_fails(&scanner, "").await;
    assert!(log.contains("cannot be protected with the new request key"), "{log}");
    assert_eq!(scanner.client.public_key().await, key);
    fs::remove_dir(&file).unwrap();
    reload_succeeds(&scanner, "").await;
    assert_ne!(scanner.client.public_key().await, key);
}

/// The service runs without the decisions, says so, and keeps the file.
#[tokio::test]
async fn altered_decisions_are_set_aside() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let arguments = ["allow", &sha256(INFECTED), "--comment", "why"];
    store_succeeds(&scanner.dir, &arguments).await;
    let dir = scanner.stop().await;
    let file = dir.path("state/store.db.decisions");
    let mut content = fs::read(&file).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(&file, content).unwrap();
    let scanner = restart(dir).await;
    assert!(scanner.log().contains("decisions of operators are not in force"), "{}", scanner.log());
    assert!(!file.exists());
    check_undecided(&fixture, &scanner).await;
}

#[tokio::test]
async fn invalid_decisions_are_rejected() {
    let (_fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let content = sha256(INFECTED);
    for (arguments, message) in [
        (&["allow", "abc", "--comment", "why"][..], "SHA-256"),
        (&["allow", &content][..], "--comment"),
        (&["allow", &content, "--comment", ""][..], "expected 1 to 200 bytes"),
        (&["allow", &content, "--comment", &"x".repeat(201)][..], "expected 1 to 200 bytes"),
        (
            &["allow", &content, "--comment", "why", "--for", "367d"][..],
            "expected a time of 1s to 366d",
        ),
        (
            &["block", &content, "--comment", "why", "--for", "0s"][..],
            "expected a time of 1s to 366d",
        ),
        (&["block", "mxc://a.example/b", "--comment", "why"][..], "expected a SHA-256"),
    ] {
        let (code, _, errors) = store(&scanner.dir, arguments).await;
        assert_eq!(code, Some(2), "{arguments:?} {errors}");
        assert!(errors.contains(message), "{arguments:?} {errors}");
    }
    let listed = store_succeeds(&scanner.dir, &["decisions"]).await;
    assert!(listed.contains("no file is allowed or blocked"), "{listed}");
}

/// The operator blocks a file while it is scanned.
#[tokio::test]
async fn block_applies_to_a_scan_in_progress() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    let scanner = listening(scanner).await;
    let wait = scanner.dir.path("marks/wait");
    fs::write(&wait, "").unwrap();
    let (client, path) = (scanner.client.clone(), format!("/scan/{}", fixture.clean));
    let response = tokio::spawn(async move { client.get(&path).await });
    wait_until("the scan runs", || scanner.dir.mark_count("runs") == 1).await;
    store_succeeds(&scanner.dir, &["block", &sha256(&png()), "--comment", "campaign"]).await;
    fs::remove_file(wait).unwrap();
    let blocked = "File not clean. Output: 'Blocked by the operator'";
    response.await.unwrap().assert_not_clean(blocked);
}
