//! The store of verdicts, in a file and shared by replicas: its cost for memory hits, for first scans and in memory,
//! against the same service without one.

use nix::sys::signal::Signal;
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    time::Duration,
};

use super::{API, BenchSuite, CLEAN_VERDICT, SMALL};
use crate::{
    load::{self, RequestSource, get},
    programs::{self, ServerProcess},
    report::{BenchReport, Goal},
};

const ROUNDS: usize = 9;
/// Duration of each run with known verdicts.
const RUN_TIME: Duration = Duration::from_millis(1500);
const CONNECTIONS: usize = 32;
/// Files per round of first scans.
const FILES: u16 = 320;
/// Files for which a shared store that does not answer is asked, until it is not used any more.
const OUTAGE_FILES: u64 = 20;
const MIB: f64 = (1 << 20) as f64;
/// Concurrent first scans.
const CONCURRENCY: usize = 16;

/// Without a store, with one in a file, and with a shared one.
const STORES: usize = 3;

/// Figures by store, one value for each round.
#[derive(Default)]
struct StoreFigures {
    known: [Vec<f64>; STORES],
    first: [Vec<f64>; STORES],
    recalled: [Vec<f64>; STORES],
    idle: [Vec<f64>; STORES],
    /// Known verdicts while a shared store does not answer.
    outage: Vec<f64>,
}

impl BenchSuite {
    pub(super) async fn store(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let files = self.write_files("store", FILES.into(), SMALL).await;
        let scans: Vec<_> =
            files.iter().map(|file| get(&format!("{API}/scan/{}", file.mxc_path()))).collect();
        let mut figures = StoreFigures::default();
        for round in 0..ROUNDS {
            for turn in 0..STORES {
                // Alternates, so that none is always first.
                self.measure_store(nginx, &scans, (turn + round) % STORES, &mut figures).await;
            }
        }
        add_figures(report, &figures);
    }

    /// Measures one store, which is empty at first.
    async fn measure_store(
        &self,
        nginx: &ServerProcess,
        scans: &[Vec<u8>],
        store: usize,
        figures: &mut StoreFigures,
    ) {
        let state = self.dir().join("state");
        let _ = fs::remove_dir_all(&state);
        fs::create_dir(&state).unwrap();
        fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
        let redis = programs::redis(self.dir()).await;
        let lines = match store {
            0 => String::new(),
            1 => format!("store.path = \"{}/store.db\"", state.display()),
            _ => format!("store.kind = \"shared\"\nstore.urls = [\"redis://{}\"]", redis.address),
        };
        let service = programs::service(self.dir(), nginx, &lines).await;
        figures.idle[store].push(service.memory("VmRSS") / MIB);
        let all = || RequestSource::once(scans.to_vec());
        let known = || RequestSource::repeated(scans[0].clone(), RUN_TIME);
        let result = load::run(service.address, CONCURRENCY, &all(), CLEAN_VERDICT).await;
        figures.first[store].push(result.rate());
        let result = load::run(service.address, CONNECTIONS, &known(), CLEAN_VERDICT).await;
        figures.known[store].push(result.rate());
        drop(service);
        let service = programs::service(self.dir(), nginx, &lines).await;
        let result = load::run(service.address, CONCURRENCY, &all(), CLEAN_VERDICT).await;
        figures.recalled[store].push(result.rate());
        if store == 2 {
            redis.signal(Signal::SIGSTOP);
            let more = self.write_files("outage", OUTAGE_FILES, SMALL).await;
            let more = more.iter().map(|file| get(&format!("{API}/scan/{}", file.mxc_path())));
            let more = RequestSource::once(more.collect());
            load::run(service.address, 1, &more, CLEAN_VERDICT).await;
            let result = load::run(service.address, CONNECTIONS, &known(), CLEAN_VERDICT).await;
            figures.outage.push(result.rate());
            redis.signal(Signal::SIGCONT);
        }
    }
}

fn add_figures(report: &mut BenchReport, figures: &StoreFigures) {
    let StoreFigures { known, first, recalled, idle, outage } = figures;
    let places = ["", "with a store in a file", "with a shared store"];
    for (name, values, goals) in [
        ("known verdict, 32 connections", known, [Some(0.98), Some(0.98)]),
        ("first scan of 100 KiB, 16 at a time", first, [Some(0.97), Some(0.95)]),
        ("the same files after a restart", recalled, [None, None]),
    ] {
        for (store, goal) in [1, 2].into_iter().zip(goals) {
            let name = format!("{name}, {}", places[store]);
            let limit = ("without a store", &*values[0]);
            report.add_comparison(
                &name,
                "per second",
                &values[store],
                limit,
                goal.map(Goal::AtLeast),
            );
        }
    }
    let limit = ("while it answers", &*known[2]);
    let name = "known verdict, while the shared store does not answer";
    report.add_comparison(name, "per second", outage, limit, Some(Goal::AtLeast(0.9)));
    for store in [1, 2] {
        let pairs = idle[store].iter().zip(&idle[0]);
        let difference: Vec<_> = pairs.map(|(with, without)| with - without).collect();
        let name = format!("idle memory, {}, in addition", places[store]);
        report.add_figure(&name, "MiB", &difference, Some(Goal::AtMost(3.0)));
    }
}
