//! What is fetched and scanned, each media for the first time.

use std::{fs, path::Path};

use mcs_sandbox::{Candidate, Policy, Sandbox};
use nix::unistd::geteuid;

use super::{API, Bench, CLEAN, EMPTY_SCRIPT, SMALL};
use crate::{
    load::{self, Requests, get, post},
    programs::{self, PROGRAMS, Program, USER},
    report::{Goal, Report},
    starts::Way,
};

const ROUNDS: usize = 9;
/// Media a round.
const FILES: u16 = 320;
/// Scans at a time.
const AT_A_TIME: usize = 16;
/// What the Python predecessor, without a sandbox, did on two cores: see the goals.
const PREDECESSOR: f64 = 266.0;

/// Milliseconds of processor time and media a second, of each round.
#[derive(Default)]
struct Served {
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl Bench {
    pub(super) async fn cold(&self, nginx: &Program, report: &mut Report) {
        let media = self.files("cold", FILES.into(), SMALL).await;
        let plain = media.iter().map(|it| get(&format!("{API}/scan/{}", it.place())));
        let encrypted = media.iter().map(|it| post(&format!("{API}/scan_encrypted"), &it.body(1)));
        let asked: [Vec<_>; 2] = [plain.collect(), encrypted.collect()];
        // Not in the measurement's own directory: bubblewrap's /dev has none of the files in /dev/shm.
        let built = fs::canonicalize("target/benches").unwrap();
        let script = programs::script(&built, EMPTY_SCRIPT);
        let empty = built.join("empty");
        let jobs = self.place().join("jobs");
        let alone = [
            (Way::Ours(sandbox(&jobs, &script).await), &script),
            (Way::Bwrap, &script),
            (Way::Bare, &script),
            (Way::Bare, &empty),
        ];
        let mut served = [Served::default(), Served::default()];
        let mut rates = [const { Vec::new() }; 4];
        for round in 0..ROUNDS {
            for turn in 0..6 {
                // Nobody is always the first.
                match (turn + round) % 6 {
                    kind @ (0 | 1) => self.serve(nginx, &asked[kind], &mut served[kind]).await,
                    kind => {
                        let (way, program) = &alone[kind - 2];
                        let each = way.round(program, &jobs, AT_A_TIME, FILES).await;
                        rates[kind - 2].push(1.0 / each);
                    }
                }
            }
        }
        let [plain, encrypted] = &served;
        let [ours, bwrap, bare, empty] = &rates;
        let what = "first scan of 100 KiB, empty script, 16 at a time";
        let limit = ("the sandbox alone", &**ours);
        report.beside(what, "a second", &plain.rates, limit, Some(Goal::AtLeast(0.6)));
        report.figure(what, "a second", &plain.rates, Some(Goal::AtLeast(2.0 * PREDECESSOR)));
        report.beside(what, "a second", &plain.rates, ("no sandbox, the script", bare), None);
        report.beside(what, "a second", &plain.rates, ("an empty static program", empty), None);
        let what = "the server's own processor time for one";
        report.figure(what, "ms", &plain.cpu, Some(Goal::AtMost(1.0)));
        report.figure("the same, encrypted", "ms", &encrypted.cpu, None);
        let what = "first scan of 100 KiB, encrypted";
        let limit = ("plain", &*plain.rates);
        report.beside(what, "a second", &encrypted.rates, limit, Some(Goal::AtLeast(0.9)));
        let each = |rates: &[f64]| rates.iter().map(|rate| 1000.0 / rate).collect::<Vec<_>>();
        let what = "the sandbox alone, script's start to end";
        let limit = ("bwrap --unshare-all", &*each(bwrap));
        report.beside(what, "ms", &each(ours), limit, Some(Goal::AtMost(0.7)));
    }

    async fn serve(&self, nginx: &Program, requests: &[Vec<u8>], served: &mut Served) {
        // A new one: it remembers nothing.
        let service = programs::service(self.place(), nginx, "").await;
        let before = service.cpu().as_secs_f64();
        let requests = Requests::once(requests.to_vec());
        let outcome = load::run(service.address, AT_A_TIME, &requests, CLEAN).await;
        let taken = service.cpu().as_secs_f64() - before;
        served.rates.push(outcome.rate());
        served.cpu.push(taken * 1000.0 / f64::from(FILES));
    }
}

/// As the service makes it.
async fn sandbox(jobs: &Path, script: &Path) -> Sandbox {
    let mut policy = Policy { user: geteuid().is_root().then_some(USER), ..Policy::default() };
    policy.paths.read_only.push(script.to_owned());
    let helper = fs::canonicalize(PROGRAMS).unwrap().join("mcs-sandbox");
    let sandbox = Candidate::with_helper(&helper, policy).unwrap().settle(jobs).await.unwrap();
    eprintln!("{}", sandbox.layers());
    sandbox
}
