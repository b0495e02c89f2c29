//! Tests of `migrate`: converts the files of an earlier scanner and keeps the public key.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""), "{yaml}");
        // The file may contain the key of the pickle.
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);

        let (code, stdout, stderr) = run(&["-c", &new, "check-config"], &[]);
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
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
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
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(!stdout.contains('\u{1b}'), "{stdout}");
}
