//! The audit: a line for each media that was judged, and a service that goes on where it cannot be
//! written.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    harness::{Attachment, Builder, Homeserver, Scanner, homeserver::TOKEN, png, until},
    operations::scraped,
};

/// Prints two lines about every file; knows a bad one.
const SCRIPT: &str = r#"
    printf 'looked at %s\nand more\n' "$1"
    if grep -q DIRTY "$1"; then exit 3; fi
"#;

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

async fn all_lines(path: &Path, number: usize) -> Vec<Value> {
    until("the lines", || fs::read_to_string(path).unwrap_or_default().lines().count() >= number)
        .await;
    lines(path)
}

fn sha256(bytes: &[u8]) -> String {
    let digest: Vec<_> = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.concat()
}

async fn start(homeserver: &Homeserver, path: &str) -> Scanner {
    let builder = Builder::new(SCRIPT).homeserver(homeserver);
    builder.config(&format!("audit.path = \"{path}\"")).start().await
}

#[tokio::test]
async fn each_media_that_is_judged_has_its_line() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(SCRIPT).homeserver(&homeserver);
    let config = "audit.path = \"audit.jsonl\"\nscan.blocked_mimetypes = [\"application/pdf\"]";
    let scanner = builder.config(config).start().await;
    let path = scanner.place.path("audit.jsonl");
    let client = &scanner.client;
    let begun = std::time::SystemTime::now();

    let clean = homeserver.has_bytes("clean", png());
    client.get(&format!("/download/{clean}/name-of-a-file.png")).await.is_media(&png());
    // From memory: not judged anew.
    client.get(&format!("/scan/{clean}")).await.is_clean();
    let attachment = Attachment::encrypt(b"DIRTY", 7);
    let dirty = homeserver.has_bytes("dirty", attachment.ciphertext.clone());
    let body = attachment.body(&format!("mxc://{dirty}"));
    client.post("/download_encrypted", &body).await.is_error(403, "MCS_MEDIA_NOT_CLEAN");
    let copy = homeserver.has_bytes("copy", png());
    client.get(&format!("/thumbnail/{copy}?width=9")).await.is_media(&png());
    let pdf = homeserver.has_bytes("pdf", "%PDF-1.4\n%\u{e2}\u{e3}\n");
    client.get(&format!("/scan/{pdf}")).await.is_error(403, "MCS_MIME_TYPE_FORBIDDEN");
    // No verdict, no line.
    client.get("/scan/hs.example/missing").await.is_error(404, "M_NOT_FOUND");

    let mut found = all_lines(&path, 4).await;
    for line in &mut found {
        let line = line.as_object_mut().unwrap();
        let time = line.remove("time").unwrap();
        let time = humantime::parse_rfc3339(time.as_str().unwrap()).expect("RFC 3339");
        assert!(time >= begun - std::time::Duration::from_secs(1), "{time:?}");
        let ran = line["exit_code"].is_number();
        assert_eq!(line.remove("duration_ms").unwrap().is_u64(), ran);
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
    let of_picture = |mxc: &str, more: Value| {
        let mut line = line(mxc, picture.clone());
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let pdf_bytes = "%PDF-1.4\n%\u{e2}\u{e3}\n".as_bytes();
    assert_eq!(
        found,
        [
            of_picture(
                &clean,
                json!({ "verdict": "clean", "exit_code": 0, "output": "looked at media" }),
            ),
            line(
                &dirty,
                json!({
                    "encrypted": true, "sha256": sha256(b"DIRTY"), "size": 5, "type": "text/plain",
                    "verdict": "not_clean", "exit_code": 3, "output": "looked at media",
                }),
            ),
            // Its content was known: the script did not run for it.
            of_picture(
                &copy,
                json!({ "thumbnail": true, "verdict": "clean", "exit_code": null, "output": null }),
            ),
            line(
                &pdf,
                json!({
                    "sha256": sha256(pdf_bytes), "size": pdf_bytes.len(), "type": "application/pdf",
                    "verdict": "type_forbidden", "exit_code": null, "output": null,
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
async fn standard_output_will_do() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let builder = Builder::new(SCRIPT).homeserver(&homeserver).config("audit.path = \"-\"");
    let path = builder.place().path("stdout");
    let to_file = format!("exec \"$@\" > {}", path.display());
    let mut scanner = builder.inside(&["sh", "-c", &to_file, "sh"]).start().await;
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    scanner.signal(Signal::SIGTERM);
    // What was judged is written before the end.
    assert_eq!(scanner.ended().await.code(), Some(0));
    let lines = lines(&path);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["mxc"], format!("mxc://{media}"));
}

#[tokio::test]
async fn a_restart_appends() {
    let homeserver = Homeserver::start().await;
    let media = homeserver.has_bytes("abc", png());
    let scanner = start(&homeserver, "audit.jsonl").await;
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    all_lines(&scanner.place.path("audit.jsonl"), 1).await;
    let scanner = crate::harness::scanner::start_again(scanner.kill()).await;
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    let lines = all_lines(&scanner.place.path("audit.jsonl"), 2).await;
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_written_anew_from_a_reload_on() {
    let homeserver = Homeserver::start().await;
    let scanner = start(&homeserver, "audit.jsonl").await;
    let (path, moved) = (scanner.place.path("audit.jsonl"), scanner.place.path("audit.jsonl.1"));
    let (first, second) = (homeserver.has_bytes("abc", png()), homeserver.has_bytes("def", "text"));
    scanner.client.get(&format!("/scan/{first}")).await.is_clean();
    all_lines(&path, 1).await;
    fs::rename(&path, &moved).unwrap();
    // Even where the configuration is refused: whoever moved the file asks for that alone.
    fs::write(scanner.place.path("config.toml"), "no TOML").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.logged("the audit's file is open anew", 1).await;
    scanner.logged("the reload is refused", 1).await;
    scanner.client.get(&format!("/scan/{second}")).await.is_clean();
    let lines_of = async |path| {
        let lines = all_lines(path, 1).await;
        lines.iter().map(|line| line["mxc"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lines_of(&path).await, [format!("mxc://{second}")]);
    assert_eq!(lines_of(&moved).await, [format!("mxc://{first}")]);
}

#[tokio::test]
async fn a_file_that_cannot_be_had_anew_is_written_on_and_the_cause_is_told() {
    let homeserver = Homeserver::start().await;
    let scanner = start(&homeserver, "audit.jsonl").await;
    let (path, moved) = (scanner.place.path("audit.jsonl"), scanner.place.path("audit.jsonl.1"));
    fs::rename(&path, &moved).unwrap();
    fs::create_dir(&path).unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.logged("the audit goes on in the file as it was", 1).await;
    assert!(scanner.log().contains("Is a directory"), "{}", scanner.log());
    let media = homeserver.has_bytes("abc", png());
    scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    assert_eq!(all_lines(&moved, 1).await[0]["mxc"], format!("mxc://{media}"));
}

#[tokio::test]
async fn a_full_disk_stops_nobody_and_is_told_once() {
    let homeserver = Homeserver::start().await;
    let scanner = start(&homeserver, "/dev/full").await;
    for id in ["one", "two", "three"] {
        let media = homeserver.has_bytes(id, id);
        scanner.client.get(&format!("/scan/{media}")).await.is_clean();
    }
    let operations = scanner.operations().await;
    let metrics = scraped(&operations, "mcs_audit_lines_total{result=\"lost\"} 3").await;
    assert!(metrics.contains("mcs_audit_lines_total{result=\"written\"} 0\n"), "{metrics}");
    scanner.logged("audit lines are lost", 1).await;
    assert_eq!(scanner.log().matches("audit lines are lost").count(), 1, "{}", scanner.log());
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_an_error_at_the_start() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new(SCRIPT).homeserver(&homeserver).config("audit.path = \"fifo\"");
    builder.place().make_fifo("../fifo");
    let (code, said) = builder.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("audit.path cannot be used") && said.contains("fifo"), "{said}");
}
