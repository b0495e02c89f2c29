//! How a program ended, or why it did not begin, arrives as it was.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use mcs_sandbox::{Error, FileState, Limits, Outcome, Policy, Step};

use crate::place::{AMPLE, Place, command, policy, sh, skipped_without_root, until};

#[tokio::test]
async fn exit_codes_arrive_unchanged() {
    let place = Place::new();
    for code in [0, 1, 2, 125, 126, 127, 255] {
        assert_eq!(place.sh(&format!("exit {code}")).await.outcome, Outcome::Exited(code));
    }
}

#[tokio::test]
async fn death_by_a_signal_is_told_apart_from_an_exit_code() {
    let place = Place::new();
    for signal in ["SEGV", "KILL", "SYS", "TERM"] {
        let number = signal.parse::<nix::sys::signal::Signal>().ok();
        let number = number.or_else(|| format!("SIG{signal}").parse().ok()).unwrap() as i32;
        let exit = place.sh(&format!("kill -{signal} $$")).await;
        assert_eq!(exit.outcome, Outcome::Signaled(number));
    }
}

/// The wrappers of wait(2) know no such signal.
#[tokio::test]
async fn death_by_a_real_time_signal_is_an_end_too() {
    let place = Place::new();
    let exit = place.sh("sh -c 'kill -34 $$' & wait; kill -35 $$").await;
    assert_eq!(exit.outcome, Outcome::Signaled(35));
}

#[tokio::test]
async fn a_program_past_its_time_is_killed() {
    killed_in_time("exec sleep 60").await;
}

#[tokio::test]
async fn a_program_past_its_time_is_killed_though_it_ignores_the_signals_it_can() {
    killed_in_time("trap '' TERM INT HUP QUIT XCPU; while :; do sleep 60; done").await;
}

#[tokio::test]
async fn a_program_past_its_time_is_killed_though_it_has_stopped_itself() {
    killed_in_time("kill -STOP $$").await;
}

#[tokio::test]
async fn a_program_past_its_time_is_killed_though_it_closed_its_output() {
    killed_in_time("exec >&- 2>&-; exec sleep 60").await;
}

async fn killed_in_time(script: &str) {
    let place = Place::new();
    let mut job = place.job().await;
    let limit = Duration::from_millis(300);
    let begin = Instant::now();
    let exit = job.run(&sh(&job, script), limit, 100).await.unwrap();
    let took = begin.elapsed();
    assert_eq!(exit.outcome, Outcome::TimedOut);
    assert!(took >= limit, "killed before its time: {took:?}");
    assert!(took < limit + Duration::from_secs(2), "killed late: {took:?}");
    job.close().await.unwrap();
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_time_limit_may_be_without_end() {
    let place = Place::new();
    let mut job = place.job().await;
    let exit = job.run(&sh(&job, "exit 3"), Duration::MAX, 100).await.unwrap();
    assert_eq!(exit.outcome, Outcome::Exited(3));
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_program_that_uses_up_its_processor_time_dies_of_it() {
    let limits = Limits { cpu_time: Some(Duration::from_millis(10)), ..Limits::default() };
    let place = Place::with(Policy { limits, ..policy() });
    let exit = place.sh("while :; do :; done").await;
    // SIGXCPU.
    assert_eq!(exit.outcome, Outcome::Signaled(24));
    assert!(exit.usage.user_time + exit.usage.system_time > Duration::from_millis(500), "{exit:?}");
}

#[tokio::test]
async fn which_file_a_program_was_is_told_where_it_stayed_the_same() {
    let place = Place::new();
    let quick = place.executable("#!/bin/sh\n", 0o755);
    let state = FileState::of(&quick);
    assert!(state.is_some());
    assert_eq!(place.run(&command(&quick)).await.unwrap().program, state);

    let waiting = "#!/bin/sh\n: >begun; until test -e go; do :; done\n";
    let waiting = place.executable(waiting, 0o755);
    let mut job = place.job().await;
    let directory = job.directory().to_owned();
    let change = async {
        until("it runs", || directory.join("begun").exists()).await;
        fs::set_permissions(&waiting, Permissions::from_mode(0o555)).unwrap();
        fs::write(directory.join("go"), "").unwrap();
    };
    let command = command(&waiting);
    let (exit, ()) = tokio::join!(job.run(&command, AMPLE, 100), change);
    assert_eq!(exit.unwrap().program, None);
    job.close().await.unwrap();
}

#[tokio::test]
async fn what_a_program_cost_is_told() {
    let place = Place::new();
    let exit = place.sh("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done").await;
    assert!(exit.usage.user_time > Duration::ZERO, "{exit:?}");
    assert!(exit.usage.max_rss > 100_000, "{exit:?}");
}

#[tokio::test]
async fn a_program_that_cannot_be_executed_is_no_exit_code() {
    let place = Place::new();
    let missing = place.root.join("missing");
    refused(&place, &missing, "No such file").await;
    refused(&place, &missing.join("below"), "No such file").await;
    refused(&place, &place.executable("#!/bin/sh\nexit 0\n", 0o644), "Permission denied").await;
    refused(&place, &place.executable("#!/nowhere/sh\nexit 0\n", 0o755), "No such file").await;
    refused(&place, &place.executable("exit 0\n", 0o755), "Exec format error").await;
    refused(&place, &place.executable("", 0o755), "Exec format error").await;
    refused(&place, "/usr".as_ref(), "Permission denied").await;
    refused(&place, "no-such-program-anywhere".as_ref(), "No such file").await;

    // The control: the same file with everything right.
    let right = command(place.executable("#!/bin/sh\nexit 7\n", 0o755));
    assert_eq!(place.run(&right).await.unwrap().outcome, Outcome::Exited(7));
}

async fn refused(place: &Place, program: &std::path::Path, why: &str) {
    match place.run(&command(program)).await {
        Err(Error::NotStarted { step: Step::Execute, source }) => {
            assert!(source.to_string().contains(why), "{}: {source}", program.display());
        }
        other => panic!("{}: {other:?}", program.display()),
    }
}

#[tokio::test]
async fn a_job_goes_on_after_a_program_that_could_not_be_executed() {
    let place = Place::new();
    let mut job = place.job().await;
    job.run(&command("/nowhere"), AMPLE, 100).await.unwrap_err();
    let exit = job.run(&sh(&job, "exit 5"), AMPLE, 100).await.unwrap();
    assert_eq!(exit.outcome, Outcome::Exited(5));
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_name_is_looked_for_in_the_path_and_a_relative_path_is_refused() {
    let place = Place::new();
    assert_eq!(place.run(&command("false")).await.unwrap().outcome, Outcome::Exited(1));
    let refused = place.run(&command("bin/false")).await;
    assert!(matches!(refused, Err(Error::Argument(_))), "{refused:?}");
}

#[tokio::test]
async fn programs_run_one_after_another_in_the_same_directory() {
    let place = Place::new();
    let mut job = place.job().await;
    let first = job.run(&sh(&job, "echo found > \"$1-log\""), AMPLE, 100).await.unwrap();
    assert_eq!(first.outcome, Outcome::Exited(0));
    let removal = job.run(&sh(&job, "cat \"$1-log\"; rm -f \"$1\""), AMPLE, 100).await.unwrap();
    assert_eq!((removal.outcome, removal.stdout.as_slice()), (Outcome::Exited(0), &b"found\n"[..]));
    assert!(!job.media_path().exists());
    job.close().await.unwrap();
    assert!(place.is_empty());
}

#[tokio::test]
async fn a_program_that_only_the_server_can_reach_is_executed_all_the_same() {
    if skipped_without_root("a_program_that_only_the_server_can_reach") {
        return;
    }
    let place = Place::new();
    let hidden = place.root.join("hidden");
    fs::create_dir(&hidden).unwrap();
    let script = hidden.join("script");
    fs::write(&script, "#!/bin/sh\nexit 3\n").unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&hidden, Permissions::from_mode(0o700)).unwrap();

    let exit = place.run(&command(&script)).await.unwrap();
    assert_eq!(exit.outcome, Outcome::Exited(3));

    // The right to execute is not spared.
    fs::set_permissions(&script, Permissions::from_mode(0o744)).unwrap();
    refused(&place, &script, "Permission denied").await;
}
