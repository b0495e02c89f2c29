//! Control groups, on machines that allow tests to create them: cgroups(7).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mcs_sandbox::{
    Cgroup, Command, Error, Exit, Layer, Paths, Policy, ResourceLimits, SandboxBuilder, Termination,
};

use crate::fixture::{
    Fixture, HELPER, LONG_TIMEOUT, ProcessFifo, is_root, policy, report_skipped, sh, wait_until,
};
use crate::hostile::program;

/// Parent group for jobs, created for a test and removed on drop.
struct Groups(PathBuf);

impl Groups {
    /// Creates the group with the given controllers, or reports the test as skipped.
    fn new(test: &str, controllers: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let tree = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let Some(tree) = tree.and_then(|line| line.split(' ').nth(4)).filter(|_| is_root()) else {
            report_skipped(test, "needs root and a cgroup v2 tree");
            return None;
        };
        let tree = Path::new(tree);
        let groups = Self(tree.join(format!("mcs-sandbox-test-{}-{number}", std::process::id())));
        fs::create_dir(&groups.0).unwrap();
        for controller in controllers {
            let enabled = [tree, &groups.0].into_iter().try_for_each(|group| {
                fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"))
            });
            if let Err(error) = enabled {
                report_skipped(test, &format!("the tree has no controller {controller}: {error}"));
                return None;
            }
        }
        Some(groups)
    }

    fn fixture(&self, layers: &[Layer], limits: ResourceLimits) -> Fixture {
        let root = Fixture::new_root();
        let open = writable_directory(&root);
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let policy = Policy {
            cgroup: Cgroup::In(self.0.clone()),
            limits,
            paths: Paths { read_only: vec![program()], writable: vec![open], unix_sockets: vec![] },
            ..policy()
        };
        Fixture::at(root, policy, layers)
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

/// Returns a world-writable directory in the policy.
fn writable_directory(root: &Path) -> PathBuf {
    root.join("open")
}

#[tokio::test]
async fn probe_reports_cgroup_controllers() {
    let Some(groups) = Groups::new("probe_reports_cgroup_controllers", &[]) else {
        return;
    };
    let fixture = groups.fixture(&[], ResourceLimits::default());
    let probed = fixture.builder().probe(&fixture.jobs()).await.unwrap();
    assert!(probed.layers().is_active(Layer::Cgroup));
    let layers = probed.layers().to_string();
    assert!(
        layers.contains("; cgroup: kill; not delegated: memory, processes, processors;"),
        "{layers}"
    );
    assert!(groups.is_empty());

    let policy = Policy { cgroup: Cgroup::Off("a reason"), ..policy() };
    let without_cgroup = SandboxBuilder::with_helper(Path::new(HELPER), policy).unwrap();
    let without_cgroup = without_cgroup.probe(&fixture.jobs()).await.unwrap();
    assert!(
        without_cgroup.layers().to_string().contains("; cgroup: OFF: a reason;"),
        "{}",
        without_cgroup.layers()
    );
}

/// Processes that start new sessions and fork continuously, which the base layer alone cannot kill completely.
#[tokio::test]
async fn kills_all_descendants_with_group() {
    let test = "kills_all_descendants_with_group";
    let Some(groups) = Groups::new(test, &[]) else { return };
    for layers in [&[Layer::Cgroup][..], &Layer::ALL] {
        let fixture = groups.fixture(layers, ResourceLimits::default());
        for how in ["asleep", "churning"] {
            let mut fifo = ProcessFifo::at(&writable_directory(&fixture.root));
            let mut job = fixture.job().await;
            let args = ["leave".into(), fifo.path.clone().into(), how.into()];
            let command = Command { program: program(), args: args.into() };
            let exit = job.run(&command, LONG_TIMEOUT, 1000).await.unwrap();
            assert_eq!(exit.termination, Termination::Exited(0), "{layers:?} {how}: {exit:?}");
            assert_eq!(fifo.read_line().await, "away");
            fifo.wait_closed().await;
            job.close().await.unwrap();
            assert!(groups.is_empty(), "{layers:?} {how}");
            fs::remove_file(&fifo.path).unwrap();
        }
    }
}

#[tokio::test]
async fn server_removes_group_of_killed_helper() {
    let test = "server_removes_group_of_killed_helper";
    let Some(groups) = Groups::new(test, &[]) else { return };
    let fixture = groups.fixture(&[Layer::Cgroup], ResourceLimits::default());
    let mut job = fixture.job().await;
    // Finds the helper by the job's control group: programs run as another user, so the helper's children are hidden.
    let command = sh(&job, "sleep 1000 & setsid sleep 1000 & wait");
    let (failed, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 1000), async {
        let group = groups.0.join(job_name(&command));
        let processes = || fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
        wait_until("three processes are in the group", || processes().lines().count() == 3).await;
        let script = processes().lines().next().unwrap().to_owned();
        let stat = fs::read_to_string(format!("/proc/{script}/stat")).unwrap();
        let helper = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
        let helper = nix::unistd::Pid::from_raw(helper.parse().unwrap());
        nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    });
    assert!(matches!(failed, Err(Error::HelperExited)), "{failed:?}");
    job.close().await.unwrap();
    assert!(groups.is_empty());
}

fn job_name(command: &Command) -> PathBuf {
    let media = command.args.iter().find(|arg| arg.to_string_lossy().ends_with("/media")).unwrap();
    Path::new(media).parent().and_then(Path::file_name).unwrap().into()
}

/// Runs the script with the cgroup layer only, where no other layer enforces the limit, and with all layers.
async fn run_limited(
    test: &str,
    controller: &str,
    limits: ResourceLimits,
    script: &str,
    time_limit: Duration,
    check: impl Fn(Result<Exit, Error>, Duration),
) {
    let Some(groups) = Groups::new(test, &[controller]) else { return };
    for layers in [&[Layer::Cgroup][..], &Layer::ALL] {
        let fixture = groups.fixture(layers, limits.clone());
        let mut job = fixture.job().await;
        let begin = Instant::now();
        let exit = job.run(&sh(&job, script), time_limit, 1000).await;
        let elapsed = begin.elapsed();
        job.close().await.unwrap();
        check(exit, elapsed);
        assert!(groups.is_empty());
    }
}

#[tokio::test]
async fn memory_limit_kills_whole_job() {
    let test = "memory_limit_kills_whole_job";
    let limits = ResourceLimits { memory: Some(64 << 20), ..ResourceLimits::default() };
    // The shell itself uses little memory and would exit with 0 ("clean").
    let script = format!("{} limit memory; exit 0", program().display());
    run_limited(test, "memory", limits, &script, LONG_TIMEOUT, |exit, _| {
        let killed = matches!(
            &exit,
            Ok(Exit { termination: Termination::Signaled(9), .. }) | Err(Error::NotStarted { .. })
        );
        assert!(killed, "{exit:?}");
    })
    .await;
}

#[tokio::test]
async fn process_limit_counts_own_job() {
    let limits = ResourceLimits { processes: Some(20), ..ResourceLimits::default() };
    let script = "i=0; while [ $i -lt 100 ]; do sleep 60 & i=$((i+1)); done; exit 0";
    run_limited("process_limit_counts_own_job", "pids", limits, script, LONG_TIMEOUT, |exit, _| {
        // dash exits with 2 if it cannot fork.
        assert!(matches!(&exit, Ok(Exit { termination: Termination::Exited(2), .. })), "{exit:?}");
    })
    .await;
}

#[tokio::test]
async fn cpu_limit_covers_all_processes() {
    let limits = ResourceLimits { cpu_percent: Some(20), ..ResourceLimits::default() };
    // `times` prints the processor time; /proc/self/stat is not available.
    let script = "for i in 1 2; do (timeout --foreground 2 sh -c 'while :; do :; done'; times) & done; wait; exit 0";
    let test = "cpu_limit_covers_all_processes";
    run_limited(test, "cpu", limits, script, LONG_TIMEOUT, |exit, elapsed| {
        let exit = exit.unwrap();
        let used = exit.usage.user_time + exit.usage.system_time;
        // Without the limit the loops would use two processors, or all of a single one. The bound is relative to the
        // elapsed time, since the loops run longer on a slow machine.
        assert!(used < elapsed * 2 / 5, "{used:?} of {elapsed:?}: {exit:?}");
    })
    .await;
}

#[tokio::test]
async fn demotion_lowers_weight_of_own_group() {
    let test = "demotion_lowers_weight_of_own_group";
    let Some(groups) = Groups::new(test, &["cpu"]) else { return };
    for layers in [&[Layer::Cgroup][..], &Layer::ALL] {
        let fixture = groups.fixture(layers, ResourceLimits::default());
        let mut fifo = ProcessFifo::at(&writable_directory(&fixture.root));
        let mut job = fixture.job().await;
        let other = fixture.job().await;
        let priority = job.priority();
        let command = Command {
            program: "/bin/sh".into(),
            args: ["-c", "echo started > \"$1\"; exec sleep 1000", "sh"]
                .map(Into::into)
                .into_iter()
                .chain([fifo.path.clone().into()])
                .collect(),
        };
        let group = groups.0.join(job.directory().file_name().unwrap());
        let demoted = |group: &Path| {
            let is = |file, value: &str| {
                fs::read_to_string(group.join(file)).is_ok_and(|found| found.trim() == value)
            };
            is("cpu.idle", "1") || is("cpu.weight", "1")
        };
        let observe = async {
            fifo.read_line().await;
            let weight = fs::read_to_string(group.join("cpu.weight")).unwrap();
            assert_eq!((weight.trim(), demoted(&group)), ("100", false));
            priority.demote();
            wait_until("the group is demoted", || demoted(&group)).await;
            fs::write(group.join("cgroup.kill"), "1").unwrap();
        };
        let (_ended, ()) = tokio::join!(job.run(&command, LONG_TIMEOUT, 1000), observe);
        let other_group = groups.0.join(other.directory().file_name().unwrap());
        assert!(!demoted(&other_group), "other jobs keep their weight");
        job.close().await.unwrap();
        other.close().await.unwrap();
        fs::remove_file(&fifo.path).unwrap();
    }
}
