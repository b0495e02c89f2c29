//! Results of single jobs under every plan, and of clean jobs beside hostile ones.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcs_sandbox::{Command, Error, Termination};

use super::{ALL, PLANS, Targets, USER, sh, skip_without_layers};
use crate::fixture::{LONG_TIMEOUT, unsandboxed};

#[tokio::test]
async fn reports_termination_under_every_plan() {
    for (plan, layers) in PLANS {
        let targets = Targets::new(layers).await;
        for code in [0, 1, 2, 125, 126, 127, 255] {
            let exit = sh(&targets, &format!("exit {code}"), LONG_TIMEOUT).await.unwrap();
            assert_eq!(exit.termination, Termination::Exited(code), "{plan}");
        }
        // SEGV, KILL, XCPU, SYS.
        for signal in [11, 9, 24, 31] {
            let exit =
                sh(&targets, &format!("kill -{signal} $$; sleep 60"), LONG_TIMEOUT).await.unwrap();
            assert_eq!(exit.termination, Termination::Signaled(signal), "{plan}");
        }
        for endless in [
            "while :; do :; done",
            "trap '' TERM INT HUP; while :; do sleep 60; done",
            "exec >&- 2>&-; sleep 60",
            "kill -STOP $$",
            "yes",
            "yes $(printf '\\033[2J') >&2",
        ] {
            let exit = sh(&targets, endless, Duration::from_millis(300)).await.unwrap();
            assert_eq!(exit.termination, Termination::TimedOut, "{plan}: {endless}");
            assert!(exit.stdout.len() <= 1 << 16 && exit.stderr.len() <= 1 << 16);
        }
        let begin = Instant::now();
        let exit = sh(&targets, "sleep 1000 & echo output; exit 3", LONG_TIMEOUT).await.unwrap();
        assert_eq!(
            (exit.termination, &exit.stdout[..]),
            (Termination::Exited(3), &b"output\n"[..]),
            "{plan}"
        );
        assert!(
            begin.elapsed() < LONG_TIMEOUT / 2,
            "{plan}: the run waited for a child that holds the output"
        );
        targets.end().await;
    }
}

#[tokio::test]
async fn exec_failure_is_an_error_under_every_plan() {
    for (plan, layers) in PLANS {
        let targets = Targets::new(layers).await;
        let broken = targets.open.join("broken");
        fs::write(&broken, "#!/nowhere/sh\n").unwrap();
        fs::set_permissions(&broken, Permissions::from_mode(0o755)).unwrap();
        let plain = targets.open.join("plain");
        fs::write(&plain, "#!/bin/sh\n").unwrap();
        for program in [Path::new("/nowhere/program"), &targets.open, &broken, &plain] {
            let mut job = targets.fixture.job().await;
            let command = Command { program: program.to_owned(), args: Vec::new() };
            let refused = job.run(&command, LONG_TIMEOUT, 100).await;
            assert!(
                matches!(refused, Err(Error::NotStarted { .. })),
                "{plan}: {} {refused:?}",
                program.display()
            );
            job.close().await.unwrap();
        }
        targets.end().await;
    }
}

#[tokio::test]
async fn environment_and_stdin_are_restricted_under_every_plan() {
    for (plan, layers) in PLANS {
        let targets = Targets::new(layers).await;
        let mut job = targets.fixture.job().await;
        let env = Command { program: "env".into(), args: vec!["-0".into()] };
        let exit = job.run(&env, LONG_TIMEOUT, 10_000).await.unwrap();
        let mut names: Vec<_> = exit
            .stdout
            .split(|byte| *byte == 0)
            .filter_map(|variable| variable.split(|byte| *byte == b'=').next())
            .filter(|name| !name.is_empty())
            .collect();
        names.sort_unstable();
        assert_eq!(names, [&b"HOME"[..], b"LANG", b"PATH", b"TMPDIR"], "{plan}");
        job.close().await.unwrap();
        let script = r#"read -r line && exit 1; [ -r "$1" ] && cd "$TMPDIR" && echo x > "$1-log""#;
        let exit = sh(&targets, script, LONG_TIMEOUT).await.unwrap();
        assert_eq!(exit.termination, Termination::Exited(0), "{plan}: {exit:?}");
        targets.end().await;
    }
}

#[tokio::test]
async fn setuid_programs_are_ineffective_under_every_plan() {
    let test = "setuid_programs_are_ineffective_under_every_plan";
    if crate::fixture::skip_without_root(test) {
        return;
    }
    for (plan, layers) in PLANS {
        let mut copy = PathBuf::new();
        let targets = Targets::with_policy(layers, |mut policy| {
            copy = policy.paths.writable[0].with_file_name("root-id");
            fs::copy("/usr/bin/id", &copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
            policy.paths.read_only.push(copy.clone());
            policy
        })
        .await;
        let mut control = unsandboxed(&copy);
        control.arg("-u").uid(USER.uid).gid(USER.gid);
        if control.output().unwrap().stdout != b"0\n" {
            return crate::fixture::report_skipped(test, "control: this mount ignores set-user-ID");
        }
        let mut job = targets.fixture.job().await;
        let command = Command { program: copy, args: vec!["-u".into()] };
        let exit = job.run(&command, LONG_TIMEOUT, 100).await.unwrap();
        assert_eq!(crate::fixture::text(&exit.stdout).trim(), USER.uid.to_string(), "{plan}");
        job.close().await.unwrap();
        targets.end().await;
    }
}

/// Upper bound for the median duration of clean jobs beside hostile ones; alone they take some hundredths of a second.
const MAX_MEDIAN_DURATION: Duration = Duration::from_secs(4);

#[tokio::test]
async fn hostile_jobs_do_not_affect_concurrent_clean_jobs() {
    let targets = std::sync::Arc::new(Targets::new(&ALL).await);
    if skip_without_layers(&ALL, "hostile_jobs_do_not_affect_concurrent_clean_jobs").await {
        return;
    }
    let slots = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let mut jobs = tokio::task::JoinSet::new();
    for index in 0..100 {
        let (targets, slots) = (std::sync::Arc::clone(&targets), std::sync::Arc::clone(&slots));
        jobs.spawn(async move {
            let _slot = slots.acquire().await.unwrap();
            let limit = Duration::from_secs(1);
            let _ = match index % 6 {
                4 => sh(&targets, "while :; do :; done", limit).await,
                5 => sh(&targets, "yes", limit).await,
                what => {
                    let what = ["processes", "memory", "disk", "descriptors"][what];
                    targets.run_attack(&["limit".to_owned(), what.to_owned()], limit).await
                }
            };
        });
    }
    let hostile = tokio::spawn(jobs.join_all());
    let mut clean = Vec::new();
    while !hostile.is_finished() {
        let begin = Instant::now();
        // If processes are counted per user, a job may fail to start, but must not return a wrong verdict.
        match sh(&targets, r#"cat "$1"; exit 0"#, LONG_TIMEOUT).await {
            Ok(exit) => {
                assert_eq!(exit.termination, Termination::Exited(0));
                clean.push(begin.elapsed());
            }
            Err(error) => assert!(matches!(error, Error::NotStarted { .. }), "{error:?}"),
        }
    }
    hostile.await.unwrap();
    clean.sort_unstable();
    // Uses the median: other load of the machine may delay single jobs.
    assert!(clean[clean.len() / 2] < MAX_MEDIAN_DURATION, "{clean:?}");
    let Ok(targets) = std::sync::Arc::try_unwrap(targets) else {
        panic!("a task still holds the targets")
    };
    targets.end().await;
}
