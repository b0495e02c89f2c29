//! The latest verdicts, and media that is scanned again.

use super::*;
use crate::harness::homeserver;
use std::time::{Duration, Instant};

async fn recent(scanner: &ScannerProcess, arguments: &[&str]) -> Vec<Value> {
    let arguments = [&["recent", "--json"], arguments].concat();
    let reply = store_succeeds(&scanner.dir, &arguments).await;
    let reply: Value = serde_json::from_str(&reply).unwrap();
    reply["scans"].as_array().unwrap().clone()
}

#[tokio::test]
async fn latest_verdicts_are_listed() {
    let (fixture, scanner) = AdminFixture::start(with_store("")).await;
    assert!(store_succeeds(&scanner.dir, &["recent"]).await.contains("no verdicts since"));
    fixture.request_all(&scanner).await;
    let scans = recent(&scanner, &[]).await;
    let field = |name: &str| scans.iter().map(|scan| scan[name].clone()).collect::<Vec<_>>();
    // The thumbnail has the content of the original, whose verdict is known.
    assert_eq!(field("outcome"), ["infected", "infected", "infected", "clean"]);
    assert_eq!(field("source"), ["scan", "verdict", "scan", "scan"]);
    assert_eq!(field("encrypted"), [true, false, false, false]);
    assert_eq!(field("thumbnail"), [false, true, false, false]);
    assert_eq!(scans[0]["content"], sha256(ENCRYPTED));
    assert_eq!(
        (&scans[0]["engine"], &scans[0]["finding"]),
        (&json!("script"), &json!("Found [31m"))
    );
    assert_eq!(scans[0]["mxc"], format!("mxc://{}", fixture.encrypted));
    // The first request had a token that the homeserver had not accepted yet.
    let tenants = field("tenant");
    assert!(tenants.iter().all(|tenant| tenant.as_str().unwrap().len() == 8), "{tenants:?}");
    assert!(tenants[..3].iter().all(|tenant| *tenant == tenants[0]), "{tenants:?}");
    assert_ne!(tenants[3], tenants[0]);
    // Answers from memory are listed if they refuse.
    fixture.request_all(&scanner).await;
    let scans = recent(&scanner, &["--not-clean"]).await;
    assert_eq!(scans.len(), 6);
    assert!(scans[..3].iter().all(|scan| scan["source"] == "memory"), "{scans:?}");
    assert_eq!(recent(&scanner, &["--limit", "1"]).await.len(), 1);
    let table = store_succeeds(&scanner.dir, &["recent"]).await;
    assert_eq!(table.lines().count(), 8, "{table}");
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[tokio::test]
async fn media_is_scanned_again_at_once() {
    let requesters = "audit.client_address = true\naudit.user = \"full\"";
    let (fixture, scanner) = AdminFixture::start(with_store(requesters)).await;
    let (dir, end) = (&scanner.dir, Instant::now() + Duration::from_secs(30));
    assert_eq!(fixture.request_all(&scanner).await, 3);
    let token = dir.path("access-token");
    fs::write(&token, format!("{}\n", homeserver::TOKEN)).unwrap();
    let token = ["--access-token-path", token.to_str().unwrap()];
    let mxc = format!("mxc://{}", fixture.infected);
    let rescan = async |words: &[&str]| store(dir, &[&["rescan"], words].concat()).await;
    let (code, stdout, stderr) = rescan(&[&mxc, token[0], token[1]]).await;
    assert_eq!(code, Some(1), "{stdout}{stderr}");
    assert!(
        stdout.contains("not clean, infected, Found") && stdout.contains("before: not clean"),
        "{stdout}"
    );
    assert_eq!(dir.mark_count("runs"), 4);
    // The signature is corrected.
    fs::write(dir.path("marks/corrected"), "").unwrap();
    let content = sha256(INFECTED);
    // Records are written shortly after the response.
    while !store(dir, &["show", &content]).await.1.contains(&mxc) {
        assert!(Instant::now() < end, "the media is not in the store");
    }
    let (code, stdout, stderr) =
        rescan(&[&content, token[0], token[1], "--comment", "corrected"]).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    scanner.client.get(&format!("/scan/{}", fixture.infected)).await.assert_clean();
    assert_eq!(dir.mark_count("runs"), 5, "answered by the verdict of the command");
    let lines = audit_lines(dir);
    let last = lines.last().unwrap();
    assert_eq!((&last["change"], &last["comment"]), (&json!("rescan"), &json!("corrected")));
    assert_eq!((&last["before"], &last["after"]), (&json!("not_clean"), &json!("clean")));
    assert_eq!((&last["content"], &last["access"]), (&json!(content), &json!("token")));
    // The operator's access token is used for the download only: these scans have no requester.
    let audit = fs::read_to_string(dir.path("audit.jsonl")).unwrap();
    let scans = audit.lines().filter(|line| line.contains("\"source\":\"scan\""));
    let (by_clients, by_operators): (Vec<_>, Vec<_>) =
        scans.partition(|line| line.contains("\"client_address\":\"127.0.0.1\""));
    assert_eq!(by_operators.len(), 2, "{audit}");
    assert!(by_operators.iter().all(|line| !line.contains("\"user\"")), "{audit}");
    assert!(by_clients.iter().all(|line| line.contains("\"user\"")), "{audit}");
    // Without a token, the homeserver refuses. The verdict is forgotten.
    let (code, stdout, _) = rescan(&[&mxc]).await;
    assert!(code == Some(1) && stdout.contains("failed"), "{stdout}");
    assert_eq!(store(dir, &["show", &mxc]).await.0, Some(1));
    // The key of encrypted media is not known.
    let (code, _, stderr) = rescan(&[&format!("mxc://{}", fixture.encrypted)]).await;
    assert!(
        code == Some(2) && stderr.contains("only requests of clients contain its key"),
        "{stderr}"
    );
    let (code, _, stderr) = rescan(&[&sha256(ENCRYPTED)]).await;
    assert!(code == Some(2) && stderr.contains("no unencrypted media"), "{stderr}");
    let (code, _, stderr) = rescan(&[&mxc, "--access-token-path", "/nowhere"]).await;
    assert!(code != Some(0) && stderr.contains("/nowhere"), "{stderr}");
    let log = scanner.log();
    assert!(!log.contains(homeserver::TOKEN) && !log.contains(TOKEN), "tokens are not logged");
    assert!(!fs::read_to_string(dir.path("audit.jsonl")).unwrap().contains(homeserver::TOKEN));
}
