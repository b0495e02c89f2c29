//! Who may replace what the service writes and trusts: the temporary directory, the rules, the request key, the audit's file.

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use mcs_rules::RuleSet;
use nix::sys::signal::Signal;

use crate::harness::{Builder, Homeserver, scanner::as_root, skipped};

const OTHER_USER: u32 = 61_234;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The mode of a file or directory.
fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A configuration whose temporary directory is `volume/temp`, unless the lines name another one.
fn builder(lines: &str) -> Builder {
    let temp = "scan.temp_directory = \"volume/temp\"\n";
    let temp = if lines.contains("scan.temp_directory =") { "" } else { temp };
    let builder = Builder::new("exit 0").config(&format!("{temp}{lines}"));
    let volume = builder.place().path("volume");
    fs::create_dir(&volume).unwrap();
    fs::create_dir(volume.join("temp")).unwrap();
    set_mode(&volume, 0o755);
    set_mode(&volume.join("temp"), 0o755);
    builder
}

#[test]
fn a_temporary_directory_that_others_can_replace_is_a_wrong_configuration() {
    for (path, mode, refused) in [
        ("volume/temp", 0o777, true),
        ("volume/temp", 0o775, true),
        ("volume", 0o777, true),
        ("volume", 0o770, true),
        ("volume/temp", 0o1777, false),
        ("volume", 0o1777, false),
        ("volume/temp", 0o700, false),
    ] {
        let builder = builder("");
        let exposed = builder.place().path(path);
        set_mode(&exposed, mode);
        let (code, stdout, stderr) = builder.run(&["check-config"]);
        if !refused {
            assert_eq!(code, Some(0), "{path} {mode:o}: {stderr}");
            assert!(!stdout.contains("so other users may"), "{stdout}");
            continue;
        }
        let (started, log) = builder.fails();
        assert_eq!((code, started), (Some(78), Some(78)), "{path} {mode:o}: {stderr}{log}");
        for said in [stderr, log] {
            for words in [
                format!("{} has mode {mode:04o}, so other users may", exposed.display()),
                "scan.temp_directory: found".to_owned(),
                "scan.temp_directory_shared = true".to_owned(),
            ] {
                assert!(said.contains(&words), "{words} in {said}");
            }
        }
    }
}

#[test]
fn a_temporary_directory_of_another_user_is_a_wrong_configuration() {
    let test = "a_temporary_directory_of_another_user_is_a_wrong_configuration";
    if !as_root() {
        return skipped(test, "only root gives files away");
    }
    for path in ["volume", "volume/temp"] {
        let builder = builder("");
        let exposed = builder.place().path(path);
        chown(&exposed, Some(OTHER_USER), None).unwrap();
        let (code, said) = builder.fails();
        assert_eq!(code, Some(78), "{said}");
        let words = format!("{} belongs to uid {OTHER_USER}", exposed.display());
        assert!(said.contains(&words), "{said}");
    }
}

#[test]
fn a_link_to_a_temporary_directory_is_as_safe_as_the_directory_that_the_link_is_in() {
    let builder = builder("scan.temp_directory = \"links/temp\"");
    let links = builder.place().path("links");
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
async fn a_shared_temporary_directory_is_a_warning_where_that_is_set() {
    let builder = builder("scan.temp_directory_shared = true");
    set_mode(&builder.place().path("volume/temp"), 0o777);
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("temp has mode 0777, so other users may"), "{stdout}");
    let scanner = builder.start().await;
    assert!(scanner.log().contains("temp has mode 0777, so other users may"), "{}", scanner.log());
}

#[tokio::test]
async fn a_directory_that_becomes_unsafe_is_refused_by_the_next_reload() {
    let scanner = builder("").start().await;
    set_mode(&scanner.place.path("volume/temp"), 0o777);
    scanner.signal(Signal::SIGHUP);
    scanner.logged("the reload is refused", 1).await;
    assert!(scanner.log().contains("temp has mode 0777, so other users may"), "{}", scanner.log());
}

#[tokio::test]
async fn another_user_cannot_put_rules_in_the_place_of_those_that_were_loaded() {
    let homeserver = Homeserver::start().await;
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/rules");
    let lines = format!(
        "scan.temp_directory_shared = true\nscan.engines = [\"rules\"]\nrules.paths = [\"{}\"]",
        own.display()
    );
    let builder = builder(&lines).homeserver(&homeserver);
    let temp = builder.place().path("volume/temp");
    set_mode(&temp, 0o777);
    let harmless = builder.place().path("harmless.yar");
    fs::write(&harmless, "rule Never { condition: false }").unwrap();
    let prepared = RuleSet::load(&[harmless]).unwrap().prepared().to_vec();
    let scanner = builder.start().await;
    let program = fs::read("/bin/true").unwrap();
    for attack in ["at first", "after the replacement", "after a reload"] {
        let media =
            homeserver.has_bytes(&attack.replace(' ', ""), [&program, attack.as_bytes()].concat());
        let verdict = scanner.client.get(&format!("/scan/{media}")).await;
        verdict.is_not_clean("File not clean. Output: 'Linux_Program'");
        if attack == "at first" {
            // Each directory of the service's is renamed; another one, with rules that match nothing, gets its name.
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
            scanner.logged("\"reloaded", 1).await;
        }
    }
}

#[test]
fn a_key_that_the_service_makes_has_its_mode_whatever_the_umask_is_and_is_no_link() {
    let builder = builder("");
    let key = builder.place().path("request_secret");
    let (code, said) = with_umask(&builder, "0777", &["check-config"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!key.exists());

    fs::write(builder.place().path("elsewhere"), "").unwrap();
    symlink("elsewhere", &key).unwrap();
    let (code, said) = with_umask(&builder, "0022", &["public-key"]);
    assert_ne!(code, Some(0));
    assert!(said.contains("it is a symbolic link"), "{said}");
    // A mounted secret of the operator's is one.
    fs::write(builder.place().path("elsewhere"), [b'A'; 43]).unwrap();
    let operators = builder.config("crypto.generate = false");
    let (code, said) = with_umask(&operators, "0022", &["public-key"]);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn a_new_key_and_a_new_audit_file_have_their_modes_whatever_the_umask_is() {
    for umask in ["0000", "0777"] {
        let builder = builder("audit.path = \"audit.log\"").inside(&[
            "sh",
            "-c",
            &format!("umask {umask}; exec \"$@\""),
            "sh",
        ]);
        let scanner = builder.start().await;
        assert_eq!(mode(&scanner.place.path("request_secret")), 0o600, "{umask}");
        assert_eq!(mode(&scanner.place.path("audit.log")), 0o640, "{umask}");
        let temp = fs::read_dir(scanner.place.path("volume/temp")).unwrap();
        for entry in temp.map(Result::unwrap) {
            assert_eq!(mode(&entry.path()), if as_root() { 0o711 } else { 0o700 }, "{umask}");
        }
    }
}

#[test]
fn a_key_and_an_audit_file_that_others_may_write_are_refused() {
    let builder = builder("audit.path = \"audit.log\"");
    let [key, audit] = ["request_secret", "audit.log"].map(|name| builder.place().path(name));
    fs::write(&key, [b'A'; 43]).unwrap();
    fs::write(&audit, "").unwrap();
    for (file, name) in [(&key, "request_secret"), (&audit, "audit.log")] {
        set_mode(&key, 0o600);
        set_mode(&audit, 0o640);
        set_mode(file, 0o602);
        let (code, _, stderr) = builder.run(&[]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(
            stderr.contains(&format!("{name} has mode 0602, so every user may write")),
            "{stderr}"
        );
        if as_root() {
            set_mode(file, 0o600);
            chown(file, Some(OTHER_USER), None).unwrap();
            let (code, _, stderr) = builder.run(&[]);
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.contains(&format!("{name} belongs to uid {OTHER_USER}")), "{stderr}");
            chown(file, Some(0), None).unwrap();
        }
    }
    set_mode(&audit, 0o640);
    fs::rename(&audit, audit.with_extension("target")).unwrap();
    symlink("audit.target", &audit).unwrap();
    let (code, _, stderr) = builder.run(&[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("it is a symbolic link"), "{stderr}");
}

#[test]
fn a_prepared_configuration_of_migrate_has_its_mode_whatever_the_umask_is() {
    let builder = builder("");
    let (old, new) = (builder.place().path("old.yaml"), builder.place().path("new.toml"));
    fs::write(&old, "web:\n  port: 80\nscan:\n  script: ./script.sh\n  temp_directory: tmp\n")
        .unwrap();
    let arguments = ["migrate", old.to_str().unwrap(), "-o", new.to_str().unwrap()];
    let _open_questions = with_umask(&builder, "0777", &arguments);
    assert_eq!(mode(&new), 0o600);
    assert!(File::open(&new).unwrap().metadata().unwrap().len() > 0);
}

/// Runs a command with this umask: exit code and output.
fn with_umask(builder: &Builder, umask: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let program = crate::harness::scanner::PROGRAM;
    let line = format!("umask {umask}; exec \"$@\"");
    let config = builder.write_config();
    #[expect(
        clippy::disallowed_methods,
        reason = "the program itself is started with another umask"
    )]
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", &line, "sh", program]);
    if arguments.first() != Some(&"migrate") {
        command.arg("-c").arg(config);
    }
    let output = command.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}
