//! Resets state inherited from the server: descriptors, signal dispositions, signal mask, umask. Steps 1 to 4.
//! `close_range(2)`, signal(7), proc(5), `PR_SET_DUMPABLE(2const)`, `PR_SET_CHILD_SUBREAPER(2const)`.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::error::{Refusal, Step};
use crate::sys;

/// Added to the server's oom score, so that the kernel kills processes of jobs first.
const OOM_SCORE_RAISE: i32 = 500;

pub(super) struct Inherited {
    /// Socket to the server.
    pub(super) channel: OwnedFd,
    /// Readable when a child has ended.
    pub(super) children: SignalFd,
}

pub(super) fn reset_inherited() -> Result<Inherited, Refusal> {
    sys::close_inherited().map_err(Refusal::at(Step::Descriptors))?;
    // Moves the socket off descriptor 0, which becomes the programs' standard input. All later descriptors are
    // close-on-exec.
    let channel = std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| {
        Refusal::at(Step::Descriptors)(Errno::try_from(error).unwrap_or(Errno::EBADF))
    })?;

    sys::reset_signals();
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&ended), None).map_err(Refusal::at(Step::Signals))?;
    let children = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(Refusal::at(Step::Signals))?;
    umask(Mode::from_bits_truncate(0o077));

    raise_oom_score();
    // With a piped core_pattern the kernel ignores RLIMIT_CORE unless its value is 1, which a hard limit of 0 forbids.
    // An empty filter keeps memory out of such dumps. Both writes are best effort: the files may be missing.
    let _ = fs::write("/proc/self/coredump_filter", "0");

    prctl::set_dumpable(false).map_err(Refusal::at(Step::Supervision))?;
    prctl::set_child_subreaper(true).map_err(Refusal::at(Step::Supervision))?;

    // Programs inherit the helper's standard input and get their own output and error. The helper's standard error
    // stays the server's: the dynamic linker and panics write to it.
    let null = |flags| nix::fcntl::open("/dev/null", flags | OFlag::O_CLOEXEC, Mode::empty());
    null(OFlag::O_RDONLY)
        .and_then(dup2_stdin)
        .and_then(|()| null(OFlag::O_WRONLY))
        .and_then(dup2_stdout)
        .map_err(Refusal::at(Step::Streams))?;
    Ok(Inherited { channel, children })
}

fn raise_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let score = fs::read_to_string(FILE).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if let Some(score) = score {
        let _ = fs::write(FILE, score.saturating_add(OOM_SCORE_RAISE).min(1000).to_string());
    }
}
