//! Releases what remains of a job: its helper, its program, its directory and its control group.
//! `pidfd_send_signal(2)`, killpg(3).

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Child;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::cgroup::Group;
use crate::error::Error;
use crate::remove::remove_tree;
use crate::sys;

/// Resources of a job that must be released when it ends.
#[derive(Debug)]
pub(crate) struct Cleanup {
    pub(crate) helper: Child,
    pub(crate) directory: PathBuf,
    /// Parent of the job's control group, which has the directory's name.
    pub(crate) group: Option<PathBuf>,
    /// Whether the directory exists only in the helper's mount namespace.
    pub(crate) in_memory: bool,
    /// The running program's process.
    pub(crate) program: Option<ProgramProcess>,
}

impl Cleanup {
    /// Waits up to `time_limit` for the helper to clean up, then completes the cleanup. The channel must be closed.
    pub(crate) async fn finish(mut self, time_limit: Duration) -> Result<(), Error> {
        match timeout(time_limit, self.helper.wait()).await {
            // Everything was in the helper's namespaces and vanished with them. Saves a blocking task.
            Ok(Ok(ended)) if ended.success() && self.in_memory && self.group.is_none() => {
                return Ok(());
            }
            Ok(_) => {}
            Err(_) => self.helper.kill().await.map_err(Error::io("killing the helper"))?,
        }
        if let Some(program) = self.program {
            program.kill();
        }
        // Finds something only if the helper failed to clean up.
        let remove = move || {
            let name = self.directory.file_name().and_then(OsStr::to_str);
            if let Some((group, name)) = self.group.zip(name) {
                drop(Group::open_existing(&group, name));
            }
            remove_tree(&self.directory)
        };
        let removal_error = Error::io("removing a job's directory");
        match spawn_blocking(remove).await {
            Ok(removed) => removed.map_err(removal_error),
            Err(error) => Err(removal_error(error.into())),
        }
    }
}

/// Leader of a program's process group.
#[derive(Debug)]
pub(crate) struct ProgramProcess {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

impl ProgramProcess {
    fn kill(self) {
        if sys::pidfd_kill(self.pidfd.as_fd(), true) == Err(Errno::EINVAL) && self.is_alive() {
            // Before Linux 6.9 by pid, which stays valid for the group while its leader lives.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO) == Ok(0)
    }
}
