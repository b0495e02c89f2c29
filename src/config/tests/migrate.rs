//! Migration of the earlier scanners' configurations, with the validation of this configuration.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use mcs_migrate::{Migrated, Predecessor};
use proptest::prelude::*;

use super::{
    fuzz::{migrated, old_file},
    *,
};
use crate::keys;

/// The working directory of an old scanner, with its script, key and temp directory.
struct OldInstallation(tempfile::TempDir);

impl OldInstallation {
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

    fn script(&self, text: &str) {
        let path = self.path("scan.sh");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn migrate(&self, yaml: &str) -> Migrated {
        migrated(yaml, Path::new("old.yaml"), &self.path(""))
            .unwrap_or_else(|error| panic!("{error}: {yaml}"))
    }

    /// Loads the new file.
    fn load(&self, migrated: &Migrated) -> Config {
        let file = self.path("new.toml");
        fs::write(&file, &migrated.toml).unwrap();
        let loaded = Config::load(Some(&file), std::iter::empty());
        loaded.unwrap_or_else(|errors| panic!("{errors}\n{}", migrated.toml)).0
    }
}

fn remarks(migrated: &Migrated) -> Vec<String> {
    migrated.remarks.iter().map(ToString::to_string).collect()
}

/// Sets every documented key.
const PYTHON: &str = r#"
web:
  host: 0.0.0.0
  port: 8081
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
  additional_headers:
    user-agent: "matrix-content-scanner"
    x-secret: hush-header
  headers_to_forward: ["Host"]
crypto:
  request_secret_path: ./request_secret
"#;

const NODE: &str = r#"
server:
  port: 9000
  host: "::1"
scan:
  script: './scan.sh --quick'
  tempDirectory: 'tmp'
  baseUrl: 'https://matrix.example.org'
  directDownload: false
  doNotCacheExitCodes: [5]
altRemovalCmd: 'rm'
proxy: "http://10.228.1.1:80"
requestHeader:
  userAgent: 'origin'
  xForward: 'origin'
middleware:
  encryptedBody:
    pickleKey: 'hush-pickle'
    picklePath: 'pickle'
acceptedMimeType:
  - 'image/jpeg'
  - 'image/jpg'
"#;

#[test]
fn converts_all_python_keys() {
    let old = OldInstallation::new();
    let migrated = old.migrate(PYTHON);
    assert_eq!(migrated.from, Predecessor::Python);
    assert_eq!(remarks(&migrated), Vec::<String>::new());
    let config = old.load(&migrated);
    let shown = config.to_string();
    for line in [
        r#"host = "0.0.0.0""#.to_owned(),
        "port = 8081".into(),
        // `operations.port`, moved from its default 8081.
        "port = 8082".into(),
        format!("script = {:?}", old.path("scan.sh")),
        format!("temp_directory = {:?}", old.path("tmp")),
        r#"allowed_mimetypes = ["image/jpeg", "image/png"]"#.into(),
        "max_size = 2048".into(),
        r#"max_file_size = "100MB""#.into(),
        "exit_codes_to_ignore = [1, 2]".into(),
        r#"base_homeserver_url = "https://matrix.example.org""#.into(),
        r#"additional_headers = { user-agent = "..", x-secret = ".." }"#.into(),
        r#"headers_to_forward = ["host"]"#.into(),
        format!("request_secret_path = {:?}", old.path("request_secret")),
        "generate = false".into(),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} in {shown}");
    }
    assert_eq!(config.result_cache.ttl, Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!(config.download.proxy.unwrap().password(), Some("hush-proxy"));
    assert_eq!(config.download.additional_headers["x-secret"], "hush-header");
    let (program, arguments) = config.scan.removal_command.unwrap();
    assert!(program.ends_with("bin/cp"), "{program:?}");
    assert_eq!(arguments, ["-f"]);
}

#[test]
fn converts_all_node_keys() {
    let old = OldInstallation::new();
    let migrated = old.migrate(NODE);
    assert_eq!(migrated.from, Predecessor::Node);
    let remarks = remarks(&migrated);
    assert!(
        remarks.len() == 1 && remarks[0].starts_with("line 11: altRemovalCmd: not needed"),
        "{remarks:?}"
    );
    let config = old.load(&migrated);
    let shown = config.to_string();
    for line in [
        r#"host = "::1""#,
        "port = 9000",
        r#"script_args = ["--quick"]"#,
        r#"allowed_mimetypes = ["image/jpeg", "image/jpg"]"#,
        r#"base_homeserver_url = "https://matrix.example.org""#,
        r#"proxy = "http://10.228.1.1:80""#,
        r#"headers_to_forward = ["user-agent"]"#,
        "forward_client_address = true",
        "exit_codes_to_ignore = [5]",
    ] {
        // `Url` removes the default port of the scheme.
        let line = line.trim_end_matches(":80\"");
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line} in {shown}");
    }
    assert!(migrated.toml.contains("# image/jpg is never detected: the name is image/jpeg."));
    match config.crypto {
        keys::Settings::Pickle { path, .. } => assert_eq!(path, old.path("pickle")),
        keys::Settings::RequestSecret { .. } => panic!("{shown}"),
    }
    assert!(migrated.toml.contains(r#"pickle_key = "hush-pickle""#));
}

#[test]
fn converts_old_python_keys_and_optional_node_keys() {
    let old = OldInstallation::new();
    let pickle = "crypto:\n  pickle_path: pickle\n  pickle_key: hush\n";
    let migrated = old.migrate(&format!("web: {{}}\nscan: {{script: ./scan.sh}}\n{pickle}"));
    assert_eq!(remarks(&migrated), Vec::<String>::new());
    assert!(matches!(old.load(&migrated).crypto, keys::Settings::Pickle { .. }));

    let minimal = "server: {port: '80'}\nscan: {script: ./scan.sh, tempDirectory: tmp}\n";
    let migrated = old.migrate(&format!(
        "{minimal}requestHeader: {{userAgent: me/1, xForward: X-Forwarded-For}}\n"
    ));
    let shown = old.load(&migrated).to_string();
    assert!(shown.contains(r#"additional_headers = { user-agent = ".." }"#), "{shown}");
    assert!(shown.contains(r#"headers_to_forward = ["x-forwarded-for"]"#), "{shown}");
    assert!(shown.contains("generate = true"), "generates a key if there is no pickle: {shown}");
}

/// Mistakes that only the validation finds; the rest is converted.
#[test]
fn reports_rejected_values_with_line_and_key() {
    let good = "web: {host: 127.0.0.1, port: 8080}\n\
                crypto: {request_secret_path: request_secret}\n\
                scan:\n  script: ./scan.sh\n  temp_directory: tmp\n";
    for (yaml, words) in [
        (
            "  allowed_mimetypes: [image/png, 'image/*', [x]]\n",
            "line 6: scan.allowed_mimetypes[1]: found \"image/*\", expected one type without wildcards",
        ),
        ("  removal_command: no-such-program\n", "line 6: scan.removal_command: found"),
        (
            "download: {proxy: 'socks5://p:1'}\n",
            "line 6: download.proxy: found a string, expected an http",
        ),
        (
            "download: {base_homeserver_url: matrix.example.org}\n",
            "line 6: download.base_homeserver_url: found \"matrix.example.org\", expected \"https://matrix.example.org\"?",
        ),
        (
            "download: {additional_headers: {Authorization: x, X-A: y, X-B: [z]}}\n",
            "line 6: download.additional_headers.Authorization: found a string, expected another header",
        ),
        (
            "download: {headers_to_forward: [Range, X-A]}\n",
            "line 6: download.headers_to_forward[0]: found \"Range\", expected another header",
        ),
        (
            "result_cache: {ttl: 99y}\n",
            "line 6: result_cache.ttl: found \"36036d\", expected a duration",
        ),
        (
            "result_cache: {max_size: 010}\n",
            "line 6: result_cache.max_size: found \"010\", expected an integer",
        ),
        (
            "result_cache: {max_size: -1}\n",
            "line 6: result_cache.max_size: found -1, expected an integer",
        ),
        (
            "result_cache: {exit_codes_to_ignore: [1, x, 256]}\n",
            "line 6: result_cache.exit_codes_to_ignore[2]: found 256, expected an integer from 0",
        ),
        (
            "web: {port: 70000}\n",
            "line 6: web.port: found 70000, expected an integer from 0 to 65535",
        ),
    ] {
        let old = OldInstallation::new();
        let migrated = old.migrate(&format!("{good}{yaml}"));
        let all = remarks(&migrated);
        assert!(all.iter().any(|remark| remark.starts_with(words)), "{words}: {all:#?}");
        let comment_lines = migrated.toml.lines().map_while(|line| line.strip_prefix('#'));
        let comments: String = comment_lines.flat_map(|line| [line.trim(), " "]).collect();
        assert!(comments.contains(&*collapse_whitespace(words)), "{words}: {comments}");
        old.load(&migrated);
    }
}

/// Collapses whitespace, as wrapping of comments does.
fn collapse_whitespace(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn keeps_and_reports_missing_files() {
    let old = OldInstallation::new();
    for (yaml, words) in [
        (
            "web: {port: 80}\nscan: {script: ./gone.sh, temp_directory: tmp}\n\
             crypto: {request_secret_path: request_secret}",
            "line 2: scan.script: found",
        ),
        (
            "web: {port: 80}\nscan: {script: ./scan.sh, temp_directory: /no/such/place}\n\
             crypto: {request_secret_path: request_secret}",
            "line 2: scan.temp_directory: found \"/no/such/place\", which does not exist",
        ),
        ("web: {port: 80}\nscan: {}\n", "scan.script: missing, expected the path of an executable"),
        ("web: {port: 80}\nscan: {}\n", "crypto.request_secret_path: missing, expected"),
        ("web: {}\ncrypto: {pickle_path: pickle}\n", "crypto.pickle_key: missing, expected"),
    ] {
        let migrated = old.migrate(yaml);
        let all = remarks(&migrated);
        assert!(all.iter().any(|remark| remark.starts_with(words)), "{words}: {all:#?}");
        for kept in ["gone.sh", "/no/such/place"] {
            assert!(
                !yaml.contains(kept) || migrated.toml.contains(kept),
                "{kept}: {}",
                migrated.toml
            );
        }
    }
}

#[test]
fn remarks_contain_no_secret() {
    let old = OldInstallation::new();
    let wrong = PYTHON
        .replace("http://me:", "socks://me:")
        .replace("x-secret: hush-header", "\"x secret\": hush-header")
        .replace("request_secret_path: ./request_secret", "pickle_key: hush-key");
    let migrated = old.migrate(&wrong);
    let all = remarks(&migrated).join("\n");
    assert!(migrated.remarks.len() >= 3, "{all}");
    assert!(!all.contains("hush"), "{all}");
}

#[test]
fn suggested_settings_are_valid() {
    let old = OldInstallation::new();
    old.script("#!/opt/venv/bin/python -u\n# clamdscan, then c-icap-client; /tmp\n");
    let yaml =
        "web: {}\nscan: {script: ./scan.sh}\ncrypto: {request_secret_path: request_secret}\n";
    let toml = old.migrate(yaml).toml;
    let keys = ["read_only_paths", "unix_sockets", "tcp_ports"];
    let uncommented = keys.into_iter().fold(toml.clone(), |toml, key| {
        assert!(toml.contains(&format!("# {key} = ")), "{key} in {toml}");
        toml.replace(&format!("# {key} = "), &format!("{key} = "))
    });
    assert_eq!(problems(&uncommented, &old.path("")), []);
}

/// Comments name the defaults of keys that are not set.
#[test]
fn defaults_in_comments_match_default_file() {
    let default = include_str!("../../../config/default.toml");
    let old = OldInstallation::new();
    let mut seen = 0;
    for yaml in [PYTHON, NODE] {
        for line in old.migrate(yaml).toml.lines() {
            if let Some(line) = line.strip_prefix("# ").filter(|line| line.contains(" = ")) {
                assert!(default.lines().any(|known| known == line), "{line}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 10);
    for (section, words) in [
        ("[result_cache]", "max_size = 100000"),
        ("[result_cache]", "ttl = \"1d\""),
        ("[result_cache]", "max_file_size = \"1MiB\""),
        ("[result_cache]", "max_total_size = \"64MiB\""),
        ("[download]", "authorisation_ttl = \"5s\""),
        ("[scan]", "canary_interval = \"10m\""),
        ("[operations]", "port = 8081"),
    ] {
        let section = default.split_once(section).unwrap().1.split("\n[").next().unwrap();
        assert!(section.lines().any(|line| line == words), "{words} in {section}");
    }
}

/// The documentation pages show a file and its conversion.
#[test]
fn documentation_shows_current_conversion() {
    let python = include_str!("../../../docs/from-python.md");
    let node = include_str!("../../../docs/from-node.md");
    let block = |page: &str, kind: &str| {
        let (_, rest) = page.split_once(&format!("\n```{kind}\n")).unwrap();
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    for (page, script) in [(python, "#!/bin/sh\nclamdscan \"$1\"\n"), (node, "#!/bin/sh\n")] {
        let old = OldInstallation::new();
        old.script(script);
        let here = old.path("");
        let migrated = migrated(&block(page, "yaml"), Path::new("config.yaml"), &here).unwrap();
        let toml = migrated.toml.replace(here.to_str().unwrap(), "/srv/scanner/");
        assert_eq!(toml, block(page, "toml"), "the page should contain:\n{toml}");
        old.load(&migrated);
    }
}

/// Files with valid keys and arbitrary values.
fn near_yaml() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("~".to_owned()),
        Just("[]".to_owned()),
        Just("{a: b}".to_owned()),
        Just("\"a\\nb = 1\\n[web]\\n\"".to_owned()),
        Just("*x".to_owned()),
        "-?[0-9]{1,25}".prop_map(String::from),
        "[0-9.]{1,6} ?[a-zA-Z]{0,4}",
        "\\[[^\\]\n]{0,20}\\]",
        "\\PC{0,20}",
    ];
    let keys = [Predecessor::Python.keys(), Predecessor::Node.keys()].concat();
    let line = (proptest::sample::select(keys), value);
    prop::collection::vec(line, 0..20).prop_map(|lines| {
        let mut text = "web: &x {}\ncrypto: {}\n".to_owned();
        for (path, value) in lines {
            let mut indent = String::new();
            for part in path.split('.') {
                let _ = write!(text, "\n{indent}{part}: ");
                indent.push_str("  ");
            }
            text.push_str(&value);
        }
        text
    })
}

/// Returns the default configuration, which `PROPTEST_CASES` sets, with at least this number of cases.
fn at_least(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: default.cases.max(cases), ..default }
}

proptest! {
    #![proptest_config(at_least(512))]

    #[test]
    fn new_file_has_problems_only_with_files(text in near_yaml()) {
        old_file(text.as_bytes());
    }
}

#[test]
fn corpus_has_problems_only_with_files() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/migrate");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // Names the failing input in the output of the test.
        println!("{}", path.display());
        old_file(&fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 5, "{count} inputs");
}
