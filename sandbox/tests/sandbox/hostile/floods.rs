//! Attacks by many processes on what all programs of a user share, under the shipped limits, which are fitted to this
//! machine for several programs at once.

use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use mcs_sandbox::{Command, Error, Exit, Layer, Paths, Policy, Termination, User};
use tokio::task::JoinSet;

use super::{PLANS, program, skip_without_layers};
use crate::fixture::{
    Fixture, LONG_TIMEOUT, ProcessFifo, is_root, policy, report_skipped, sh, unsandboxed,
};

/// Rows of the table; the tests below expect them to be blocked under every plan.
pub(crate) const FLOODS: [&str; 2] = [
    "a quarter of its user's epoll watches: 24 processes × 480 instances × 480 files",
    "400 spinning processes, each in its own session",
];

/// Programs at once on a machine with two processors: twice `scan.max_scripts`, and the canary's.
const PROGRAMS: usize = 5;

/// Set for a server that is not root and whose user has no other processes.
const OWN_USER: &str = "MCS_SANDBOX_TEST_OWN_USER";

/// Users of the attacks and, in the second part of each test, of the server.
const EPOLL_USER: u32 = 61_241;
const SPIN_USER: u32 = 61_242;

/// Returns whether the attack has a user of its own; otherwise reports the test as skipped. The kernel counts processes
/// and watches by user.
fn has_own_user(test: &str) -> bool {
    let own = is_root() || std::env::var_os(OWN_USER).is_some();
    if !own {
        report_skipped(
            test,
            "other tests have processes of this user; the run as root includes it",
        );
    }
    own
}

/// If this process is root, runs the test again with a server that is not.
fn rerun_unprivileged(test: &str, uid: u32) {
    if !is_root() {
        return;
    }
    let scratch = Fixture::new_root();
    fs::set_permissions(&scratch, Permissions::from_mode(0o777)).unwrap();
    let result = unsandboxed(std::env::current_exe().unwrap())
        .args([&format!("hostile::floods::{test}"), "--exact", "--nocapture"])
        .env(OWN_USER, "1")
        .env("TMPDIR", &scratch)
        .uid(uid)
        .gid(uid)
        .output();
    let _ = mcs_sandbox::remove_tree(&scratch);
    match result {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            report_skipped(test, "the user cannot access the test program");
        }
        result => {
            let output = result.unwrap();
            let stdout = String::from_utf8_lossy(&output.stdout);
            let passed = output.status.success() && stdout.contains("1 passed");
            assert!(passed, "{stdout}\n{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// Attacks in progress.
struct Flood {
    fixture: Fixture,
    fifo: ProcessFifo,
    runs: JoinSet<Result<Exit, Error>>,
    /// What each attack has obtained.
    extents: Vec<u64>,
}

impl Flood {
    /// Runs `count` attacks at once, with limits for `programs` programs, until each has obtained what it can. Their user
    /// has no other processes.
    async fn start(
        attack: &str,
        layers: &[Layer],
        uid: u32,
        count: usize,
        programs: usize,
    ) -> Self {
        let root = Fixture::new_root();
        let mut fifo = ProcessFifo::at(&root);
        let paths = Paths {
            read_only: vec![program()],
            writable: vec![fifo.path.clone()],
            ..Paths::default()
        };
        let user = is_root().then_some(User { uid, gid: uid });
        let policy = Policy { user, paths, ..policy() };
        let fixture = Fixture::fitted(root, policy, layers, Some(programs));
        let args = ["flood".into(), attack.into(), fifo.path.clone().into()];
        let command = Command { program: program(), args: args.into() };
        let mut runs = JoinSet::new();
        for _ in 0..count {
            let (mut job, command) = (fixture.job().await, command.clone());
            runs.spawn(async move { job.run(&command, LONG_TIMEOUT, 1000).await });
        }
        let mut extents = Vec::new();
        for _ in 0..count {
            extents.push(fifo.read_line().await.parse().unwrap());
        }
        Self { fixture, fifo, runs, extents }
    }

    /// Whether the limits have a note with this text.
    fn has_note(&self, text: &str) -> bool {
        self.fixture.sandbox.limits().notes.iter().any(|note| note.contains(text))
    }

    /// Ends the attacks, which must be in progress, and waits until all of their processes have exited.
    async fn end(mut self) {
        assert!(self.runs.try_join_next().is_none(), "an attack has ended");
        self.runs.shutdown().await;
        self.fifo.wait_closed_within(LONG_TIMEOUT).await;
        self.fixture.wait_until_empty().await;
    }
}

/// Prints the media in a job of its own. The shell starts no process.
async fn read_in_job(fixture: &Fixture, media: &str) -> Result<Exit, Error> {
    let mut job = fixture.job().await;
    job.media().unwrap().write_all(media.as_bytes()).unwrap();
    let script = r#"read -r line < "$1"; printf %s "$line""#;
    let exit = job.run(&sh(&job, script), LONG_TIMEOUT, 1000).await;
    job.close().await.unwrap();
    exit
}

#[tokio::test]
async fn epoll_floods_leave_watches_to_others() {
    let test = "epoll_floods_leave_watches_to_others";
    if !has_own_user(test) {
        return;
    }
    let max = fs::read_to_string("/proc/sys/fs/epoll/max_user_watches").unwrap();
    let max: u64 = max.trim().parse().unwrap();
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, test).await {
            continue;
        }
        let flood = Flood::start("epoll", layers, EPOLL_USER, PROGRAMS, PROGRAMS).await;
        let watches: u64 = flood.extents.iter().sum();
        if flood.has_note("epoll watches") {
            report_skipped(
                test,
                &format!("{watches} of {max} watches, and no limit below a quarter"),
            );
        } else {
            assert!(watches <= max / 4, "{plan}: {watches} of {max} watches");
        }
        assert!(watches > 0, "{plan}: the attack failed to start");
        let mut job = flood.fixture.job().await;
        let command = Command { program: program(), args: vec!["shared".into(), "epoll".into()] };
        let exit = job.run(&command, LONG_TIMEOUT, 1000).await.unwrap();
        assert_eq!(exit.termination, Termination::Exited(0), "{plan}: another job: {exit:?}");
        job.close().await.unwrap();
        flood.end().await;
    }
    rerun_unprivileged(test, EPOLL_USER);
}

#[tokio::test]
async fn spinning_processes_are_limited_and_killed() {
    let test = "spinning_processes_are_limited_and_killed";
    if !has_own_user(test) {
        return;
    }
    for (plan, layers) in PLANS {
        if skip_without_layers(layers, test).await {
            continue;
        }
        let flood = Flood::start("spin", layers, SPIN_USER, 1, 2).await;
        let limit = flood.fixture.sandbox.limits().limits.processes.unwrap();
        let spinning = flood.extents[0];
        assert!(spinning < limit.min(400), "{plan}: {spinning} processes, limit {limit}");
        assert!(spinning > 0, "{plan}: the attack failed to start");
        // The server writes media, and other jobs read it.
        let own_count = !flood.has_note("no process count of its own");
        for content in ["one", "two", "three"] {
            match read_in_job(&flood.fixture, content).await {
                Ok(exit) => {
                    assert_eq!(exit.termination, Termination::Exited(0), "{plan}: {exit:?}");
                    assert_eq!(exit.stdout, content.as_bytes(), "{plan}");
                }
                // The attack has all processes of the user: the gap that the note names.
                Err(error) => {
                    let refused = matches!(error, Error::NotStarted { .. });
                    assert!(refused && !own_count, "{plan}: {error:?}");
                }
            }
        }
        flood.end().await;
    }
    rerun_unprivileged(test, SPIN_USER);
}
