//! Watches one program until it has ended, its time is over or the server has gone, and leaves no process of it: where it has a
//! pid namespace that is killed with its first process; else its process group first, then its control group if it has one,
//! then whatever was handed up to the helper as child subreaper. Where no layer above keeps a program in its group, one that
//! forks faster than it is killed escapes. wait(2), kill(2), `proc_tid_children(5)`.

use std::fs;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid};

use super::Gone;
use super::watch::Watch;
use crate::cgroup::Group;
use crate::protocol::{Attempt, Usage};
use crate::sys;

/// How long what is left behind is hunted.
const HUNT: Duration = Duration::from_secs(1);

/// How often, where no death of a child wakes us sooner.
const ROUND: Duration = Duration::from_millis(10);

pub(super) struct End {
    /// As wait(2) gives it.
    pub(super) status: c_int,
    pub(super) usage: Usage,
    pub(super) timed_out: bool,
    pub(super) survivors: bool,
    /// Filled in by whoever watched.
    pub(super) attempts: Vec<Attempt>,
}

/// What is watched.
#[derive(Clone, Copy)]
pub(super) struct Supervised<'a> {
    /// The program, or the first process of its pid namespace.
    pub(super) pid: Pid,
    /// Where all its processes are, if there is one.
    pub(super) group: Option<&'a Group>,
}

impl Supervised<'_> {
    /// With all of its process group, or more.
    fn kill(self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        // Before setsid(2) it has no group of its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Kills what is left of an ended program. Whether that was all.
    fn kill_rest(self, children: &SignalFd) -> bool {
        let in_group = self.group.is_none_or(Group::kill);
        kill_children(children) && in_group
    }
}

pub(super) fn supervise(
    channel: BorrowedFd<'_>,
    children: &SignalFd,
    supervised: Supervised<'_>,
    mut watch: Option<&mut Watch<'_>>,
    time_limit: Duration,
) -> Result<End, Gone> {
    let program = supervised.pid;
    let deadline = Instant::now().checked_add(time_limit);
    let mut timed_out = false;
    loop {
        // Its number stays its own until it is reaped: so the group is killed before.
        if has_ended(program) {
            let _ = killpg(program, Signal::SIGKILL);
            if let Ok(Some((status, usage))) = sys::wait_usage(program) {
                let survivors = !supervised.kill_rest(children);
                let attempts = Vec::new();
                return Ok(End { status, usage, timed_out, survivors, attempts });
            }
        }
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !timed_out && remaining.is_some_and(|remaining| remaining.is_zero()) {
            timed_out = true;
            supervised.kill();
        }
        let patience = if timed_out { None } else { remaining };
        // There is nothing to be said while a program runs: a message is as good as an end.
        if wait_for(channel, children, watch.as_deref_mut(), patience) {
            supervised.kill();
            supervised.kill_rest(children);
            return Err(Gone);
        }
    }
}

/// Waits for the death of a child or until `patience` is over; whether something came from the server instead. What a watched
/// program's filter asks is answered meanwhile.
fn wait_for(
    channel: BorrowedFd<'_>,
    children: &SignalFd,
    watch: Option<&mut Watch<'_>>,
    patience: Option<Duration>,
) -> bool {
    let mut ready = vec![
        PollFd::new(channel, PollFlags::POLLIN),
        PollFd::new(children.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(watch) = &watch {
        ready.push(PollFd::new(watch.fd(), PollFlags::POLLIN));
    }
    let polled = poll(&mut ready, timeout(patience));
    let came = |index: usize| ready.get(index).and_then(PollFd::any).unwrap_or(false);
    let (server, asked) = (came(0), came(2));
    while let Ok(Some(_)) = children.read_signal() {}
    match polled {
        Ok(_) => {
            if let (Some(watch), true) = (watch, asked) {
                watch.attend();
            }
            server
        }
        Err(Errno::EINTR) => false,
        Err(_) => true,
    }
}

/// Rounded up: a timer that fires early would be polled for again and again.
fn timeout(patience: Option<Duration>) -> PollTimeout {
    patience.map_or(PollTimeout::NONE, |patience| {
        let milliseconds = patience.as_micros().div_ceil(1000);
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    })
}

/// Whether `program` has ended, without reaping it. Orphans that ended are reaped on the way: zombies count against
/// `RLIMIT_NPROC`.
fn has_ended(program: Pid) -> bool {
    loop {
        match sys::ended_child() {
            Ok(Some(pid)) if pid == program => return true,
            Ok(Some(pid)) => {
                let _ = sys::wait_usage(pid);
            }
            Ok(None) => return false,
            Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Kills and reaps every child until there is none, or for [`HUNT`]. Whether there is none. The children of a killed process
/// become ours, so each round reaches one generation further.
fn kill_children(children: &SignalFd) -> bool {
    let deadline = Instant::now() + HUNT;
    loop {
        for child in list_children() {
            // Ours and not reaped: the number can be no other's.
            let _ = kill(child, Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return true,
                Ok(status) if status.pid().is_none() => break,
                // An error is a status the wrapper does not know; the child is reaped nevertheless.
                Ok(_) | Err(_) => {}
            }
        }
        if Instant::now() > deadline {
            return false;
        }
        let mut ready = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, timeout(Some(ROUND)));
        while let Ok(Some(_)) = children.read_signal() {}
    }
}

fn list_children() -> Vec<Pid> {
    let numbers = |text: String| {
        text.split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok())
            .map(Pid::from_raw)
            .collect()
    };
    // Not there without CONFIG_PROC_CHILDREN.
    fs::read_to_string("/proc/thread-self/children").map_or_else(|_| search_children(), numbers)
}

fn search_children() -> Vec<Pid> {
    let own = getpid();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| parent(*pid) == Some(own))
        .collect()
}

/// `proc_pid_stat(5)`: the fourth field, after the name in parentheses, which may hold anything.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
