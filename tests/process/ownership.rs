//! Tests of owners and modes of files that the service trusts: temporary directory, rules, request key, audit log.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use mcs_evaluator::RuleSet;
use nix::sys::signal::Signal;

use crate::harness::{MockHomeserver, ScannerBuilder, report_skipped, scanner::is_root};

const OTHER_USER: u32 = 61_234;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// Returns the permission bits of a file or directory.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Returns a builder whose temporary directory is `volume/temp`, unless `lines` set another one.
fn builder(lines: &str) -> ScannerBuilder {
    let temp = "scan.temp_directory = \"volume/temp\"\n";
    let temp = if lines.contains("scan.temp_directory =") { "" } else { temp };
    let builder = ScannerBuilder::new("exit 0").config(&format!("{temp}{lines}"));
    let volume = builder.dir().path("volume");
    fs::create_dir(&volume).unwrap();
    fs::create_dir(volume.join("temp")).unwrap();
    set_mode(&volume, 0o755);
    set_mode(&volume.join("temp"), 0o755);
    builder
}

#[test]
fn rejects_temporary_directory_writable_by_others() {
    for (path, mode, is_rejected) in [
        ("volume/temp", 0o777, true),
        ("volume/temp", 0o775, true),
        ("volume", 0o777, true),
        ("volume", 0o770, true),
        ("volume/temp", 0o1777, false),
        ("volume", 0o1777, false),
        ("volume/temp", 0o700, false),
    ] {
        let builder = builder("");
        let exposed = builder.dir().path(path);
        set_mode(&exposed, mode);
        let (code, stdout, stderr) = builder.run(&["check-config"]);
        if !is_rejected {
            assert_eq!(code, Some(0), "{path} {mode:o}: {stderr}");
            assert!(!stdout.contains("so other users may"), "{stdout}");
            continue;
        }
        let (started, log) = builder.run_to_exit();
        assert_eq!((code, started), (Some(78), Some(78)), "{path} {mode:o}: {stderr}{log}");
        for output in [stderr, log] {
            for expected in [
                format!("{} has mode {mode:04o}, so other users may", exposed.display()),
                "scan.temp_directory: found".to_owned(),
                "scan.temp_directory_shared = true".to_owned(),
            ] {
                assert!(output.contains(&expected), "{expected} in {output}");
            }
        }
    }
}

#[test]
fn rejects_temporary_directory_owned_by_another_user() {
    let test = "rejects_temporary_directory_owned_by_another_user";
    if !is_root() {
        return report_skipped(test, "needs root to change the owner of files");
    }
    for path in ["volume", "volume/temp"] {
        let builder = builder("");
        let exposed = builder.dir().path(path);
        chown(&exposed, Some(OTHER_USER), None).unwrap();
        let (code, output) = builder.run_to_exit();
        assert_eq!(code, Some(78), "{output}");
        let expected = format!("{} belongs to uid {OTHER_USER}", exposed.display());
        assert!(output.contains(&expected), "{output}");
    }
}

#[test]
fn checks_directory_of_link_to_temporary_directory() {
    let builder = builder("scan.temp_directory = \"links/temp\"");
    let links = builder.dir().path("links");
    fs::create_dir(&links).unwrap();
    symlink("../volume/temp", links.join("temp")).unwrap();
    for (mode, expected) in [(0o755, 0), (0o777, 78)] {
        set_mode(&links, mode);
        let (code, stdout, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(expected), "{stdout}{stderr}");
        assert_eq!(stderr.contains("links has mode 0777"), expected != 0, "{stderr}");
    }
}

#[tokio::test]
async fn warns_about_explicitly_shared_temporary_directory() {
    let builder = builder("scan.temp_directory_shared = true");
    set_mode(&builder.dir().path("volume/temp"), 0o777);
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("temp has mode 0777, so other users may"), "{stdout}");
    let scanner = builder.start().await;
    assert!(scanner.log().contains("temp has mode 0777, so other users may"), "{}", scanner.log());
}

#[tokio::test]
async fn reload_rejects_directory_that_became_unsafe() {
    let scanner = builder("").start().await;
    set_mode(&scanner.dir.path("volume/temp"), 0o777);
    scanner.signal(Signal::SIGHUP);
    scanner.wait_for_log("reload rejected", 1).await;
    assert!(scanner.log().contains("temp has mode 0777, so other users may"), "{}", scanner.log());
}

#[tokio::test]
async fn other_user_cannot_replace_loaded_rules() {
    let homeserver = MockHomeserver::start().await;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    let lines = format!(
        "scan.temp_directory_shared = true\nscan.engines = [\"rules\"]\nrules.paths = [\"{}\"]",
        rules.display()
    );
    let builder = builder(&lines).homeserver(&homeserver);
    let temp = builder.dir().path("volume/temp");
    set_mode(&temp, 0o777);
    let harmless = builder.dir().path("harmless.yar");
    fs::write(&harmless, "rule Never { condition: false }").unwrap();
    let prepared = RuleSet::load(&[harmless]).unwrap().prepared().to_vec();
    let scanner = builder.start().await;
    let program = fs::read("/bin/true").unwrap();
    for attack in ["at first", "after the replacement", "after a reload"] {
        let media =
            homeserver.add_bytes(&attack.replace(' ', ""), [&program, attack.as_bytes()].concat());
        let path = format!("/scan/{media}");
        if attack == "after the replacement" {
            // The service does not use a directory that it has not created.
            scanner.client.get(&path).await.assert_error(500, "M_UNKNOWN");
            for entry in fs::read_dir(&temp).unwrap().map(Result::unwrap) {
                fs::remove_dir_all(entry.path()).unwrap();
            }
        }
        let verdict = scanner.client.get(&path).await;
        verdict.assert_not_clean("File not clean. Output: 'Linux_Program'");
        if attack == "at first" {
            // Renames each directory of the service and replaces it by a directory with rules that never match.
            for entry in fs::read_dir(&temp).unwrap().map(Result::unwrap) {
                let path = entry.path();
                assert!(!path.join("rules").exists(), "rules are at {}", path.display());
                fs::rename(&path, temp.join("renamed")).unwrap();
                fs::create_dir(&path).unwrap();
                set_mode(&path, 0o777);
                fs::write(path.join("rules"), &prepared).unwrap();
            }
        } else if attack == "after the replacement" {
            scanner.signal(Signal::SIGHUP);
            scanner.wait_for_log("\"reloaded", 1).await;
        }
    }
}

#[test]
fn generated_key_is_never_written_through_a_link() {
    let builder = builder("");
    let key = builder.dir().path("request_secret");
    let (code, output) = with_umask(&builder, "0777", &["check-config"]);
    assert_eq!(code, Some(0), "{output}");
    assert!(!key.exists());

    fs::write(builder.dir().path("elsewhere"), "").unwrap();
    symlink("elsewhere", &key).unwrap();
    let (code, output) = with_umask(&builder, "0022", &["public-key"]);
    assert_ne!(code, Some(0));
    assert!(output.contains("it is a symbolic link"), "{output}");
    // A key provided by the operator may be a link, as mounted secrets are.
    fs::write(builder.dir().path("elsewhere"), [b'A'; 43]).unwrap();
    let with_provided_key = builder.config("crypto.generate = false");
    let (code, output) = with_umask(&with_provided_key, "0022", &["public-key"]);
    assert_eq!(code, Some(0), "{output}");
}

#[tokio::test]
async fn new_key_and_audit_file_modes_ignore_umask() {
    for umask in ["0000", "0777"] {
        let builder = builder("audit.path = \"audit.log\"").wrapped_by(&[
            "sh",
            "-c",
            &format!("umask {umask}; exec \"$@\""),
            "sh",
        ]);
        let scanner = builder.start().await;
        assert_eq!(mode(&scanner.dir.path("request_secret")), 0o600, "{umask}");
        assert_eq!(mode(&scanner.dir.path("audit.log")), 0o640, "{umask}");
        let temp = fs::read_dir(scanner.dir.path("volume/temp")).unwrap();
        for entry in temp.map(Result::unwrap) {
            assert_eq!(mode(&entry.path()), if is_root() { 0o711 } else { 0o700 }, "{umask}");
        }
    }
}

#[test]
fn rejects_key_and_audit_file_writable_by_others() {
    let builder = builder("audit.path = \"audit.log\"");
    let [key, audit] = ["request_secret", "audit.log"].map(|name| builder.dir().path(name));
    fs::write(&key, [b'A'; 43]).unwrap();
    fs::write(&audit, "").unwrap();
    for (file, name, exit_code) in [(&key, "request_secret", 78), (&audit, "audit.log", 1)] {
        set_mode(&key, 0o600);
        set_mode(&audit, 0o640);
        set_mode(file, 0o602);
        let (code, _, stderr) = builder.run(&[]);
        assert_eq!(code, Some(exit_code), "{stderr}");
        assert!(
            stderr.contains(&format!("{name} has mode 0602, so every user may write")),
            "{stderr}"
        );
        if is_root() {
            set_mode(file, 0o600);
            chown(file, Some(OTHER_USER), None).unwrap();
            let (code, _, stderr) = builder.run(&[]);
            assert_eq!(code, Some(exit_code), "{stderr}");
            assert!(stderr.contains(&format!("{name} belongs to uid {OTHER_USER}")), "{stderr}");
            chown(file, Some(0), None).unwrap();
        }
    }
    set_mode(&audit, 0o640);
    fs::rename(&audit, audit.with_extension("target")).unwrap();
    symlink("audit.target", &audit).unwrap();
    let (code, _, stderr) = builder.run(&[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the path is a symbolic link"), "{stderr}");
}

#[test]
fn migrated_configuration_mode_ignores_umask() {
    let builder = builder("");
    let (old, new) = (builder.dir().path("old.yaml"), builder.dir().path("new.toml"));
    fs::write(&old, "web:\n  port: 80\nscan:\n  script: ./script.sh\n  temp_directory: tmp\n")
        .unwrap();
    let arguments = ["migrate", old.to_str().unwrap(), "-o", new.to_str().unwrap()];
    let _open_questions = with_umask(&builder, "0777", &arguments);
    assert_eq!(mode(&new), 0o600);
    assert!(File::open(&new).unwrap().metadata().unwrap().len() > 0);
}

/// Runs the program with `umask`; returns the exit code and the output.
fn with_umask(builder: &ScannerBuilder, umask: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let program = crate::harness::scanner::PROGRAM;
    let line = format!("umask {umask}; exec \"$@\"");
    let config = builder.write_config();
    #[expect(
        clippy::disallowed_methods,
        reason = "the program under test, started with another umask"
    )]
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &line, "sh", program]);
    if arguments.first() != Some(&"migrate") {
        command.arg("-c").arg(config);
    }
    let output = command.args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}
