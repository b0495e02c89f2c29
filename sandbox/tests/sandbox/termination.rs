//! Reports of how a program ended or why it could not be started.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use mcs_sandbox::{Error, FileState, Policy, ResourceLimits, Step, Termination};

use crate::fixture::{Fixture, LONG_TIMEOUT, command, policy, sh, skip_without_root, wait_until};

#[tokio::test]
async fn reports_exit_codes() {
    let fixture = Fixture::new();
    for code in [0, 1, 2, 125, 126, 127, 255] {
        assert_eq!(
            fixture.sh(&format!("exit {code}")).await.termination,
            Termination::Exited(code)
        );
    }
}

#[tokio::test]
async fn reports_signals() {
    let fixture = Fixture::new();
    for signal in ["SEGV", "KILL", "SYS", "TERM"] {
        let number = signal.parse::<nix::sys::signal::Signal>().ok();
        let number = number.or_else(|| format!("SIG{signal}").parse().ok()).unwrap() as i32;
        let exit = fixture.sh(&format!("kill -{signal} $$")).await;
        assert_eq!(exit.termination, Termination::Signaled(number));
    }
}

/// The wrappers of wait(2) in `nix` do not support these signals.
#[tokio::test]
async fn reports_real_time_signals() {
    let fixture = Fixture::new();
    let exit = fixture.sh("sh -c 'kill -34 $$' & wait; kill -35 $$").await;
    assert_eq!(exit.termination, Termination::Signaled(35));
}

#[tokio::test]
async fn kills_program_at_time_limit() {
    assert_killed_at_limit("exec sleep 60").await;
}

#[tokio::test]
async fn kills_program_ignoring_signals_at_time_limit() {
    assert_killed_at_limit("trap '' TERM INT HUP QUIT XCPU; while :; do sleep 60; done").await;
}

#[tokio::test]
async fn kills_stopped_program_at_time_limit() {
    assert_killed_at_limit("kill -STOP $$").await;
}

#[tokio::test]
async fn kills_program_with_closed_output_at_time_limit() {
    assert_killed_at_limit("exec >&- 2>&-; exec sleep 60").await;
}

async fn assert_killed_at_limit(script: &str) {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let limit = Duration::from_millis(300);
    let begin = Instant::now();
    let exit = job.run(&sh(&job, script), limit, 100).await.unwrap();
    let elapsed = begin.elapsed();
    assert_eq!(exit.termination, Termination::TimedOut);
    assert!(elapsed >= limit, "killed before its time limit: {elapsed:?}");
    assert!(elapsed < limit + Duration::from_secs(2), "killed late: {elapsed:?}");
    job.close().await.unwrap();
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn accepts_unlimited_time() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let exit = job.run(&sh(&job, "exit 3"), Duration::MAX, 100).await.unwrap();
    assert_eq!(exit.termination, Termination::Exited(3));
    job.close().await.unwrap();
}

#[tokio::test]
async fn kills_program_at_cpu_limit() {
    let limits =
        ResourceLimits { cpu_time: Some(Duration::from_millis(10)), ..ResourceLimits::default() };
    let fixture = Fixture::with(Policy { limits, ..policy() });
    let exit = fixture.sh("while :; do :; done").await;
    // SIGXCPU.
    assert_eq!(exit.termination, Termination::Signaled(24));
    assert!(exit.usage.user_time + exit.usage.system_time > Duration::from_millis(500), "{exit:?}");
}

#[tokio::test]
async fn reports_program_file_state_if_unchanged() {
    let fixture = Fixture::new();
    let quick = fixture.executable("#!/bin/sh\n", 0o755);
    let state = FileState::from_path(&quick);
    assert!(state.is_some());
    assert_eq!(fixture.run(&command(&quick)).await.unwrap().program, state);

    let waiting = "#!/bin/sh\n: >begun; until test -e go; do :; done\n";
    let waiting = fixture.executable(waiting, 0o755);
    let mut job = fixture.job().await;
    let directory = job.directory().to_owned();
    let change = async {
        wait_until("the program runs", || directory.join("begun").exists()).await;
        fs::set_permissions(&waiting, Permissions::from_mode(0o555)).unwrap();
        fs::write(directory.join("go"), "").unwrap();
    };
    let command = command(&waiting);
    let (exit, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 100), change);
    assert_eq!(exit.unwrap().program, None);
    job.close().await.unwrap();
}

#[tokio::test]
async fn reports_resource_usage() {
    let fixture = Fixture::new();
    let exit = fixture.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").await;
    assert!(exit.usage.user_time > Duration::ZERO, "{exit:?}");
    assert!(exit.usage.max_rss > 100_000, "{exit:?}");
}

#[tokio::test]
async fn exec_failure_is_an_error() {
    let fixture = Fixture::new();
    let missing = fixture.root.join("missing");
    assert_exec_fails(&fixture, &missing, "No such file").await;
    assert_exec_fails(&fixture, &missing.join("below"), "No such file").await;
    assert_exec_fails(
        &fixture,
        &fixture.executable("#!/bin/sh\nexit 0\n", 0o644),
        "Permission denied",
    )
    .await;
    assert_exec_fails(
        &fixture,
        &fixture.executable("#!/nowhere/sh\nexit 0\n", 0o755),
        "No such file",
    )
    .await;
    assert_exec_fails(&fixture, &fixture.executable("exit 0\n", 0o755), "Exec format error").await;
    assert_exec_fails(&fixture, &fixture.executable("", 0o755), "Exec format error").await;
    assert_exec_fails(&fixture, "/usr".as_ref(), "Permission denied").await;
    assert_exec_fails(&fixture, "no-such-program-anywhere".as_ref(), "No such file").await;

    // Control: the same file, valid.
    let right = command(fixture.executable("#!/bin/sh\nexit 7\n", 0o755));
    assert_eq!(fixture.run(&right).await.unwrap().termination, Termination::Exited(7));
}

async fn assert_exec_fails(fixture: &Fixture, program: &std::path::Path, error: &str) {
    match fixture.run(&command(program)).await {
        Err(Error::NotStarted { step: Step::Execute, source }) => {
            assert!(source.to_string().contains(error), "{}: {source}", program.display());
        }
        other => panic!("{}: {other:?}", program.display()),
    }
}

#[tokio::test]
async fn job_continues_after_exec_failure() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    job.run(&command("/nowhere"), LONG_TIMEOUT, 100).await.unwrap_err();
    let exit = job.run(&sh(&job, "exit 5"), LONG_TIMEOUT, 100).await.unwrap();
    assert_eq!(exit.termination, Termination::Exited(5));
    job.close().await.unwrap();
}

#[tokio::test]
async fn searches_path_and_rejects_relative_paths() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&command("false")).await.unwrap().termination, Termination::Exited(1));
    let result = fixture.run(&command("bin/false")).await;
    assert!(matches!(result, Err(Error::Argument(_))), "{result:?}");
}

#[tokio::test]
async fn runs_share_directory() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let first = job.run(&sh(&job, "echo found > \"$1-log\""), LONG_TIMEOUT, 100).await.unwrap();
    assert_eq!(first.termination, Termination::Exited(0));
    let removal =
        job.run(&sh(&job, "cat \"$1-log\"; rm -f \"$1\""), LONG_TIMEOUT, 100).await.unwrap();
    assert_eq!(
        (removal.termination, removal.stdout.as_slice()),
        (Termination::Exited(0), &b"found\n"[..])
    );
    assert!(!job.media_path().exists());
    job.close().await.unwrap();
    assert!(fixture.is_empty());
}

#[tokio::test]
async fn executes_program_in_unsearchable_directory() {
    if skip_without_root("executes_program_in_unsearchable_directory") {
        return;
    }
    let fixture = Fixture::new();
    let hidden = fixture.root.join("hidden");
    fs::create_dir(&hidden).unwrap();
    let script = hidden.join("script");
    fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();

    let exit = fixture.run(&command(&script)).await.unwrap();
    assert_eq!(exit.termination, Termination::Exited(3));

    // The execute permission of the file is still required.
    fs::set_permissions(&script, Permissions::from_mode(0o744)).unwrap();
    assert_exec_fails(&fixture, &script, "Permission denied").await;
}
