//! Comparison of the running configuration with a reloaded one.

use super::*;

/// Reloads `after` in a service that runs with `before`.
fn changes(before: &str, after: &str) -> (Config, Changes) {
    let dir = ConfigDir::new();
    let running = dir.load_valid(before);
    dir.load_valid(after).keep_startup_keys(&running)
}

#[test]
fn identical_configurations_have_no_changes() {
    let text = "download.additional_headers = { X-A = \"1\" }\nscan.canary = \"off\"";
    assert_eq!(changes(text, text).1, Changes::default());
}

#[test]
fn settings_of_equal_configurations_have_equal_texts() {
    // Sets and maps have no random order.
    let text = "scan.allowed_mimetypes = ['image/png', 'image/jpeg', 'image/gif', 'text/plain']\n\
                download.homeservers = { 'a.example' = 'https://a', 'b.example' = 'https://b' }\n\
                sandbox.environment = { A = '1', B = '2', C = '3' }";
    for _ in 0..10 {
        assert_eq!(changes(text, text).1, Changes::default());
    }
}

#[test]
fn comparison_of_settings_detects_a_change_in_each_section() {
    let dir = ConfigDir::new();
    let running = dir.load_valid("");
    for (text, section) in [
        ("web.max_connections = 9", "web."),
        ("scan.workers = 9", "scan."),
        ("sandbox.network = 'host'", "sandbox."),
        ("download.min_rate = 9", "download."),
        ("result_cache.ttl = '9s'", "result_cache."),
        ("crypto.request_secret_path = 'other'", "crypto."),
        ("log.level = 'warn'", "log."),
        ("operations.enabled = false", "operations."),
        ("audit.path = '-'", "audit."),
    ] {
        let compared = crate::config::changes::compare(&running, &dir.load_valid(text));
        let different: Vec<_> = compared.iter().filter(|(_, same)| !same).collect();
        assert_eq!(different.len(), 1, "{text}: {different:?}");
        assert_eq!(different[0].0[0], section);
    }
}

#[test]
fn applies_reloadable_keys_and_keeps_startup_keys() {
    let (config, changed) = changes(
        "web.port = 8080\nscan.timeout = \"60s\"\nscan.max_scripts = 1",
        "web.port = 8090\nscan.timeout = \"61s\"\nscan.workers = 3\nscan.max_scripts = 2",
    );
    assert_eq!(changed.needs_restart, ["scan.workers", "web.port"]);
    assert_eq!(changed.applied, ["scan.max_scripts", "scan.timeout"]);
    assert!(changed.affects_verdicts() && !changed.affects_sandbox());
    assert_eq!((config.scan.timeout.as_secs(), config.scan.workers), (61, 32));
    assert!(config.to_string().contains("port = 8080"));
}

#[test]
fn classifies_keys_by_effect_on_sandbox_and_verdicts() {
    for (after, sandbox, verdicts) in [
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
        let (_, changed) = changes("", after);
        assert_eq!(
            (changed.affects_sandbox(), changed.affects_verdicts()),
            (sandbox, verdicts),
            "{after} {changed:?}"
        );
    }
}

#[test]
fn compares_hidden_secrets() {
    for (key, before, after) in [
        ("download.additional_headers", "{ X-A = \"1\" }", "{ X-A = \"2\" }"),
        ("sandbox.environment", "{ LICENCE = \"1\" }", "{ LICENCE = \"2\" }"),
        ("download.proxy", "\"http://u:a@proxy:1\"", "\"http://u:b@proxy:1\""),
    ] {
        let (_, changed) = changes(&format!("{key} = {before}"), &format!("{key} = {after}"));
        assert_eq!(changed.applied, [key]);
    }
    let pickle = |key| format!("crypto.pickle_path = \"p\"\ncrypto.pickle_key = \"{key}\"");
    assert_eq!(changes(&pickle("a"), &pickle("b")).1.applied, ["crypto.pickle_key"]);
}

#[test]
fn changing_address_to_socket_needs_restart() {
    let (config, changed) = changes("web.port = 1", "web.socket = \"/run/x\"");
    assert_eq!(changed.needs_restart, ["web.host", "web.port", "web.socket"]);
    assert!(changed.applied.is_empty() && config.to_string().contains("port = 1"));
}

#[test]
fn default_file_marks_startup_keys() {
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
    assert_eq!(marked, crate::config::changes::STARTUP_KEYS.map(|(key, _)| key));
}

#[test]
fn changed_rule_content_affects_sandbox_and_verdicts() {
    let dir = ConfigDir::new();
    let lines = "scan.engines = ['rules']\nrules.paths = ['some.yar']";
    let read = |rule: &str| {
        dir.file("some.yar", rule, 0o644);
        dir.load_valid(lines)
    };
    let running = read("rule One { condition: true }");
    assert_eq!(
        read("rule One { condition: true }").keep_startup_keys(&running).1,
        Changes::default()
    );
    let (_, changed) = read("rule One { condition: false }").keep_startup_keys(&running);
    assert_eq!(changed.applied, ["rules.paths"]);
    assert!(changed.affects_sandbox() && changed.affects_verdicts());
}
