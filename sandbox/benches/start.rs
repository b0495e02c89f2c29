//! What starting a program costs: bare, under each plan, and under bubblewrap as people use it. `cargo bench -p mcs-sandbox`
//! prints the table; it takes a minute or two. Candidates take turns round by round, so that what else the machine does
//! strikes all of them, and ratios are of the same round.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot run is to say so and end"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Command, Layer, Outcome, Policy, Sandbox, User, remove_tree};
use tokio::task::JoinSet;

const ROUNDS: usize = 40;

/// How many at a time, and starts a round.
const LOADS: [(usize, usize); 3] = [(1, 8), (4, 16), (16, 32)];

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
enum Way {
    Bare,
    Bwrap,
    Ours(Sandbox),
}

impl Way {
    async fn start(&self, jobs: &Path) {
        let exited = match self {
            Self::Bare => outside(PROGRAM, &[]).await,
            Self::Bwrap => outside("bwrap", &[BWRAP, &[PROGRAM]].concat()).await,
            Self::Ours(sandbox) => {
                let mut job = sandbox.prepare(jobs, "media").await.unwrap();
                let command = Command { program: PROGRAM.into(), args: Vec::new() };
                let exit = job.run(&command, Duration::from_secs(60), 100).await.unwrap();
                job.close().await.unwrap();
                exit.outcome == Outcome::Exited(0)
            }
        };
        assert!(exited, "it did not run");
    }

    /// Seconds for each of so many starts.
    async fn round(&self, jobs: &Path, at_a_time: usize, starts: usize) -> f64 {
        let begin = Instant::now();
        let mut running = JoinSet::new();
        for _ in 0..starts {
            if running.len() == at_a_time {
                running.join_next().await.unwrap().unwrap();
            }
            let (way, jobs) = (self.clone(), jobs.to_owned());
            running.spawn(async move { way.start(&jobs).await });
        }
        running.join_all().await;
        begin.elapsed().as_secs_f64() / f64::from(u32::try_from(starts).unwrap())
    }
}

/// As a server would start it: with its output read.
#[expect(clippy::disallowed_methods, reason = "what the sandbox is compared with")]
async fn outside(program: &str, arguments: &[&str]) -> bool {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.output().await.unwrap().status.success()
}

#[tokio::main]
async fn main() {
    let root = std::env::temp_dir().join(format!("mcs-bench-{}", std::process::id()));
    fs::create_dir(&root).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o711)).unwrap();
    print(&root).await;
    remove_tree(&root).unwrap();
}

async fn print(jobs: &Path) {
    let is_root = nix::unistd::geteuid().is_root();
    // Nobody's on any machine.
    let user = is_root.then_some(User { uid: 61_234, gid: 61_235 });
    let candidate = || {
        let helper = Path::new(env!("CARGO_BIN_EXE_mcs-sandbox"));
        Candidate::with_helper(helper, Policy { user, ..Policy::default() }).unwrap()
    };
    let settled = candidate().settle(jobs).await.unwrap();
    println!("{} (server: {})\n", kernel(), if is_root { "root" } else { "another user" });
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
                let seconds = ways[index].1.round(jobs, at_a_time, starts).await;
                // The first warms up.
                if round > 0 {
                    found[index].push(seconds);
                }
            }
        }
        let compared = found.last().unwrap().clone();
        for ((name, _), seconds) in ways.iter().zip(&found) {
            let ratios = seconds.iter().zip(&compared).map(|(ours, theirs)| ours / theirs);
            let [low, middle, high] = quartiles(seconds.iter().map(|it| it * 1000.0));
            let [_, ratio, _] = quartiles(ratios);
            println!("| {name} | {at_a_time} | {middle:.2} ({low:.2}–{high:.2}) | {ratio:.2} |");
        }
    }
}

fn quartiles(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| values[(values.len() * quarter / 4).min(values.len() - 1)])
}

fn kernel() -> String {
    let version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    format!("Linux {}", version.trim())
}

fn there_is(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(program).exists())
}
