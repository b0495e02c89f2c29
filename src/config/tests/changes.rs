//! What a running service makes of a configuration that has changed.

use super::*;

/// A service that runs by `before` and reads `after`.
fn changes(before: &str, after: &str) -> (Config, Changes) {
    let folder = Folder::new();
    let running = folder.good(before);
    folder.good(after).taken_over(&running)
}

#[test]
fn nothing_changed_is_nothing_to_tell() {
    let text = "download.additional_headers = { X-A = \"1\" }\nscan.canary = \"off\"";
    assert_eq!(changes(text, text).1, Changes::default());
}

#[test]
fn what_can_be_taken_over_is_and_what_cannot_stays_as_it_runs() {
    let (config, told) = changes(
        "web.port = 8080\nscan.timeout = \"60s\"\nscan.max_scripts = 1",
        "web.port = 8090\nscan.timeout = \"61s\"\nscan.workers = 3\nscan.max_scripts = 2",
    );
    assert_eq!(told.at_start, ["scan.workers", "web.port"]);
    assert_eq!(told.taken, ["scan.max_scripts", "scan.timeout"]);
    assert!(told.judge() && !told.sandbox());
    assert_eq!((config.scan.timeout.as_secs(), config.scan.workers), (61, 32));
    assert!(config.to_string().contains("port = 8080"));
}

#[test]
fn what_judges_and_what_scripts_run_under_are_known_as_such() {
    for (after, sandbox, judge) in [
        ("scan.script_args = [\"-x\"]", false, true),
        ("scan.failure_exit_codes = [3]", false, true),
        ("scan.canary = \"off\"", false, true),
        ("scan.removal_command = [\"scan.sh\"]", true, true),
        ("sandbox.limits.disk = \"1GiB\"", true, true),
        ("sandbox.environment = { A = \"1\" }", true, true),
        ("scan.deadline = \"9m\"", false, false),
        ("log.level = \"debug\"", false, false),
        ("scan.temp_directory = \"/var/tmp\"", false, false),
    ] {
        let (_, told) = changes("", after);
        assert_eq!((told.sandbox(), told.judge()), (sandbox, judge), "{after} {told:?}");
    }
}

#[test]
fn secrets_that_are_not_shown_are_compared_all_the_same() {
    for (key, before, after) in [
        ("download.additional_headers", "{ X-A = \"1\" }", "{ X-A = \"2\" }"),
        ("sandbox.environment", "{ LICENCE = \"1\" }", "{ LICENCE = \"2\" }"),
        ("download.proxy", "\"http://u:a@proxy:1\"", "\"http://u:b@proxy:1\""),
    ] {
        let (_, told) = changes(&format!("{key} = {before}"), &format!("{key} = {after}"));
        assert_eq!(told.taken, [key]);
    }
    let pickle = |key| format!("crypto.pickle_path = \"p\"\ncrypto.pickle_key = \"{key}\"");
    assert_eq!(changes(&pickle("a"), &pickle("b")).1.taken, ["crypto.pickle_key"]);
}

#[test]
fn a_socket_in_place_of_an_address_waits_for_the_next_start() {
    let (config, told) = changes("web.port = 1", "web.socket = \"/run/x\"");
    assert_eq!(told.at_start, ["web.host", "web.port", "web.socket"]);
    assert!(told.taken.is_empty() && config.to_string().contains("port = 1"));
}

#[test]
fn the_shipped_file_marks_the_keys_that_are_read_at_the_start_alone() {
    let text = include_str!("../../../config/default.toml");
    let mut section = "";
    let (mut comment, mut marked) = (String::new(), Vec::new());
    for line in text.lines() {
        let key = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
        let key = key.filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(key) = key {
            if comment.contains("(restart)") {
                marked.push(format!("{section}.{key}"));
            }
            comment.clear();
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(line);
        }
    }
    assert_eq!(marked, crate::config::changes::AT_START.map(|(key, _)| key));
}

#[test]
fn rules_with_another_content_are_another_judge_in_another_sandbox() {
    let folder = Folder::new();
    let lines = "scan.engines = ['rules']\nrules.paths = ['some.yar']";
    let read = |rule: &str| {
        folder.file("some.yar", rule, 0o644);
        folder.good(lines)
    };
    let running = read("rule One { condition: true }");
    assert_eq!(read("rule One { condition: true }").taken_over(&running).1, Changes::default());
    let (_, told) = read("rule One { condition: false }").taken_over(&running);
    assert_eq!(told.taken, ["rules.paths"]);
    assert!(told.sandbox() && told.judge());
}
