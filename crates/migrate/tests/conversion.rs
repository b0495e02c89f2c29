//! Conversion of whole files, with validations that stand in for the service's.
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests and their helpers fail by panicking"
)]

#[path = "conversion/manifests.rs"]
mod manifests;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mcs_migrate::{
    MigrateError, Migrated, Predecessor, Rejection, RemarkKind, Validate, YamlError, migrate,
    migrate_file,
};
use toml::{Table, Value};

/// The working directory of an old scanner, with its script, key and temp directory.
struct OldDirectory(tempfile::TempDir);

impl OldDirectory {
    fn new() -> Self {
        let old = Self(tempfile::tempdir().unwrap());
        old.script("#!/bin/sh\nexit 0\n");
        for key in ["pickle", "request_secret"] {
            fs::write(old.path(key), "").unwrap();
        }
        fs::create_dir(old.path("tmp")).unwrap();
        old
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn script(&self, text: &str) {
        let path = self.path("scan.sh");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn migrate(&self, yaml: &str) -> Migrated {
        self.migrate_with(yaml, &accept)
    }

    fn migrate_with(&self, yaml: &str, validate: &Validate<'_>) -> Migrated {
        migrate(yaml, Path::new("old.yaml"), &self.path(""), validate)
            .unwrap_or_else(|error| panic!("{error}: {yaml}"))
    }
}

fn rejection(key: Option<&str>, message: &str) -> Rejection {
    Rejection { key: key.map(str::to_owned), message: message.into() }
}

fn accept(_: &str, _: &Path) -> Vec<Rejection> {
    Vec::new()
}

/// Rejects the text "bad" wherever it is part of a value, in the order of the file.
fn reject_bad(toml: &str, _: &Path) -> Vec<Rejection> {
    let mut rejections = Vec::new();
    let mut check = |key: String, value: &Value| {
        if value.as_str() == Some("bad") {
            rejections.push(rejection(Some(&key), "found \"bad\", expected more"));
        }
    };
    for (section, keys) in toml.parse::<Table>().unwrap() {
        for (key, value) in keys.as_table().unwrap() {
            let path = format!("{section}.{key}");
            match value {
                Value::Array(list) => {
                    for (index, value) in list.iter().enumerate() {
                        check(format!("{path}[{index}]"), value);
                    }
                }
                Value::Table(table) => {
                    for (name, value) in table {
                        check(format!("{path}.{}", mcs_migrate::format::key(name)), value);
                    }
                }
                value => check(path, value),
            }
        }
    }
    rejections
}

fn remarks(migrated: &Migrated) -> Vec<String> {
    migrated.remarks.iter().map(ToString::to_string).collect()
}

fn parsed(migrated: &Migrated) -> Table {
    migrated.toml.parse().unwrap_or_else(|error| panic!("{error}\n{}", migrated.toml))
}

/// Sets every documented key.
const PYTHON: &str = r#"
web: {host: 0.0.0.0, port: 8081}
scan:
  script: ./scan.sh
  temp_directory: tmp
  removal_command: cp -f
  allowed_mimetypes: ["image/jpeg", image/png]
result_cache:
  max_size: 2048
  ttl: 1w
  max_file_size: 100MB
  exit_codes_to_ignore: [1, 2]
download:
  base_homeserver_url: "https://matrix.example.org/"
  proxy: "http://me:hush-proxy@10.0.0.1:3128"
  additional_headers: {user-agent: "mcs", "x secret": "a \"b\""}
  headers_to_forward: ["Host"]
crypto:
  request_secret_path: ./request_secret
"#;

const NODE: &str = r#"
server: {port: 9000, host: "::1"}
scan:
  script: './scan.sh --quick'
  tempDirectory: 'tmp'
  baseUrl: 'https://matrix.example.org'
  directDownload: false
  doNotCacheExitCodes: [5]
altRemovalCmd: 'rm'
proxy: "http://10.228.1.1:80"
requestHeader: {userAgent: origin, xForward: origin}
middleware:
  encryptedBody: {pickleKey: hush-pickle, picklePath: pickle}
acceptedMimeType: ['image/jpeg', 'image/jpg']
"#;

#[test]
fn converts_python_keys() {
    let old = OldDirectory::new();
    let migrated = old.migrate(PYTHON);
    assert_eq!((migrated.from, remarks(&migrated)), (Predecessor::Python, vec![]));
    let new = parsed(&migrated);
    let cp = new["scan"]["removal_command"][0].as_str().unwrap();
    assert!(cp.ends_with("bin/cp"), "{cp}");
    let expected: Table = format!(
        r#"
        web = {{ host = "0.0.0.0", port = 8081 }}
        # Moved from its default, which [web] uses.
        operations.port = 8082
        [scan]
        script = "{}"
        engines = ["script"]
        temp_directory = "{}"
        removal_command = ["{cp}", "-f"]
        allowed_mimetypes = ["image/jpeg", "image/png"]
        [result_cache]
        max_size = 2048
        ttl = "7d"
        max_file_size = "100MB"
        exit_codes_to_ignore = [1, 2]
        [download]
        base_homeserver_url = "https://matrix.example.org/"
        proxy = "http://me:hush-proxy@10.0.0.1:3128"
        additional_headers = {{ user-agent = "mcs", "x secret" = 'a "b"' }}
        headers_to_forward = ["Host"]
        [crypto]
        request_secret_path = "{}"
        generate = false
        [sandbox]
        "#,
        old.text("scan.sh"),
        old.text("tmp"),
        old.text("request_secret"),
    )
    .parse()
    .unwrap();
    assert_eq!(new, expected);
}

#[test]
fn converts_node_keys() {
    let old = OldDirectory::new();
    let migrated = old.migrate(NODE);
    assert_eq!(migrated.from, Predecessor::Node);
    let remarks = remarks(&migrated);
    assert!(
        remarks.len() == 1 && remarks[0].starts_with("line 9: altRemovalCmd: not needed"),
        "{remarks:?}"
    );
    let expected: Table = format!(
        r#"
        web = {{ host = "::1", port = 9000 }}
        [scan]
        script = "{}"
        script_args = ["--quick"]
        engines = ["script"]
        temp_directory = "{}"
        allowed_mimetypes = ["image/jpeg", "image/jpg"]
        [result_cache]
        exit_codes_to_ignore = [5]
        [download]
        base_homeserver_url = "https://matrix.example.org"
        proxy = "http://10.228.1.1:80"
        headers_to_forward = ["User-Agent"]
        forward_client_address = true
        [crypto]
        pickle_path = "{}"
        pickle_key = "hush-pickle"
        [sandbox]
        "#,
        old.text("scan.sh"),
        old.text("tmp"),
        old.text("pickle"),
    )
    .parse()
    .unwrap();
    assert_eq!(parsed(&migrated), expected);
    assert!(migrated.toml.contains("# image/jpg is never detected: the name is image/jpeg."));
}

#[test]
fn reports_node_settings_without_counterpart() {
    let old = OldDirectory::new();
    let migrated = old.migrate(&format!(
        "{}  directDownload: true\n  baseUrl: https://a.example\n",
        "server: {port: 80}\nscan:\n  script: ./scan.sh\n"
    ));
    assert_eq!(parsed(&migrated)["download"].get("base_homeserver_url"), None);
    assert_eq!(migrated.remarks.len(), 2, "{:?}", remarks(&migrated));
    assert!(migrated.remarks.iter().all(|remark| remark.kind == RemarkKind::NoCounterpart));

    let migrated = old.migrate(
        "server: {port: 80}\nscan: {script: ./scan.sh}\nrequestHeader: {xForward: X-Real-IP}\n",
    );
    assert_eq!(migrated.remarks[0].kind, RemarkKind::NoCounterpart);
    assert!(migrated.toml.contains("# - line 3: requestHeader.xForward: "), "{}", migrated.toml);
}

/// Mistakes that are found without validation of the new file.
#[test]
fn reports_mistakes_with_line_and_key() {
    let good = "web: {host: 127.0.0.1, port: 8080}\n\
                crypto: {request_secret_path: request_secret}\n\
                scan:\n  script: ./scan.sh\n  temp_directory: tmp\n";
    for (yaml, words) in [
        (
            "  allowed_mimetypes: []\n",
            "line 6: scan.allowed_mimetypes: an empty list rejects every",
        ),
        ("  allowed_mimetypes:\n", "line 6: scan.allowed_mimetypes: without a value"),
        ("  allowed_mimetypes: image/png\n", "line 6: scan.allowed_mimetypes: expected a list"),
        ("  allowed_mimetypes: [[x], a/b]\n", "line 6: scan.allowed_mimetypes[0]: expected text"),
        (
            "  allowed_mimetypes: [a/b]\n  blocked_mimetypes: [c/d]\n",
            "line 7: scan.blocked_mimetypes: beside scan.allowed_mimetypes",
        ),
        ("  removal_command: ''\n", "line 6: scan.removal_command: empty"),
        (
            "  scirpt: x\n",
            "line 6: scan.scirpt: a key unknown to that scanner; omitted; did you mean scan.script?",
        ),
        ("  tempDirectory: x\n", "line 6: scan.tempDirectory: a key unknown"),
        ("sentry: {dsn: x}\n", "line 6: sentry: a section unknown to that scanner; omitted"),
        (
            "script: x\n",
            "line 6: script: a key unknown to that scanner; omitted; did you mean scan.script?",
        ),
        ("download:\n", "line 6: download: an empty section"),
        ("download: x\n", "line 6: download: found a value, expected a section"),
        ("download: {proxy: [x]}\n", "line 6: download.proxy: found a list or a section"),
        (
            "download: {additional_headers: {X-A: y, X-B: [z]}}\n",
            "line 6: download.additional_headers.X-B: expected text",
        ),
        (
            "download: {additional_headers: x}\n",
            "line 6: download.additional_headers: expected names",
        ),
        ("result_cache: {ttl: 1 parsec}\n", "line 6: result_cache.ttl: not a valid time"),
        (
            "result_cache: {max_file_size: many}\n",
            "line 6: result_cache.max_file_size: not a valid size",
        ),
        (
            "result_cache: {exit_codes_to_ignore: [1, -9]}\n",
            "line 6: result_cache.exit_codes_to_ignore: -9 means termination by a signal",
        ),
        ("web: {port: 70000}\n", "line 6: web: duplicate of line 1"),
    ] {
        let migrated = OldDirectory::new().migrate(&format!("{good}{yaml}"));
        let all = remarks(&migrated);
        assert!(all.iter().any(|remark| remark.starts_with(words)), "{words}: {all:#?}");
        parsed(&migrated);
        let header = migrated.toml.split("\n[").next().unwrap();
        let header = header.replace("\n#", " ").split_whitespace().collect::<Vec<_>>().join(" ");
        for remark in all {
            let remark = remark.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(header.contains(&remark), "{remark}: {header}");
        }
    }
}

#[test]
fn reports_missing_keys_and_shell_commands() {
    let old = OldDirectory::new();
    for (yaml, words) in [
        ("web: {}\ncrypto: {request_secret_path: /no/key}", "/no/key does not exist"),
        ("server: {}\nmiddleware: {encryptedBody: {picklePath: gone}}", "/gone does not exist"),
        ("server: {}\nscan: {script: 'clamdscan - < $1'}", "a shell command line"),
        ("server: {}\nscan: {script: '  '}", "empty; omitted"),
    ] {
        let migrated = old.migrate(yaml);
        let remark = &migrated.remarks[0];
        assert_eq!((remark.kind, remark.line), (RemarkKind::Mistake, Some(2)));
        assert!(remark.message.contains(words), "{words}: {remark}");
    }
}

#[test]
fn removes_rejected_parts_of_values() {
    let old = OldDirectory::new();
    let migrated = old.migrate_with(
        "web: {host: bad, port: 1}\n\
         scan:\n  script: ./scan.sh\n  allowed_mimetypes: [bad, a/b, bad, c/d]\n\
         download:\n  additional_headers:\n    a: b\n    'c d': bad\n  headers_to_forward: [bad]\n",
        &reject_bad,
    );
    let new = parsed(&migrated);
    assert_eq!(new["web"], Value::Table("port = 1".parse().unwrap()));
    assert_eq!(new["scan"]["allowed_mimetypes"], Value::from(vec!["a/b", "c/d"]));
    let headers = "additional_headers.a = \"b\"".parse().unwrap();
    assert_eq!(new["download"], Value::Table(headers), "without the empty list");
    let expected = [
        ("web.host", 1),
        ("scan.allowed_mimetypes[0]", 4),
        ("scan.allowed_mimetypes[2]", 4),
        ("download.additional_headers.\"c d\"", 6),
        ("download.headers_to_forward[0]", 9),
    ];
    let mut all = remarks(&migrated);
    all.sort();
    let mut expected = expected
        .map(|(key, line)| format!("line {line}: {key}: found \"bad\", expected more; omitted"));
    expected.sort();
    assert_eq!(all, expected);
}

#[test]
fn reports_rejected_files_and_missing_keys_once() {
    let old = OldDirectory::new();
    let migrated = old.migrate_with("web: {host: bad}\nscan: {script: gone}\n", &|toml, base| {
        let mut rejections = reject_bad(toml, base);
        rejections.push(rejection(Some("scan.script"), "found nothing"));
        rejections.push(rejection(Some("crypto.request_secret_path"), "missing"));
        rejections.push(rejection(None, "too large"));
        rejections
    });
    assert_eq!(
        remarks(&migrated),
        [
            "crypto.request_secret_path: missing",
            "line 1: web.host: found \"bad\", expected more; omitted",
            "line 2: scan.script: found nothing",
        ]
    );
    assert_eq!(parsed(&migrated)["scan"]["script"].as_str(), Some(&*old.text("gone")));
}

#[test]
fn rejects_other_files() {
    let old = OldDirectory::new();
    for (yaml, words) in [
        ("", "the file is empty"),
        ("just words", "neither scanner's configuration"),
        ("[web, crypto]", "neither scanner's configuration"),
        ("services: {web: {}}", "neither scanner's configuration"),
        ("web: {}\nserver: {}\n", "neither scanner's configuration"),
        ("web: [\n", "not YAML"),
    ] {
        let error = migrate(yaml, Path::new("x"), &old.path(""), &accept).err();
        let error = error.map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{yaml}: {error:?}");
    }
    let error = |name| migrate_file(&old.path(name), None, &accept).err().unwrap();
    assert!(matches!(error("missing.yaml"), MigrateError::Unreadable(_)));
    fs::write(old.path("latin1.yaml"), b"web: {host: \xe9}").unwrap();
    assert!(matches!(error("latin1.yaml"), MigrateError::Unreadable(_)));
    fs::write(old.path("huge.yaml"), "#".repeat(256 * 1024 + 1)).unwrap();
    assert!(matches!(error("huge.yaml"), MigrateError::Yaml(YamlError::TooLarge)));
}

#[test]
fn resolves_relative_paths_against_given_base() {
    let old = OldDirectory::new();
    fs::create_dir(old.path("etc")).unwrap();
    fs::write(old.path("etc/old.yaml"), PYTHON).unwrap();
    let from =
        |base: Option<&Path>| migrate_file(&old.path("etc/old.yaml"), base, &accept).unwrap();
    assert_eq!(remarks(&from(Some(&old.path("")))), Vec::<String>::new());
    let without_base = remarks(&from(None)).join("\n");
    assert!(without_base.contains("--base"), "{without_base}");
}

#[test]
fn suggests_settings_for_script() {
    let old = OldDirectory::new();
    let yaml = "web: {}\nscan: {script: ./scan.sh}\n";
    old.script("#!/opt/venv/bin/python -u\n# clamdscan, then c-icap-client; /tmp\n");
    let toml = old.migrate(yaml).toml;
    for line in [
        r#"# read_only_paths = ["/opt/venv/bin/python", "/etc/clamav"]"#,
        r#"# unix_sockets = ["/run/clamav/clamd.ctl"]"#,
        "# tcp_ports = [1344]",
    ] {
        assert!(toml.lines().any(|found| found == line), "{line} in {toml}");
    }
    old.script("#!/bin/sh\nexit 0\n");
    assert!(!old.migrate(yaml).toml.contains("Uncomment"));
}
