//! Comparison of the running configuration with a reloaded one.

use std::{collections::BTreeSet, fs};

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

/// Values, two of which are valid for each key.
const VALUES: [&str; 52] = [
    "true",
    "false",
    "1",
    "2",
    "20",
    "30",
    "'1s'",
    "'2s'",
    "'17MiB'",
    "'18MiB'",
    "[]",
    "[1]",
    "{}",
    "{ a = 'https://b' }",
    "'::1'",
    "'::2'",
    "'/run/a'",
    "'/run/b'",
    "'/tmp'",
    "'/var/tmp'",
    "'scan.sh'",
    "'other.sh'",
    "['scan.sh']",
    "['other.sh']",
    "['a']",
    "['One']",
    "['image/png']",
    "['image/gif']",
    "['one.txt']",
    "['two.txt']",
    "'refuse'",
    "'fail'",
    "'pass'",
    "'skip'",
    "'off'",
    "'server'",
    "'respmod'",
    "'reqmod'",
    "'eicar'",
    "'strict'",
    "'degraded'",
    "'none'",
    "'host'",
    "['seccomp']",
    "['10.0.0.0/8']",
    "'77:88'",
    "'78:88'",
    "'http://a'",
    "'http://b'",
    "'human'",
    "'json'",
    "'info'",
];

/// Returns required keys under which `section.key` has an effect.
fn surroundings(section: &str, key: &str) -> Vec<(&'static str, &'static str)> {
    let mut lines = vec![match section {
        "rules" | "unpack" => ("scan.engines", "['script', 'rules']"),
        "hashes" => ("scan.engines", "['script', 'hashes']"),
        "clamd" => ("scan.engines", "['script', 'clamd']"),
        "icap" => ("scan.engines", "['script', 'icap']"),
        "scan" if key == "script_on_not_clean" => ("scan.engines", "['script', 'clamd']"),
        _ => ("scan.engines", "['script']"),
    }];
    lines.push(("scan.script", "'scan.sh'"));
    match key {
        "pickle_path" => lines.push(("crypto.pickle_key", "'k'")),
        "pickle_key" => lines.push(("crypto.pickle_path", "'p'")),
        _ => lines.push(("crypto.request_secret_path", "'k'")),
    }
    match section {
        "rules" | "unpack" => lines.push(("rules.paths", "['one.yar']")),
        "hashes" => lines.push(("hashes.block", "['one.txt']")),
        "icap" => lines.push(("icap.urls", "['icap://a/b']")),
        "sandbox" => lines.push(("sandbox.mode", "'strict'")),
        "admin" => {
            lines.extend([
                ("admin.enabled", "true"),
                ("admin.token_path", "'token'"),
                ("audit.path", "'-'"),
            ]);
            lines.push(match key {
                "host" => ("admin.port", "1"),
                "port" => ("admin.host", "'::1'"),
                _ => ("admin.socket", "'a'"),
            });
        }
        "store" => {
            lines.push(("scan.temp_directory", "'jobs'"));
            let is_shared =
                ["urls", "password_path", "ca_certificates", "timeout", "wait"].contains(&key);
            if is_shared {
                lines.extend([("store.kind", "'shared'"), ("store.urls", "['rediss://a']")]);
            } else {
                lines.push(("store.path", "'store.db'"));
            }
        }
        "incident" => lines.extend([
            ("scan.temp_directory", "'jobs'"),
            ("store.path", "'store.db'"),
            ("download.base_homeserver_url", "'http://a'"),
            ("incident.rescan", "'recent'"),
            ("incident.token_path", "'token'"),
        ]),
        "quarantine" | "notify" => lines.extend([
            ("scan.temp_directory", "'jobs'"),
            ("store.path", "'store.db'"),
            ("download.base_homeserver_url", "'http://a'"),
            ("quarantine.at", "'synapse'"),
            ("quarantine.token_path", "'token'"),
        ]),
        _ => {}
    }
    lines
}

/// Returns the keys that the default file marks as read only at startup.
fn marked_startup_keys() -> BTreeSet<String> {
    let text = include_str!("../../../config/default.toml");
    let mut section = "";
    let (mut comment, mut marked) = (String::new(), BTreeSet::new());
    for line in text.lines() {
        let key = line.trim_start_matches("# ").split_once(" = ").map(|(key, _)| key);
        let key = key.filter(|key| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some(key) = key {
            if comment.contains("(restart)") {
                marked.insert(format!("{section}.{key}"));
            }
            comment.clear();
        } else if line.is_empty() {
            comment.clear();
        } else {
            comment.push_str(line);
        }
    }
    marked
}

/// No key can be forgotten in the comparison: for each, two valid values differ. A change needs a restart if the default
/// file says so.
#[test]
fn comparison_detects_a_change_of_each_key() {
    let dir = ConfigDir::new();
    dir.file("other.sh", "#!/bin/sh\n", 0o755);
    fs::create_dir(dir.path().join("jobs")).unwrap();
    for name in ["one.txt", "two.txt"] {
        dir.file(name, "", 0o644);
    }
    for (name, rule) in [("one.yar", "One"), ("two.yar", "Two")] {
        dir.file(name, &format!("rule {rule} {{ condition: true }}"), 0o644);
    }
    let values = VALUES.into_iter().chain([
        "['script']",
        "['script', 'clamd']",
        "['one.yar']",
        "['two.yar']",
        "['icap://a/b']",
        "['icap://a/c']",
        "['/run/a']",
        "['/run/b']",
        "'observe'",
        "'warn'",
        "'no'",
        "'both'",
        "'hash'",
        "'file'",
        "['redis://a']",
        "['redis://b']",
        "1000",
        "2000",
        "'synapse'",
        "'recent'",
        "[{ webhook = 'https://a/1', secret_path = 's' }]",
        "[{ webhook = 'https://a/2', secret_path = 's' }]",
    ]);
    let mut marked = marked_startup_keys();
    for (section, key) in properties::known() {
        let path = format!("{section}.{key}");
        let is_marked = marked.remove(&path);
        let is_only_for_root = path == "sandbox.user" && !nix::unistd::geteuid().is_root();
        if path == "sandbox.limits" || is_only_for_root {
            continue;
        }
        let load = |value: &str| {
            let surroundings = surroundings(section, key);
            let others = surroundings.iter().filter(|(other, _)| *other != path);
            let lines = others.map(|(key, value)| format!("{key} = {value}\n"));
            dir.load_with(&format!("{}{path} = {value}", lines.collect::<String>()), &[])
        };
        let mut loaded = values.clone().filter_map(|value| Some(load(value).ok()?.0));
        let running = loaded.next().unwrap_or_else(|| panic!("{path} has no valid value"));
        let is_detected = loaded.any(|config| {
            let (_, Changes { applied, needs_restart }) = config.keep_startup_keys(&running);
            let (is_applied, is_kept) = (applied.contains(&path), needs_restart.contains(&path));
            assert!(if is_marked { !is_applied } else { !is_kept }, "{path}");
            is_applied || is_kept
        });
        assert!(is_detected, "{path}");
    }
    assert!(marked.is_empty(), "unknown keys are marked: {marked:?}");
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
fn changed_rule_content_affects_sandbox_and_verdicts() {
    let dir = ConfigDir::new();
    let lines = "scan.engines = ['rules']\nrules.paths = ['some.yar']";
    let read_with = |rule: &str, line: &str| {
        dir.file("some.yar", rule, 0o644);
        dir.load_valid(&format!("{lines}\n{line}"))
    };
    let read = |rule| read_with(rule, "");
    let running = read("rule One { condition: true }");
    assert_eq!(
        read("rule One { condition: true }").keep_startup_keys(&running).1,
        Changes::default()
    );
    let (_, changed) = read("rule One { condition: false }").keep_startup_keys(&running);
    assert_eq!(changed.applied, ["rules.paths"]);
    assert!(changed.affects_sandbox() && changed.affects_verdicts());
    // Beside another change of the engines.
    for (line, key) in [
        ("rules.ignore = ['One']", "rules.ignore"),
        ("rules.timeout = '7s'", "rules.timeout"),
        ("unpack.max_depth = 7", "unpack.max_depth"),
    ] {
        let changed = read_with("rule One { condition: false }", line);
        let (_, changed) = changed.keep_startup_keys(&running);
        assert!(changed.applied.contains(&"rules.paths".to_owned()), "{changed:?}");
        assert!(changed.applied.contains(&key.to_owned()), "{changed:?}");
        assert!(changed.affects_sandbox());
    }
    let unpacking = read_with("rule One { condition: true }", "unpack.enabled = false");
    let (_, changed) = unpacking.keep_startup_keys(&running);
    assert_eq!(changed.applied, ["unpack.enabled"]);
    assert!(changed.affects_verdicts() && !changed.affects_sandbox());
}
