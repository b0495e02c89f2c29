//! The commands of "Try it" in README.md, and the output that the page promises.

#![expect(clippy::disallowed_methods, reason = "runs the commands of the page like a reader")]

use std::{fs, path::Path, process::Command};

use tokio::net::TcpListener;

use crate::harness::{ScannerBuilder, report_skipped, scanner::PROGRAM};

#[path = "../../examples/homeserver.rs"]
#[expect(dead_code, reason = "its router is started here, on a free port")]
mod homeserver;

/// A block of commands, and the lines that they print.
struct ConsoleBlock {
    commands: String,
    output: String,
}

/// Returns the console blocks of the section "Try it".
fn blocks() -> Vec<ConsoleBlock> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let (_, section) = readme.split_once("## Try it\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let blocks = section.split("```console\n").skip(1);
    blocks
        .map(|block| {
            let (block, _) = block.split_once("```").unwrap();
            let (mut commands, mut output) = (String::new(), String::new());
            for line in block.lines() {
                let (target, text) = match line.strip_prefix("$ ") {
                    Some(command) => (&mut commands, command),
                    None => (&mut output, line),
                };
                target.push_str(text);
                target.push('\n');
            }
            ConsoleBlock { commands, output }
        })
        .collect()
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Runs commands in the root of the repository. Returns everything that they print.
fn run(commands: &str) -> String {
    let script = format!("exec 2>&1\n{commands}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(repository());
    bash.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    String::from_utf8(bash.output().unwrap().stdout).unwrap()
}

/// Replaces times, which differ in each run.
fn without_times(text: &str) -> String {
    const INTRODUCTION: &str = "File clean at ";
    let mut parts = text.split(INTRODUCTION);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (time, rest) = part.split_once('"').unwrap();
        assert!(time.len() == "2026-11-29T09:30:00Z".len() && time.ends_with('Z'), "{time}");
        text + INTRODUCTION + "TIME\"" + rest
    })
}

#[test]
fn readme_scans_a_clean_and_an_infected_file() {
    let directory = tempfile::tempdir().unwrap();
    let here = |text: &str| text.replace("/tmp/", &format!("{}/", directory.path().display()));
    let block = &blocks()[1];
    let commands = here(&block.commands).replace("target/package/matrix-content-scanner", PROGRAM);
    assert_eq!(run(&commands), here(&block.output));
}

#[tokio::test]
async fn readme_requests_both_files_of_the_example() {
    if Command::new("curl").arg("--version").output().is_err() {
        return report_skipped("readme_requests_both_files_of_the_example", "needs curl");
    }
    let [_, _, start, requests] = &blocks()[..] else { panic!("four blocks") };
    assert_eq!(
        start.commands,
        "cargo run --locked --package mcs-testing --example homeserver &\n\
         export MCS_DOWNLOAD__BASE_HOMESERVER_URL=http://127.0.0.1:8008\n\
         target/package/matrix-content-scanner -c config/default.toml\n"
    );
    let example = fs::read_to_string(repository().join("examples/homeserver.rs")).unwrap();
    assert!(example.contains("\"127.0.0.1:8008\""));

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async { axum::serve(listener, homeserver::router()).await });
    let rules = repository().join("config/rules");
    let scanner = ScannerBuilder::new("exit 1")
        .base_url(&url)
        .config(&format!("scan.engines = [\"rules\"]\nrules.paths = [{rules:?}]"))
        .start()
        .await;
    let commands = requests.commands.replace("127.0.0.1:8080", &scanner.address);
    let printed = tokio::task::spawn_blocking(move || run(&commands)).await.unwrap();
    assert_eq!(without_times(&printed), without_times(&requests.output));
    serving.abort();
}
