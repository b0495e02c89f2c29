//! Loading of valid and invalid configurations.

mod changes;
mod default_file;
mod engines;
mod invalid_values;
mod migrate;
mod properties;
mod rejected;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;
use crate::{
    config::sections::audit::{AuditDestination, UserRecord},
    http, keys,
};

/// A temporary directory with a configuration and the files that it refers to.
struct ConfigDir(tempfile::TempDir);

const ROOT: User = User { uid: 0, gid: 0 };

type Loaded = Result<(Config, Vec<Warning>), ConfigErrors>;

impl ConfigDir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        dir.file("scan.sh", "#!/bin/sh\n", 0o755);
        dir
    }

    fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    fn file(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn load_with(&self, text: &str, variables: &[(&str, &str)]) -> Loaded {
        let file = self.file("config.toml", text, 0o644);
        Config::load(Some(&file), variables.iter().map(|(k, v)| (k.into(), v.into())))
    }

    /// Loads `lines` of the form `section.key = value`, plus the required keys that they lack.
    fn load(&self, lines: &str) -> Loaded {
        self.load_with(&text(lines), &[])
    }

    fn load_valid(&self, lines: &str) -> Config {
        self.load(lines).unwrap_or_else(|errors| panic!("{lines}: {errors}")).0
    }

    /// Returns the error text with the file's path replaced by `F`.
    fn errors(&self, lines: &str) -> String {
        let errors = self.load(lines).err().unwrap_or_else(|| panic!("{lines} is accepted"));
        let file = self.path().join("config.toml");
        errors.to_string().replace(file.to_str().unwrap(), "F")
    }
}

/// Adds the required keys that `lines` lack.
fn text(lines: &str) -> String {
    let sets = |key: &str| lines.lines().any(|line| line.trim_start().starts_with(key));
    let mut text = lines.to_owned();
    if !sets("scan.script =") {
        text.push_str("\nscan.script = 'scan.sh'");
    }
    if !sets("crypto.") {
        text.push_str("\ncrypto.request_secret_path = 'key'");
    }
    text
}

fn environment(variables: &[(&str, &str)]) -> Loaded {
    ConfigDir::new().load_with(&text(""), variables)
}

#[test]
fn reads_each_key() {
    let dir = ConfigDir::new();
    let config = dir.load_valid(
        r#"
        web.host = "[::1]"
        web.port = 0
        web.max_body_size = "1MB"
        scan.timeout = "1h 30m"
        scan.deadline = "1d"
        scan.workers = 3
        scan.max_scripts = 2
        scan.removal_command = ["scan.sh", "-x"]
        scan.blocked_mimetypes = ["Image/PNG"]
        sandbox.environment = { TOKEN = "hush" }
        sandbox.limits.cpu_time = "10s"
        sandbox.limits.address_space = "8GiB"
        download.base_homeserver_url = "https://example.org/base/"
        download.homeservers = { "Media.Example.org:8448" = "http://localhost:8008" }
        download.proxy = "http://user:hush@proxy:3128"
        download.additional_headers = { X-Key = "hush" }
        download.headers_to_forward = ["Cookie", "cookie", "Host"]
        download.trusted_proxies = ["127.0.0.1", "10.1.2.3/8", "fd00::/8"]
        download.authorisation_ttl = 0
        result_cache.max_file_size = 500
        result_cache.exit_codes_to_ignore = [0, 3]
        log.level = "info,hyper=warn"
        log.format = "json"
        operations.socket = "operations.sock"
        audit.path = "audit.jsonl"
        audit.client_address = true
        audit.user = "hash"
        "#,
    );
    assert_eq!(config.web.listen, http::Listen::Tcp { host: "::1".into(), port: 0 });
    assert_eq!(config.web.max_body_size, 1_000_000);
    assert_eq!(config.scan.timeout.as_secs(), 5400);
    assert_eq!((config.scan.workers, config.scan.max_scripts), (3, 2));
    let script = dir.path().join("scan.sh");
    assert_eq!(config.scan.script.as_ref(), Some(&script));
    assert_eq!(config.scan.removal_command, Some((script, vec!["-x".into()])));
    assert_eq!(config.scan.mime, mcs_filetype::MimeRules::all_but(["image/png"]));
    assert_eq!(config.sandbox.environment, [("TOKEN".into(), "hush".into())]);
    assert_eq!(config.sandbox.limits.address_space, Some(8 << 30));
    let download = &config.download;
    assert_eq!(download.base_homeserver_url.as_ref().unwrap().as_str(), "https://example.org/base");
    assert_eq!(download.homeservers[0].0, "media.example.org:8448");
    assert_eq!(download.additional_headers["x-key"], "hush");
    assert_eq!(download.headers_to_forward, ["cookie", "host"]);
    assert!(download.authorisation_ttl.is_zero());
    let networks: Vec<_> = config.download.trusted_proxies.iter().map(|net| net.prefix).collect();
    assert_eq!(networks, [32, 8, 8]);
    assert_eq!(config.download.trusted_proxies[1].address.to_string(), "10.0.0.0");
    assert_eq!(config.log.format, LogFormat::Json);
    let socket = http::Listen::Unix(dir.path().join("operations.sock"));
    assert_eq!(config.operations.unwrap().listen, socket);
    let file = dir.path().join("audit.jsonl");
    assert_eq!(config.audit.path, Some(AuditDestination::File(file)));
    assert_eq!((config.audit.client_address, config.audit.user), (true, UserRecord::Hash));
    assert!(dir.load_valid("operations.enabled = false").operations.is_none());
    let stdout = dir.load_valid("audit.path = \"-\"").audit.path;
    assert_eq!(stdout, Some(AuditDestination::Stdout));
}

#[test]
fn variable_overrides_key() {
    let (config, _) = environment(&[
        ("MCS_WEB__PORT", "8081"),
        ("MCS_WEB__HOST", "::"),
        ("MCS_SCAN__TIMEOUT", "30s"),
        ("MCS_SCAN__MAX_SPOOL_SIZE", "1GB"),
        ("MCS_SCAN__SCRIPT_ARGS", "['a', \"b\"]"),
        ("MCS_SANDBOX__LIMITS", "{ open_files = 100 }"),
        ("MCS_DOWNLOAD__HOMESERVERS", "{ 'a.example' = 'http://b' }"),
        ("MCS_DOWNLOAD__FORWARD_CLIENT_ADDRESS", "true"),
        ("MCS_LOG__LEVEL", "debug"),
        ("PATH", "/bin"),
        ("OTHER_MCS_WEB__PORT", "x"),
    ])
    .unwrap();
    assert_eq!(config.web.listen, http::Listen::Tcp { host: "::".into(), port: 8081 });
    assert_eq!(config.scan.timeout.as_secs(), 30);
    assert_eq!(config.scan.max_spool_size, 1_000_000_000);
    assert_eq!(config.scan.script_args, ["a", "b"]);
    assert_eq!(config.sandbox.limits.open_files, Some(100));
    assert_eq!(config.download.homeservers.len(), 1);
    assert!(config.download.forward_client_address);
    assert_eq!(config.log.level, "debug");
}

#[test]
fn variable_string_needs_no_quotes() {
    for key in ["12345", "true", "2024-01-01", "[x]", "a # b", "\"open", "1\nweb.port=2"] {
        let (config, _) = ConfigDir::new()
            .load_with(
                "scan.script = 'scan.sh'\ncrypto.pickle_path = 'p'",
                &[("MCS_CRYPTO__PICKLE_KEY", key)],
            )
            .unwrap();
        let keys::Settings::Pickle { key: loaded, .. } = config.crypto else { unreachable!() };
        assert_eq!(loaded.reveal(), key);
    }
}

#[test]
fn empty_variable_unsets_key() {
    let dir = ConfigDir::new();
    let (config, _) = dir
        .load_with(
            &text("web.port = 'invalid'"),
            &[
                ("MCS_WEB__PORT", ""),
                ("MCS_CRYPTO__REQUEST_SECRET_PATH", ""),
                ("MCS_CRYPTO__PICKLE_PATH", "p"),
                ("MCS_CRYPTO__PICKLE_KEY", "k"),
            ],
        )
        .unwrap();
    assert_eq!(config.web.listen, http::Listen::Tcp { host: "127.0.0.1".into(), port: 8080 });
    assert!(matches!(config.crypto, keys::Settings::Pickle { .. }));
}

#[test]
fn verdicts_are_stored_where_there_is_a_place() {
    let dir = ConfigDir::new();
    let state = dir.path().join("state");
    for directory in [&state, &dir.path().join("jobs")] {
        fs::create_dir(directory).unwrap();
    }
    let passed = format!("{}:/other", state.display());
    let path = |lines: &str, variables: &[(&str, &str)]| {
        let lines = format!("scan.temp_directory = 'jobs'\n{lines}");
        dir.load_with(&text(&lines), variables)
            .unwrap()
            .0
            .store
            .and_then(|store| Some(store.file()?.path.clone()))
    };
    let variables = &[("STATE_DIRECTORY", passed.as_str())][..];
    assert_eq!(path("", &[]), None);
    assert_eq!(path("", &[("STATE_DIRECTORY", "")]), None);
    assert_eq!(path("", variables), Some(state.join("store.db")));
    assert_eq!(path("store.kind = 'file'", variables), Some(state.join("store.db")));
    assert_eq!(path("store.kind = 'none'", variables), None);
    assert_eq!(path("store.path = 'own.db'", variables), Some(dir.path().join("own.db")));
    assert_eq!(path("store.path = 'own.db'", &[]), Some(dir.path().join("own.db")));
    assert_eq!(path("store.path = 'own.db'\nstore.kind = 'none'", &[]), None);
}

#[test]
fn credential_is_default_request_key() {
    const NAME: &str = "matrix-content-scanner.request_secret";
    let dir = ConfigDir::new();
    let directory = dir.path().to_str().unwrap().to_owned();
    let load = |text: &str| dir.load_with(text, &[("CREDENTIALS_DIRECTORY", &directory)]);
    let script = "scan.script = 'scan.sh'";
    let path = |loaded: Loaded| match loaded.unwrap().0.crypto {
        keys::Settings::RequestSecret { path, generate } => (path, generate),
        keys::Settings::Pickle { .. } => unreachable!(),
    };
    assert!(load(script).is_err(), "no credential exists");
    let credential = dir.file(NAME, "", 0o400);
    assert_eq!(path(load(script)), (credential, false));
    assert_eq!(path(load(&text(""))), (dir.path().join("key"), false));
    let pickle = "crypto.pickle_path = 'p'\ncrypto.pickle_key = 'k'";
    let loaded = load(&format!("{script}\n{pickle}")).unwrap().0;
    assert!(matches!(loaded.crypto, keys::Settings::Pickle { .. }));
    let errors = load(&format!("{script}\ncrypto.generate = true")).unwrap_err().to_string();
    assert!(errors.contains("crypto.generate: found true without request_secret_path"), "{errors}");
    // An incomplete source is an error even if there is a credential.
    assert!(load(&format!("{script}\ncrypto.pickle_path = 'p'")).is_err());
}

#[test]
fn reports_invalid_variable_by_name() {
    for (name, text, expected) in [
        ("MCS_WEB__PORT", "x", "MCS_WEB__PORT: web.port: found \"x\", expected an integer"),
        ("MCS_WEB__PROT", "1", "MCS_WEB__PROT: web.prot: found an unknown key, expected web.port?"),
        ("MCS_WEB__PROT", "", "found an unknown key"),
        ("MCS_WEB_PORT", "1", "MCS_WEB_PORT: found an unknown name, expected MCS_WEB__PORT?"),
        ("MCS_SCAN_MAX_SCRIPT", "1", "expected MCS_SCAN__MAX_SCRIPTS?"),
        ("MCS_CONFIG", "hush", "found an unknown name, expected MCS_<SECTION>__<KEY>"),
        ("MCS_WBE__PORT", "1", "MCS_WBE__PORT: wbe.port: found an unknown key, expected web.port?"),
        ("MCS_DOWNLOAD__HEADERS_TO_FORWARD", "Cookie", "found \"Cookie\", expected a list"),
    ] {
        let errors = environment(&[(name, text)]).unwrap_err().to_string();
        assert!(errors.contains(expected), "{errors}\n{expected}");
        assert!(!errors.contains("hush"), "{errors}");
    }
    let other = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]);
    let errors = Config::load(None, std::iter::once(("MCS_WEB__HOST".into(), other))).unwrap_err();
    assert_eq!(errors.to_string(), "MCS_WEB__HOST: not valid UTF-8");
}

#[test]
fn resolves_relative_path_against_file_and_keeps_last_link() {
    let dir = ConfigDir::new();
    fs::create_dir(dir.path().join("etc")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("scan.sh"), dir.path().join("etc/link")).unwrap();
    let file = dir.path().join("etc/config.toml");
    fs::write(&file, text("scan.script = 'link'\nscan.removal_command = ['../etc/../scan.sh']\nscan.temp_directory = '../etc/.'")).unwrap();
    let (config, _) = Config::load(Some(&file), std::iter::empty()).unwrap();
    assert_eq!(config.scan.script.unwrap(), dir.path().join("etc/link"));
    assert_eq!(config.scan.removal_command.unwrap().0, dir.path().join("scan.sh"));
    assert_eq!(config.scan.temp_directory, dir.path().join("etc"));
}

fn warnings_for(lines: &str) -> Vec<Warning> {
    let mut warnings = ConfigDir::new().load(lines).unwrap().1;
    warnings.retain(|warning| !matches!(warning, Warning::SharedUser(_)));
    warnings
}

#[test]
fn warns_of_settings_without_effect() {
    let unreachable = |key, because| vec![Warning::NeverReached { key, because }];
    assert_eq!(warnings_for(""), []);
    assert_eq!(
        warnings_for("scan.timeout = '2m'\nscan.deadline = '1m'"),
        unreachable("scan.timeout", "scan.deadline")
    );
    assert_eq!(
        warnings_for("scan.max_spool_size = '1MiB'"),
        unreachable("download.max_size", "scan.max_spool_size")
    );
    assert_eq!(
        warnings_for("result_cache.max_file_size = '1GiB'"),
        unreachable("result_cache.max_file_size", "result_cache.max_total_size")
    );
    assert_eq!(
        warnings_for("download.headers_to_forward = ['Authorization']"),
        [Warning::AlwaysForwarded("Authorization")]
    );
}

#[test]
fn warns_of_settings_that_weaken_the_service() {
    assert_eq!(warnings_for("scan.canary = 'off'"), [Warning::CanaryOff]);
    assert_eq!(warnings_for("sandbox.mode = 'degraded'"), [Warning::DegradedSandbox]);
    let networks = "download.trusted_proxies = ['10.0.0.0/8', '0.0.0.0/0', '::/0']";
    let all = ["0.0.0.0/0", "::/0"].map(|network| Warning::TrustsAllAddresses(network.to_owned()));
    assert_eq!(warnings_for(networks), all);
}

#[test]
fn ignores_service_links_with_a_warning() {
    let variables =
        [("MCS_SERVICE_HOST", "10.96.0.7"), ("MCS_PORT", "tcp://10.96.0.7:8080"), ("HOME", "/")];
    let (_, warnings) = ConfigDir::new().load_with(&text(""), &variables).unwrap();
    let names = ["MCS_PORT", "MCS_SERVICE_HOST"].map(str::to_owned).to_vec();
    assert!(warnings.contains(&Warning::ServiceLinks(names)), "{warnings:?}");
    let misnamed = ConfigDir::new().load_with(&text(""), &[("MCS_WEB_PORT", "8081")]);
    assert!(misnamed.unwrap_err().to_string().contains("expected MCS_WEB__PORT?"));
}

#[test]
fn unit_of_one_letter_is_binary() {
    for (text, bytes) in [
        ("50M", 50 << 20),
        ("50m", 50 << 20),
        ("64K", 64 << 10),
        ("64k", 64 << 10),
        ("1G", 1 << 30),
        ("1.5G", 3 << 29),
        ("2 T", 2 << 40),
        ("50MB", 50_000_000),
        ("50MiB", 50 << 20),
        ("50kB", 50_000),
    ] {
        let config = ConfigDir::new().load_valid(&format!("download.max_size = '{text}'"));
        assert_eq!(config.download.max_size, bytes, "{text}");
    }
}

#[test]
fn only_root_switches_user_and_always_does() {
    let user = |text: &str, uid| {
        let server = User { uid, gid: uid };
        let dir = ConfigDir::new();
        let file = dir.file("config.toml", text, 0o644);
        let sources = Sources::collect(Some(&file), std::iter::empty()).unwrap();
        let mut reader = sources.parse(server).unwrap();
        let policy = Policy::read(&mut reader.section("sandbox"));
        let user = policy.and_then(|policy| policy.user).map(|user| (user.uid, user.gid));
        (user, reader.finish().problems.len())
    };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let nobody = (nobody.uid.as_raw(), nobody.gid.as_raw());
    assert_eq!(user("", 0), (Some(nobody), 0));
    assert_eq!(user("sandbox.user = '77:88'", 0), (Some((77, 88)), 0));
    assert_eq!(user("sandbox.user = 'nobody'", 0), (Some(nobody), 0));
    assert_eq!(user("", 77), (None, 0));
    assert_eq!(user("sandbox.user = '77:77'", 77), (None, 0));
    assert_eq!(user("sandbox.user = '77:78'", 77).1, 1);
    assert_eq!(user("sandbox.user = '77:77'", 78).1, 1);
}

#[test]
fn hides_secrets() {
    let dir = ConfigDir::new();
    let config = dir.load_valid(
        "sandbox.environment = { TOKEN = 'hush' }
         download.proxy = 'http://user:hush@proxy'
         download.additional_headers = { X-Key = 'hush' }
         crypto.pickle_path = 'p'
         crypto.pickle_key = 'hush'",
    );
    for displayed in [format!("{config}"), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!displayed.contains("hush"), "{displayed}");
        for line in [
            r#"environment = { TOKEN = ".." }"#,
            r#"proxy = "http://user:..@proxy""#,
            r#"additional_headers = { x-key = ".." }"#,
            r#"pickle_key = "..""#,
        ] {
            assert!(displayed.contains(line), "{line} in {displayed}");
        }
    }
}

#[test]
fn displayed_configuration_loads_to_same_configuration() {
    let dir = ConfigDir::new();
    for lines in [
        "",
        "web.socket = 's'",
        "scan.script_args = ['\"', '\\', \"\\u001b\\t\", 'é']\nscan.removal_command = ['scan.sh', '-u']",
        "scan.allowed_mimetypes = ['b/c', 'a/b']\nsandbox.limits = { cpu_time = '90s', open_files = 99 }",
        "download.homeservers = { 'a.example' = 'http://b/c' }\ndownload.trusted_proxies = ['::1']",
        "operations.enabled = false\naudit.path = '-'",
        "operations.socket = 's'\naudit.path = 'audit'\naudit.all_responses = true\naudit.user = 'full'",
        "web.max_body_size = 1025\nscan.timeout = '1d 1ms'\nscan.deadline = '2d'",
    ] {
        // The user is displayed even if it is not configured, and then only root can load it.
        let config = Config {
            sandbox: Policy { user: None, ..dir.load_valid(lines).sandbox },
            ..dir.load_valid(lines)
        };
        let displayed = config.to_string();
        let again = dir.load_with(&displayed, &[]).unwrap_or_else(|e| panic!("{displayed}\n{e}")).0;
        let again = Config { sandbox: Policy { user: None, ..again.sandbox.clone() }, ..again };
        assert_eq!(again.to_string(), displayed);
    }
}
