//! Cost of starting a program: without a sandbox, under each sandbox configuration, and under bubblewrap.
//!
//! The launchers alternate within each round, so that other activity on the machine affects all of them, and ratios are
//! computed within a round.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mcs_sandbox::{Command, Layer, Policy, Sandbox, SandboxBuilder, Termination};
use tokio::task::JoinSet;

use crate::bench_dir::BenchDir;
use crate::machine;
use crate::programs::{self, PROGRAMS, USER};
use crate::report::Quartiles;

const ROUNDS: usize = 40;

/// Concurrent starts, and starts per round.
const LOADS: [(usize, u16); 3] = [(1, 8), (4, 16), (16, 32)];

/// Program to start; does nothing.
const PROGRAM: &str = "/bin/true";

const BWRAP: &[&str] =
    &["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"];

const LAYER_SETS: [(&str, &[Layer]); 5] = [
    ("base", &[]),
    ("base, seccomp", &[Layer::Seccomp]),
    ("base, seccomp, Landlock", &[Layer::Seccomp, Layer::Landlock]),
    ("base, seccomp, namespaces (with a network)", &[Layer::Seccomp, Layer::Namespaces]),
    ("all but cgroup", &[Layer::Seccomp, Layer::Landlock, Layer::Namespaces]),
];

#[derive(Clone)]
pub(crate) enum Launcher {
    Bare,
    Bwrap,
    Sandbox(Sandbox),
}

impl Launcher {
    async fn start(&self, program: &Path, jobs: &Path) {
        let succeeded = match self {
            Self::Bare => run_program(program, &[]).await,
            Self::Bwrap => {
                let program = program.to_str().unwrap();
                run_program(Path::new("bwrap"), &[BWRAP, &[program]].concat()).await
            }
            Self::Sandbox(sandbox) => {
                let mut job = sandbox.prepare(jobs, "media").await.unwrap();
                let command = Command { program: program.to_owned(), args: Vec::new() };
                let exit = job.run(&command, Duration::from_secs(60), 100).await.unwrap();
                job.close().await.unwrap();
                exit.termination == Termination::Exited(0)
            }
        };
        assert!(succeeded, "program failed");
    }

    /// Returns the average seconds per start.
    pub(crate) async fn round(
        &self,
        program: &Path,
        jobs: &Path,
        concurrency: usize,
        starts: u16,
    ) -> f64 {
        let begin = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..starts {
            if running.len() == concurrency {
                running.join_next().await.unwrap().unwrap();
            }
            let (launcher, program, jobs) = (self.clone(), program.to_owned(), jobs.to_owned());
            running.spawn(async move { launcher.start(&program, &jobs).await });
        }
        running.join_all().await;
        begin.elapsed().as_secs_f64() / f64::from(starts)
    }
}

/// Runs a program with its output captured, like a server would. Returns whether it succeeded.
async fn run_program(program: &Path, arguments: &[&str]) -> bool {
    programs::run(program, arguments).await.status.success()
}

/// Measures all launchers and prints the table.
pub(crate) async fn print_table() {
    let dir = BenchDir::new();
    measure(dir.path()).await;
}

async fn measure(jobs: &Path) {
    let is_root = nix::unistd::geteuid().is_root();
    let user = is_root.then_some(USER);
    let builder = || {
        let helper = Path::new(PROGRAMS).join("mcs-sandbox");
        SandboxBuilder::with_helper(&helper, Policy { user, ..Policy::default() }).unwrap()
    };
    let probed = builder().probe(jobs).await.unwrap();
    let user_name = if is_root { "root" } else { "unprivileged user" };
    println!("{} (run as: {user_name})\n", machine::description());
    println!("{}\n", probed.layers());
    let mut launchers = vec![("no sandbox", Launcher::Bare)];
    for (name, layers) in LAYER_SETS {
        if layers.iter().all(|layer| probed.layers().is_active(*layer)) {
            launchers.push((name, Launcher::Sandbox(builder().build_unprobed(layers).unwrap())));
        } else {
            println!("{name}: not supported on this machine");
        }
    }
    // Last, because the ratios are relative to the last one.
    if is_installed("bwrap") {
        launchers.push(("bwrap", Launcher::Bwrap));
    } else {
        println!("bwrap is not installed: ratios are relative to the last row");
    }
    println!(
        "| | concurrent | ms per start (quartiles of {ROUNDS} rounds) | ratio to bwrap |\n|---|---|---|---|"
    );
    for (concurrency, starts) in LOADS {
        let mut times: Vec<Vec<f64>> = vec![Vec::new(); launchers.len()];
        for round in 0..=ROUNDS {
            for turn in 0..launchers.len() {
                // Rotates the order, so that no launcher is always first.
                let index = (turn + round) % launchers.len();
                let seconds =
                    launchers[index].1.round(Path::new(PROGRAM), jobs, concurrency, starts).await;
                // The first round is a warm-up.
                if round > 0 {
                    times[index].push(seconds);
                }
            }
        }
        let reference = times.last().unwrap().clone();
        for ((name, _), seconds) in launchers.iter().zip(&times) {
            let ratios = seconds.iter().zip(&reference).map(|(time, reference)| time / reference);
            let milliseconds = seconds.iter().map(|seconds| seconds * 1000.0).collect();
            let [time, ratio] = [milliseconds, ratios.collect::<Vec<_>>()]
                .map(|values| Quartiles::from_values(&values));
            println!("| {name} | {concurrency} | {time} | {:.2} |", ratio.median);
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists())
}
