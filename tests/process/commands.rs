//! Tests of the command line and the configuration.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::Signal;

use crate::harness::{
    MockHomeserver, ScannerBuilder, ScannerProcess, eicar, png,
    scanner::{ScannerDir, command, is_root, list_dir, restart, run},
};

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Returns a builder with a written configuration file, and the path of that file.
fn with_config(config: &str) -> (ScannerBuilder, String) {
    let builder = ScannerBuilder::new("exit 0").config(config);
    let path = builder.write_config();
    let path = text(&path).to_owned();
    (builder, path)
}

#[tokio::test]
async fn reports_all_configuration_errors_at_once() {
    let builder = ScannerBuilder::new("exit 0").config(
        r#"
        web.prot = 8080
        web.max_connections = "many"
        scan.timeout = "60 parsecs"
        scan.script = "no-such-script.sh"
        scan.allowed_mimetypes = ["image/png"]
        scan.blocked_mimetypes = ["image/gif"]
        download.base_homeserver_url = "matrix.example.org"
        download.additional_headers = { "not a header" = "hush-hush" }
        "#,
    );
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{stderr}");
    for expected in [
        "web.prot",
        "web.port",
        "web.max_connections",
        "scan.timeout",
        "60 parsecs",
        "scan.script",
        "no-such-script.sh",
        "mimetypes",
        "download.base_homeserver_url",
        "download.additional_headers",
        "config.toml:",
    ] {
        assert!(stderr.contains(expected), "{expected} in {stderr}");
    }
    assert!(!stderr.contains("hush-hush"), "{stderr}");
    assert!(stderr.lines().count() >= 7, "less than one line per error: {stderr}");
}

#[tokio::test]
async fn every_command_rejects_invalid_configuration() {
    let (_builder, path) = with_config("scan.workers = 0");
    for command in
        [&["serve"][..], &["check-config"], &["public-key"], &["scan", "/etc/passwd"], &[]]
    {
        let arguments = [&["-c", &path], command].concat();
        let (code, stdout, stderr) = run(&arguments, &[]);
        assert_eq!(code, Some(78), "{command:?} {stderr}");
        assert!(stderr.contains("scan.workers") && stdout.is_empty(), "{stdout}{stderr}");
    }
    let (code, _, stderr) = run(&["-c", "/no/such/file.toml", "check-config"], &[]);
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("/no/such/file.toml"), "{stderr}");
}

#[tokio::test]
async fn last_configuration_file_wins_at_any_position() {
    let (_a, right) = with_config("scan.workers = 7");
    let (_b, wrong) = with_config("scan.workers = 0");
    for arguments in [
        &["-c", &wrong, "check-config", "--show", "-c", &right][..],
        &["-c", &wrong, "-c", &right, "check-config", "--show"],
        &["check-config", "--show", "-c", &wrong, "--config", &right],
    ] {
        let (code, stdout, stderr) = run(arguments, &[]);
        assert_eq!(code, Some(0), "{arguments:?} {stderr}");
        assert!(stdout.contains("workers = 7"), "{stdout}");
    }
    let (code, ..) = run(&["-c", &right, "check-config", "-c", &wrong], &[]);
    assert_eq!(code, Some(78));
}

#[tokio::test]
async fn variables_override_keys_and_check_config_prints_effective_values() {
    let (builder, path) = with_config("scan.workers = 7\nscan.max_scripts = 3");
    let (code, stdout, stderr) = run(
        &["check-config", "--show", "-c", &path],
        &[
            ("MCS_SCAN__WORKERS", "9"),
            ("MCS_SCAN__MAX_SCRIPTS", ""),
            ("MCS_SCAN__FAILURE_EXIT_CODES", "[2, 40]"),
            ("MCS_DOWNLOAD__MAX_SIZE", "5MB"),
            ("MCS_DOWNLOAD__ADDITIONAL_HEADERS", r#"{ "x-secret" = "hush-hush" }"#),
            ("http_proxy", "http://192.0.2.1:1"),
            ("WORKERS", "11"),
        ],
    );
    assert_eq!(code, Some(0), "{stderr}");
    for line in [
        "workers = 9",
        "failure_exit_codes = [2, 40]",
        r#"max_size = "5MB""#,
        "[download]",
        "generated at the first start",
        "# sandbox:",
        "base: ",
        "seccomp: filter",
    ] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    assert!(!stdout.contains("max_scripts = 3"), "{stdout}");
    assert!(!stdout.contains("hush-hush"), "{stdout}");
    assert!(!builder.dir().path("request_secret").exists(), "check-config created a key");
    assert!(list_dir(&builder.dir().path("temp")).is_empty());
    // The output is a valid configuration.
    fs::write(builder.dir().path("again.toml"), &stdout).unwrap();
    let printed = builder.dir().path("again.toml");
    let (code, reprinted, stderr) = run(&["check-config", "--show", "-c", text(&printed)], &[]);
    // Secrets are not printed, so this configuration has none.
    assert_eq!(code, Some(0), "{stderr}");
    assert!(reprinted.contains("workers = 9"), "{reprinted}");

    for (name, value) in [("MCS_SCAN__WROKERS", "9"), ("MCS_SCAN__WORKERS", "nine"), ("MCS_X", "1")]
    {
        let (code, _, stderr) = run(&["check-config", "-c", &path], &[(name, value)]);
        assert_eq!(code, Some(78), "{name}={value} {stderr}");
        assert!(stderr.contains(name), "{stderr}");
    }
}

#[tokio::test]
async fn warns_about_undetectable_mime_type() {
    let homeserver = MockHomeserver::start().await;
    let types = r#"scan.blocked_mimetypes = ["image/x-no-such-type", "image/gif"]"#;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver).config(types);
    let (code, stdout, stderr) = builder.run(&["check-config", "--offline"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("\nnote: image/x-no-such-type: no file"), "{stdout}");
    assert!(!stdout.contains("note: image/gif"), "{stdout}");
    let scanner = builder.start().await;
    let log = scanner.log();
    assert!(log.contains("never detected") && log.contains("image/x-no-such-type"), "{log}");
}

#[tokio::test]
async fn ignores_environment_variables_of_other_programs() {
    let (builder, path) = with_config("download.base_homeserver_url = \"https://hs.example\"");
    for (name, value) in [("TOKIO_WORKER_THREADS", "none"), ("RUST_LOG", "=="), ("TMPDIR", "/no")] {
        let (code, _, stderr) = run(&["check-config", "--offline", "-c", &path], &[(name, value)]);
        assert_eq!(code, Some(0), "{name}={value} {stderr}");
    }
    // SSL_CERT_FILE replaces the roots of the system; SSL_CERT_DIR is ignored.
    let (file, directory) = (builder.dir().path("none.pem"), builder.dir().path("marks"));
    fs::write(&file, "").unwrap();
    let certificate = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    fs::write(directory.join("other.pem"), certificate.cert.pem()).unwrap();
    let trust = [("SSL_CERT_FILE", text(&file)), ("SSL_CERT_DIR", text(&directory))];
    let (code, _, stderr) = run(&["-c", &path], &trust);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the package ca-certificates"), "{stderr}");

    // Without SSL_CERT_FILE the roots of the system are used, whatever SSL_CERT_DIR is. The roots are loaded before the
    // server listens; listening fails here.
    let unusable_host = ("MCS_WEB__HOST", "192.0.2.1");
    let lacks_roots = |variables: &[(&str, &str)]| {
        let (code, _, stderr) = run(&["-c", &path], variables);
        assert_eq!(code, Some(1), "{stderr}");
        stderr.contains("the package ca-certificates")
    };
    let without_variable = lacks_roots(&[unusable_host]);
    for other in [text(&directory), "/no/such/directory"] {
        assert_eq!(
            lacks_roots(&[unusable_host, ("SSL_CERT_DIR", other)]),
            without_variable,
            "{other}"
        );
    }
}

/// Copies the shipped configuration and rules into a directory, as an operator would; returns the path of the file.
fn copy_shipped_config(place: &ScannerDir) -> String {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    fs::copy(config.join("default.toml"), place.path("default.toml")).expect("a copy");
    fs::create_dir(place.path("rules")).expect("a directory");
    for rules in fs::read_dir(config.join("rules")).expect("rules") {
        let rules = rules.expect("rules").path();
        let name = Path::new("rules").join(rules.file_name().expect("a name"));
        fs::copy(&rules, place.path(text(&name))).expect("a copy");
    }
    text(&place.path("default.toml")).to_owned()
}

#[tokio::test]
async fn scan_reports_verdict_per_file_and_by_exit_code() {
    let builder = ScannerBuilder::new("exit 0");
    let place = builder.dir();
    let config = copy_shipped_config(place);
    let temp = place.path("temp");
    let (clean, bad, none) = (place.path("clean file.png"), place.path("bad"), place.path("none"));
    fs::write(&clean, png()).unwrap();
    fs::write(&bad, eicar()).unwrap();
    // Scanned although only its owner can read the file.
    fs::set_permissions(&clean, fs::Permissions::from_mode(0o600)).unwrap();
    let directory = place.path("marks");

    for (files, code, lines) in [
        (vec![&clean], 0, vec!["clean file.png: clean"]),
        (vec![&bad], 1, vec!["bad: not clean: EICAR_Test_File"]),
        (vec![&none], 2, vec!["none: failed: "]),
        (vec![&directory], 2, vec!["marks: failed: "]),
        (
            vec![&clean, &none, &bad, &clean],
            2,
            vec![": clean", ": failed: ", ": not clean", ": clean"],
        ),
        (vec![&clean, &bad, &clean], 1, vec![": clean", ": not clean", ": clean"]),
    ] {
        let mut arguments = vec!["-c", &config, "scan"];
        arguments.extend(files.iter().map(|path| text(path)));
        let (exit, stdout, stderr) = run(&arguments, &[("MCS_SCAN__TEMP_DIRECTORY", text(&temp))]);
        assert_eq!(exit, Some(code), "{stdout}{stderr}");
        assert_eq!(stdout.lines().count(), lines.len(), "{stdout}{stderr}");
        for (line, expected) in stdout.lines().zip(lines) {
            assert!(line.contains(expected), "{expected:?} in {line:?}");
        }
        assert!(list_dir(&temp).is_empty(), "{:?}", list_dir(&temp));
    }
    let (code, ..) = run(&["-c", &config, "scan"], &[]);
    assert_eq!(code, Some(2), "scan without a file is a usage error");
    assert!(!place.path("request_secret.key").exists(), "scan created a key");
}

#[tokio::test]
async fn closed_stdout_does_not_change_exit_code() {
    let builder = ScannerBuilder::new("exit 1");
    let config = builder.write_config();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = command();
    let program = program.arg("-c").arg(&config).args(["scan", "/etc/passwd"]).stdout(writer);
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn serves_with_shipped_configuration() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0");
    copy_shipped_config(builder.dir());
    // `restart` reads `config.toml`.
    let default = fs::read_to_string(builder.dir().path("default.toml")).unwrap();
    let changed = default
        .replace("port = 8080", "port = 0")
        .replace("port = 8081", "port = 0")
        .replace("temp_directory = \"/tmp\"", "temp_directory = \"temp\"")
        .replace("format = \"human\"", "format = \"json\"")
        .replace(
            "# base_homeserver_url = \"https://matrix.example.org\"",
            &format!("base_homeserver_url = \"{}\"", homeserver.url()),
        );
    let place = builder.into_dir();
    fs::write(place.path("config.toml"), changed).unwrap();
    let scanner = restart(place).await;
    let (good, bad) = (homeserver.add_bytes("good", png()), homeserver.add_bytes("bad", eicar()));
    scanner.client.get(&format!("/download/{good}")).await.assert_media(&png());
    let verdict = scanner.client.get(&format!("/scan/{bad}")).await;
    verdict.assert_not_clean("File not clean. Output: 'EICAR_Test_File'");
    scanner.wait_until_idle().await;
}

#[tokio::test]
async fn generates_private_request_key_once() {
    let homeserver = MockHomeserver::start().await;
    let mut scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    let key = scanner.dir.path("request_secret");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(scanner.log().contains("generated a new request key"));
    let secret = fs::read_to_string(&key).unwrap();
    assert!(!scanner.log().contains(secret.trim()), "the log contains the key");

    let served = scanner.client.public_key().await;
    let config = scanner.dir.path("config.toml");
    let (code, printed, stderr) = run(&["public-key", "-c", text(&config)], &[]);
    assert_eq!((code, printed.trim_end()), (Some(0), served.as_str()), "{stderr}");

    scanner.signal(Signal::SIGTERM);
    scanner.wait_for_exit().await;
    let restarted = restart(scanner.kill()).await;
    assert_eq!(restarted.client.public_key().await, served);
    assert!(!restarted.log().contains("generated a new request key"));
}

#[tokio::test]
async fn warns_about_key_readable_by_others() {
    let homeserver = MockHomeserver::start().await;
    let scanner = ScannerProcess::start(&homeserver, "exit 0").await;
    let served = scanner.client.public_key().await;
    let place = scanner.kill();
    let key = place.path("request_secret");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let scanner = restart(place).await;
    assert!(
        scanner.log().contains("mode 0644 allows other users to read the secret"),
        "{}",
        scanner.log()
    );
    assert_eq!(scanner.client.public_key().await, served);
    let config = scanner.dir.path("config.toml");
    let (_, stdout, stderr) = run(&["public-key", "-c", text(&config)], &[]);
    assert_eq!(stdout.trim_end(), served, "stdout contains only the key");
    assert!(stderr.contains("0644"), "{stderr}");
}

#[tokio::test]
async fn missing_or_invalid_key_error_names_path() {
    let builder = ScannerBuilder::new("exit 0").config("crypto.generate = false");
    // The volume of the key may be mounted later.
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(75), "{stderr}");
    assert!(stderr.contains("request_secret"), "{stderr}");

    let builder = ScannerBuilder::new("exit 0");
    fs::write(builder.dir().path("request_secret"), "hush-hush, no base64").unwrap();
    let (code, stderr) = builder.run_to_exit();
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("request_secret") && !stderr.contains("hush-hush"), "{stderr}");
}

#[test]
fn generate_key_writes_private_file_once() {
    let builder = ScannerBuilder::new("exit 0");
    let key = builder.dir().path("request_secret");
    let (code, public, stderr) = run(&["generate-key", text(&key)], &[]);
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    let secret = fs::read_to_string(&key).unwrap();
    let builder = builder.config("crypto.generate = false");
    let printed = builder.run(&["public-key"]);
    assert_eq!(printed, (Some(0), public, String::new()));

    let (code, stdout, stderr) = run(&["generate-key", text(&key)], &[]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(stderr.contains("hint: an existing key is never overwritten"), "{stderr}");
    let (code, _, stderr) = run(&["generate-key", "/no/such/folder/key"], &[]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/no/such/folder/key: a new key cannot be written"), "{stderr}");
    assert!(!stderr.contains(secret.trim()), "{stderr}");
}

#[test]
fn completions_name_subcommands() {
    for shell in ["bash", "zsh", "fish"] {
        let (code, stdout, stderr) = run(&["completions", shell], &[]);
        assert_eq!(code, Some(0), "{stderr}");
        for word in ["check-config", "generate-key", "offline"] {
            assert!(stdout.contains(word), "{shell} {word}");
        }
    }
    assert_eq!(run(&["completions", "cmd.exe"], &[]).0, Some(2));
}

#[test]
fn check_config_is_quiet_unless_asked_to_show() {
    let builder = ScannerBuilder::new("exit 0");
    let (code, stdout, stderr) = builder.run(&["check-config", "--offline"]);
    assert_eq!(code, Some(0), "{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    let (last, notes) = lines.split_last().unwrap();
    assert_eq!(*last, "OK");
    assert!(!notes.is_empty() && notes.iter().all(|line| line.starts_with("note: ")), "{stdout}");
    let (_, shown, _) = builder.run(&["check-config", "--offline", "--show"]);
    assert!(shown.contains("[web]\n") && shown.ends_with("\n# OK\n"), "{shown}");
    for note in notes {
        assert!(shown.contains(&format!("\n# {note}\n")), "{note} in {shown}");
    }
}

#[test]
fn check_config_reports_sandbox_layers_and_canary_result() {
    let builder = ScannerBuilder::new("exit 0").config("scan.canary = \"eicar\"");
    let (code, stdout, stderr) = builder.run(&["check-config", "--show"]);
    assert_eq!(code, Some(1), "{stdout}");
    for layer in ["base", "namespaces", "cgroup", "landlock", "seccomp"] {
        assert!(stdout.contains(&format!("\n#   {layer}: ")), "{layer}: {stdout}");
    }
    // 64 processes of the program and two of the sandbox, scaled to all programs without a count per job.
    let limits = stdout.lines().find(|line| line.starts_with("# limits in effect: processes "));
    assert!(limits.is_some_and(|line| line.contains("; all tasks (pids.max) ")), "{stdout}");
    assert!(stdout.contains("cgroup: OFF: only the running service"), "{stdout}");
    assert!(stderr.contains("the script reports the infected sample as clean"), "{stderr}");
}

#[test]
fn strict_mode_requires_layers_and_degraded_mode_does_not() {
    // Simulates a machine without namespaces: root without CAP_SYS_ADMIN, or no user namespaces.
    let wrapper: &[&str] = if is_root() {
        &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    } else {
        const DISABLE_USER_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
                               exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
        &[
            "unshare",
            "--user",
            "--map-current-user",
            "--keep-caps",
            "sh",
            "-c",
            DISABLE_USER_NAMESPACES,
            "sh",
        ]
    };
    let strict = "sandbox.mode = \"strict\"\nsandbox.require = [\"namespaces\"]";
    let unrestricted =
        ScannerBuilder::new("exit 0").config(strict).run(&["check-config", "--show"]);
    let restricted = ScannerBuilder::new("exit 0")
        .config(strict)
        .wrapped_by(wrapper)
        .run(&["check-config", "--show"]);
    if !unrestricted.1.contains("namespaces: OFF") {
        assert_eq!(unrestricted.0, Some(0), "{}", unrestricted.2);
    }
    assert_eq!(restricted.0, Some(1), "{}", restricted.1);
    let message = "required but unavailable: namespaces";
    assert!(
        restricted.2.contains(message) && restricted.2.contains("namespaces: OFF: entering"),
        "{}",
        restricted.2
    );

    let degraded = "sandbox.mode = \"degraded\"";
    let (code, stdout, _) = ScannerBuilder::new("exit 0")
        .config(degraded)
        .wrapped_by(wrapper)
        .run(&["check-config", "--show"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("namespaces: OFF: entering namespaces: "), "{stdout}");
}

#[tokio::test]
async fn warns_about_degraded_sandbox_at_start() {
    let homeserver = MockHomeserver::start().await;
    let builder = ScannerBuilder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("sandbox.mode = \"degraded\"").start().await;
    assert!(scanner.log().contains("sandbox.mode is degraded"), "{}", scanner.log());
}
