//! What starting a program costs: bare, under each plan of the sandbox, and under bubblewrap as people use it. Candidates
//! take turns round by round, so that what else the machine does strikes all of them, and ratios are of the same round.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Command, Layer, Outcome, Policy, Sandbox};
use tokio::task::JoinSet;

use crate::machine;
use crate::place::Place;
use crate::programs::{self, PROGRAMS, USER};
use crate::report::Spread;

const ROUNDS: usize = 40;

/// How many at a time, and starts a round.
const LOADS: [(usize, u16); 3] = [(1, 8), (4, 16), (16, 32)];

/// What is started, which does nothing.
const PROGRAM: &str = "/bin/true";

const BWRAP: &[&str] =
    &["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"];

const PLANS: [(&str, &[Layer]); 5] = [
    ("base", &[]),
    ("base, seccomp", &[Layer::Seccomp]),
    ("base, seccomp, Landlock", &[Layer::Seccomp, Layer::Landlock]),
    ("base, seccomp, namespaces (with a network)", &[Layer::Seccomp, Layer::Namespaces]),
    ("all but cgroup", &[Layer::Seccomp, Layer::Landlock, Layer::Namespaces]),
];

#[derive(Clone)]
pub(crate) enum Way {
    Bare,
    Bwrap,
    Ours(Sandbox),
}

impl Way {
    async fn start(&self, program: &Path, jobs: &Path) {
        let exited = match self {
            Self::Bare => outside(program, &[]).await,
            Self::Bwrap => {
                let program = program.to_str().unwrap();
                outside(Path::new("bwrap"), &[BWRAP, &[program]].concat()).await
            }
            Self::Ours(sandbox) => {
                let mut job = sandbox.prepare(jobs, "media").await.unwrap();
                let command = Command { program: program.to_owned(), args: Vec::new() };
                let exit = job.run(&command, Duration::from_secs(60), 100).await.unwrap();
                job.close().await.unwrap();
                exit.outcome == Outcome::Exited(0)
            }
        };
        assert!(exited, "it did not run");
    }

    /// Seconds for each of so many starts.
    pub(crate) async fn round(
        &self,
        program: &Path,
        jobs: &Path,
        at_a_time: usize,
        starts: u16,
    ) -> f64 {
        let begin = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..starts {
            if running.len() == at_a_time {
                running.join_next().await.unwrap().unwrap();
            }
            let (way, program, jobs) = (self.clone(), program.to_owned(), jobs.to_owned());
            running.spawn(async move { way.start(&program, &jobs).await });
        }
        running.join_all().await;
        begin.elapsed().as_secs_f64() / f64::from(starts)
    }
}

/// As a server would start it: with its output read.
async fn outside(program: &Path, arguments: &[&str]) -> bool {
    programs::run(program, arguments).await.status.success()
}

/// Prints the table.
pub(crate) async fn table() {
    let place = Place::new();
    print(place.path()).await;
}

async fn print(jobs: &Path) {
    let is_root = nix::unistd::geteuid().is_root();
    let user = is_root.then_some(USER);
    let candidate = || {
        let helper = Path::new(PROGRAMS).join("mcs-sandbox");
        Candidate::with_helper(&helper, Policy { user, ..Policy::default() }).unwrap()
    };
    let settled = candidate().settle(jobs).await.unwrap();
    println!("{} (server: {})\n", machine::name(), if is_root { "root" } else { "another user" });
    println!("{}\n", settled.layers());
    let mut ways = vec![("no sandbox", Way::Bare)];
    for (name, layers) in PLANS {
        if layers.iter().all(|layer| settled.layers().holds(*layer)) {
            ways.push((name, Way::Ours(candidate().untried(layers))));
        } else {
            println!("{name}: not here");
        }
    }
    // Last, and what the others are compared with.
    if there_is("bwrap") {
        ways.push(("bwrap", Way::Bwrap));
    } else {
        println!("bwrap is not installed: ratios are to the last plan");
    }
    println!(
        "| | at a time | ms a start (middle half of {ROUNDS} rounds) | of bwrap's time |\n|---|---|---|---|"
    );
    for (at_a_time, starts) in LOADS {
        let mut found: Vec<Vec<f64>> = vec![Vec::new(); ways.len()];
        for round in 0..=ROUNDS {
            for turn in 0..ways.len() {
                // Nobody is always the first.
                let index = (turn + round) % ways.len();
                let seconds =
                    ways[index].1.round(Path::new(PROGRAM), jobs, at_a_time, starts).await;
                // The first warms up.
                if round > 0 {
                    found[index].push(seconds);
                }
            }
        }
        let compared = found.last().unwrap().clone();
        for ((name, _), seconds) in ways.iter().zip(&found) {
            let ratios = seconds.iter().zip(&compared).map(|(ours, theirs)| ours / theirs);
            let [each, ratio] =
                [seconds.iter().map(|it| it * 1000.0).collect(), ratios.collect::<Vec<_>>()]
                    .map(|it| Spread::of(&it));
            println!("| {name} | {at_a_time} | {each} | {:.2} |", ratio.median);
        }
    }
}

fn there_is(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists())
}
