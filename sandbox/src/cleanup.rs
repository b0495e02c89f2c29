//! Ends what a job leaves: its helper, its program, its directory and its control group. `pidfd_send_signal(2)`, killpg(3).

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
use crate::{Error, remove_tree, sys};

/// What a job's end has to see to.
#[derive(Debug)]
pub(crate) struct Remains {
    pub(crate) helper: Child,
    pub(crate) directory: PathBuf,
    /// Where the job's control group is, under the directory's name.
    pub(crate) group: Option<PathBuf>,
    /// Whether the directory is in namespaces alone.
    pub(crate) in_memory: bool,
    /// While one runs.
    pub(crate) program: Option<Program>,
}

impl Remains {
    /// To be called with the helper's socket closed. The helper gets `patience` to do all of it.
    pub(crate) async fn end(mut self, patience: Duration) -> Result<(), Error> {
        match timeout(patience, self.helper.wait()).await {
            // All of it was in the helper's memory and namespaces, and went with it: looking takes a thread.
            Ok(Ok(ended)) if ended.success() && self.in_memory && self.group.is_none() => {
                return Ok(());
            }
            Ok(_) => {}
            Err(_) => self.helper.kill().await.map_err(Error::io("killing the helper"))?,
        }
        if let Some(program) = self.program {
            program.kill();
        }
        // For the helper that could not; else there is nothing left to be found.
        let remove = move || {
            let name = self.directory.file_name().and_then(OsStr::to_str);
            if let Some((group, name)) = self.group.zip(name) {
                drop(Group::existing(&group, name));
            }
            remove_tree(&self.directory)
        };
        let removing = Error::io("removing a job's directory");
        match spawn_blocking(remove).await {
            Ok(removed) => removed.map_err(removing),
            Err(error) => Err(removing(error.into())),
        }
    }
}

/// The process that leads a program's process group.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
}

impl Program {
    fn kill(self) {
        if sys::pidfd_kill(self.pidfd.as_fd(), true) == Err(Errno::EINVAL) && self.is_alive() {
            // Before Linux 6.9 by number, which is the group's as long as its leader lives.
            let _ = killpg(self.pid, Signal::SIGKILL);
        }
    }

    fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut ended, PollTimeout::ZERO) == Ok(0)
    }
}
