//! The lists of hashes: entries for media files and for what is in them, their precedence, and reloads.

use std::{fmt::Write as _, fs, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use crate::{
    harness::{MockHomeserver, ScannerBuilder, ScannerProcess, TestResponse},
    reload::reload_succeeds,
};

const CONTENT: &[u8] = b"some content";

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn packed(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Starts a service with a script that finds everything, or nothing, and these lists.
async fn start(
    homeserver: &MockHomeserver,
    script: &str,
    [block, allow]: [&str; 2],
    lines: &str,
) -> ScannerProcess {
    let builder = ScannerBuilder::new(&format!("echo run >> \"$MARKS/runs\"; {script}"))
        .config(&format!(
            "scan.engines = [\"hashes\", \"script\"]\nscan.canary = \"off\"\n\
             hashes.block = [\"block.txt\"]\nhashes.allow = [\"allow.txt\"]\n{lines}"
        ))
        .homeserver(homeserver);
    fs::write(builder.dir().path("block.txt"), block).unwrap();
    fs::write(builder.dir().path("allow.txt"), allow).unwrap();
    builder.start().await
}

async fn scan(scanner: &ScannerProcess, media: &str) -> TestResponse {
    scanner.client.get(&format!("/scan/{media}")).await
}

/// Asserts that the script refused a file.
fn refused(response: &TestResponse) {
    response.assert_not_clean("File not clean. Output: 'refused'");
}

#[tokio::test]
async fn blocked_and_allowed_files_are_not_scanned() {
    let homeserver = MockHomeserver::start().await;
    let lists = [&*format!("{} A name\n", sha256(b"bad")), &*sha256(CONTENT)];
    let scanner = start(&homeserver, "echo refused; exit 1", lists, "").await;
    let bad = homeserver.add_bytes("bad", b"bad".to_vec());
    let good = homeserver.add_bytes("good", CONTENT.to_vec());
    let other = homeserver.add_bytes("other", b"other".to_vec());
    for _ in 0..2 {
        scan(&scanner, &bad).await.assert_not_clean("File not clean. Output: 'A name'");
        scan(&scanner, &good).await.assert_clean();
    }
    scanner.client.get(&format!("/download/{good}")).await.assert_media(CONTENT);
    assert_eq!(scanner.dir.mark_count("runs"), 0);
    refused(&scan(&scanner, &other).await);
    assert_eq!(scanner.dir.mark_count("runs"), 1);
}

#[tokio::test]
async fn files_inside_media_are_looked_up() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "exit 0", [&sha256(CONTENT), ""], "").await;
    let media = homeserver.add_bytes("packed", packed(&packed(CONTENT)));
    scan(&scanner, &media).await.assert_not_clean("File not clean. Output: 'block.txt'");
    let clean = homeserver.add_bytes("clean", packed(b"other"));
    scan(&scanner, &clean).await.assert_clean();
}

#[tokio::test]
async fn reload_of_a_list_applies_to_cached_results() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "echo refused; exit 1", ["", ""], "").await;
    let media = homeserver.add_bytes("media", CONTENT.to_vec());
    refused(&scan(&scanner, &media).await);
    let allow = scanner.dir.path("allow.txt");
    fs::write(&allow, format!("{}\n", sha256(CONTENT))).unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 1).await;
    scan(&scanner, &media).await.assert_clean();
    // A block entry has precedence.
    fs::write(scanner.dir.path("block.txt"), format!("{}\n", sha256(CONTENT))).unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 2).await;
    scan(&scanner, &media).await.assert_not_clean("File not clean. Output: 'block.txt'");
    // Removing the entries reverts them.
    fs::write(scanner.dir.path("block.txt"), "").unwrap();
    fs::write(&allow, "").unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 3).await;
    let runs = scanner.dir.mark_count("runs");
    refused(&scan(&scanner, &media).await);
    assert_eq!(scanner.dir.mark_count("runs"), runs, "the result of the same lists is cached");
}

#[tokio::test]
async fn entry_for_an_inner_file_makes_cached_results_invalid() {
    let homeserver = MockHomeserver::start().await;
    let scanner = start(&homeserver, "exit 0", ["", ""], "").await;
    let media = homeserver.add_bytes("packed", packed(CONTENT));
    scan(&scanner, &media).await.assert_clean();
    fs::write(scanner.dir.path("block.txt"), format!("{} Inner\n", sha256(CONTENT))).unwrap();
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("\"reloaded", 1).await;
    scan(&scanner, &media).await.assert_not_clean("File not clean. Output: 'Inner'");
}

#[tokio::test]
async fn lists_of_types_apply_to_allowed_files() {
    let homeserver = MockHomeserver::start().await;
    let list = "scan.blocked_mimetypes = [\"text/plain\"]";
    let allowed = format!("{}\n{}\n", sha256(CONTENT), sha256(b"\x89PNG\r\n\x1a\n"));
    let scanner = start(&homeserver, "echo refused; exit 1", ["", &allowed], list).await;
    let text = homeserver.add_bytes("text", CONTENT.to_vec());
    let other = homeserver.add_bytes("other", b"\x89PNG\r\n\x1a\n".to_vec());
    for _ in 0..2 {
        scan(&scanner, &text).await.assert_error(403, "MCS_MIME_TYPE_FORBIDDEN");
        scan(&scanner, &other).await.assert_clean();
    }
    reload_succeeds(&scanner, "scan.blocked_mimetypes = [\"image/gif\"]").await;
    scan(&scanner, &text).await.assert_clean();
}

#[test]
fn scan_command_applies_lists() {
    let builder = ScannerBuilder::new("echo refused; exit 1")
        .config("scan.engines = [\"script\", \"hashes\"]\nhashes.allow = [\"allow.txt\"]");
    let dir = builder.dir();
    fs::write(dir.path("allow.txt"), sha256(CONTENT)).unwrap();
    fs::write(dir.path("good"), CONTENT).unwrap();
    fs::write(dir.path("bad"), "other").unwrap();
    let (good, bad) = (dir.path("good"), dir.path("bad"));
    let (_, stdout, stderr) = builder.run(&["scan", good.to_str().unwrap(), bad.to_str().unwrap()]);
    let stdout = stdout + &stderr;
    assert!(stdout.contains("good: clean") && stdout.contains("bad: not clean"), "{stdout}");
}

#[test]
fn invalid_lists_are_configuration_errors() {
    for (file, content, key, message) in [
        ("block.txt", "no hash\n", "hashes.block", "block.txt, line 1"),
        (
            "allow.txt",
            "da39a3ee5e6b4b0d3255bfef95601890afd80709\n",
            "hashes.allow",
            "allow.txt, line 1",
        ),
        ("allow.txt", "absent", "hashes.block", "missing"),
    ] {
        let lists = match key {
            _ if message == "missing" => String::new(),
            "hashes.block" => "hashes.block = [\"block.txt\"]".to_owned(),
            _ => "hashes.allow = [\"allow.txt\"]".to_owned(),
        };
        let lines = format!("scan.engines = [\"hashes\"]\n{lists}");
        let builder = ScannerBuilder::new("exit 0").config(&lines);
        fs::write(builder.dir().path(file), content).unwrap();
        let (code, _, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(78), "{stderr}");
        assert!(stderr.contains(key) && stderr.contains(message), "{stderr}");
    }
}

/// The lists do not stand for an engine that has not examined the file.
#[tokio::test]
async fn lists_alone_do_not_make_a_skipped_file_clean() {
    let homeserver = MockHomeserver::start().await;
    let skip = "scan.script_max_size = 3\nscan.script_on_oversize = \"skip\"";
    let scanner = start(&homeserver, "exit 0", ["", ""], skip).await;
    let media = homeserver.add_bytes("large", CONTENT.to_vec());
    assert_eq!(scan(&scanner, &media).await.status, 413);
    let small = homeserver.add_bytes("small", b"abc".to_vec());
    scan(&scanner, &small).await.assert_clean();
}
