use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{config::Config, keys};

/// A directory that an earlier scanner was started in, with its script, key and temp directory.
struct Old(tempfile::TempDir);

impl Old {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let this = Self(folder);
        this.script("#!/bin/sh\nexit 0\n");
        for key in ["pickle", "request_secret"] {
            fs::write(this.path(key), "").unwrap();
        }
        fs::create_dir(this.path("tmp")).unwrap();
        this
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
        migrate(yaml, Path::new("old.yaml"), &self.path(""))
            .unwrap_or_else(|error| panic!("{error}: {yaml}"))
    }

    /// What the new file is to the service.
    fn load(&self, migrated: &Migrated) -> Config {
        let file = self.path("new.toml");
        fs::write(&file, &migrated.toml).unwrap();
        let loaded = Config::load(Some(&file), std::iter::empty());
        loaded.unwrap_or_else(|errors| panic!("{errors}\n{}", migrated.toml)).0
    }
}

fn told(migrated: &Migrated) -> Vec<String> {
    migrated.remarks.iter().map(ToString::to_string).collect()
}

/// The keys of its documentation, each with a value.
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
fn all_keys_of_the_python_scanner_pass_over() {
    let old = Old::new();
    let migrated = old.migrate(PYTHON);
    assert_eq!(migrated.from, Predecessor::Python);
    assert_eq!(told(&migrated), Vec::<String>::new());
    let config = old.load(&migrated);
    let shown = config.to_string();
    for line in [
        r#"host = "0.0.0.0""#.to_owned(),
        "port = 8081".into(),
        // Where metrics would be.
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
fn all_keys_of_the_node_scanner_pass_over() {
    let old = Old::new();
    let migrated = old.migrate(NODE);
    assert_eq!(migrated.from, Predecessor::Node);
    let told = told(&migrated);
    assert!(
        told.len() == 1 && told[0].starts_with("line 11: altRemovalCmd: not needed"),
        "{told:?}"
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
        // The URL standard leaves out a port that is the scheme's.
        let line = line.trim_end_matches(":80\"");
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{line} in {shown}");
    }
    assert!(
        migrated.toml.contains("# No file is ever found to be image/jpg: the name is image/jpeg.")
    );
    match config.crypto {
        keys::Settings::Pickle { path, .. } => assert_eq!(path, old.path("pickle")),
        keys::Settings::RequestSecret { .. } => panic!("{shown}"),
    }
    assert!(migrated.toml.contains(r#"pickle_key = "hush-pickle""#));
}

#[test]
fn older_python_files_and_other_wishes_of_node_files_pass_over() {
    let old = Old::new();
    let pickle = "crypto:\n  pickle_path: pickle\n  pickle_key: hush\n";
    let migrated = old.migrate(&format!("web: {{}}\nscan: {{script: ./scan.sh}}\n{pickle}"));
    assert_eq!(told(&migrated), Vec::<String>::new());
    assert!(matches!(old.load(&migrated).crypto, keys::Settings::Pickle { .. }));

    let minimal = "server: {port: '80'}\nscan: {script: ./scan.sh, tempDirectory: tmp}\n";
    let migrated = old.migrate(&format!(
        "{minimal}requestHeader: {{userAgent: me/1, xForward: X-Forwarded-For}}\n"
    ));
    let shown = old.load(&migrated).to_string();
    assert!(shown.contains(r#"additional_headers = { user-agent = ".." }"#), "{shown}");
    assert!(shown.contains(r#"headers_to_forward = ["x-forwarded-for"]"#), "{shown}");
    assert!(
        shown.contains("generate = true"),
        "without a pickle there was a new key each time: {shown}"
    );

    let migrated = old.migrate(&format!(
        "{}  directDownload: true\n  baseUrl: https://a.example\n",
        "server: {port: 80}\nscan:\n  script: ./scan.sh\n"
    ));
    assert!(!old.load(&migrated).to_string().contains("base_homeserver_url"));
    assert_eq!(migrated.remarks.len(), 2, "{:?}", told(&migrated));
    assert!(migrated.remarks.iter().all(|remark| remark.kind == RemarkKind::NoCounterpart));

    let migrated = old.migrate(&format!("{minimal}requestHeader: {{xForward: X-Real-IP}}\n"));
    assert_eq!(migrated.remarks[0].kind, RemarkKind::NoCounterpart);
    assert!(migrated.toml.contains("# - line 3: requestHeader.xForward: "), "{}", migrated.toml);
}

/// What has been found in the field, and its like: each is told by its line, and the rest passes over.
#[test]
fn mistakes_are_told_with_their_line_and_their_key() {
    let good = "web: {host: 127.0.0.1, port: 8080}\n\
                crypto: {request_secret_path: request_secret}\n\
                scan:\n  script: ./scan.sh\n  temp_directory: tmp\n";
    for (yaml, words) in [
        (
            "  allowed_mimetypes: []\n",
            "line 6: scan.allowed_mimetypes: an empty list refuses every",
        ),
        ("  allowed_mimetypes:\n", "line 6: scan.allowed_mimetypes: without a value"),
        ("  allowed_mimetypes: image/png\n", "line 6: scan.allowed_mimetypes: expected a list"),
        (
            "  allowed_mimetypes: [image/png, 'image/*', [x]]\n",
            "line 6: scan.allowed_mimetypes[1]: found \"image/*\", expected one type without wildcards",
        ),
        ("  allowed_mimetypes: [[x], a/b]\n", "line 6: scan.allowed_mimetypes[0]: expected text"),
        (
            "  allowed_mimetypes: [a/b]\n  blocked_mimetypes: [c/d]\n",
            "line 7: scan.blocked_mimetypes: beside scan.allowed_mimetypes",
        ),
        ("  removal_command: no-such-program\n", "line 6: scan.removal_command: found"),
        ("  removal_command: ''\n", "line 6: scan.removal_command: found nothing"),
        (
            "  scirpt: x\n",
            "line 6: scan.scirpt: a key unknown to that scanner; left out; was scan.script meant?",
        ),
        ("  tempDirectory: x\n", "line 6: scan.tempDirectory: a key unknown"),
        ("sentry: {dsn: x}\n", "line 6: sentry: a section unknown to that scanner; left out"),
        (
            "script: x\n",
            "line 6: script: a key unknown to that scanner; left out; was scan.script meant?",
        ),
        ("download:\n", "line 6: download: an empty section"),
        ("download: x\n", "line 6: download: found no keys in it"),
        (
            "download: {proxy: 'socks5://p:1'}\n",
            "line 6: download.proxy: found a string, expected an http",
        ),
        ("download: {proxy: [x]}\n", "line 6: download.proxy: found a list or a section"),
        (
            "download: {base_homeserver_url: matrix.example.org}\n",
            "line 6: download.base_homeserver_url: found \"matrix.example.org\", expected an http or https",
        ),
        (
            "download: {additional_headers: {Authorization: x, X-A: y, X-B: [z]}}\n",
            "line 6: download.additional_headers.Authorization: found a string, expected another header",
        ),
        (
            "download: {additional_headers: x}\n",
            "line 6: download.additional_headers: expected names",
        ),
        (
            "download: {headers_to_forward: [Range, X-A]}\n",
            "line 6: download.headers_to_forward[0]: found \"Range\", expected another header",
        ),
        ("result_cache: {ttl: 1 parsec}\n", "line 6: result_cache.ttl: no time that is known"),
        (
            "result_cache: {ttl: 99y}\n",
            "line 6: result_cache.ttl: found \"36036d\", expected a duration",
        ),
        ("result_cache: {max_file_size: many}\n", "line 6: result_cache.max_file_size: no size"),
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
            "result_cache: {exit_codes_to_ignore: [1, -9]}\n",
            "line 6: result_cache.exit_codes_to_ignore: -9 stands for an end by a signal",
        ),
        ("web: {port: 70000}\n", "line 6: web: written a second time, after line 1"),
        (
            "web: {port: 70000}\n",
            "line 6: web.port: found 70000, expected an integer from 0 to 65535",
        ),
    ] {
        let old = Old::new();
        let migrated = old.migrate(&format!("{good}{yaml}"));
        let all = told(&migrated);
        assert!(all.iter().any(|told| told.starts_with(words)), "{words}: {all:#?}");
        let comments: String = migrated
            .toml
            .lines()
            .map_while(|line| line.strip_prefix('#'))
            .flat_map(|line| [line.trim(), " "])
            .collect();
        assert!(comments.contains(&*shown_words(words)), "{words}: {comments}");
        old.load(&migrated);
    }
}

/// A line's blanks are one blank in a comment.
fn shown_words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn files_that_are_not_there_are_told_and_stay() {
    let old = Old::new();
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
        (
            "web: {port: 80}\nscan: {script: ./scan.sh, temp_directory: tmp}\n\
             crypto: {request_secret_path: /no/such/key}",
            "line 3: crypto.request_secret_path: /no/such/key is no file",
        ),
        (
            "server: {port: 80}\nscan: {script: ./scan.sh}\n\
             middleware: {encryptedBody: {picklePath: gone, pickleKey: x}}",
            "line 3: middleware.encryptedBody.picklePath: ",
        ),
        (
            "server: {port: 80}\nscan: {script: 'clamdscan - < $1'}",
            "line 2: scan.script: a line for a shell",
        ),
        (
            "web: {port: 80}\nscan: {}\n",
            "scan.script: found nothing, expected the path of an executable",
        ),
        ("web: {port: 80}\nscan: {}\n", "crypto.request_secret_path: found nothing, expected"),
        ("web: {}\ncrypto: {pickle_path: pickle}\n", "crypto.pickle_key: found nothing, expected"),
    ] {
        let migrated = old.migrate(yaml);
        let all = told(&migrated);
        assert!(all.iter().any(|told| told.starts_with(words)), "{words}: {all:#?}");
        for kept in ["gone.sh", "/no/such/place", "/no/such/key", "/gone"] {
            assert!(
                !yaml.contains(kept) || migrated.toml.contains(kept),
                "{kept}: {}",
                migrated.toml
            );
        }
    }
}

#[test]
fn other_files_are_refused() {
    let old = Old::new();
    for (yaml, words) in [
        ("", "there is nothing in it"),
        ("just words", "neither scanner's configuration"),
        ("[web, crypto]", "neither scanner's configuration"),
        ("services: {web: {}}", "neither scanner's configuration"),
        ("web: {}\nserver: {}\n", "neither scanner's configuration"),
        ("web: [\n", "not YAML"),
    ] {
        let error =
            migrate(yaml, Path::new("x"), &old.path("")).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains(words)), "{yaml}: {error:?}");
    }
    let missing = migrate_file(&old.path("missing.yaml"), None).err().unwrap();
    assert!(matches!(missing, MigrateError::Unreadable(_)));
    fs::write(old.path("latin1.yaml"), b"web: {host: \xe9}").unwrap();
    let latin = migrate_file(&old.path("latin1.yaml"), None).err().unwrap();
    assert!(matches!(latin, MigrateError::Unreadable(_)));
    fs::write(old.path("huge.yaml"), "#".repeat(yaml::MAX_SIZE + 10)).unwrap();
    let huge = migrate_file(&old.path("huge.yaml"), None).err().unwrap();
    assert!(matches!(huge, MigrateError::Yaml(YamlError::TooLarge)));
}

#[test]
fn remarks_hold_no_secret() {
    let old = Old::new();
    let wrong = PYTHON
        .replace("http://me:", "socks://me:")
        .replace("x-secret: hush-header", "\"x secret\": hush-header")
        .replace("request_secret_path: ./request_secret", "pickle_key: hush-key");
    let migrated = old.migrate(&wrong);
    let all = told(&migrated).join("\n");
    assert!(migrated.remarks.len() >= 3, "{all}");
    assert!(!all.contains("hush"), "{all}");
}

#[test]
fn relative_paths_start_from_the_directory_that_is_named() {
    let old = Old::new();
    fs::create_dir(old.path("etc")).unwrap();
    fs::write(old.path("etc/old.yaml"), PYTHON).unwrap();
    let from = |base: Option<&Path>| migrate_file(&old.path("etc/old.yaml"), base).unwrap();
    assert!(from(Some(&old.path(""))).remarks.is_empty());
    let beside = told(&from(None)).join("\n");
    assert!(beside.contains("--base"), "{beside}");
}

#[test]
fn what_a_script_needs_is_suggested_by_its_words() {
    let old = Old::new();
    let yaml =
        "web: {}\nscan: {script: ./scan.sh}\ncrypto: {request_secret_path: request_secret}\n";
    old.script("#!/opt/venv/bin/python -u\n# clamdscan, then c-icap-client; /tmp\n");
    let toml = old.migrate(yaml).toml;
    for line in [
        r#"# read_only_paths = ["/opt/venv/bin/python", "/etc/clamav"]"#,
        r#"# unix_sockets = ["/run/clamav/clamd.ctl"]"#,
        "# tcp_ports = [1344]",
    ] {
        assert!(toml.lines().any(|found| found == line), "{line} in {toml}");
    }
    // Uncommented, they load.
    let uncommented = toml
        .replace("# read_only_paths", "read_only_paths")
        .replace("# unix_sockets", "unix_sockets")
        .replace("# tcp_ports", "tcp_ports");
    assert_eq!(crate::config::problems(&uncommented, &old.path("")), []);
    old.script("#!/bin/sh\nexit 0\n");
    assert!(!old.migrate(yaml).toml.contains("uncomment"));
}

/// Comments name values that are in force without being written.
#[test]
fn defaults_in_comments_are_those_of_the_default_file() {
    let default = include_str!("../../config/default.toml");
    let old = Old::new();
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

/// The pages for operators show what comes of a file.
#[test]
fn the_pages_show_what_migrate_makes_of_their_files() {
    let python = include_str!("../../docs/from-python.md");
    let node = include_str!("../../docs/from-node.md");
    let block = |page: &str, kind: &str| {
        let (_, rest) = page.split_once(&format!("\n```{kind}\n")).unwrap();
        rest.split_once("```\n").unwrap().0.to_owned()
    };
    for (page, script) in [(python, "#!/bin/sh\nclamdscan \"$1\"\n"), (node, "#!/bin/sh\n")] {
        let old = Old::new();
        old.script(script);
        let here = old.path("");
        let migrated = migrate(&block(page, "yaml"), Path::new("config.yaml"), &here).unwrap();
        let toml = migrated.toml.replace(here.to_str().unwrap(), "/srv/scanner/");
        assert_eq!(toml, block(page, "toml"), "the page should have:\n{toml}");
        old.load(&migrated);
    }
}

/// Files whose keys are right and whose values are anything.
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
    let keys = [python::KEYS.as_slice(), node::KEYS.as_slice()].concat();
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_is_translated_or_refused(text in "\\PC{0,400}") {
        check(&text);
    }

    #[test]
    fn any_bytes_of_yaml_are_translated_or_refused(
        text in "([a-z\\[\\]{}:,&*!|>'\"%@#?\n\t -]|web:|crypto:|server:|scan:\n  ){0,200}",
    ) {
        check(&text);
    }

    #[test]
    fn any_value_of_a_known_key_is_translated_or_told(text in near_yaml()) {
        check(&text);
    }
}

/// Whatever was there: the new file is TOML of ours, in which at the most files are missing.
fn check(text: &str) {
    let Ok(migrated) = migrate(text, Path::new("a\nb"), Path::new("/nowhere")) else { return };
    for problem in crate::config::problems(&migrated.toml, Path::new("/nowhere")) {
        let key = problem.key.clone().unwrap_or_default();
        let is_file = [
            "scan.script",
            "scan.temp_directory",
            "crypto.request_secret_path",
            "crypto.pickle_path",
            "crypto.pickle_key",
        ]
        .contains(&key.as_str());
        assert!(is_file, "{problem}\nof {text:?}\nin {}", migrated.toml);
        let is_told =
            migrated.remarks.iter().any(|remark| remark.message.starts_with(&problem.message));
        assert!(is_told, "{problem}\nof {text:?}\nin {:?}", told(&migrated));
    }
}
