//! Tests of reloads by SIGHUP: applied keys, keys that need a restart, and uninterrupted requests.

mod keys;
mod rejection;
mod signals;
mod traffic;

use std::fs;

use nix::sys::signal::Signal;
use tokio::task::JoinHandle;

use crate::harness::{ScannerProcess, TestResponse, wait_until};

const RECORDING_SCRIPT: &str = r#"
    echo "run $0" >> "$MARKS/runs"
"#;

const BLOCKING_SCRIPT: &str = r#"
    echo run >> "$MARKS/runs"
    read go < "$MARKS/go"
"#;

/// Detects the EICAR test file.
const EICAR_SCRIPT: &str = r#"
    echo "run $0" >> "$MARKS/runs"
    if grep -q EICAR-STANDARD "$1"; then exit 1; fi
"#;

/// Merges `lines` into the configuration file. A line is `section.key = value`, or `-section.key` to remove a key.
fn rewrite(scanner: &ScannerProcess, lines: &str) {
    let path = scanner.dir.path("config.toml");
    let mut table: toml::Table = fs::read_to_string(&path).unwrap().parse().unwrap();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(" = ").unwrap_or((line.trim_start_matches('-'), ""));
        let (section, name) = key.split_once('.').unwrap();
        let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
        let section = entry.as_table_mut().unwrap();
        section.remove(name);
        if !value.is_empty() {
            let value: toml::Table = format!("value = {value}").parse().unwrap();
            section.insert(name.to_owned(), value["value"].clone());
        }
    }
    // Replaced atomically: the server may read the file at any time.
    let fresh = scanner.dir.path("config.fresh");
    fs::write(&fresh, table.to_string()).unwrap();
    fs::rename(fresh, path).unwrap();
}

/// Returns the number of finished reloads in the log.
fn finished_reloads(scanner: &ScannerProcess) -> usize {
    scanner.log().matches("\"message\":\"reloaded").count()
        + scanner.log().matches("reload rejected").count()
}

/// Sends SIGHUP and waits for the end of the reload; returns the log entries written meanwhile.
async fn reload(scanner: &ScannerProcess) -> String {
    let (before, ended) = (scanner.log().len(), finished_reloads(scanner));
    scanner.signal(Signal::SIGHUP);
    wait_until("the end of the reload", || finished_reloads(scanner) > ended).await;
    scanner.log().split_off(before)
}

/// Merges `lines` into the configuration and reloads; asserts that the reload succeeds. Returns its log entries.
pub(crate) async fn reload_succeeds(scanner: &ScannerProcess, lines: &str) -> String {
    rewrite(scanner, lines);
    let log = reload(scanner).await;
    assert!(log.contains("\"message\":\"reloaded"), "{lines}: {log}");
    log
}

/// Merges `lines` into the configuration and reloads; asserts that the reload is rejected. Returns its log entries.
pub(crate) async fn reload_fails(scanner: &ScannerProcess, lines: &str) -> String {
    rewrite(scanner, lines);
    let log = reload(scanner).await;
    assert!(log.contains("reload rejected, configuration unchanged"), "{lines}: {log}");
    log
}

fn spawn_get(scanner: &ScannerProcess, path: String) -> JoinHandle<TestResponse> {
    let client = scanner.client.clone();
    tokio::spawn(async move { client.get(&path).await })
}
