//! The command line and the configuration, as an operator meets them.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use nix::sys::signal::Signal;

use crate::harness::{
    Builder, Homeserver, Scanner, eicar, png,
    scanner::{Place, as_root, command, entries, run, start_again},
};

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A builder whose configuration is written, and where.
fn written(config: &str) -> (Builder, String) {
    let builder = Builder::new("exit 0").config(config);
    let path = builder.write_config();
    let path = text(&path).to_owned();
    (builder, path)
}

#[tokio::test]
async fn everything_wrong_with_a_configuration_is_told_at_once() {
    let builder = Builder::new("exit 0").config(
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
    let (code, said) = builder.fails();
    assert_eq!(code, Some(78), "{said}");
    for words in [
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
        assert!(said.contains(words), "{words} in {said}");
    }
    assert!(!said.contains("hush-hush"), "{said}");
    assert!(said.lines().count() >= 7, "a line each: {said}");
}

#[tokio::test]
async fn every_command_refuses_a_wrong_configuration() {
    let (_builder, path) = written("scan.workers = 0");
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
async fn of_several_configuration_files_the_last_counts_wherever_it_stands() {
    let (_a, right) = written("scan.workers = 7");
    let (_b, wrong) = written("scan.workers = 0");
    for arguments in [
        &["-c", &wrong, "check-config", "-c", &right][..],
        &["-c", &wrong, "-c", &right, "check-config"],
        &["check-config", "-c", &wrong, "--config", &right],
    ] {
        let (code, stdout, stderr) = run(arguments, &[]);
        assert_eq!(code, Some(0), "{arguments:?} {stderr}");
        assert!(stdout.contains("workers = 7"), "{stdout}");
    }
    let (code, ..) = run(&["-c", &right, "check-config", "-c", &wrong], &[]);
    assert_eq!(code, Some(78));
}

#[tokio::test]
async fn variables_replace_keys_and_check_config_prints_what_is_in_force() {
    let (builder, path) = written("scan.workers = 7\nscan.max_scripts = 3");
    let (code, stdout, stderr) = run(
        &["check-config", "-c", &path],
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
        "made at the first start",
        "the sandbox, tried out",
        "base: ",
        "seccomp: filter",
    ] {
        assert!(stdout.contains(line), "{line} in {stdout}");
    }
    assert!(!stdout.contains("max_scripts = 3"), "{stdout}");
    assert!(!stdout.contains("hush-hush"), "{stdout}");
    assert!(!builder.place().path("request_secret").exists(), "checking makes no key");
    assert!(entries(&builder.place().path("temp")).is_empty());
    // What it prints is a configuration itself.
    fs::write(builder.place().path("again.toml"), &stdout).unwrap();
    let again = builder.place().path("again.toml");
    let (code, reprinted, stderr) = run(&["check-config", "-c", text(&again)], &[]);
    // Secrets cannot be told, so this one has none.
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
async fn a_type_that_no_file_has_is_warned_of_and_not_refused() {
    let homeserver = Homeserver::start().await;
    let types = r#"scan.blocked_mimetypes = ["image/x-no-such-type", "image/gif"]"#;
    let builder = Builder::new("exit 0").homeserver(&homeserver).config(types);
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("# note: image/x-no-such-type: no file"), "{stdout}");
    assert!(!stdout.contains("# note: image/gif"), "{stdout}");
    let scanner = builder.start().await;
    let log = scanner.log();
    assert!(log.contains("never detected") && log.contains("image/x-no-such-type"), "{log}");
}

#[tokio::test]
async fn variables_of_other_programs_change_nothing() {
    let (builder, path) = written("download.base_homeserver_url = \"https://hs.example\"");
    for (name, value) in [("TOKIO_WORKER_THREADS", "none"), ("RUST_LOG", "=="), ("TMPDIR", "/no")] {
        let (code, _, stderr) = run(&["check-config", "-c", &path], &[(name, value)]);
        assert_eq!(code, Some(0), "{name}={value} {stderr}");
    }
    // The file that is to be trusted in place of the system's is trusted alone.
    let (file, directory) = (builder.place().path("none.pem"), builder.place().path("marks"));
    fs::write(&file, "").unwrap();
    let certificate = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
    fs::write(directory.join("other.pem"), certificate.cert.pem()).unwrap();
    let trust = [("SSL_CERT_FILE", text(&file)), ("SSL_CERT_DIR", text(&directory))];
    let (code, _, stderr) = run(&["-c", &path], &trust);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("the package ca-certificates"), "{stderr}");

    // Without it the system's are, whatever other programs take instead. The roots are read before it listens, which fails.
    let nowhere = ("MCS_WEB__HOST", "192.0.2.1");
    let lacks_roots = |variables: &[(&str, &str)]| {
        let (code, _, stderr) = run(&["-c", &path], variables);
        assert_eq!(code, Some(1), "{stderr}");
        stderr.contains("the package ca-certificates")
    };
    let without = lacks_roots(&[nowhere]);
    for other in [text(&directory), "/no/such/directory"] {
        assert_eq!(lacks_roots(&[nowhere, ("SSL_CERT_DIR", other)]), without, "{other}");
    }
}

/// The shipped configuration in a place of its own, as an operator would copy it.
fn shipped(place: &Place) -> String {
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
async fn scan_tells_the_verdict_on_each_file_by_line_and_exit_code() {
    let builder = Builder::new("exit 0");
    let place = builder.place();
    let config = shipped(place);
    let temp = place.path("temp");
    let (clean, bad, none) = (place.path("clean file.png"), place.path("bad"), place.path("none"));
    fs::write(&clean, png()).unwrap();
    fs::write(&bad, eicar()).unwrap();
    // The service's own business, whoever else may read it.
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
        for (line, words) in stdout.lines().zip(lines) {
            assert!(line.contains(words), "{words:?} in {line:?}");
        }
        assert!(entries(&temp).is_empty(), "{:?}", entries(&temp));
    }
    let (code, ..) = run(&["-c", &config, "scan"], &[]);
    assert_eq!(code, Some(2), "no file at all is a wrong command line");
    assert!(!place.path("request_secret.key").exists(), "scanning needs no key");
}

#[tokio::test]
async fn a_reader_who_has_had_enough_changes_no_exit_code() {
    let builder = Builder::new("exit 1");
    let config = builder.write_config();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut program = command();
    let program = program.arg("-c").arg(&config).args(["scan", "/etc/passwd"]).stdout(writer);
    let output = program.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn the_shipped_configuration_serves() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0");
    shipped(builder.place());
    // `start_again` reads `config.toml`.
    let default = fs::read_to_string(builder.place().path("default.toml")).unwrap();
    let changed = default
        .replace("port = 8080", "port = 0")
        .replace("port = 8081", "port = 0")
        .replace("temp_directory = \"/tmp\"", "temp_directory = \"temp\"")
        .replace("format = \"human\"", "format = \"json\"")
        .replace(
            "# base_homeserver_url = \"https://matrix.example.org\"",
            &format!("base_homeserver_url = \"{}\"", homeserver.url()),
        );
    let place = builder.into_place();
    fs::write(place.path("config.toml"), changed).unwrap();
    let scanner = start_again(place).await;
    let (good, bad) = (homeserver.has_bytes("good", png()), homeserver.has_bytes("bad", eicar()));
    scanner.client.get(&format!("/download/{good}")).await.is_media(&png());
    let verdict = scanner.client.get(&format!("/scan/{bad}")).await;
    verdict.is_not_clean("File not clean. Output: 'EICAR_Test_File'");
    scanner.idle().await;
}

#[tokio::test]
async fn the_request_key_is_made_once_private_and_kept() {
    let homeserver = Homeserver::start().await;
    let mut scanner = Scanner::start(&homeserver, "exit 0").await;
    let key = scanner.place.path("request_secret");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
    assert!(scanner.log().contains("made a new request key"));
    let secret = fs::read_to_string(&key).unwrap();
    assert!(!scanner.log().contains(secret.trim()), "the key itself is in the log");

    let served = scanner.client.public_key().await;
    let config = scanner.place.path("config.toml");
    let (code, printed, stderr) = run(&["public-key", "-c", text(&config)], &[]);
    assert_eq!((code, printed.trim_end()), (Some(0), served.as_str()), "{stderr}");

    scanner.signal(Signal::SIGTERM);
    scanner.ended().await;
    let again = start_again(scanner.kill()).await;
    assert_eq!(again.client.public_key().await, served);
    assert!(!again.log().contains("made a new request key"));
}

#[tokio::test]
async fn a_key_that_others_can_read_is_warned_of() {
    let homeserver = Homeserver::start().await;
    let scanner = Scanner::start(&homeserver, "exit 0").await;
    let served = scanner.client.public_key().await;
    let place = scanner.kill();
    let key = place.path("request_secret");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let scanner = start_again(place).await;
    assert!(scanner.log().contains("mode 0644 lets others at the key"), "{}", scanner.log());
    assert_eq!(scanner.client.public_key().await, served);
    let config = scanner.place.path("config.toml");
    let (_, stdout, stderr) = run(&["public-key", "-c", text(&config)], &[]);
    assert_eq!(stdout.trim_end(), served, "nothing but the key");
    assert!(stderr.contains("0644"), "{stderr}");
}

#[tokio::test]
async fn a_missing_or_broken_key_is_an_error_that_names_its_path() {
    let builder = Builder::new("exit 0").config("crypto.generate = false");
    let (code, said) = builder.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("request_secret"), "{said}");

    let builder = Builder::new("exit 0");
    fs::write(builder.place().path("request_secret"), "hush-hush, no base64").unwrap();
    let (code, said) = builder.fails();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("request_secret") && !said.contains("hush-hush"), "{said}");
}

#[test]
fn check_config_tells_each_layer_with_its_reason_and_what_the_canary_says() {
    let builder = Builder::new("exit 0").config("scan.canary = \"eicar\"");
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(1), "{stdout}");
    for layer in ["base", "namespaces", "cgroup", "landlock", "seccomp"] {
        assert!(stdout.contains(&format!("\n#   {layer}: ")), "{layer}: {stdout}");
    }
    assert!(stdout.contains("cgroup: OFF: only the running service"), "{stdout}");
    assert!(stderr.contains("the script calls the infected sample clean"), "{stderr}");
}

#[test]
fn a_mode_asks_for_its_layers_or_warns() {
    // A machine that lacks one: root without CAP_SYS_ADMIN, or no user namespaces.
    let lacking: &[&str] = if as_root() {
        &["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    } else {
        const NO_MORE: &str = "echo 0 > /proc/sys/user/max_user_namespaces && \
                               exec setpriv --inh-caps=-all --ambient-caps=-all \"$@\"";
        &["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", NO_MORE, "sh"]
    };
    let strict = "sandbox.mode = \"strict\"\nsandbox.require = [\"namespaces\"]";
    let here = Builder::new("exit 0").config(strict).run(&["check-config"]);
    let there = Builder::new("exit 0").config(strict).inside(lacking).run(&["check-config"]);
    if !here.1.contains("namespaces: OFF") {
        assert_eq!(here.0, Some(0), "{}", here.2);
    }
    assert_eq!(there.0, Some(1), "{}", there.1);
    let said = "required, and not to be had: namespaces";
    assert!(there.2.contains(said) && there.2.contains("namespaces: OFF: entering"), "{}", there.2);

    let degraded = "sandbox.mode = \"degraded\"";
    let (code, stdout, _) =
        Builder::new("exit 0").config(degraded).inside(lacking).run(&["check-config"]);
    assert_eq!(code, Some(0));
    assert!(stdout.contains("namespaces: OFF: entering namespaces: "), "{stdout}");
}

#[tokio::test]
async fn a_degraded_sandbox_is_warned_of_at_each_start() {
    let homeserver = Homeserver::start().await;
    let builder = Builder::new("exit 0").homeserver(&homeserver);
    let scanner = builder.config("sandbox.mode = \"degraded\"").start().await;
    assert!(scanner.log().contains("sandbox.mode is degraded"), "{}", scanner.log());
}
