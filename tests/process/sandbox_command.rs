//! Tests of `sandbox -- COMMAND FILE`, which runs a command in the sandbox and reports denied accesses.

use std::fs;

use crate::harness::{
    ScannerBuilder, report_skipped,
    scanner::{list_dir, run},
};

/// Runs `command` in the sandbox on a file with this content; returns exit code, stdout and stderr.
fn run_in_sandbox(config: &str, command: &[&str], content: &str) -> (Option<i32>, String, String) {
    let builder = ScannerBuilder::new("exit 0").config(config);
    let path = builder.write_config();
    let file = builder.dir().path("file");
    fs::write(&file, content).unwrap();
    let mut arguments = vec!["-c", path.to_str().unwrap(), "sandbox", "--"];
    arguments.extend(command);
    arguments.push(file.to_str().unwrap());
    let result = run(&arguments, &[]);
    assert!(list_dir(&builder.dir().path("temp")).is_empty(), "a job directory remains");
    result
}

#[test]
fn command_gets_copy_of_file_and_exit_is_reported() {
    let (code, stdout, stderr) = run_in_sandbox("", &["cat", "-v"], "content of the file");
    assert_eq!(code, Some(0), "{stderr}");
    for expected in ["  content of the file\n", "ended: exit code 0\n", "took: ", "  seccomp: "] {
        assert!(stdout.contains(expected), "{expected:?} in {stdout}");
    }
    assert!(stdout.ends_with("refused: nothing observed\n"), "{stdout}");

    let (code, stdout, _) = run_in_sandbox("", &["sh", "-c", "kill -9 $$"], "");
    assert_eq!(code, Some(1));
    assert!(stdout.contains("ended: signal 9\n"), "{stdout}");
    let (code, stdout, _) = run_in_sandbox("scan.timeout = \"1s\"", &["sh", "-c", "sleep 100"], "");
    assert_eq!(code, Some(1));
    assert!(stdout.contains("killed after scan.timeout"), "{stdout}");
}

#[test]
fn reports_denied_accesses_with_configuration_key() {
    let script = r"
        cat /etc/hostname
        cat /etc/nowhere-at-all
        echo x > /var/tmp/mcs-trial
        exec 3<>/dev/tcp/127.0.0.1/9
    ";
    let (code, stdout, _) = run_in_sandbox("", &["bash", "-c", script, "bash"], "");
    assert_eq!(code, Some(1), "{stdout}");
    for expected in [
        ": /etc/hostname (sandbox.read_only_paths)\n",
        ": writing /var/tmp/mcs-trial (",
        "  seccomp: the network (sandbox.tcp_ports, sandbox.network)\n",
    ] {
        assert!(stdout.contains(expected), "{expected:?} in {stdout}");
    }
    assert!(!stdout.contains("/etc/nowhere-at-all ("), "{stdout}");
    assert!(!std::path::Path::new("/var/tmp/mcs-trial").exists());

    // Only looked up. With namespaces, hidden files do not exist in the sandbox.
    let (_, stdout, _) = run_in_sandbox("", &["test", "-e", "/etc/hostname", "-a", "-n"], "");
    if stdout.contains("namespaces: pid") {
        assert!(stdout.contains(": /etc/hostname (sandbox.read_only_paths)\n"), "{stdout}");
    }
    let (_, stdout, _) = run_in_sandbox("", &["cat", "/proc/self/status"], "");
    assert!(stdout.contains(": /proc/self/status (never shown)\n"), "{stdout}");

    // The suggested key makes the file readable.
    let config = "sandbox.read_only_paths = [\"/etc/hostname\"]";
    let (code, stdout, _) = run_in_sandbox(config, &["cat", "/etc/hostname"], "");
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.ends_with("refused: nothing observed\n"), "{stdout}");
}

#[test]
fn reports_denied_addresses() {
    if skipped_without_python("reports_denied_addresses") {
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
    let (_, stdout, stderr) = run_in_sandbox("sandbox.tcp_ports = [1344]", &command, "");
    for expected in [
        "  landlock: TCP to port 9 (sandbox.tcp_ports)\n".to_owned(),
        format!(": the socket {} (sandbox.unix_sockets)\n", socket.display()),
    ] {
        assert!(stdout.contains(&expected), "{expected:?} in {stdout}{stderr}");
    }
}

/// Reports `test` as skipped and returns `true` if python3 is not installed.
fn skipped_without_python(test: &str) -> bool {
    let missing = !std::path::Path::new("/usr/bin/python3").exists();
    if missing {
        report_skipped(test, "not installed: python3");
    }
    missing
}

#[test]
fn reports_missing_command() {
    let (code, _, stderr) = run_in_sandbox("", &["/nowhere/scanner"], "");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("/nowhere/scanner does not exist: No such file"), "{stderr}");
    let (code, ..) = run_in_sandbox("", &[], "");
    assert_eq!(code, Some(2), "a file without a command is a usage error");
}
