//! The store of verdicts: its cost for memory hits and for first scans, against the same service without one.

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
/// Concurrent first scans.
const CONCURRENCY: usize = 16;

impl BenchSuite {
    pub(super) async fn store(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let files = self.write_files("store", FILES.into(), SMALL).await;
        let scans: Vec<_> =
            files.iter().map(|file| get(&format!("{API}/scan/{}", file.mxc_path()))).collect();
        let state = self.dir().join("state");
        let stored = format!("store.path = \"{}/store.db\"", state.display());
        let [mut known, mut first, mut recalled] = [const { [Vec::new(), Vec::new()] }; 3];
        for round in 0..ROUNDS {
            for turn in 0..2 {
                // Alternates, so that neither is always first.
                let with_store = (turn + round) % 2;
                let lines = ["", &*stored][with_store];
                let _ = fs::remove_dir_all(&state);
                fs::create_dir(&state).unwrap();
                fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
                let service = programs::service(self.dir(), nginx, lines).await;
                let requests = RequestSource::once(scans.clone());
                let result = load::run(service.address, CONCURRENCY, &requests, CLEAN_VERDICT);
                first[with_store].push(result.await.rate());
                let requests = RequestSource::repeated(scans[0].clone(), RUN_TIME);
                let result = load::run(service.address, CONNECTIONS, &requests, CLEAN_VERDICT);
                known[with_store].push(result.await.rate());
                drop(service);
                let service = programs::service(self.dir(), nginx, lines).await;
                let requests = RequestSource::once(scans.clone());
                let result = load::run(service.address, CONCURRENCY, &requests, CLEAN_VERDICT);
                recalled[with_store].push(result.await.rate());
            }
        }
        for (name, [without, with], goal) in [
            ("known verdict, 32 connections, with a store", &known, Some(0.98)),
            ("first scan of 100 KiB, 16 at a time, with a store", &first, Some(0.97)),
            ("the same files after a restart, with a store", &recalled, None),
        ] {
            let limit = ("without a store", &**without);
            report.add_comparison(name, "per second", with, limit, goal.map(Goal::AtLeast));
        }
    }
}
