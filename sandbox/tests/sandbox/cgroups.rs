//! Control groups, where this machine lets a test make some: cgroups(7).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcs_sandbox::{Candidate, Cgroup, Command, Error, Exit, Layer, Limits, Outcome, Paths, Policy};

use crate::hostile::program;
use crate::place::{AMPLE, HELPER, Place, Witness, is_root, policy, sh, skipped, until};

/// A group for jobs, made for a test; removed with it.
struct Groups(PathBuf);

impl Groups {
    /// With what can be limited here; or the test ends, and says so.
    fn new(test: &str, controllers: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(tree) = tree.and_then(|line| line.split(' ').nth(4)).filter(|_| is_root()) else {
            skipped(test, "needs root and a cgroup v2 tree");
            return None;
        };
        let tree = Path::new(tree);
        let this = Self(tree.join(format!("mcs-sandbox-test-{}-{number}", std::process::id())));
        fs::create_dir(&this.0).unwrap();
        for controller in controllers {
            let enabled = [tree, &this.0].into_iter().try_for_each(|group| {
                fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
            });
            if let Err(error) = enabled {
                skipped(test, &format!("the tree has no controller {controller}: {error}"));
                return None;
            }
        }
        Some(this)
    }

    fn place(&self, layers: &[Layer], limits: Limits) -> Place {
        let root = Place::new_root();
        let open = open(&root);
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let policy = Policy {
            cgroup: Cgroup::In(self.0.clone()),
            limits,
            paths: Paths { read_only: vec![program()], writable: vec![open], unix_sockets: vec![] },
            ..policy()
        };
        Place::at(root, policy, layers)
    }

    fn is_empty(&self) -> bool {
        let mut entries = fs::read_dir(&self.0).unwrap().map(Result::unwrap);
        !entries.any(|entry| entry.file_type().unwrap().is_dir())
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        let removed = fs::remove_dir(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// Where everybody may write.
fn open(root: &Path) -> PathBuf {
    root.join("open")
}

#[tokio::test]
async fn a_trial_run_finds_the_group_and_what_it_limits() {
    let Some(groups) = Groups::new("a_trial_run_finds_the_group_and_what_it_limits", &[]) else {
        return;
    };
    let place = groups.place(&[], Limits::default());
    let settled = place.candidate().settle(&place.jobs()).await.unwrap();
    assert!(settled.layers().holds(Layer::Cgroup));
    let told = settled.layers().to_string();
    assert!(
        told.contains("; cgroup: kill; not delegated: memory, processes, processors;"),
        "{told}"
    );
    assert!(groups.is_empty());

    let policy = Policy { cgroup: Cgroup::Off("a reason"), ..policy() };
    let none = Candidate::with_helper(Path::new(HELPER), policy).unwrap();
    let none = none.settle(&place.jobs()).await.unwrap();
    assert!(none.layers().to_string().contains("; cgroup: OFF: a reason;"), "{}", none.layers());
}

/// Processes that leave their session and fork without end: nothing of the base layer ends all of them.
#[tokio::test]
async fn whatever_a_program_started_is_killed_with_its_group() {
    let test = "whatever_a_program_started_is_killed_with_its_group";
    let Some(groups) = Groups::new(test, &[]) else { return };
    for layers in [&[Layer::Cgroup][..], &Layer::ALL] {
        let place = groups.place(layers, Limits::default());
        for how in ["asleep", "churning"] {
            let mut witness = Witness::at(&open(&place.root));
            let mut job = place.job().await;
            let args = ["leave".into(), witness.path.clone().into(), how.into()];
            let command = Command { program: program(), args: args.into() };
            let exit = job.run(&command, AMPLE, 1000).await.unwrap();
            assert_eq!(exit.outcome, Outcome::Exited(0), "{layers:?} {how}: {exit:?}");
            assert_eq!(witness.line().await, "away");
            witness.is_gone().await;
            job.close().await.unwrap();
            assert!(groups.is_empty(), "{layers:?} {how}");
            fs::remove_file(&witness.path).unwrap();
        }
    }
}

#[tokio::test]
async fn a_group_whose_helper_is_killed_is_removed_by_the_server() {
    let test = "a_group_whose_helper_is_killed_is_removed_by_the_server";
    let Some(groups) = Groups::new(test, &[]) else { return };
    let place = groups.place(&[Layer::Cgroup], Limits::default());
    let mut job = place.job().await;
    // Of another user than the helper: its parent is found here, by the job's group.
    let command = sh(&job, "sleep 1000 & setsid sleep 1000 & wait");
    let (failed, ()) = tokio::join!(job.run(&command, AMPLE, 1000), async {
        let group = groups.0.join(job_name(&command));
        let processes = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        until("its three processes are in the group", || processes().lines().count() == 3).await;
        let script = processes().lines().next().unwrap().to_owned();
        let stat = fs::read_to_string(format!("/proc/{script}/stat")).unwrap();
        let helper = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
        let helper = nix::unistd::Pid::from_raw(helper.parse().unwrap());
        nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperGone)), "{failed:?}");
    job.close().await.unwrap();
    assert!(groups.is_empty());
}

fn job_name(command: &Command) -> PathBuf {
    let media = command.args.iter().find(|arg| arg.to_string_lossy().ends_with("/media")).unwrap();
    Path::new(media).parent().and_then(Path::file_name).unwrap().into()
}

/// Each under the plan without namespaces, where nothing else would hold it, and under all.
async fn limited(
    test: &str,
    controller: &str,
    limits: Limits,
    script: &str,
    time_limit: Duration,
    judge: impl Fn(Result<Exit, Error>, Duration),
) {
    let Some(groups) = Groups::new(test, &[controller]) else { return };
    for layers in [&[Layer::Cgroup][..], &Layer::ALL] {
        let place = groups.place(layers, limits.clone());
        let mut job = place.job().await;
        let begin = Instant::now();
        let exit = job.run(&sh(&job, script), time_limit, 1000).await;
        let took = begin.elapsed();
        job.close().await.unwrap();
        judge(exit, took);
        assert!(groups.is_empty());
    }
}

#[tokio::test]
async fn who_needs_more_memory_is_killed_as_a_whole_and_gives_no_verdict() {
    let test = "who_needs_more_memory_is_killed_as_a_whole_and_gives_no_verdict";
    let limits = Limits { memory: Some(64 << 20), ..Limits::default() };
    // The shell has next to nothing, and would go on to say "clean".
    let script = format!("{} limit memory; exit 0", program().display());
    limited(test, "memory", limits, &script, AMPLE, |exit, _| {
        let killed = matches!(
            &exit,
            Ok(Exit { outcome: Outcome::Signaled(9), .. }) | Err(Error::NotStarted { .. })
        );
        assert!(killed, "{exit:?}");
    })
    .await;
}

#[tokio::test]
async fn processes_are_limited_for_the_job_alone() {
    let limits = Limits { processes: Some(20), ..Limits::default() };
    let script = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; exit 0";
    limited("processes_are_limited_for_the_job_alone", "pids", limits, script, AMPLE, |exit, _| {
        // The shell gives up where it cannot fork.
        assert!(matches!(&exit, Ok(Exit { outcome: Outcome::Exited(2), .. })), "{exit:?}");
    })
    .await;
}

#[tokio::test]
async fn processor_time_is_limited_for_all_processes_together() {
    let limits = Limits { cpu_percent: Some(20), ..Limits::default() };
    // Each says how long it had, in clock ticks: utime and stime of /proc/self/stat are not there, times is.
    let script = "for i in 1 2; do (timeout --foreground 2 sh -c 'while :; do :; done'; times) & done; wait; exit 0";
    let test = "processor_time_is_limited_for_all_processes_together";
    limited(test, "cpu", limits, script, AMPLE, |exit, took| {
        let exit = exit.unwrap();
        let used = exit.usage.user_time + exit.usage.system_time;
        // Two of them would have all the time of two processors, or of a machine that has only one; and on a slow one
        // their two seconds are longer.
        assert!(used < took * 2 / 5, "{used:?} of {took:?}: {exit:?}");
    })
    .await;
}
