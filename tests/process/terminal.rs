//! What is printed where a person looks, and where a file or a pipe is; and errors that say what to do next.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    net::TcpListener,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    process::{Command, ExitStatus},
};

use nix::pty::{Winsize, openpty};

use crate::harness::{
    Builder, eicar,
    scanner::{as_root, command, run},
    skipped,
};

/// A terminal of this many columns.
fn terminal(columns: u16) -> (File, OwnedFd) {
    let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = openpty(&size, None).expect("a terminal");
    (pair.master.into(), pair.slave)
}

/// Runs it to its end with both streams on a terminal; gives what that was sent.
fn on_a_terminal(mut command: Command) -> (ExitStatus, String) {
    let (mut master, slave) = terminal(60);
    command.stdout(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().expect("the program starts");
    // Its copies of the terminal's end go with it, these with the command.
    drop(command);
    let seen = all_of(&mut master);
    (child.wait().unwrap(), seen)
}

/// What a terminal was sent, until nobody has its other end any more.
fn all_of(master: &mut File) -> String {
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // Ends with EIO.
    while let Ok(length @ 1..) = master.read(&mut piece) {
        seen.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(seen).expect("text")
}

/// The program with this configuration and these arguments.
fn program(builder: &Builder, arguments: &[&str]) -> Command {
    let mut command = command();
    command.arg("-c").arg(builder.write_config()).args(arguments);
    command
}

#[test]
fn there_is_colour_on_a_terminal_and_nowhere_else() {
    let builder = Builder::new("exit 0");
    let bad = builder.place().path("bad");
    fs::write(&bad, "bytes").unwrap();
    let scan = ["scan", bad.to_str().unwrap()];
    for (arguments, coloured) in [
        (&["check-config"][..], "\u{1b}[1m[web]\u{1b}[0m"),
        (&scan, ": \u{1b}[32mclean\u{1b}[0m"),
        (&["scan", "/no/such/file"], ": \u{1b}[33mfailed\u{1b}[0m: "),
    ] {
        let (_, seen) = on_a_terminal(program(&builder, arguments));
        assert!(seen.contains(coloured), "{arguments:?} {seen:?}");
        // Variables that other programs go by are not read.
        let mut it = program(&builder, arguments);
        it.envs([("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")]);
        let (_, seen) = on_a_terminal(it);
        assert!(seen.contains(coloured), "{arguments:?} {seen:?}");
        let never = [arguments, &["--color=never"]].concat();
        let (_, seen) = on_a_terminal(program(&builder, &never));
        assert!(!seen.contains('\u{1b}'), "{arguments:?} {seen:?}");

        let config = builder.write_config();
        let through_a_pipe = [&["-c", config.to_str().unwrap()], arguments].concat();
        let forced = [("CLICOLOR_FORCE", "1"), ("FORCE_COLOR", "1"), ("TERM", "xterm-256color")];
        let (_, stdout, stderr) = run(&through_a_pipe, &forced);
        assert!(!stdout.contains('\u{1b}') && !stderr.contains('\u{1b}'), "{stdout}{stderr}");
        let always = [&through_a_pipe[..], &["--color", "always"]].concat();
        let (_, stdout, _) = run(&always, &[("NO_COLOR", "1")]);
        assert!(stdout.contains(coloured), "{stdout:?}");
    }
}

#[test]
fn each_stream_has_colour_by_itself() {
    let builder = Builder::new("exit 0").config("scan.canary = \"eicar\"");
    let (mut master, slave) = terminal(60);
    let mut it = program(&builder, &["check-config"]);
    it.stderr(slave);
    let output = it.output().unwrap();
    drop(it);
    let seen = all_of(&mut master);
    assert!(seen.contains("\u{1b}[1m\u{1b}[31merror\u{1b}[0m: the script calls"), "{seen:?}");
    assert!(!output.stdout.contains(&0x1b), "a pipe");
}

/// In the line on what takes long, behind the seconds that it has taken.
const SCANNING: &str = " s: scanning ";

/// Those seconds, each time that they were told.
fn seconds(seen: &str) -> Vec<u64> {
    let mut before: Vec<_> = seen.split(SCANNING).collect();
    before.pop();
    let number = |text: &str| text.rsplit(|it: char| !it.is_ascii_digit()).next()?.parse().ok();
    before.into_iter().map(|text| number(text).unwrap()).collect()
}

#[test]
fn a_scan_that_takes_long_has_a_line_on_a_terminal_that_is_gone_in_the_end() {
    // Until somebody lets it go.
    let builder = Builder::new(r#"read go < "$MARKS/go""#);
    builder.place().make_fifo("go");
    let name = format!("{}.png", "long-name-".repeat(12));
    let file = builder.place().path(&name);
    fs::write(&file, [0; 3000]).unwrap();
    let (mut master, slave) = terminal(60);
    let mut it = program(&builder, &["scan"]);
    it.current_dir(builder.place().path("")).arg(&name).stderr(slave);
    it.stdout(File::create(builder.place().path("verdicts")).unwrap());
    let mut child = it.spawn().unwrap();
    drop(it);
    let mut seen = String::new();
    let mut piece = [0; 4096];
    let mut opened = false;
    while let Ok(length @ 1..) = master.read(&mut piece) {
        seen.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        // Once it has told that more time has gone by: on a slow machine these are no 0 and 1 s.
        let told = seconds(&seen);
        assert!(told.is_sorted(), "{seen:?}");
        if !opened && told.last() > told.first() {
            opened = true;
            let mut fifo =
                File::options().write(true).open(builder.place().path("marks/go")).unwrap();
            fifo.write_all(b"go\n").unwrap();
        }
    }
    assert!(child.wait().unwrap().success());
    assert!(opened, "{seen:?}");
    let (before, after) = seen.split_once(SCANNING).unwrap();
    assert!(before.ends_with(|last: char| last.is_ascii_digit()), "{seen:?}");
    assert!(after.starts_with("1 of 1, long-name-"), "{seen:?}");
    let seen = &seen[before.rfind('\r').unwrap()..];
    let mut widths = seen.split('\r').map(str::len);
    assert!(widths.all(|width| width < 60), "a line wraps: {seen:?}");
    // Spaces over all of it, and the cursor where it was.
    assert!(seen.ends_with(&format!("\r{}\r", " ".repeat(59))), "{seen:?}");
    assert!(!seen.contains('\n') && !seen.contains('\u{1b}'), "{seen:?}");
    let verdicts = fs::read_to_string(builder.place().path("verdicts")).unwrap();
    assert_eq!(verdicts, format!("{name}: clean\n"));
}

#[test]
fn without_a_terminal_there_is_no_progress_line() {
    let builder = Builder::new("sleep 1.2");
    let (code, stdout, stderr) = builder.run(&["--color=always", "scan", "/etc/passwd"]);
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("/etc/passwd: "), "{stdout}");
    assert!(!stderr.contains("scanning") && !stderr.contains('\r'), "{stderr}");
}

#[test]
fn whatever_is_in_a_name_or_printed_there_is_one_line_a_file() {
    let builder = Builder::new(r"printf 'red \033[31m\nclean: not\302\233 \342\200\256'; exit 1");
    let name = builder.place().path("a\nb: clean\u{1b}]0;title\u{7}\u{202e}");
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

/// Output with the directory and the port of this run taken out.
fn told(builder: &Builder, text: &str) -> String {
    let place = builder.place().path("");
    text.replace(place.to_str().unwrap().trim_end_matches('/'), "DIR")
}

#[test]
fn a_file_that_cannot_be_scanned_says_why() {
    let builder = Builder::new("exit 0").config("download.max_size = 1000");
    let place = builder.place();
    place.make_fifo("fifo");
    fs::write(place.path("large"), [0; 1001]).unwrap();
    let names =
        ["none", "marks", "marks/fifo", "large"].map(|name| place.path(name).display().to_string());
    let mut arguments = vec!["scan"];
    arguments.extend(names.iter().map(String::as_str));
    let (code, stdout, _) = builder.run(&arguments);
    assert_eq!(code, Some(2));
    assert_eq!(
        told(&builder, &stdout),
        "DIR/none: failed: it cannot be opened: No such file or directory (os error 2)\n\
         DIR/marks: failed: it is a directory: name the files in it\n\
         DIR/marks/fifo: failed: it is not a regular file\n\
         DIR/large: failed: it is larger than 1000 bytes (download.max_size, or what \
         scan.max_spool_size leaves of it)\n"
    );
}

#[test]
fn a_wrong_canary_says_how_to_look() {
    for (script, error, hint) in [
        (
            "exit 0",
            "error: the script calls the infected sample clean\n",
            "hint: everything would pass. Signatures may be missing, or out of the sandbox's sight: look with \
             `matrix-content-scanner sandbox -- DIR/script.sh FILE`. Who does not know the EICAR \
             test file needs samples of its own in scan.canary\n",
        ),
        (
            "exit 1",
            "error: the script calls the clean sample not clean: \"\"\n",
            "hint: nothing would pass: look with `matrix-content-scanner sandbox -- DIR/script.sh FILE`; the \
             samples are set in scan.canary\n",
        ),
        (
            "no-such-scanner",
            "error: the script gives no verdict on the infected sample: the script failed: it exited with 127, \
             which scan.failure_exit_codes names as a failure\n",
            "hint: look with `matrix-content-scanner sandbox -- DIR/script.sh FILE`, with any file; the samples \
             are set in scan.canary\n",
        ),
    ] {
        let builder = Builder::new(script).config("scan.canary = \"eicar\"");
        let (code, _, stderr) = builder.run(&["check-config"]);
        assert_eq!(code, Some(1), "{stderr}");
        let told = told(&builder, &stderr);
        assert!(told.ends_with(&format!("{error}{hint}")), "{told}");
    }
    // Something that knows it.
    let builder = Builder::new(r#"if grep -q EICAR-STANDARD "$1"; then exit 1; fi"#);
    fs::write(builder.place().path("bad"), eicar()).unwrap();
    let (code, stdout, _) = builder.config("scan.canary = \"eicar\"").run(&["check-config"]);
    assert_eq!(code, Some(0));
    assert!(
        stdout.ends_with("# the canary: each engine knows a bad file from a good one\n"),
        "{stdout}"
    );
}

#[test]
fn a_script_without_an_interpreter_is_told_apart() {
    let builder = Builder::new("exit 0").config("scan.canary = \"eicar\"");
    builder.place().write_executable("script.sh", "exit 0\n");
    let (_, _, stderr) = builder.run(&["check-config"]);
    assert!(stderr.contains("has no #! and interpreter in its first line"), "{stderr}");
}

#[test]
fn without_any_configuration_it_says_where_to_begin() {
    if std::path::Path::new("/etc/matrix-content-scanner/config.toml").exists() {
        return skipped("without_any_configuration_it_says_where_to_begin", "there is one here");
    }
    let (code, _, stderr) = run(&["check-config"], &[]);
    assert_eq!(code, Some(78));
    assert!(
        stderr.ends_with(
            "\nhint: there is no /etc/matrix-content-scanner/config.toml, and no other file was named (-c FILE). \
             config/default.toml has every key to begin with; packages put it into \
             /usr/share/matrix-content-scanner\n"
        ),
        "{stderr}"
    );
}

#[test]
fn an_earlier_scanners_configuration_leads_to_migrate() {
    let builder = Builder::new("exit 0");
    let old = builder.place().path("old.yaml");
    fs::write(&old, "scan:\n  script: ./x.sh\n").unwrap();
    let (code, _, stderr) = run(&["-c", old.to_str().unwrap(), "check-config"], &[]);
    assert_eq!(code, Some(78));
    let hint = "\nhint: an earlier scanner's configuration? `matrix-content-scanner migrate DIR/old.yaml -o \
                config.toml` translates it\n";
    assert!(told(&builder, &stderr).ends_with(hint), "{stderr}");
}

#[test]
fn a_place_to_listen_that_cannot_be_had_names_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (config, hint) in [
        (
            format!("web.port = {port}"),
            "hint: another program listens there (`ss -ltn -p` tells which): stop it, or change web.port\n",
        ),
        (
            format!("operations.port = {port}"),
            "hint: another program listens there (`ss -ltn -p` tells which): stop it, or change operations.port\n",
        ),
        (
            "web.host = \"192.0.2.1\"".to_owned(),
            "hint: web.host is no address of this machine (`ip address` lists them)\n",
        ),
        ("web.socket = \"script.sh\"".to_owned(), "hint: remove that file, or change web.socket\n"),
    ] {
        let config = format!("download.base_homeserver_url = \"http://127.0.0.1:1\"\n{config}");
        let mut builder = Builder::new("exit 0").config(&config);
        if config.contains("socket") {
            // In place of these two.
            builder = builder.environment("MCS_WEB__HOST", "").environment("MCS_WEB__PORT", "");
        }
        let (code, said) = builder.fails();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.ends_with(hint), "{said}");
    }
    drop(taken);
}

#[test]
fn a_script_with_arguments_is_told_apart_from_one_that_is_not_there() {
    let builder = Builder::new("exit 0").config("scan.script = \"script.sh --fast\"");
    let (code, _, stderr) = builder.run(&["check-config"]);
    assert_eq!(code, Some(78));
    let words = "scan.script: found \"DIR/script.sh --fast\", which is no file, while \"DIR/script.sh\" is one, \
                 expected the program alone; its arguments have a key of their own\n";
    assert!(told(&builder, &stderr).contains(words), "{stderr}");
}

#[test]
fn a_key_without_a_folder_is_a_note_and_then_an_error() {
    let config = "crypto.request_secret_path = \"keys/secret\"";
    let builder = Builder::new("exit 0").config(config);
    let (code, stdout, stderr) = builder.run(&["check-config"]);
    // It may be made until then.
    assert_eq!(code, Some(0), "{stderr}");
    let note =
        "\n# note: crypto.request_secret_path: by then its folder DIR/keys has to be there\n";
    assert!(told(&builder, &stdout).contains(note), "{stdout}");
    let (code, _, stderr) = builder.run(&["serve"]);
    assert_eq!(code, Some(1));
    let words = "error: the request key cannot be used: DIR/keys/secret: a new key cannot be written: its folder does not exist\n";
    assert!(told(&builder, &stderr).ends_with(words), "{stderr}");
}

#[test]
fn where_permission_is_denied_it_says_to_whom() {
    // Root may do everything.
    let as_nobody: &[&str] = if as_root() {
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    } else {
        &[]
    };
    let start = |config: &str, closed: &str, mode: u32| {
        let url = "download.base_homeserver_url = \"http://127.0.0.1:1\"";
        let builder = Builder::new("exit 0").inside(as_nobody).config(url).config(config);
        let config = builder.write_config();
        fs::write(builder.place().path("request_secret"), "x").unwrap();
        fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
        let temp = builder.place().path("temp");
        fs::set_permissions(temp, Permissions::from_mode(0o1777)).unwrap();
        let closed = builder.place().path(closed);
        fs::set_permissions(&closed, Permissions::from_mode(mode)).unwrap();
        // Not by `run`, which would write the configuration anew.
        let mut words = as_nobody.iter().copied().chain([crate::harness::scanner::PROGRAM]);
        let mut it = command_of(words.next().unwrap());
        let output = it.args(words).arg("-c").arg(&config).output().unwrap();
        fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), told(&builder, &stderr))
    };
    let uid = if as_root() { 65534 } else { nix::unistd::geteuid().as_raw() };
    for (closed, mode, code, before) in [
        ("request_secret", 0o000, 1, "DIR/request_secret: the key cannot be read by "),
        ("temp", 0o555, 78, "scan.temp_directory: found \"DIR/temp\", which cannot be written by "),
        ("config.toml", 0o000, 78, "DIR/config.toml: cannot be read by "),
    ] {
        let (exit, said) = start("", closed, mode);
        assert_eq!(exit, Some(code), "{said}");
        let line =
            said.lines().find(|line| line.contains(before)).unwrap_or_else(|| panic!("{said}"));
        assert!(
            line.contains(&format!("uid {uid}")) && line.contains("Permission denied"),
            "{line}"
        );
    }
}

#[expect(clippy::disallowed_methods, reason = "the program under test, as another user")]
fn command_of(program: &str) -> Command {
    Command::new(program)
}
