//! `migrate`: from an earlier scanner's files to a service that has its public key.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use crate::harness::scanner::run;

/// Made by libolm 3.2.15: a `PkDecryption`'s pickle, its key, and the public key in it.
const PICKLE: &str = "/YmZju2bJEJsurL8UsOvwk5NZlH8iebYom30Y1Y/GTpvdVSglwvQHv2a0EggOvbRu\
                      7cX+fH4lGjqIM7/XdxJuECvtTWevflF96vufoFUFFQo7Ht8Kf2TnA";
const PICKLE_KEY: &str = "a pickle key of the Node scanner";
/// The same key as the Python scanner keeps it.
const SECRET: &str = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n";
const PUBLIC: &str = "jLVWQUTEEkeqHPMAkPsDyj7Wh6jKUAw5rkp6h4VPqBA\n";

/// The directory of an earlier scanner.
struct Old(tempfile::TempDir);

impl Old {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("mcstest-").tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        // Passable: when the tests run as root, scripts run as another user.
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
fn a_migrated_scanner_checks_out_and_has_the_same_public_key() {
    let node = format!(
        "server: {{host: 127.0.0.1, port: 9000}}\n\
         scan: {{script: ./scan.sh, tempDirectory: tmp, baseUrl: 'https://matrix.example.org'}}\n\
         middleware: {{encryptedBody: {{picklePath: pickle, pickleKey: {PICKLE_KEY}}}}}\n"
    );
    for yaml in [PYTHON, &node] {
        let old = Old::new();
        let new = old.text("new.toml");
        fs::write(old.path("old.yaml"), yaml).unwrap();
        let (code, stdout, stderr) = run(&["migrate", &old.text("old.yaml"), "-o", &new], &[]);
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (Some(0), "", ""), "{yaml}");
        // It may hold the pickle's key.
        assert_eq!(fs::metadata(&new).unwrap().permissions().mode() & 0o777, 0o600);

        let (code, stdout, stderr) = run(&["-c", &new, "check-config"], &[]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        assert!(stdout.contains("each engine knows a bad file from a good one"), "{stdout}");
        let (code, stdout, stderr) = run(&["-c", &new, "public-key"], &[]);
        assert_eq!((code, stdout.as_str()), (Some(0), PUBLIC), "{stderr}");
    }
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let old = Old::new();
    fs::write(old.path("old.yaml"), PYTHON).unwrap();
    fs::write(old.path("new.toml"), "mine").unwrap();
    let (code, stdout, stderr) =
        run(&["migrate", &old.text("old.yaml"), "-o", &old.text("new.toml")], &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("new.toml cannot be written"), "{stderr}");
    assert_eq!(fs::read_to_string(old.path("new.toml")).unwrap(), "mine");
}

#[test]
fn what_has_to_be_decided_is_said_and_ends_with_78() {
    let old = Old::new();
    let yaml = PYTHON.replace("temp_directory: tmp", "temp_directory: gone, allowed_mimetypes: []");
    fs::write(old.path("old.yaml"), format!("{yaml}sentry: {{dsn: x}}\n")).unwrap();
    let (code, stdout, stderr) = run(&["migrate", &old.text("old.yaml")], &[]);
    assert_eq!(code, Some(78), "{stderr}");
    for words in [
        "old.yaml: line 2: scan.temp_directory: found",
        "old.yaml: line 2: scan.allowed_mimetypes: an empty list",
        "old.yaml: line 4: sentry: a section unknown",
    ] {
        assert!(stderr.contains(words), "{words}: {stderr}");
    }
    assert_eq!(stderr.lines().count(), 3, "{stderr}");
    assert!(stdout.contains("\n[scan]\n") && !stdout.contains("\nallowed_mimetypes"), "{stdout}");
}

#[test]
fn what_is_no_scanners_configuration_ends_with_1_and_nothing_written() {
    let old = Old::new();
    for (yaml, words) in [
        ("[web]\nport = 8080\n", "not YAML"),
        ("version: '3'\nservices: {}\n", "neither scanner's"),
    ] {
        fs::write(old.path("old.yaml"), yaml).unwrap();
        let (code, stdout, stderr) =
            run(&["migrate", &old.text("old.yaml"), "-o", &old.text("new.toml")], &[]);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
        assert!(stderr.contains("old.yaml: ") && stderr.contains(words), "{stderr}");
        assert!(!old.path("new.toml").exists());
    }
    let (code, _, stderr) = run(&["migrate", "/no/such/file"], &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/no/such/file: it cannot be read: No such file"), "{stderr}");
}
