//! Programs that do not start, and the ends of jobs.

use std::time::{Duration, Instant};

use mcs_sandbox::{Command, Error, JobLimits, ResidentJobError, ResidentLimits};

use super::{LIMITS, Program, processes_with, short};
use crate::fixture::{Fixture, policy, wait_until};

#[tokio::test]
async fn program_that_exits_before_it_is_ready_is_an_error() {
    let fixture = Fixture::with(policy());
    let data = mcs_sandbox::sealed("data", b"").unwrap();
    let limits = ResidentLimits { jobs: 1, job_memory: 1 << 20 };
    let start = |script: &str| {
        let command = Command { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
        let (sandbox, jobs, data) = (fixture.sandbox.clone(), fixture.jobs(), &data);
        async move { sandbox.start_resident(&jobs, command, &[data], limits).await.unwrap_err() }
    };
    let error = start("echo reason >&2; exit 3").await;
    assert_eq!(error.to_string(), "the resident program failed: exit code 3: reason");
    let error = start("kill -KILL $$").await;
    assert_eq!(error.to_string(), "the resident program failed: signal 9: ");
    let command = Command { program: "/absent".into(), args: Vec::new() };
    let missing = fixture.sandbox.start_resident(&fixture.jobs(), command, &[&data], limits).await;
    assert!(matches!(missing, Err(Error::NotStarted { .. })), "{missing:?}");
    fixture.wait_until_empty().await;
}

#[tokio::test]
async fn time_limit_kills_the_child_of_its_job_only() {
    let program = Program::new(&[]).await;
    let started = Instant::now();
    let (other, spinning) = tokio::join!(
        program.run_within("spin", JobLimits { time: Duration::from_millis(700), ..LIMITS }),
        async {
            let spinning = program.run_within("spin", short()).await;
            assert_eq!(program.processes().len(), 2, "the child of the other job is left");
            spinning
        }
    );
    assert_eq!([&*other, &*spinning], ["the time limit expired"; 2]);
    assert!(started.elapsed() >= Duration::from_millis(700));
    assert_eq!(program.processes().len(), 1);
    program.end().await;
}

/// The limit of processor time applies even if the server does not kill the child.
#[tokio::test]
async fn job_that_is_not_waited_for_is_killed() {
    let program = Program::new(&[]).await;
    let ended = tokio::time::timeout(Duration::from_millis(100), program.run("spin")).await;
    assert!(ended.is_err());
    wait_until("the child is killed", || program.processes().len() == 1).await;
    assert_eq!(program.run("name").await, "data");
    program.end().await;
}

#[tokio::test]
async fn memory_of_a_job_is_limited_beyond_its_media() {
    let program = Program::new(&[]).await;
    let limits = |memory| JobLimits { memory, ..LIMITS };
    // 16 MiB in a vector, which doubles its size, and a table.
    assert_eq!(program.run_within("compute", limits(96 << 20)).await, "panicked: true");
    assert_eq!(program.run_within("compute", limits(8 << 20)).await, "signal 31");
    program.end().await;
}

#[tokio::test]
async fn killed_program_fails_its_jobs_and_can_be_replaced() {
    for (plan, layers) in crate::hostile::PLANS {
        let test = "killed_program_fails_its_jobs_and_can_be_replaced";
        if crate::hostile::skip_without_layers(layers, test).await {
            continue;
        }
        let program = Program::new(layers).await;
        let main = program.processes()[0];
        let (first, second, ()) = tokio::join!(program.run("spin"), program.run("spin"), async {
            wait_until("both jobs run", || program.processes().len() == 3).await;
            nix::sys::signal::kill(main, nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let expected = ResidentJobError::Ended.to_string();
        assert_eq!([first, second], [expected.clone(), expected.clone()], "{plan}");
        wait_until("the children are killed", || program.processes().is_empty()).await;
        assert_eq!(program.run("name").await, expected, "{plan}");
        assert!(program.resident.has_ended());
        let (sandbox, fixture) = (&program.fixture.sandbox, &program.fixture);
        let next = super::start(sandbox, fixture, &program.marker).await.unwrap();
        let media = program.media(b"name");
        let result = next.evaluate(&media, 7, LIMITS, &mcs_sandbox::JobPriority::new()).await;
        assert_eq!(result.unwrap(), b"data", "{plan}");
        drop(next);
        program.end().await;
    }
}

#[tokio::test]
async fn end_of_the_server_kills_all_children() {
    for (plan, layers) in crate::hostile::PLANS {
        if crate::hostile::skip_without_layers(layers, "end_of_the_server_kills_all_children").await
        {
            continue;
        }
        let program = Program::new(layers).await;
        // The task of the resident program ends with its runtime, as at the exit of the server.
        let spinning = async { tokio::join!(program.run("spin"), program.run("spin")) };
        let watch = wait_until("both jobs run", || program.processes().len() == 3);
        tokio::select! {
            _ = spinning => panic!("{plan}: a job ended"),
            () = watch => {}
        }
        let Program { resident, marker, fixture } = program;
        drop(resident);
        wait_until("all processes have ended", || processes_with(&marker).is_empty()).await;
        fixture.wait_until_empty().await;
    }
}

#[tokio::test]
async fn child_receives_the_argument_of_its_job() {
    let program = Program::new(&[]).await;
    for argument in [0, 1, u32::MAX] {
        let media = program.media(b"argument");
        let priority = mcs_sandbox::JobPriority::new();
        let result = program.resident.evaluate(media, argument, LIMITS, &priority).await;
        assert_eq!(result.unwrap(), argument.to_string().into_bytes());
    }
    program.end().await;
}

#[tokio::test]
async fn many_jobs_at_once_have_their_own_results() {
    let program = std::sync::Arc::new(Program::new(&[]).await);
    let mut jobs = tokio::task::JoinSet::new();
    for length in 0..240 {
        let program = std::sync::Arc::clone(&program);
        jobs.spawn(async move {
            assert_eq!(program.run(&format!("result {length}")).await, "x".repeat(length));
        });
    }
    jobs.join_all().await;
    std::sync::Arc::into_inner(program).unwrap().end().await;
}
