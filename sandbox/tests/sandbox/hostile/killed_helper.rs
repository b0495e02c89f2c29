//! Cleanup after a killed helper.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use mcs_sandbox::{Command, Error};

use super::{ALL, Targets, skip_without_layers};
use crate::fixture::{LONG_TIMEOUT, ProcessFifo, unsandboxed};

/// Returns the marker, assembled at run time: the test binaries on disk must not contain it.
fn marker() -> String {
    format!("plaintext-of-a-scan-killed-in-{}", std::process::id())
}

/// Whether a file below these directories contains the marker.
fn contains_marker(directories: &[&Path]) -> bool {
    let mut grep = unsandboxed("/bin/grep");
    grep.args(["-rqsF", "--exclude-dir=proc", &marker()]).args(directories);
    grep.stdout(Stdio::null()).status().unwrap().code() == Some(0)
}

#[tokio::test]
async fn killed_helper_leaves_no_process_and_no_plaintext() {
    let targets = Targets::new(&ALL).await;
    if skip_without_layers(&ALL, "killed_helper_leaves_no_process_and_no_plaintext").await {
        return;
    }
    let mut fifo = ProcessFifo::at(&targets.open);
    let mut job = targets.fixture.job().await;
    job.media().unwrap().write_all(marker().as_bytes()).unwrap();
    let script = r#"exec 3> "$2"; cp "$1" copy; cp "$1" "$TMPDIR/copy"; echo on >&3; sleep 60"#;
    let command = crate::fixture::sh_with(&job, script, &fifo.path);
    let searched = [targets.fixture.root.as_path(), Path::new("/var/tmp"), Path::new("/dev/shm")];
    // The control: the search finds an existing marker.
    let found = targets.closed.join("found");
    fs::write(&found, marker()).unwrap();
    assert!(contains_marker(&searched));
    fs::remove_file(&found).unwrap();

    let helpers_before = children();
    let (failed, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 100), async {
        assert_eq!(fifo.read_line().await, "on");
        assert!(!contains_marker(&searched), "plaintext is on a disk");
        // Kills the helper of this job only.
        for helper in helpers_before.iter().filter(|pid| is_helper_of(**pid, job_name(&command))) {
            nix::sys::signal::kill(*helper, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    });
    assert!(matches!(failed, Err(Error::HelperExited)), "{failed:?}");
    fifo.wait_closed().await;
    job.close().await.unwrap();
    assert!(!contains_marker(&searched));
    targets.end().await;
}

fn job_name(command: &Command) -> &std::ffi::OsStr {
    let media = command.args.iter().find(|arg| arg.to_string_lossy().ends_with("/media")).unwrap();
    Path::new(media).parent().and_then(Path::file_name).unwrap()
}

fn children() -> Vec<nix::unistd::Pid> {
    let own = std::process::id();
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{own}/task")).unwrap() {
        let listed = fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
        all.extend(
            listed.split_whitespace().map(|pid| nix::unistd::Pid::from_raw(pid.parse().unwrap())),
        );
    }
    all
}

/// Whether `pid` is the helper of `job`: one of its descendants has the job's directory as working directory.
fn is_helper_of(pid: nix::unistd::Pid, job: &std::ffi::OsStr) -> bool {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().any(|child| {
        let below = fs::read_to_string(format!("/proc/{child}/task/{child}/children"));
        below.unwrap_or_default().split_whitespace().chain([child]).any(|pid| {
            fs::read_link(format!("/proc/{pid}/cwd"))
                .is_ok_and(|cwd| cwd.file_name().is_some_and(|name| name == job))
        })
    })
}
