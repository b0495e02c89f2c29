//! Untrusted text in every kind of output: no character in it acts on a terminal, a log viewer or a client.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use matrix_content_scanner::text::is_control_or_bidi;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::harness::{
    MockHomeserver, ScannerBuilder, homeserver::MockMedia, png, scanner::run, wait_until,
};

/// Overrides and isolates of direction, line separators, invisible characters and terminal sequences, between words that
/// show that the text was printed.
const HOSTILE: &str =
    "evil\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}\u{200b}\u{ad}\u{85}\u{1b}[31m\u{7f}text";

/// The same as a string in TOML or YAML.
const HOSTILE_ESCAPED: &str =
    r"evil\u202e\u2066\u2028\ufeff\U000e0041\u200b\u00ad\u0085\u001b[31m\u007ftext";

/// Asserts that the output contains the hostile text, but none of its characters that act on a display.
#[track_caller]
fn assert_sanitized(channel: &str, output: &str) {
    assert!(output.contains("evil") && output.contains("text"), "{channel}: {output:?}");
    let acting = output.find(|c: char| !matches!(c, '\n' | '\t') && is_control_or_bidi(c));
    assert_eq!(acting, None, "{channel}: {output:?}");
}

fn hostile_file(directory: &Path, content: &str) -> String {
    let path = directory.join(HOSTILE);
    fs::write(&path, content).unwrap();
    // For the notice about the mode of a key.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn commands_print_no_character_that_acts_on_a_terminal() {
    let script = format!("echo '{HOSTILE}'; echo '{HOSTILE}' >&2; exit 1");
    let builder = ScannerBuilder::new(&script);
    let file = hostile_file(&builder.dir().path(""), "content");
    let gone = format!("{file}-gone");
    let program = builder.dir().path("script.sh").to_str().unwrap().to_owned();
    let read = "cat \"$1\"; test -e \"$2\"; cat \"$2\"; echo x > \"/var/tmp/$3\"; exit 1";
    let sandbox = ["sandbox", "--"];
    let cases: [(&str, Vec<&str>); 8] = [
        ("file name and output of the script", vec!["scan", &file]),
        ("name of a missing file", vec!["scan", &gone]),
        ("output in the sandbox", [&sandbox[..], &[&program, &file]].concat()),
        (
            "paths denied in the sandbox",
            [&sandbox[..], &["sh", "-c", read, "sh", "/etc/hostname", &file, HOSTILE, &file]]
                .concat(),
        ),
        ("missing program", [&sandbox[..], &[&gone, &file]].concat()),
        ("unknown argument", vec!["scan", HOSTILE, "--evil\u{202e}text"]),
        ("unknown command", vec![HOSTILE]),
        ("missing configuration", vec!["-c", &gone, "check-config"]),
    ];
    for (channel, arguments) in cases {
        let (code, stdout, stderr) = builder.run(&arguments);
        assert_ne!(code, Some(0), "{channel}: {stdout}{stderr}");
        assert_sanitized(channel, &format!("{stdout}{stderr}"));
    }
}

#[test]
fn configuration_is_printed_without_characters_that_act_on_a_terminal() {
    for (channel, config, command) in [
        ("missing path", "sandbox.read_only_paths = [\"/X\"]", "check-config"),
        (
            "displayed key",
            "download.homeservers = { \"X\" = \"http://a.example\" }",
            "check-config --show --offline",
        ),
        ("rejected value", "scan.script = \"/X\"", "check-config"),
        ("rejected duration", "scan.timeout = \"X\"", "serve"),
        ("unknown key", "web.\"X\" = 1", "check-config"),
        ("missing key", "crypto.request_secret_path = \"X/key\"", "check-config"),
        ("notice about a key", "crypto.request_secret_path = \"X\"", "public-key"),
    ] {
        let builder = ScannerBuilder::new("exit 0").config(&config.replace('X', HOSTILE_ESCAPED));
        if channel == "notice about a key" {
            hostile_file(&builder.dir().path(""), "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n");
        }
        let (_, stdout, stderr) = builder.run(&command.split(' ').collect::<Vec<_>>());
        assert_sanitized(channel, &format!("{stdout}{stderr}"));
    }
}

#[test]
fn migrate_prints_no_character_that_acts_on_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let old = hostile_file(
        directory.path(),
        &format!(
            "web: {{host: 127.0.0.1, port: 8080}}\n\
             scan: {{script: \"./{HOSTILE_ESCAPED}\", temp_directory: tmp, \"{HOSTILE_ESCAPED}\": 1}}\n\
             crypto: {{request_secret_path: request_secret}}\n"
        ),
    );
    let (_, stdout, stderr) = run(&["migrate", &old], &[]);
    assert_sanitized("migrated file", &stdout);
    assert_sanitized("remarks", &stderr);
    // The escapes in the file have the value of the text.
    let migrated: toml::Table = stdout.parse().unwrap();
    let script = migrated["scan"]["script"].as_str().unwrap();
    assert!(script.ends_with(HOSTILE), "{script:?}");

    let (_, _, stderr) = run(&["migrate", &format!("{old}-gone")], &[]);
    assert_sanitized("missing file", &stderr);
    let output = format!("{old}-gone/output");
    let (_, _, stderr) = run(&["migrate", &old, "-o", &output], &[]);
    assert_sanitized("output that cannot be written", &stderr);
}

#[tokio::test]
async fn service_passes_no_character_that_acts_on_a_display() {
    let homeserver = MockHomeserver::start().await;
    let script = format!("echo '{HOSTILE}'; echo '{HOSTILE}' >&2; exit 1");
    let builder = ScannerBuilder::new(&script).homeserver(&homeserver);
    let scanner = builder.config("audit.path = \"audit.jsonl\"").start().await;
    let media = homeserver.add_bytes("media", png());
    let verdict = scanner.client.get(&format!("/scan/{media}")).await;
    let info = verdict.json()["info"].as_str().unwrap().to_owned();
    assert_sanitized("verdict", &info);
    let refused = scanner.client.get(&format!("/download/{media}")).await;
    assert_sanitized("error", &refused.json().to_string());

    // Reaches the log only.
    let failing = MockMedia::error(500, HOSTILE);
    let failing = homeserver.add_media("failing", failing);
    let failed = scanner.client.get(&format!("/scan/{failing}")).await;
    assert!(!failed.json().to_string().contains("evil"), "{:?}", failed.json());
    let encoded = utf8_percent_encode(HOSTILE, NON_ALPHANUMERIC).to_string();
    for path in [format!("/scan/{encoded}/{encoded}"), format!("/download/{media}/{encoded}")] {
        let response = scanner.client.get(&path).await.json().to_string();
        assert!(!response.contains(is_control_or_bidi), "{response:?}");
    }
    scanner.wait_for_log("evil", 1).await;
    assert_sanitized("log", &scanner.log());

    let audit = scanner.dir.path("audit.jsonl");
    let lines = || fs::read_to_string(&audit).unwrap_or_default();
    wait_until("the audit line", || lines().contains("evil")).await;
    assert_sanitized("audit log", &lines());
}
