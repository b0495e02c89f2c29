//! Lowering the priority of a running program.

use mcs_sandbox::{Command, Paths, Policy, Termination};

use crate::fixture::{Fixture, LONG_TIMEOUT, ProcessFifo, policy, sh};
use crate::hostile::{PLANS, program, skip_without_layers};

/// Returns a fixture whose jobs can write to a FIFO, and the FIFO.
fn fixture_with_fifo(layers: &[mcs_sandbox::Layer]) -> (Fixture, ProcessFifo) {
    let root = Fixture::new_root();
    let fifo = ProcessFifo::at(&root);
    let paths =
        Paths { read_only: vec![program()], writable: vec![fifo.path.clone()], ..Paths::default() };
    (Fixture::at(root, Policy { paths, ..policy() }, layers), fifo)
}

/// The program has several processes and threads, and ends only when each of them has been demoted. `SCHED_IDLE` is 5.
#[tokio::test]
async fn demotes_all_threads_of_running_program() {
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "demotes_all_threads_of_running_program").await {
            continue;
        }
        let (fixture, mut fifo) = fixture_with_fifo(layers);
        let mut job = fixture.job().await;
        let priority = job.priority();
        let args = ["await-demotion".into(), fifo.path.clone().into()];
        let command = Command { program: program(), args: args.into() };
        let (exit, before) = tokio::join!(job.run(&command, LONG_TIMEOUT, 1 << 16), async {
            let before = fifo.read_line().await;
            assert!(!priority.is_demoted());
            priority.demote();
            before
        });
        let exit = exit.unwrap();
        assert_eq!(before, "0", "{plan}");
        assert_eq!(exit.termination, Termination::Exited(0), "{plan}: {exit:?}");
        assert!(job.priority().is_demoted());
        job.close().await.unwrap();
    }
}

/// The server may send the message after the program has ended, and each later run is demoted from its start.
#[tokio::test]
async fn demotion_lasts_for_later_runs_of_the_job() {
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, "demotion_lasts_for_later_runs_of_the_job").await {
            continue;
        }
        let (fixture, mut fifo) = fixture_with_fifo(layers);
        let mut job = fixture.job().await;
        job.priority().demote();
        for _ in 0..20 {
            let quick = job.run(&sh(&job, "exit 3"), LONG_TIMEOUT, 1000).await.unwrap();
            assert_eq!(quick.termination, Termination::Exited(3), "{plan}");
        }
        let args = ["await-demotion".into(), fifo.path.clone().into()];
        let command = Command { program: program(), args: args.into() };
        let (exit, _) = tokio::join!(job.run(&command, LONG_TIMEOUT, 1 << 16), fifo.read_line());
        assert_eq!(exit.unwrap().termination, Termination::Exited(0), "{plan}");
        job.close().await.unwrap();
        let exit = fixture.sh("exit 0").await;
        assert_eq!(exit.termination, Termination::Exited(0), "other jobs are unaffected");
    }
}
