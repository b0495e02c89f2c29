//! `sandbox -- COMMAND FILE`: a new script is made to work in minutes.

use std::fs;

use crate::harness::{
    Builder,
    scanner::{entries, run},
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

    // As it says.
    let config = "sandbox.read_only_paths = [\"/etc/hostname\"]";
    let (code, stdout, _) = on_trial(config, &["cat", "/etc/hostname"], "");
    assert_eq!(code, Some(0), "{stdout}");
    assert!(stdout.ends_with("refused: nothing that was noticed\n"), "{stdout}");
}

#[test]
fn a_command_that_is_not_there_is_told_where_to_look() {
    let (code, _, stderr) = on_trial("", &["/nowhere/scanner"], "");
    assert_eq!(code, Some(2));
    assert!(stderr.contains("sandbox.read_only_paths"), "{stderr}");
    let (code, ..) = on_trial("", &[], "");
    assert_eq!(code, Some(2), "a file alone is no command");
}
