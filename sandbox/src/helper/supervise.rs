//! Supervises a program until it has ended, its time limit expires or the server disconnects, then kills all of its
//! descendants. With a pid namespace the kernel kills them with the namespace's first process. Otherwise the process
//! group is killed, then the control group if there is one, then every orphan adopted by the helper as child subreaper.
//! Without a layer that keeps a program in its process group, a program that forks faster than it is killed can escape.
//! wait(2), kill(2), `proc_tid_children(5)`.

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

use super::demotion::Demotion;
use super::messages::{Disconnected, receive_message};
use super::monitor::DenialMonitor;
use crate::cgroup::Group;
use crate::protocol::{Attempt, Request};
use crate::sys;
use crate::usage::Usage;

/// Time limit for killing the descendants of an ended program.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum interval between two kill attempts; the exit of a child shortens it.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(super) struct End {
    /// Wait status, see wait(2).
    pub(super) status: c_int,
    pub(super) usage: Usage,
    pub(super) timed_out: bool,
    pub(super) survivors: bool,
    /// Denied accesses; filled in by the caller.
    pub(super) attempts: Vec<Attempt>,
}

/// The processes of a running program.
#[derive(Clone, Copy)]
pub(super) struct SupervisedProgram<'a> {
    /// The program, or the first process of its pid namespace.
    pub(super) pid: Pid,
    /// The control group of all processes, if there is one.
    pub(super) group: Option<&'a Group>,
}

impl SupervisedProgram<'_> {
    /// Kills the leader and its process group.
    fn kill(self) {
        let _ = killpg(self.pid, Signal::SIGKILL);
        // Before setsid(2) the child has no process group of its own.
        let _ = kill(self.pid, Signal::SIGKILL);
    }

    /// Kills the descendants of an ended program. Returns whether none are left.
    fn kill_descendants(self, children: &SignalFd) -> bool {
        let group_empty = self.group.is_none_or(Group::kill);
        kill_children(children) && group_empty
    }
}

pub(super) fn supervise(
    channel: BorrowedFd<'_>,
    children: &SignalFd,
    supervised: SupervisedProgram<'_>,
    mut monitor: Option<&mut DenialMonitor<'_>>,
    mut demotion: Demotion<'_>,
    time_limit: Duration,
) -> Result<End, Disconnected> {
    let program = supervised.pid;
    let deadline = Instant::now().checked_add(time_limit);
    let mut timed_out = false;
    loop {
        // The pid is valid until the process is reaped, so the process group is killed first.
        if has_ended(program) {
            let _ = killpg(program, Signal::SIGKILL);
            if let Ok(Some((status, usage))) = sys::wait_usage(program) {
                let survivors = !supervised.kill_descendants(children);
                let attempts = Vec::new();
                return Ok(End { status, usage, timed_out, survivors, attempts });
            }
        }
        let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if !timed_out && remaining.is_some_and(|remaining| remaining.is_zero()) {
            timed_out = true;
            supervised.kill();
        }
        demotion.repeat_if_due();
        let timeout = if timed_out { None } else { remaining };
        let timeout = timeout.into_iter().chain(demotion.timeout()).min();
        if wait_for(channel, children, monitor.as_deref_mut(), timeout) {
            // While a program runs, the server sends this message only; any other one violates the protocol.
            if let Ok(Some((Request::Demote, mut processes))) = receive_message(channel) {
                match processes.pop() {
                    Some(process) => demotion.demote_process(&process),
                    None => demotion.start(),
                }
                continue;
            }
            supervised.kill();
            supervised.kill_descendants(children);
            return Err(Disconnected);
        }
    }
}

/// Waits until a child has ended or `timeout` expires, and handles events of the monitor. Returns whether the server
/// has sent something or disconnected.
fn wait_for(
    channel: BorrowedFd<'_>,
    children: &SignalFd,
    monitor: Option<&mut DenialMonitor<'_>>,
    timeout: Option<Duration>,
) -> bool {
    let mut ready = vec![
        PollFd::new(channel, PollFlags::POLLIN),
        PollFd::new(children.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(monitor) = &monitor {
        ready.push(PollFd::new(monitor.fd(), PollFlags::POLLIN));
    }
    let polled = poll(&mut ready, poll_timeout(timeout));
    let has_event = |index: usize| ready.get(index).and_then(PollFd::any).unwrap_or(false);
    let (server_event, monitor_event) = (has_event(0), has_event(2));
    while let Ok(Some(_)) = children.read_signal() {}
    match polled {
        Ok(_) => {
            if let (Some(monitor), true) = (monitor, monitor_event) {
                monitor.handle_event();
            }
            server_event
        }
        Err(Errno::EINTR) => false,
        Err(_) => true,
    }
}

/// Rounds up to milliseconds: a timeout rounded down would cause repeated early wake-ups.
fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    timeout.map_or(PollTimeout::NONE, |timeout| {
        let milliseconds = timeout.as_micros().div_ceil(1000);
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    })
}

/// Whether `program` has ended, without reaping it. Reaps orphans, since zombies count against `RLIMIT_NPROC`.
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

/// Kills and reaps children until none is left or [`KILL_TIMEOUT`] expires. Returns whether none is left. The helper
/// adopts the children of killed processes, so each iteration reaches one generation further.
fn kill_children(children: &SignalFd) -> bool {
    let deadline = Instant::now() + KILL_TIMEOUT;
    loop {
        for child in list_children() {
            // The child is not reaped yet, so its pid cannot have been reused.
            let _ = kill(child, Signal::SIGKILL);
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Err(Errno::ECHILD) => return true,
                Ok(status) if status.pid().is_none() => break,
                // On an error the wrapper does not support the status; the child is reaped nevertheless.
                Ok(_) | Err(_) => {}
            }
        }
        if Instant::now() > deadline {
            return false;
        }
        let mut ready = [PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, poll_timeout(Some(POLL_INTERVAL)));
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
    // The file is missing on kernels without CONFIG_PROC_CHILDREN.
    fs::read_to_string("/proc/thread-self/children").map_or_else(|_| search_children(), numbers)
}

fn search_children() -> Vec<Pid> {
    let own_pid = getpid();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|pid| parent(*pid) == Some(own_pid))
        .collect()
}

/// Reads the parent from `proc_pid_stat(5)`: field 4. The command name in field 2 may contain any characters.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}
