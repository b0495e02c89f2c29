//! Lowers the priority of a running program at the server's request: by the job's control group if that has the CPU
//! controller, else thread by thread. sched(7), `proc_pid_stat(5)`, `proc_pid_task(5)`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, geteuid, getpid, read, seteuid};

use super::namespaces::Proc;
use crate::cgroup::Group;
use crate::policy::User;
use crate::sys;

/// Interval between the first two searches for threads of the job; doubled after each search.
const FIRST_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum interval between two searches.
const MAX_INTERVAL: Duration = Duration::from_millis(250);

/// The process that the helper has forked for a program.
#[derive(Clone, Copy)]
pub(super) enum Leader {
    Program(Pid),
    /// The first process of the program's pid namespace.
    First(Pid),
}

/// What the helper needs to demote a program.
pub(super) struct Demotion<'a> {
    /// The job's control group, if it has the CPU controller.
    pub(super) group: Option<&'a Group>,
    /// The host's `/proc`; `None` if the machine has none.
    pub(super) proc: Option<&'a Proc>,
    /// The user of the program, if it is not the helper's.
    pub(super) user: Option<User>,
    pub(super) leader: Leader,
    /// When the next search is due, and the interval after it.
    next: Option<(Instant, Duration)>,
}

impl<'a> Demotion<'a> {
    pub(super) fn new(
        group: Option<&'a Group>,
        proc: Option<&'a Proc>,
        user: Option<User>,
        leader: Leader,
    ) -> Self {
        Self { group, proc, user, leader, next: None }
    }

    /// Demotes all processes of the program.
    pub(super) fn start(&mut self) {
        if self.group.is_some_and(|group| group.demote().is_ok()) {
            return;
        }
        self.next = Some((Instant::now(), FIRST_INTERVAL));
        self.repeat_if_due();
    }

    /// Demotes a single process of the program, which has no children: that of one job of a resident program.
    pub(super) fn demote_process(&self, pidfd: &OwnedFd) {
        if let Some(pid) = self.proc.and_then(|proc| pid_of(proc, pidfd)) {
            demote_threads(&[pid], self.user);
        }
    }

    /// Returns the time until the next search, if one is due.
    pub(super) fn timeout(&self) -> Option<Duration> {
        self.next.map(|(due, _)| due.saturating_duration_since(Instant::now()))
    }

    /// Demotes threads again that the previous search has missed: a process may fork between the moment at which the
    /// search reads its entry and the moment at which it is demoted.
    pub(super) fn repeat_if_due(&mut self) {
        let Some((due, interval)) = self.next else { return };
        if due > Instant::now() {
            return;
        }
        if let Some(proc) = self.proc {
            demote_threads(&threads(proc, &descendants(proc, self.leader)), self.user);
        }
        let following = interval.saturating_mul(2).min(MAX_INTERVAL);
        self.next = Some((Instant::now() + interval, following));
    }
}

/// Demotes threads with the effective user of the program: changing the policy of another user's thread would require
/// `CAP_SYS_NICE`. The helper's real and saved user ids stay, so the program can neither signal nor trace it meanwhile.
/// `sched_setscheduler(2)`, kill(2), ptrace(2).
fn demote_threads(threads: &[Pid], user: Option<User>) {
    let own = geteuid();
    let switched = user.is_some_and(|user| seteuid(Uid::from_raw(user.uid)).is_ok());
    for thread in threads {
        // A pid found here cannot belong to a new process yet: the kernel assigns all other numbers first.
        match sys::set_idle_policy(*thread) {
            Ok(()) | Err(Errno::ESRCH) => {}
            // A filter around the server may deny the call.
            Err(_) => {
                let _ = sys::set_lowest_nice(*thread);
            }
        }
    }
    if switched {
        // Cannot fail: the saved user id is the own one.
        let _ = seteuid(own);
    }
}

/// Returns the descendants of this process, except the first process of a pid namespace, which must be able to end the
/// job at once. The leader is a starting point of its own because its entry may be hidden (`hidepid` of proc(5)).
/// Orphans outside a pid namespace are children of this process.
fn descendants(proc: &Proc, leader: Leader) -> BTreeSet<Pid> {
    let mut children = BTreeMap::<Pid, Vec<Pid>>::new();
    for pid in numbers(proc, ".") {
        if let Some(parent) = parent(proc, pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let (Leader::Program(pid) | Leader::First(pid)) = leader;
    let mut found = BTreeSet::from([pid]);
    let mut pending = vec![pid, getpid()];
    while let Some(pid) = pending.pop() {
        let new = children.remove(&pid).unwrap_or_default();
        found.extend(&new);
        pending.extend(new);
    }
    if let Leader::First(first) = leader {
        found.remove(&first);
    }
    found
}

fn threads(proc: &Proc, processes: &BTreeSet<Pid>) -> Vec<Pid> {
    processes.iter().flat_map(|pid| numbers(proc, &format!("{pid}/task"))).collect()
}

/// Lists entries whose names are numbers.
fn numbers(proc: &Proc, directory: &str) -> Vec<Pid> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let Ok(directory) = Dir::openat(proc, directory, flags, Mode::empty()) else {
        return Vec::new();
    };
    let entries = directory.into_iter().filter_map(Result::ok);
    entries
        .filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok())
        .map(Pid::from_raw)
        .collect()
}

/// Returns the pid of a process from `/proc/self/fdinfo` of its pidfd; `None` if it has been reaped. `pidfd_open(2)`.
fn pid_of(proc: &Proc, pidfd: &OwnedFd) -> Option<Pid> {
    let path = format!("self/fdinfo/{}", pidfd.as_raw_fd());
    let file = openat(proc, path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let mut buffer = [0; 512];
    let length = read(file.ok()?, &mut buffer).ok()?;
    let info = String::from_utf8_lossy(buffer.get(..length)?);
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:"))?;
    pid.trim().parse().ok().filter(|pid| *pid > 0).map(Pid::from_raw)
}

/// Reads the parent from `proc_pid_stat(5)`: field 4. The command name in field 2 may contain any characters.
fn parent(proc: &Proc, pid: Pid) -> Option<Pid> {
    let file = openat(
        proc,
        format!("{pid}/stat").as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    // The first four fields are shorter: the command name has at most 64 bytes.
    let mut buffer = [0; 256];
    let length = read(file.ok()?, &mut buffer).ok()?;
    let stat = String::from_utf8_lossy(buffer.get(..length)?);
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
