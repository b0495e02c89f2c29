//! Tests of the audit log: one line per scanned file; a failed write does not stop the service.

mod requesters;

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    harness::{
        Attachment, MockHomeserver, ScannerBuilder, ScannerProcess, homeserver::TOKEN, png,
        wait_until,
    },
    operations::scrape_until,
};

/// Prints two lines about every file; finds `DIRTY`.
const SCRIPT: &str = r#"
    printf 'looked at %s\nand more\n' "$1"
    if grep -q DIRTY "$1"; then exit 3; fi
"#;

fn read_lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

pub(crate) async fn wait_for_lines(path: &Path, number: usize) -> Vec<Value> {
    wait_until("audit lines", || {
        fs::read_to_string(path).unwrap_or_default().lines().count() >= number
    })
    .await;
    read_lines(path)
}

fn sha256(bytes: &[u8]) -> String {
    let digest: Vec<_> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.concat()
}

async fn start(homeserver: &MockHomeserver, path: &str) -> ScannerProcess {
    let builder = ScannerBuilder::new(SCRIPT).homeserver(homeserver);
    builder.config(&format!("audit.path = \"{path}\"")).start().await
}

#[tokio::test]
async fn writes_one_audit_line_per_scanned_file() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new(SCRIPT).homeserver(&homeserver);
    let config = "audit.path = \"audit.jsonl\"\nscan.blocked_mimetypes = [\"application/pdf\"]";
    let scanner = builder.config(config).start().await;
    let path = scanner.dir.path("audit.jsonl");
    let client = &scanner.client;
    let begun = std::time::SystemTime::now();

    let clean = homeserver.add_bytes("clean", png());
    client.get(&format!("/download/{clean}/name-of-a-file.png")).await.assert_media(&png());
    // Answered from the cache: no new scan.
    client.get(&format!("/scan/{clean}")).await.assert_clean();
    let attachment = Attachment::encrypt(b"DIRTY", 7);
    let dirty = homeserver.add_bytes("dirty", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{dirty}"));
    client.post("/download_encrypted", &body).await.assert_error(403, "MCS_MEDIA_NOT_CLEAN");
    let copy = homeserver.add_bytes("copy", png());
    client.get(&format!("/thumbnail/{copy}?width=9")).await.assert_media(&png());
    let pdf = homeserver.add_bytes("pdf", "%PDF-1.4\n%\u{e2}\u{e3}\n");
    client.get(&format!("/scan/{pdf}")).await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    // No verdict, so no audit line.
    client.get("/scan/hs.example/missing").await.assert_error(404, "M_NOT_FOUND");

    let mut found = wait_for_lines(&path, 4).await;
    for line in &mut found {
        let line = line.as_object_mut().unwrap();
        let time = line.remove("time").unwrap();
        let time = humantime::parse_rfc3339(time.as_str().unwrap()).expect("RFC 3339");
        assert!(time >= begun - std::time::Duration::from_secs(1), "{time:?}");
        let script_ran = line["exit_code"].is_number();
        assert_eq!(line.remove("duration_ms").unwrap().is_u64(), script_ran);
        let engines = line.remove("engines").map(|engines| engines[0].clone());
        assert_eq!(engines.is_some(), script_ran);
        if let Some(engine) = engines {
            let verdict = if line["verdict"] == "clean" { "clean" } else { "infected" };
            assert_eq!((&engine["engine"], &engine["result"]), (&json!("script"), &json!(verdict)));
            assert!(engine["duration_ms"].is_u64(), "{engine}");
        }
    }
    let url = format!("{}/", homeserver.url());
    let line = |mxc: &str, more: Value| {
        let mut line = json!({
            "mxc": format!("mxc://{mxc}"), "homeserver": url, "thumbnail": false, "encrypted": false,
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let picture = json!({ "sha256": sha256(&png()), "size": png().len(), "type": "image/png" });
    let picture_line = |mxc: &str, more: Value| {
        let mut line = line(mxc, picture.clone());
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let pdf_bytes = "%PDF-1.4\n%\u{e2}\u{e3}\n".as_bytes();
    assert_eq!(
        found,
        [
            picture_line(
                &clean,
                json!({
                    "verdict": "clean", "source": "scan", "exit_code": 0, "output": "looked at media",
                }),
            ),
            line(
                &dirty,
                json!({
                    "encrypted": true, "sha256": sha256(b"DIRTY"), "size": 5, "type": "text/plain",
                    "verdict": "not_clean", "outcome": "infected", "source": "scan", "exit_code": 3, "output": "looked at media",
                }),
            ),
            // The verdict on this content is cached: the script did not run.
            picture_line(
                &copy,
                json!({
                    "thumbnail": true, "verdict": "clean", "source": "verdict", "exit_code": null,
                    "output": null,
                }),
            ),
            line(
                &pdf,
                json!({
                    "sha256": sha256(pdf_bytes), "size": pdf_bytes.len(), "type": "application/pdf",
                    "verdict": "type_forbidden", "source": "verdict", "exit_code": null, "output": null,
                }),
            ),
        ]
    );
    let text = fs::read_to_string(&path).unwrap();
    let key = body["file"]["key"]["k"].as_str().unwrap();
    for secret in [TOKEN, key, "name-of-a-file", "script.sh"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o137, 0, "more than 0640");
}

#[tokio::test]
async fn writes_audit_lines_to_standard_output() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let builder = ScannerBuilder::new(SCRIPT).homeserver(&homeserver).config("audit.path = \"-\"");
    let path = builder.dir().path("stdout");
    let to_file = format!("exec \"$@\" > {}", path.display());
    let mut scanner = builder.wrapped_by(&["sh", "-c", &to_file, "sh"]).start().await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    scanner.signal(Signal::SIGTERM);
    // Pending lines are written before the process exits.
    assert_eq!(scanner.wait_for_exit().await.code(), Some(0));
    let lines = read_lines(&path);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["mxc"], format!("mxc://{media}"));
}

#[tokio::test]
async fn restart_appends_to_audit_file() {
    let homeserver = MockHomeserver::start().await;
    let media = homeserver.add_bytes("abc", png());
    let scanner = start(&homeserver, "audit.jsonl").await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    wait_for_lines(&scanner.dir.path("audit.jsonl"), 1).await;
    let scanner = crate::harness::scanner::restart(scanner.kill()).await;
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    let lines = wait_for_lines(&scanner.dir.path("audit.jsonl"), 2).await;
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn reload_reopens_rotated_audit_file() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "audit.jsonl").await;
    let (path, moved) = (scanner.dir.path("audit.jsonl"), scanner.dir.path("audit.jsonl.1"));
    let (first, second) = (homeserver.add_bytes("abc", png()), homeserver.add_bytes("def", "text"));
    scanner.client.get(&format!("/scan/{first}")).await.assert_clean();
    wait_for_lines(&path, 1).await;
    fs::rename(&path, &moved).unwrap();
    // Log rotation only needs the file reopened, so this also happens when the new configuration is rejected.
    fs::write(scanner.dir.path("config.toml"), "no TOML").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("audit file reopened", 1).await;
    scanner.wait_for_log("reload rejected", 1).await;
    scanner.client.get(&format!("/scan/{second}")).await.assert_clean();
    let read_mxcs = async |path| {
        let lines = wait_for_lines(path, 1).await;
        lines.iter().map(|line| line["mxc"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(read_mxcs(&path).await, [format!("mxc://{second}")]);
    assert_eq!(read_mxcs(&moved).await, [format!("mxc://{first}")]);
}

#[tokio::test]
async fn keeps_old_audit_file_when_reopening_fails() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "audit.jsonl").await;
    let (path, moved) = (scanner.dir.path("audit.jsonl"), scanner.dir.path("audit.jsonl.1"));
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("cannot reopen the audit file, writing to the old one", 1).await;
    assert!(scanner.log().contains("Is a directory"), "{}", scanner.log());
    let media = homeserver.add_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    assert_eq!(wait_for_lines(&moved, 1).await[0]["mxc"], format!("mxc://{media}"));
}

#[tokio::test]
async fn full_disk_does_not_stop_scans_and_is_logged_once() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "/dev/full").await;
    for id in ["one", "two", "three"] {
        let media = homeserver.add_bytes(id, id);
        scanner.client.get(&format!("/scan/{media}")).await.assert_clean();
    }
    let operations = scanner.operations_client().await;
    let metrics = scrape_until(&operations, "mcs_audit_lines_total{result=\"lost\"} 3").await;
    assert!(metrics.contains("mcs_audit_lines_total{result=\"written\"} 0\n"), "{metrics}");
    scanner.wait_for_log("audit lines are lost", 1).await;
    assert_eq!(scanner.log().matches("audit lines are lost").count(), 1, "{}", scanner.log());
}

#[tokio::test]
async fn start_fails_when_audit_file_cannot_be_opened() {
    let homeserver = MockHomeserver::start().await;
    let builder =
        ScannerBuilder::new(SCRIPT).homeserver(&homeserver).config("audit.path = \"fifo\"");
    builder.dir().make_fifo("../fifo");
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("audit.path cannot be used") && stderr.contains("fifo"), "{stderr}");
}
