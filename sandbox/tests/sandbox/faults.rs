//! One side dies, or is not what it should be: the other leaves nothing and says so.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Error};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{AMPLE, HELPER, Place, is_root, outside, policy, sh, sh_with};

/// Tells its helper's pid, then outlives everything but being killed. Its children hold the witness too.
const STAY: &str = r#"exec 3> "$2"; trap '' TERM HUP INT; (sleep 60; sleep 60) & echo $PPID >&3; sleep 60; sleep 60"#;

#[tokio::test]
async fn a_server_that_is_killed_leaves_no_process_and_no_directory() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut server = outside(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "faults::a_server_to_be_killed"])
        .env(SERVER_JOBS, place.jobs())
        .env(SERVER_WITNESS, &witness.path)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    witness.line().await;
    assert!(!place.is_empty(), "the control");
    server.kill().unwrap();
    server.wait().unwrap();
    witness.is_gone().await;
    place.becomes_empty().await;
}

const SERVER_JOBS: &str = "MCS_SANDBOX_TEST_JOBS";
const SERVER_WITNESS: &str = "MCS_SANDBOX_TEST_WITNESS";

/// Not a test: the process that the test above starts and kills.
#[tokio::test]
#[ignore = "a part of another test"]
async fn a_server_to_be_killed() {
    let Some(jobs) = std::env::var_os(SERVER_JOBS).map(PathBuf::from) else { return };
    let witness = std::env::var_os(SERVER_WITNESS).map(PathBuf::from).unwrap();
    let sandbox = Candidate::with_helper(Path::new(HELPER), policy()).unwrap().untried(&[]);
    let mut job = sandbox.prepare(&jobs, "media").await.unwrap();
    let _ = job.run(&sh_with(&job, STAY, &witness), AMPLE, 100).await;
}

#[tokio::test]
async fn a_helper_that_is_killed_is_an_error_and_leaves_nothing() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut job = place.job().await;
    let command = sh_with(&job, STAY, &witness.path);
    let (failed, ()) = tokio::join!(job.run(&command, AMPLE, 100), async {
        let helper = witness.line().await.parse().unwrap();
        kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperGone)), "{failed:?}");
    assert!(place.is_empty());
    witness.is_gone().await;
    let over = job.run(&command, AMPLE, 100).await;
    assert!(matches!(over, Err(Error::Over)), "{over:?}");
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_helper_that_is_killed_between_two_programs_is_an_error_and_leaves_nothing() {
    let place = Place::new();
    let mut job = place.job().await;
    let exit = job.run(&sh(&job, "echo $PPID"), AMPLE, 100).await.unwrap();
    let helper = crate::place::text(&exit.stdout).trim().parse().unwrap();
    kill(Pid::from_raw(helper), Signal::SIGKILL).unwrap();
    let failed = job.run(&sh(&job, "exit 0"), AMPLE, 100).await;
    assert!(matches!(failed, Err(Error::HelperGone)), "{failed:?}");
    assert!(place.is_empty());
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_helper_that_does_not_answer_is_killed_after_the_programs_time_and_leaves_nothing() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut job = place.job().await;
    let command = sh_with(&job, STAY, &witness.path);
    let begin = Instant::now();
    // Ample for the program to begin, which has to be before the helper is stopped.
    let (failed, ()) = tokio::join!(job.run(&command, Duration::from_secs(5), 100), async {
        let helper = witness.line().await.parse().unwrap();
        kill(Pid::from_raw(helper), Signal::SIGSTOP).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperStuck)), "{failed:?}");
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(place.is_empty());
    witness.is_gone().await;
    job.close().await.unwrap();
}

#[test]
fn a_helper_that_is_missing_or_another_program_is_refused() {
    let missing = Candidate::with_helper(Path::new("/nowhere/mcs-sandbox"), policy());
    assert!(matches!(missing, Err(Error::NoHelper { .. })), "{missing:?}");
    let other = Candidate::with_helper(Path::new("/bin/true"), policy());
    assert!(matches!(other, Err(Error::StaleHelper { .. })), "{other:?}");
    // It waits for its standard input, which is at its end, then prints nothing.
    let other = Candidate::with_helper(Path::new("/bin/cat"), policy());
    assert!(matches!(other, Err(Error::StaleHelper { .. })), "{other:?}");
}

#[test]
fn a_program_that_does_not_dispatch_is_not_its_own_helper() {
    // This test program is one; executing it as helper would run the tests again.
    let refused = Candidate::new(policy());
    assert!(matches!(refused, Err(Error::Undispatched)), "{refused:?}");
}

#[test]
fn a_helper_started_by_a_person_says_what_it_is() {
    let output = outside(HELPER).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(!output.stderr.is_empty());
}

#[test]
fn a_policy_that_cannot_be_enforced_is_refused() {
    use mcs_sandbox::{Policy, User};
    let with = |policy| Candidate::with_helper(Path::new(HELPER), policy);
    let refused = |policy| assert!(matches!(with(policy), Err(Error::Policy(_))));
    for user in [User { uid: 0, gid: 7 }, User { uid: 7, gid: 0 }] {
        refused(Policy { user: Some(user), ..policy() });
    }
    if is_root() {
        refused(Policy { user: None, ..policy() });
    } else {
        refused(Policy { user: Some(User { uid: 7, gid: 7 }), ..policy() });
        let own =
            User { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() };
        with(Policy { user: Some(own), ..policy() }).unwrap();
    }
    for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
        refused(Policy { environment: vec![(name.into(), value.into())], ..policy() });
    }
}

#[tokio::test]
async fn a_command_line_that_fits_no_packet_is_refused_and_the_job_goes_on() {
    let place = Place::new();
    let mut job = place.job().await;
    let mut long = sh(&job, "exit 0");
    long.args.push("a".repeat(100_000).into());
    let refused = job.run(&long, AMPLE, 100).await;
    assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
    job.run(&sh(&job, "exit 0"), AMPLE, 100).await.unwrap();
    job.close().await.unwrap();
}
