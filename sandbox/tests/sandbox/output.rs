//! What a program writes is kept up to a bound, and reading it neither ends the program nor waits for its leavings.

use std::{
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use mcs_sandbox::Outcome;

use crate::place::{AMPLE, Place, sh, sh_with, text};

const FLOOD: &str = "head -c 67108864 /dev/zero";

#[tokio::test]
async fn a_flood_on_standard_output_is_cut_and_the_program_ends_as_it_would() {
    let place = Place::new();
    let mut job = place.job().await;
    let script = format!("{FLOOD}; echo $? >&2");
    let exit = job.run(&sh(&job, &script), AMPLE, 1000).await.unwrap();
    // 141 were death by SIGPIPE, in a shell's words.
    assert_eq!(text(&exit.stderr), "0\n");
    assert_eq!(exit.outcome, Outcome::Exited(0));
    assert_eq!((exit.stdout.len(), exit.stdout_truncated), (1000, true));
    assert!(!exit.stderr_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_flood_on_standard_error_is_cut_and_the_program_ends_as_it_would() {
    let place = Place::new();
    let mut job = place.job().await;
    let script = format!("{FLOOD} >&2; echo $?");
    let exit = job.run(&sh(&job, &script), AMPLE, 1000).await.unwrap();
    assert_eq!(text(&exit.stdout), "0\n");
    assert_eq!(exit.outcome, Outcome::Exited(0));
    assert_eq!((exit.stderr.len(), exit.stderr_truncated), (1000, true));
    assert!(!exit.stdout_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn output_that_just_fits_is_whole() {
    let place = Place::new();
    let mut job = place.job().await;
    let exit = job.run(&sh(&job, "printf 12345; printf abcde >&2"), AMPLE, 5).await.unwrap();
    assert_eq!((text(&exit.stdout), text(&exit.stderr)), ("12345", "abcde"));
    assert!(!exit.stdout_truncated && !exit.stderr_truncated);
    job.close().await.unwrap();
}

#[tokio::test]
async fn the_last_output_before_the_end_is_never_lost() {
    let place = Place::new();
    let mut job = place.job().await;
    for round in 0..50 {
        let script = format!("head -c 60000 /dev/zero; printf {round:03} >&2; kill -KILL $$");
        let exit = job.run(&sh(&job, &script), AMPLE, 1 << 20).await.unwrap();
        assert_eq!(exit.stdout.len(), 60_000);
        assert_eq!(text(&exit.stderr), format!("{round:03}"));
    }
    job.close().await.unwrap();
}

#[tokio::test]
async fn a_program_ends_when_its_process_does_though_a_child_holds_its_output() {
    let place = Place::new();
    let mut witness = place.witness();
    let mut job = place.job().await;
    let script = r#"exec 3> "$2"; sleep 60 & echo on >&3; echo done; exit 4"#;
    let begin = Instant::now();
    let exit = job.run(&sh_with(&job, script, &witness.path), AMPLE, 100).await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!((exit.outcome, text(&exit.stdout)), (Outcome::Exited(4), "done\n"));
    assert_eq!(witness.line().await, "on");
    witness.is_gone().await;
    job.close().await.unwrap();
}

#[tokio::test]
async fn output_that_is_closed_is_no_end() {
    let place = Place::new();
    let exit = place.sh("exec >&- 2>&-; head -c 10000000 /dev/zero > tmp/later; exit 3").await;
    assert_eq!(exit.outcome, Outcome::Exited(3));
}

#[tokio::test]
async fn output_of_one_program_is_not_taken_for_the_next_ones() {
    let place = Place::new();
    let mut job = place.job().await;
    job.run(&sh(&job, "printf first"), AMPLE, 2).await.unwrap();
    let second = job.run(&sh(&job, "printf second"), AMPLE, 100).await.unwrap();
    assert_eq!(text(&second.stdout), "second");
    job.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_run_does_not_wait_for_output_that_nobody_can_write() {
    // While a thread is at work the runtime's clock stands still: who waits for it waits until the thread gives up.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = tokio::task::spawn_blocking(move || ended.recv_timeout(AMPLE));
    let begin = tokio::time::Instant::now();
    let place = Place::new();
    let mut job = place.job().await;
    for _ in 0..20 {
        job.run(&sh(&job, "exit 0"), AMPLE, 100).await.unwrap();
    }
    assert_eq!(begin.elapsed(), Duration::ZERO);
    job.close().await.unwrap();
    drop(end);
    assert_eq!(thread.await.unwrap(), Err(RecvTimeoutError::Disconnected));
}
