//! Tests of output on a terminal, in a file and in a pipe, and of hints in error messages.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    process::{Command, ExitStatus},
};

use nix::pty::{Winsize, openpty};

use crate::harness::{
    ScannerBuilder, eicar, report_skipped,
    scanner::{command, is_root, run},
};

/// Opens a terminal with the given number of columns.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).expect("a terminal");
    (pair.master.into(), pair.slave)
}

/// Runs `command` with stdout and stderr on a terminal; returns the exit status and the output.
fn run_on_terminal(mut command: Command) -> (ExitStatus, String) {
    let (mut master, slave) = terminal(60);
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().expect("the program starts");
    // Closes this process's copies of the terminal, so that reading ends with the child.
    drop(command);
    let output = read_to_end(&mut master);
    (child.wait().unwrap(), output)
}

/// Reads the output of a terminal until its other end is closed.
fn read_to_end(master: &mut File) -> String {
    let mut output = Vec::new();
    let mut buffer = [0; 4096];
    // A closed terminal returns EIO.
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        output.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8(output).expect("text")
}

/// Returns the command of the program with the configuration of `builder` and these arguments.
fn command_with_config(builder: &ScannerBuilder, arguments: &[&str]) -> Command {
    let mut command = command();
    command.arg("-c").arg(builder.write_config()).args(arguments);
    command
}

#[test]
fn colours_output_only_on_terminal() {
    let builder = ScannerBuilder::new("exit 0");
    let bad = builder.dir().path("bad");
    fs::write(&bad, "bytes").unwrap();
    let scan = ["scan", bad.to_str().unwrap()];
    for (arguments, expected) in [
        (&["check-config", "--show"][..], "\u{1b}[1m[web]\u{1b}[0m"),
        (&scan, ": \u{1b}[32mclean\u{1b}[0m"),
        (&["scan", "/no/such/file"], ": \u{1b}[33mfailed\u{1b}[0m: "),
    ] {
        let (_, output) = run_on_terminal(command_with_config(&builder, arguments));
        assert!(output.contains(expected), "{arguments:?} {output:?}");
        // Environment variables of other programs are ignored.
        let mut command = command_with_config(&builder, arguments);
        command.envs([("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")]);
        let (_, output) = run_on_terminal(command);
        assert!(output.contains(expected), "{arguments:?} {output:?}");
        let never = [arguments, &["--color=never"]].concat();
        let (_, output) = run_on_terminal(command_with_config(&builder, &never));
        assert!(!output.contains('\u{1b}'), "{arguments:?} {output:?}");

        let config = builder.write_config();
        let piped = [&["-c", config.to_str().unwrap()], arguments].concat();
        let forced = [("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")];
        let (_, stdout, stderr) = run(&piped, &forced);
        assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "{stdout}{stderr}");
        let always = [&piped[..], &["--color", "always"]].concat();
        let (_, stdout, _) = run(&always, &[("NO_COLOR", "1")]);
        assert!(stdout.contains(expected), "{stdout:?}");
    }
}

#[test]
fn colours_each_stream_independently() {
    let builder = ScannerBuilder::new("exit 0").config("scan.canary = \"eicar\"");
    let (mut master, slave) = terminal(60);
    let mut command = command_with_config(&builder, &["check-config"]);
    command.stderr(slave);
    let piped = command.output().unwrap();
    drop(command);
    let output = read_to_end(&mut master);
    assert!(output.contains("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: the script reports"), "{output:?}");
    assert!(!piped.stdout.contains(&0x1b), "colour in a pipe");
}

/// Text behind the elapsed seconds in the progress line.
const SCANNING: &str = " s: scanning ";

/// Returns the elapsed seconds of each progress line.
fn seconds(output: &str) -> Vec<u64> {
    let mut before: Vec<_> = output.split(SCANNING).collect();
    before.pop();
    let number = |text: &str| text.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    before.into_iter().map(|text| number(text).unwrap()).collect()
}

#[test]
fn shows_and_clears_progress_line_on_terminal() {
    // Blocks until the FIFO is written.
    let builder = ScannerBuilder::new(r#"read go < "$MARKS/go""#);
    builder.dir().make_fifo("go");
    let name = format!("{}.png", "long-name-".repeat(12));
    let file = builder.dir().path(&name);
    fs::write(&file, [0; 3000]).unwrap();
    let (mut master, slave) = terminal(60);
    let mut command = command_with_config(&builder, &["scan"]);
    command.current_dir(builder.dir().path("")).arg(&name).stderr(slave);
    command.stdout(File::create(builder.dir().path("verdicts")).unwrap());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut output = String::new();
    let mut buffer = [0; 4096];
    let mut opened = false;
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        output.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        // Releases the script after the first increase. On a slow machine the values may be other than 0 and 1 s.
        let elapsed = seconds(&output);
        assert!(elapsed.is_sorted(), "{output:?}");
        if !opened && elapsed.last() > elapsed.first() {
            opened = true;
            let mut fifo =
                File::options().write(true).open(builder.dir().path("marks/go")).unwrap();
            fifo.write_all(b"go\n").unwrap();
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(opened, "{output:?}");
    let (before, after) = output.split_once(SCANNING).unwrap();
    assert!(before.ends_with(|last: char| last.is_ascii_digit()), "{output:?}");
    assert!(after.starts_with("1 of 1, long-name-"), "{output:?}");
    let line = &output[before.rfind('\r').unwrap()..];
    let mut widths = line.split('\r').map(str::len);
    assert!(widths.all(|width| width < 60), "a line wraps: {line:?}");
    // The line is overwritten with spaces, and the cursor returns to its start.
    assert!(line.ends_with(&format!("\r{}\r", " ".repeat(59))), "{line:?}");
    assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line:?}");
    let verdicts = fs::read_to_string(builder.dir().path("verdicts")).unwrap();
    assert_eq!(verdicts, format!("{name}: clean\n"));
}

#[test]
fn shows_no_progress_line_without_terminal() {
    let builder = ScannerBuilder::new("sleep 1.2");
    let (code, stdout, stderr) = builder.run(&["--color=always", "scan", "/etc/passwd"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("/etc/passwd: "), "{stdout}");
    assert!(!stderr.contains("scanning") && !stderr.contains('\r'), "{stderr}");
}

#[test]
fn prints_one_escaped_line_per_file() {
    let builder =
        ScannerBuilder::new(r"printf 'red \033[31m\nclean: not\302\233 \342\200\256'; exit 1");
    let name = builder.dir().path("a\nb: clean\u{1b}]0;title\u{7}\u{202e}");
    fs::write(&name, "bytes").unwrap();
    let gone = format!("{}x", name.display());
    let (code, stdout, _) = builder.run(&["scan", name.to_str().unwrap(), &gone]);
    assert_eq!(code, Some(2));
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{stdout:?}");
    assert!(
        lines[0].contains(r"/a\nb: clean\u{1b}]0;title\u{7}\u{202e}: not clean: red "),
        "{stdout:?}"
    );
    assert!(
        !stdout.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'),
        "{stdout:?}"
    );
    let (_, _, stderr) = run(&["-c", &gone, "check-config"], &[]);
    assert!(stderr.contains(r"\nb: clean\u{1b}]0;title"), "{stderr:?}");
}

/// Replaces the directory of the test in `text` with `DIR`.
fn normalized(builder: &ScannerBuilder, text: &str) -> String {
    let directory = builder.dir().path("");
    text.replace(directory.to_str().unwrap().trim_end_matches('/'), "DIR")
}

#[test]
fn reports_why_file_cannot_be_scanned() {
    let builder = ScannerBuilder::new("exit 0").config("download.max_size = 1000");
    let place = builder.dir();
    place.make_fifo("fifo");
    fs::write(place.path("large"), [0; 1001]).unwrap();
    let names =
        ["none", "marks", "marks/fifo", "large"].map(|name| place.path(name).display().to_string());
    let mut arguments = vec!["scan"];
    arguments.extend(names.iter().map(String::as_str));
    let (code, stdout, _) = builder.run(&arguments);
    assert_eq!(code, Some(2));
    assert_eq!(
        normalized(&builder, &stdout),
        "DIR/none: failed: the file cannot be opened: No such file or directory (os error 2)\n\
         DIR/marks: failed: the path is a directory; pass the paths of its files\n\
         DIR/marks/fifo: failed: not a regular file\n\
         DIR/large: failed: the file is larger than 1000 bytes (download.max_size, or less if \
         scan.max_spool_size requires it)\n"
    );
}

#[test]
fn failing_canary_prints_hint() {
    for (script, error, hint) in [
        (
            "exit 0",
            "error: the script reports the infected sample as clean\n",
            "hint: all files would pass. Signatures may be missing, or not visible in the sandbox: check with \
             `matrix-content-scanner sandbox -- DIR/script.sh FILE`. An engine that does not detect the \
             EICAR test file needs its own samples in scan.canary\n",
        ),
        (
            "exit 1",
            "error: the script reports the clean sample as not clean: \"\"\n",
            "hint: no file would pass: check with `matrix-content-scanner sandbox -- DIR/script.sh FILE`; the \
             samples are set in scan.canary\n",
        ),
        (
            "no-such-scanner",
            "error: the script gives no verdict on the infected sample: the script failed: exit code 127, \
             which scan.failure_exit_codes lists\n",
            "hint: check with `matrix-content-scanner sandbox -- DIR/script.sh FILE`, with any file; the samples \
             are set in scan.canary\n",
        ),
    ] {
        let builder = ScannerBuilder::new(script).config("scan.canary = \"eicar\"");
        let (code, _, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(1), "{stderr}");
        let stderr = normalized(&builder, &stderr);
        assert!(stderr.ends_with(&format!("{error}{hint}")), "{stderr}");
    }
    // A script that detects the test file.
    let builder = ScannerBuilder::new(r#"if grep -q EICAR-STANDARD "$1"; then exit 1; fi"#);
    fs::write(builder.dir().path("bad"), eicar()).unwrap();
    let builder = builder.config("scan.canary = \"eicar\"");
    let (code, stdout, _) = builder.run(&["check-config", "--show"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.ends_with(
            "# canary: every engine detects the infected sample and passes the clean one\n# OK\n"
        ),
        "{stdout}"
    );
}

#[test]
fn reports_script_without_interpreter() {
    let builder = ScannerBuilder::new("exit 0").config("scan.canary = \"eicar\"");
    builder.dir().write_executable("script.sh", "exit 0\n");
    let (_, _, stderr) = builder.run(&["check-config"]);
    assert!(stderr.contains("nor starts with #! and an interpreter"), "{stderr}");
}

#[test]
fn hints_at_default_configuration_when_none_exists() {
    if std::path::Path::new("/etc/matrix-content-scanner/config.toml").exists() {
        return report_skipped(
            "hints_at_default_configuration_when_none_exists",
            "there is one here",
        );
    }
    let (code, _, stderr) = run(&["check-config"], &[]);
    assert_eq!(code, Some(78));
    assert!(
        stderr.ends_with(
            "\nhint: /etc/matrix-content-scanner/config.toml does not exist, and no other file was given (-c FILE). \
             config/default.toml lists every key; packages install it in \
             /usr/share/matrix-content-scanner\n"
        ),
        "{stderr}"
    );
}

#[test]
fn hints_at_migrate_for_configuration_of_earlier_scanner() {
    let builder = ScannerBuilder::new("exit 0");
    let old = builder.dir().path("old.yaml");
    fs::write(&old, "scan:\n  script: ./x.sh\n").unwrap();
    let (code, _, stderr) = run(&["-c", old.to_str().unwrap(), "check-config"], &[]);
    assert_eq!(code, Some(78));
    let hint = "\nhint: to convert the configuration of an earlier scanner, run `matrix-content-scanner \
                migrate DIR/old.yaml -o config.toml`\n";
    assert!(normalized(&builder, &stderr).ends_with(hint), "{stderr}");
}

#[test]
fn listen_error_names_configuration_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (config, hint) in [
        (
            format!("web.port = {port}"),
            "hint: another program listens there (`ss -ltn -p` shows it): stop it, or change web.port\n",
        ),
        (
            format!("operations.port = {port}"),
            "hint: another program listens there (`ss -ltn -p` shows it): stop it, or change operations.port\n",
        ),
        (
            "web.host = \"192.0.2.1\"".to_owned(),
            "hint: set web.host to an address of this machine (`ip address` lists them)\n",
        ),
        ("web.socket = \"script.sh\"".to_owned(), "hint: remove that file, or change web.socket\n"),
    ] {
        let config = format!("download.base_homeserver_url = \"http://127.0.0.1:1\"\n{config}");
        let mut builder = ScannerBuilder::new("exit 0").config(&config);
        if config.contains("socket") {
            // web.socket replaces the two keys that tests set.
            builder = builder.env("MCS_WEB__HOST", "").env("MCS_WEB__PORT", "");
        }
        let (code, stderr) = builder.run_to_exit();
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.ends_with(hint), "{stderr}");
    }
    drop(taken);
}

#[test]
fn reports_arguments_in_script_path() {
    let builder = ScannerBuilder::new("exit 0").config("scan.script = \"script.sh --fast\"");
    let (code, _, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(78));
    let message = "scan.script: found \"DIR/script.sh --fast\", which is not a file, while \"DIR/script.sh\" is, \
                 expected the program alone; its arguments belong in a separate key\n";
    assert!(normalized(&builder, &stderr).contains(message), "{stderr}");
}

#[test]
fn missing_key_directory_is_note_in_check_and_error_in_serve() {
    let config = "crypto.request_secret_path = \"keys/secret\"";
    let builder = ScannerBuilder::new("exit 0").config(config);
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    // The directory may be created before the service starts.
    assert_eq!(code, Some(0), "{stderr}");
    let note = "\nnote: crypto.request_secret_path: the folder DIR/keys must exist at the first start (the package's unit creates it)\n";
    assert!(normalized(&builder, &stdout).contains(note), "{stdout}");
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, Some(75));
    let message = "error: the request key cannot be used: DIR/keys/secret: a new key cannot be written: its folder does not exist\n";
    assert!(normalized(&builder, &stderr).ends_with(message), "{stderr}");
}

#[test]
fn permission_error_names_user() {
    // Root is denied nothing, so the program runs as another user.
    let as_nobody: &[&str] = if is_root() {
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &[]
    };
    let start = |config: &str, closed: &str, mode: u32| {
        let url = "download.base_homeserver_url = \"http://127.0.0.1:1\"";
        let builder =
            ScannerBuilder::new("exit 0").wrapped_by(as_nobody).config(url).config(config);
        let config = builder.write_config();
        fs::write(builder.dir().path("request_secret"), "x").unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
        let temp = builder.dir().path("temp");
        fs::set_permissions(temp, Permissions::from_mode(0o1777)).unwrap();
        let closed = builder.dir().path(closed);
        fs::set_permissions(&closed, Permissions::from_mode(mode)).unwrap();
        // Not `run`, which would rewrite the configuration.
        let mut words = as_nobody.iter().copied().chain([crate::harness::scanner::PROGRAM]);
        let mut command = external_command(words.next().unwrap());
        let output = command.args(words).arg("-c").arg(&config).output().unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), normalized(&builder, &stderr))
    };
    let uid = if is_root() { 65534 } else { nix::unistd::geteuid().as_raw() };
    for (closed, mode, code, prefix) in [
        ("request_secret", 0o000, 75, "DIR/request_secret: the key cannot be read by "),
        ("temp", 0o555, 78, "scan.temp_directory: found \"DIR/temp\", which is not writable by "),
        ("config.toml", 0o000, 78, "DIR/config.toml: cannot be read by "),
    ] {
        let (exit, stderr) = start("", closed, mode);
        assert_eq!(exit, Some(code), "{stderr}");
        let line =
            stderr.lines().find(|line| line.contains(prefix)).unwrap_or_else(|| panic!("{stderr}"));
        assert!(
            line.contains(&format!("uid {uid}")) && line.contains("Permission denied"),
            "{line}"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "the program under test, as another user")]
fn external_command(program: &str) -> Command {
    Command::new(program)
}
