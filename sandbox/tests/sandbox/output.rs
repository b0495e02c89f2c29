//! Output is captured up to a limit. Reading neither kills the program nor waits for its descendants.

use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use mcs_sandbox::Termination;

use crate::fixture::{Fixture, LONG_TIMEOUT, sh, sh_with, text};

const FLOOD: &str = "head -c 67108864 /dev/zero";

#[tokio::test]
async fn truncates_stdout_without_killing_program() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let script = format!("{FLOOD}; echo $? >&2");
    let exit = job.run(&sh(&job, &script), LONG_TIMEOUT, 1000).await.unwrap();
    // A shell reports death by SIGPIPE as 141.
    assert_eq!(text(&exit.stderr), "0\n");
    assert_eq!(exit.termination, Termination::Exited(0));
    assert_eq!((exit.stdout.len(), exit.stdout_truncated), (1000, true));
    assert!(!exit.stderr_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn truncates_stderr_without_killing_program() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let script = format!("{FLOOD} >&2; echo $?");
    let exit = job.run(&sh(&job, &script), LONG_TIMEOUT, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "0\n");
    assert_eq!(exit.termination, Termination::Exited(0));
    assert_eq!((exit.stderr.len(), exit.stderr_truncated), (1000, true));
    assert!(!exit.stdout_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn keeps_output_of_exact_limit() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    let exit = job.run(&sh(&job, "printf 12345; printf abcde >&2"), LONG_TIMEOUT, 5).await.unwrap();
    assert_eq!((text(&exit.stdout), text(&exit.stderr)), ("12345", "abcde"));
    assert!(!exit.stdout_truncated && !exit.stderr_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn keeps_output_written_before_exit() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    for round in 0..50 {
        let script = format!("head -c 60000 /dev/zero; printf {round:03} >&2; kill -KILL $$");
        let exit = job.run(&sh(&job, &script), LONG_TIMEOUT, 1 << 20).await.unwrap();
        assert_eq!(exit.stdout.len(), 60_000);
        assert_eq!(text(&exit.stderr), format!("{round:03}"));
    }
    job.close().await.unwrap();
}

#[tokio::test]
async fn run_ends_with_process_although_child_holds_output() {
    let fixture = Fixture::new();
    let mut fifo = fixture.fifo();
    let mut job = fixture.job().await;
    let script = r#"exec 3> "$2"; sleep 60 & echo on >&3; echo done; exit 4"#;
    let begin = Instant::now();
    let exit = job.run(&sh_with(&job, script, &fifo.path), LONG_TIMEOUT, 100).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!((exit.termination, text(&exit.stdout)), (Termination::Exited(4), "done\n"));
    assert_eq!(fifo.read_line().await, "on");
    fifo.wait_closed().await;
    job.close().await.unwrap();
}

#[tokio::test]
async fn closed_output_does_not_end_run() {
    let fixture = Fixture::new();
    let exit = fixture.sh("exec >&- 2>&-; head -c 10000000 /dev/zero > tmp/later; exit 3").await;
    assert_eq!(exit.termination, Termination::Exited(3));
}

#[tokio::test]
async fn runs_do_not_share_output() {
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    job.run(&sh(&job, "printf first"), LONG_TIMEOUT, 2).await.unwrap();
    let second = job.run(&sh(&job, "printf second"), LONG_TIMEOUT, 100).await.unwrap();
    assert_eq!(text(&second.stdout), "second");
    job.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn run_does_not_wait_for_output_after_exit() {
    // The paused clock does not advance while a blocking task runs, so any wait for a timer would last until the task
    // ends.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = tokio::task::spawn_blocking(move || ended.recv_timeout(LONG_TIMEOUT));
    let begin = tokio::time::Instant::now();
    let fixture = Fixture::new();
    let mut job = fixture.job().await;
    for _ in 0..20 {
        job.run(&sh(&job, "exit 0"), LONG_TIMEOUT, 100).await.unwrap();
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    job.close().await.unwrap();
    drop(end);
    assert_eq!(thread.await.unwrap(), Err(RecvTimeoutError::Disconnected));
}
