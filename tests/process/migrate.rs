//! Tests of `migrate`: converts the files of an earlier scanner and keeps the public key.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use crate::harness::scanner::run;

/// Pickle of a `PkDecryption` made by libolm 3.2.15. [`PICKLE_KEY`] encrypts it; [`PUBLIC`] is its public key.
const PICKLE: &str = "/YmZju2bJEJsurL8UsOvwk5NZlH8iebYom30Y1Y/GTpvdVSglwvQHv2a0EggOvbRu\
                      7cX+fH4lGjqIM7/XdxJuECvtTWevflF96vufoFUFFQo7Ht8Kf2TnA";
const PICKLE_KEY: &str = "a pickle key of the Node scanner";
/// The same key in the format of the Python scanner.
const SECRET: &str = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n";
const PUBLIC: &str = "jLVWQUTEEkeqHPMAkPsDyj7Wh6jKUAw5rkp6h4VPqBA\n";

/// Directory of an earlier scanner.
struct OldScannerDir(tempfile::TempDir);

impl OldScannerDir {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mcstest-").tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // Searchable by others: when the tests run as root, scripts run as another user.
        mode(folder.path(), 0o755);
        let old = Self(folder);
        fs::create_dir(old.path("tmp")).unwrap();
        fs::write(old.path("pickle"), PICKLE).unwrap();
        fs::write(old.path("request_secret"), SECRET).unwrap();
        fs::write(old.path("scan.sh"), "#!/bin/sh\n! grep -q EICAR-STANDARD \"$1\"\n").unwrap();
        mode(&old.path("scan.sh"), 0o755);
        old
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

const PYTHON: &str = "web: {host: 127.0.0.1, port: 8080}\n\
                      scan: {script: ./scan.sh, temp_directory: tmp}\n\
                      crypto: {request_secret_path: request_secret}\n";

#[test]
fn migrated_configuration_is_valid_and_keeps_public_key() {
    let node = format!(
        "server: {{host: 127.0.0.1, port: 9000}}\n\
         scan: {{script: ./scan.sh, tempDirectory: tmp, baseUrl: 'https://matrix.example.org'}}\n\
         middleware: {{encryptedBody: {{picklePath: pickle, pickleKey: {PICKLE_KEY}}}}}\n"
    );
    for yaml in [PYTHON, &node] {
        let old = OldScannerDir::new();
        let new = old.text("new.toml");
        fs::write(old.path("old.yaml"), yaml).unwrap();
        let (code, stdout, stderr) = run(&["migrate", &old.text("old.yaml"), "-o", &new], &[]);
        assert_eq!((code, stdout.as_str()), (Some(0), ""), "{yaml}");
        let lines: Vec<_> = stderr.lines().collect();
        let [wrote, next] = lines[..] else { panic!("{stderr}") };
        assert!(wrote.starts_with(&format!("wrote {new}, converted from the configuration of ")));
        assert_eq!(next, format!("next: run: matrix-content-scanner -c {new} check-config"));
        // The file may contain the key of the pickle.
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);

        let (code, stdout, stderr) = run(&["-c", &new, "check-config", "--show", "--offline"], &[]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.contains("every engine detects the infected sample"), "{stdout}");
        let (code, stdout, stderr) = run(&["-c", &new, "public-key"], &[]);
        assert_eq!((code, stdout.as_str()), (Some(0), PUBLIC), "{stderr}");
    }
}

#[test]
fn does_not_overwrite_existing_file() {
    let old = OldScannerDir::new();
    fs::write(old.path("old.yaml"), PYTHON).unwrap();
    fs::write(old.path("new.toml"), "mine").unwrap();
    let (code, stdout, stderr) =
        run(&["migrate", &old.text("old.yaml"), "-o", &old.text("new.toml")], &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("error: cannot write ") && stderr.contains("new.toml: "), "{stderr}");
    assert_eq!(fs::read_to_string(old.path("new.toml")).unwrap(), "mine");
}

#[test]
fn reports_settings_that_need_a_decision_and_exits_with_78() {
    let old = OldScannerDir::new();
    let yaml = PYTHON.replace("temp_directory: tmp", "temp_directory: gone, allowed_mimetypes: []");
    fs::write(old.path("old.yaml"), format!("{yaml}sentry: {{dsn: x}}\n")).unwrap();
    let (code, stdout, stderr) = run(&["migrate", &old.text("old.yaml")], &[]);
    assert_eq!(code, Some(78), "{stderr}");
    for message in [
        "old.yaml: line 2: scan.temp_directory: found",
        "old.yaml: line 2: scan.allowed_mimetypes: an empty list",
        "old.yaml: line 4: sentry: a section unknown",
    ] {
        assert!(stderr.contains(message), "{message}: {stderr}");
    }
    assert_eq!(stderr.lines().count(), 5, "{stderr}");
    assert!(stderr.contains("\nnext: write it to a file (-o FILE), then run: "), "{stderr}");
    assert!(stdout.contains("\n[scan]\n") && !stdout.contains("\nallowed_mimetypes"), "{stdout}");
}

#[test]
fn rejects_unknown_input_format_and_exits_with_1() {
    let old = OldScannerDir::new();
    for (yaml, message) in [
        ("[web]\nport = 8080\n", "not YAML"),
        ("version: '3'\nservices: {}\n", "neither scanner's"),
    ] {
        fs::write(old.path("old.yaml"), yaml).unwrap();
        let (code, stdout, stderr) =
            run(&["migrate", &old.text("old.yaml"), "-o", &old.text("new.toml")], &[]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("old.yaml: ") && stderr.contains(message), "{stderr}");
        assert!(!old.path("new.toml").exists());
    }
    let (code, _, stderr) = run(&["migrate", "/no/such/file"], &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/no/such/file: cannot be read: No such file"), "{stderr}");
}

#[test]
fn colours_and_escapes_errors_like_other_commands() {
    let old = OldScannerDir::new();
    fs::write(old.path("old.yaml"), PYTHON).unwrap();
    let (missing, output) = (old.text("none\u{1b}[1m"), old.text("none\u{1b}[1m/new.toml"));
    for arguments in [&[&*missing][..], &[&old.text("old.yaml"), "-o", &output]] {
        let (code, _, stderr) = run(&[&["--color=always", "migrate"], arguments].concat(), &[]);
        assert_eq!(code, Some(1), "{stderr}");
        let message = stderr.strip_prefix("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: ");
        let message = message.unwrap_or_else(|| panic!("{stderr:?}"));
        assert!(message.contains(r"/none\u{1b}[1m"), "{message:?}");
        assert!(message.ends_with(": No such file or directory (os error 2)\n"), "{message:?}");
    }
}

#[test]
fn escapes_control_characters_of_old_file() {
    let old = OldScannerDir::new();
    fs::write(old.path("old.yaml"), PYTHON.replace("request_secret}", "\"a\\e[1mb\\nc\"}"))
        .unwrap();
    let (code, stdout, stderr) = run(&["migrate", &old.text("old.yaml")], &[]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains(r"/a\u{1b}[1mb\nc does not exist"), "{stderr}");
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    assert!(!stdout.contains('\u{1b}'), "{stdout}");
}

/// Answers one request of clamd's protocol, clamd(8): finds EICAR in a stream.
fn answer_as_clamd(mut stream: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut command = Vec::new();
    reader.read_until(0, &mut command)?;
    let mut answer = b"ClamAV 1.0.7/27000/Mon Nov 30 00:00:00 2026\0".to_vec();
    if command == b"zINSTREAM\0" {
        let mut content = Vec::new();
        loop {
            let mut length = [0; 4];
            reader.read_exact(&mut length)?;
            let length = u64::from(u32::from_be_bytes(length));
            if length == 0 {
                break;
            }
            reader.by_ref().take(length).read_to_end(&mut content)?;
        }
        let is_infected = String::from_utf8_lossy(&content).contains("EICAR-STANDARD");
        answer =
            if is_infected { b"stream: Eicar FOUND\0".to_vec() } else { b"stream: OK\0".to_vec() };
    }
    stream.write_all(&answer)
}

/// Starts a clamd on loopback; returns its address. It ends with the process of the tests.
fn clamd() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || answer_as_clamd(&stream));
        }
    });
    address
}

/// Follows the comments on the engine clamd in a converted file.
fn use_clamd(toml: &str, address: &str) -> String {
    let lines = toml.lines().filter(|line| !line.starts_with("script = "));
    let lines = lines.map(|line| match line {
        "engines = [\"script\"]" => "engines = [\"clamd\"]".to_owned(),
        line if line.starts_with("# addresses = ") => format!("addresses = [{address:?}]"),
        line => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A file of `crates/migrate/tests/public`: a public configuration, without its names.
struct PublicFile {
    name: &'static str,
    /// Settings that need a decision, by the keys in the messages.
    open: &'static [&'static str],
    /// Address of clamd that the conversion offers.
    clamd: Option<&'static str>,
    /// The file has no source of the request key.
    is_without_key: bool,
}

const PUBLIC_FILES: [PublicFile; 7] = [
    PublicFile { name: "container.yaml", open: &[], clamd: None, is_without_key: false },
    PublicFile { name: "all-keys.yaml", open: &[], clamd: None, is_without_key: false },
    PublicFile { name: "node-container.yaml", open: &[], clamd: None, is_without_key: true },
    PublicFile { name: "node-all-keys.yaml", open: &[], clamd: None, is_without_key: false },
    PublicFile {
        name: "manifest.yaml",
        open: &[
            "web.trust_x_forwarded_for",
            "scan.max_size",
            "scan.allowed_mimetypes",
            "scan.remove_metadata",
            "result_cache.type",
            "logging",
            "scan.script",
            "crypto.request_secret_path",
        ],
        clamd: Some("clamd.chat.svc.cluster.local:3310"),
        is_without_key: true,
    },
    PublicFile {
        name: "clamdscan-manifest.yaml",
        open: &["proxy", "scan.script", "crypto.request_secret_path"],
        clamd: Some("/run/clamav/clamd.ctl"),
        is_without_key: true,
    },
    PublicFile {
        name: "values.yaml",
        open: &["scan.script"],
        clamd: Some("media-clamd:3310"),
        is_without_key: false,
    },
];

#[test]
fn public_configurations_migrate_and_pass_the_check() {
    let address = clamd();
    for file in PUBLIC_FILES {
        let old = OldScannerDir::new();
        let name = file.name;
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/migrate/tests/public").join(name);
        fs::copy(&source, old.path("old.yaml")).unwrap();
        let new = old.text("new.toml");
        let (code, _, stderr) = run(&["migrate", &old.text("old.yaml"), "-o", &new], &[]);
        let expected = if file.open.is_empty() { 0 } else { 78 };
        assert_eq!(code, Some(expected), "{name}: {stderr}");
        for key in file.open {
            assert!(stderr.contains(&format!(" {key}: ")), "{name}: {key}: {stderr}");
        }
        let mut toml = fs::read_to_string(&new).unwrap();
        assert_eq!(toml.contains("\n[clamd]\n"), file.clamd.is_some(), "{name}: {toml}");
        if let Some(offered) = file.clamd {
            assert!(toml.contains(&format!("\n# addresses = [{offered:?}]\n")), "{name}: {toml}");
            toml = use_clamd(&toml, &address);
            fs::write(&new, &toml).unwrap();
        }
        let key = old.text("new_key");
        let key =
            [("MCS_CRYPTO__REQUEST_SECRET_PATH", key.as_str()), ("MCS_CRYPTO__GENERATE", "true")];
        let variables: &[_] = if file.is_without_key { &key } else { &[] };
        let (code, stdout, stderr) = run(&["-c", &new, "check-config", "--show"], variables);
        assert_eq!(code, Some(0), "{name}: {stdout}{stderr}\n{toml}");
        assert!(stdout.contains("every engine detects the infected sample"), "{name}: {stdout}");
    }
}
