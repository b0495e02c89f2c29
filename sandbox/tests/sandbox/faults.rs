//! Failures of server or helper: the other side reports them and leaves nothing behind.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mcs_sandbox::{Error, SandboxBuilder};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::fixture::{Fixture, HELPER, LONG_TIMEOUT, is_root, policy, sh, sh_with, unsandboxed};

/// Writes the helper's pid to the FIFO, then ignores all signals but SIGKILL. Its children keep the FIFO open too.
const STAY_SCRIPT: &str = r#"exec 3> "$2"; trap '' TERM HUP INT; (sleep 60; sleep 60) & echo $PPID >&3; sleep 60; sleep 60"#;

#[tokio::test]
async fn server_kill_leaves_nothing() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut server = unsandboxed(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "faults::child_server"])
        .env(SERVER_JOBS, fixture.jobs())
        .env(SERVER_FIFO, &fifo.path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    fifo.read_line().await;
    assert!(!fixture.is_empty(), "control");
    server.kill().unwrap();
    server.wait().unwrap();
    fifo.wait_closed().await;
    fixture.wait_until_empty().await;
}

const SERVER_JOBS: &str = "MCS_SANDBOX_TEST_JOBS";
const SERVER_FIFO: &str = "MCS_SANDBOX_TEST_FIFO";

/// Not a test: the process that the test above starts and kills.
#[tokio::test]
#[ignore = "part of another test"]
async fn child_server() {
    let Some(jobs) = std::env::var_os(SERVER_JOBS).map(PathBuf::from) else { return };
    let fifo = std::env::var_os(SERVER_FIFO).map(PathBuf::from).unwrap();
    let sandbox = SandboxBuilder::with_helper(Path::new(HELPER), policy())
        .unwrap()
        .build_unprobed(&[])
        .unwrap();
    let mut job = sandbox.prepare(&jobs, "media").await.unwrap();
    let _ = job.run(&sh_with(&job, STAY_SCRIPT, &fifo), LONG_TIMEOUT, 100).await;
}

#[tokio::test]
async fn helper_kill_during_run_leaves_nothing() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut job = fixture.job().await;
    let command = sh_with(&job, STAY_SCRIPT, &fifo.path);
    let (failed, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 100), async {
        let helper = fifo.read_line().await.parse().unwrap();
        kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperExited)), "{failed:?}");
    assert!(fixture.is_empty());
    fifo.wait_closed().await;
    let result = job.run(&command, LONG_TIMEOUT, 100).await;
    assert!(matches!(result, Err(Error::JobEnded)), "{result:?}");
    job.close().await.unwrap();
}

#[tokio::test]
async fn helper_kill_between_runs_leaves_nothing() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), LONG_TIMEOUT, 100).await.unwrap();
    let helper = crate::fixture::text(&exit.stdout).trim().parse().unwrap();
    kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    let failed = job.run(&sh(&job, "exit 0"), LONG_TIMEOUT, 100).await;
    assert!(matches!(failed, Err(Error::HelperExited)), "{failed:?}");
    assert!(fixture.is_empty());
    job.close().await.unwrap();
}

#[tokio::test]
async fn unresponsive_helper_is_killed_after_time_limit() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut job = fixture.job().await;
    let command = sh_with(&job, STAY_SCRIPT, &fifo.path);
    let begin = Instant::now();
    // Long enough for the program to start before the helper is stopped.
    let (failed, ()) = tokio::join!(job.run(&command, Duration::from_secs(5), 100), async {
        let helper = fifo.read_line().await.parse().unwrap();
        kill(Pid::from_raw(helper), Signal::SIGSTOP).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperTimedOut)), "{failed:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(fixture.is_empty());
    fifo.wait_closed().await;
    job.close().await.unwrap();
}

#[test]
fn rejects_missing_or_foreign_helper() {
    let missing = SandboxBuilder::with_helper(Path::new("/nowhere/mcs-sandbox"), policy());
    assert!(matches!(missing, Err(Error::HelperUnusable { .. })), "{missing:?}");
    let other = SandboxBuilder::with_helper(Path::new("/bin/true"), policy());
    assert!(matches!(other, Err(Error::HelperBuildMismatch { .. })), "{other:?}");
    // cat reads standard input, which is at end-of-file, and prints nothing.
    let other = SandboxBuilder::with_helper(Path::new("/bin/cat"), policy());
    assert!(matches!(other, Err(Error::HelperBuildMismatch { .. })), "{other:?}");
}

#[test]
fn rejects_self_as_helper_without_dispatch() {
    // This test program does not call `dispatch`; executing it as a helper would run the tests again.
    let result = SandboxBuilder::new(policy());
    assert!(matches!(result, Err(Error::HelperNotFound)), "{result:?}");
}

#[test]
fn helper_started_manually_prints_message() {
    let output = unsandboxed(HELPER).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(!output.stderr.is_empty());
}

#[test]
fn rejects_unenforceable_policy() {
    use mcs_sandbox::{Policy, User};
    let build = |policy| SandboxBuilder::with_helper(Path::new(HELPER), policy);
    let assert_rejected = |policy| assert!(matches!(build(policy), Err(Error::Policy(_))));
    for user in [User { uid: 0, gid: 7 }, User { uid: 7, gid: 0 }] {
        assert_rejected(Policy { user: Some(user), ..policy() });
    }
    if is_root() {
        assert_rejected(Policy { user: None, ..policy() });
    } else {
        assert_rejected(Policy { user: Some(User { uid: 7, gid: 7 }), ..policy() });
        let own =
            User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
        build(Policy { user: Some(own), ..policy() }).unwrap();
    }
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
        assert_rejected(Policy { environment: vec![(name.into(), value.into())], ..policy() });
    }
}

#[tokio::test]
async fn oversized_command_line_does_not_end_job() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let mut long = sh(&job, "exit 0");
    long.args.push("a".repeat(100_000).into());
    let result = job.run(&long, LONG_TIMEOUT, 100).await;
    assert!(matches!(result, Err(Error::Argument(_))), "{result:?}");
    job.run(&sh(&job, "exit 0"), LONG_TIMEOUT, 100).await.unwrap();
    job.close().await.unwrap();
}
