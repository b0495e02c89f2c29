//! `sandbox -- COMMAND FILE`: a new script is made to work in minutes.

use std::fs;

use crate::harness::{
    Builder,
    scanner::{entries, run},
    skipped,
};

/// Runs a command on a file of this content; gives exit code, standard output and error.
fn on_trial(config: &str, command: &[&str], content: &str) -> (Option<i32>, String, String) {
    let builder = Builder::new("exit 0").config(config);
    let path = builder.write_config();
    let file = builder.place().path("file");
    fs::write(&file, content).unwrap();
    let mut arguments = vec!["-c", path.to_str().unwrap(), "sandbox", "--"];
    arguments.extend(command);
    arguments.push(file.to_str().unwrap());
    let ended = run(&arguments, &[]);
    assert!(entries(&builder.place().path("temp")).is_empty(), "something is left");
    ended
}

#[test]
fn a_command_gets_a_copy_of_the_file_and_its_end_is_told() {
    let (code, stdout, stderr) = on_trial("", &["cat", "-v"], "content of the file");
    assert_eq!(code, Some(0), "{stderr}");
    for said in ["  content of the file\n", "ended: exit code 0\n", "took: ", "  seccomp: "] {
        assert!(stdout.contains(said), "{said:?} in {stdout}");
    }
    assert!(stdout.ends_with("refused: nothing that was noticed\n"), "{stdout}");

    let (code, stdout, _) = on_trial("", &["sh", "-c", "kill -9 $$"], "");
    assert_eq!(code, Some(1));
    assert!(stdout.contains("ended: by signal 9\n"), "{stdout}");
    let (code, stdout, _) = on_trial("scan.timeout = \"1s\"", &["sh", "-c", "sleep 100"], "");
    assert_eq!(code, Some(1));
    assert!(stdout.contains("killed when scan.timeout was over"), "{stdout}");
}

#[test]
fn what_it_was_refused_is_told_with_what_to_do_about_it() {
    let script = r"
        cat /etc/hostname
        cat /etc/nowhere-at-all
        echo x > /var/tmp/mcs-trial
        exec 3<>/dev/tcp/127.0.0.1/9
    ";
    let (code, stdout, _) = on_trial("", &["bash", "-c", script, "bash"], "");
    assert_eq!(code, Some(1), "{stdout}");
    for said in [
        ": /etc/hostname (sandbox.read_only_paths)\n",
        ": writing /var/tmp/mcs-trial (",
        "  seccomp: the network (sandbox.tcp_ports, sandbox.network)\n",
    ] {
        assert!(stdout.contains(said), "{said:?} in {stdout}");
    }
    assert!(!stdout.contains("/etc/nowhere-at-all ("), "{stdout}");
    assert!(!std::path::Path::new("/var/tmp/mcs-trial").exists());

    // Looked for only, where what is not shown is not there.
    let (_, stdout, _) = on_trial("", &["test", "-e", "/etc/hostname", "-a", "-n"], "");
    if stdout.contains("namespaces: pid") {
        assert!(stdout.contains(": /etc/hostname (sandbox.read_only_paths)\n"), "{stdout}");
    }
    let (_, stdout, _) = on_trial("", &["cat", "/proc/self/status"], "");
    assert!(stdout.contains(": /proc/self/status (never shown)\n"), "{stdout}");

    // As it says.
    let config = "sandbox.read_only_paths = [\"/etc/hostname\"]";
    let (code, stdout, _) = on_trial(config, &["cat", "/etc/hostname"], "");
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.ends_with("refused: nothing that was noticed\n"), "{stdout}");
}

#[test]
fn an_address_that_it_was_refused_is_told() {
    if skipped_without_python("an_address_that_it_was_refused_is_told") {
        return;
    }
    let directory = tempfile::TempDir::new().unwrap();
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let connect = "import socket, sys\n\
        for family, address in ((socket.AF_INET, ('127.0.0.1', 9)), (socket.AF_UNIX, sys.argv[1])):\n    \
            try: socket.socket(family).connect(address)\n    \
            except OSError: pass\n";
    let command = ["python3", "-c", connect, socket.to_str().unwrap()];
    let (_, stdout, stderr) = on_trial("sandbox.tcp_ports = [1344]", &command, "");
    for said in [
        "  landlock: TCP to port 9 (sandbox.tcp_ports)\n".to_owned(),
        format!(": the socket {} (sandbox.unix_sockets)\n", socket.display()),
    ] {
        assert!(stdout.contains(&said), "{said:?} in {stdout}{stderr}");
    }
}

fn skipped_without_python(test: &str) -> bool {
    let missing = !std::path::Path::new("/usr/bin/python3").exists();
    if missing {
        skipped(test, "not installed: python3");
    }
    missing
}

#[test]
fn a_command_that_is_not_there_is_told_where_to_look() {
    let (code, _, stderr) = on_trial("", &["/nowhere/scanner"], "");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nowhere/scanner does not exist: No such file"), "{stderr}");
    let (code, ..) = on_trial("", &[], "");
    assert_eq!(code, Some(2), "a file alone is no command");
}
