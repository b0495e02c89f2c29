//! First scans: each file is downloaded and scanned for the first time.

use std::{fs, path::Path};

use mcs_sandbox::{Policy, Sandbox, SandboxBuilder};
use nix::unistd::geteuid;

use super::{API, BenchSuite, CLEAN_VERDICT, EMPTY_SCRIPT, SMALL};
use crate::{
    load::{self, RequestSource, get, post},
    programs::{self, PROGRAMS, ServerProcess, USER},
    report::{BenchReport, Goal},
    starts::Launcher,
};

const ROUNDS: usize = 9;
/// Files per round.
const FILES: u16 = 320;
/// Concurrent scans.
const CONCURRENCY: usize = 16;
/// Scans per second of the Python predecessor, without a sandbox, on two cores.
const PREDECESSOR: f64 = 266.0;

/// Results of each round: files per second, and milliseconds of processor time per file.
#[derive(Default)]
struct ServedRounds {
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl BenchSuite {
    pub(super) async fn cold(&self, nginx: &ServerProcess, report: &mut BenchReport) {
        let files = self.write_files("cold", FILES.into(), SMALL).await;
        let plain = files.iter().map(|file| get(&format!("{API}/scan/{}", file.mxc_path())));
        let path = format!("{API}/scan_encrypted");
        let encrypted = files.iter().map(|file| post(&path, &file.encrypted_body(1)));
        let requests: [Vec<_>; 2] = [plain.collect(), encrypted.collect()];
        // Not in the benchmark's directory, which may be in /dev/shm: bubblewrap's /dev does not contain it.
        let built = fs::canonicalize("target/benches").unwrap();
        let script = programs::write_script(&built, EMPTY_SCRIPT);
        let empty = built.join("empty");
        let jobs = self.dir().join("jobs");
        let launchers = [
            (Launcher::Sandbox(sandbox(&jobs, &script).await), &script),
            (Launcher::Bwrap, &script),
            (Launcher::Bare, &script),
            (Launcher::Bare, &empty),
        ];
        let mut served = [ServedRounds::default(), ServedRounds::default()];
        let mut rates = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            for turn in 0..6 {
                // Rotates the order, so that no candidate is always first.
                match (turn + round) % 6 {
                    kind @ (0 | 1) => self.serve(nginx, &requests[kind], &mut served[kind]).await,
                    kind => {
                        let (launcher, program) = &launchers[kind - 2];
                        let seconds = launcher.round(program, &jobs, CONCURRENCY, FILES).await;
                        rates[kind - 2].push(1.0 / seconds);
                    }
                }
            }
        }
        let [plain, encrypted] = &served;
        let [sandbox, bwrap, bare, empty] = &rates;
        let name = "first scan of 100 KiB, empty script, 16 concurrent";
        let limit = ("sandbox alone", &**sandbox);
        report.add_comparison(name, "per second", &plain.rates, limit, Some(Goal::AtLeast(0.6)));
        let goal = Goal::AtLeast(2.0 * PREDECESSOR);
        report.add_figure(name, "per second", &plain.rates, Some(goal));
        let limit = ("script without a sandbox", &**bare);
        report.add_comparison(name, "per second", &plain.rates, limit, None);
        let limit = ("empty static program", &**empty);
        report.add_comparison(name, "per second", &plain.rates, limit, None);
        let name = "processor time of the server per scan";
        report.add_figure(name, "ms", &plain.cpu, Some(Goal::AtMost(1.0)));
        let name = "processor time of the server per scan, encrypted";
        report.add_figure(name, "ms", &encrypted.cpu, None);
        let name = "first scan of 100 KiB, encrypted";
        let limit = ("plain", &*plain.rates);
        let goal = Goal::AtLeast(0.9);
        report.add_comparison(name, "per second", &encrypted.rates, limit, Some(goal));
        let milliseconds =
            |rates: &[f64]| rates.iter().map(|rate| 1000.0 / rate).collect::<Vec<_>>();
        let name = "sandbox alone, script's start to end";
        let limit = ("bwrap --unshare-all", &*milliseconds(bwrap));
        report.add_comparison(name, "ms", &milliseconds(sandbox), limit, Some(Goal::AtMost(0.7)));
    }

    async fn serve(&self, nginx: &ServerProcess, requests: &[Vec<u8>], served: &mut ServedRounds) {
        // A new service with an empty cache.
        let service = programs::service(self.dir(), nginx, "").await;
        let before = service.cpu_time().as_secs_f64();
        let requests = RequestSource::once(requests.to_vec());
        let result = load::run(service.address, CONCURRENCY, &requests, CLEAN_VERDICT).await;
        let cpu_time = service.cpu_time().as_secs_f64() - before;
        served.rates.push(result.rate());
        served.cpu.push(cpu_time * 1000.0 / f64::from(FILES));
    }
}

/// Creates a sandbox like the service does.
async fn sandbox(jobs: &Path, script: &Path) -> Sandbox {
    let mut policy = Policy { user: geteuid().is_root().then_some(USER), ..Policy::default() };
    policy.paths.read_only.push(script.to_owned());
    let helper = fs::canonicalize(PROGRAMS).unwrap().join("mcs-sandbox");
    let sandbox = SandboxBuilder::with_helper(&helper, policy).unwrap().probe(jobs).await.unwrap();
    eprintln!("{}", sandbox.layers());
    sandbox
}
