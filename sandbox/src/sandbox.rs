//! The sandbox and its helper executable: finds the executable, verifies its build and starts it. The executable is
//! opened once and executed by descriptor, so replacing the file does not disturb a running server.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use tokio::process::Child;

use crate::build_id::BUILD;
use crate::capacity::EffectiveLimits;
use crate::channel;
use crate::dispatch::{HELPER_NAME, PRINT_BUILD, is_own_helper};
use crate::error::Error;
use crate::layers::{Layers, Plan};
use crate::policy::Policy;

/// Time limit for a helper to print its build id.
const BUILD_TIME_LIMIT: Duration = Duration::from_secs(5);

/// Helper executable, policy and layers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    helper: Arc<Helper>,
    policy: Arc<Policy>,
    layers: Arc<Layers>,
    limits: Arc<EffectiveLimits>,
    /// Whether programs are resident ones.
    resident: bool,
}

impl Sandbox {
    pub(crate) fn new(
        helper: &Arc<Helper>,
        policy: &Arc<Policy>,
        layers: Layers,
        limits: EffectiveLimits,
    ) -> Self {
        let (helper, policy) = (Arc::clone(helper), Arc::clone(policy));
        Self { helper, policy, layers: Arc::new(layers), limits: Arc::new(limits), resident: false }
    }

    pub(crate) fn shared_helper(&self) -> &Arc<Helper> {
        &self.helper
    }

    /// Returns the path at which the helper executable was opened.
    #[must_use]
    pub fn helper(&self) -> &Path {
        &self.helper.path
    }

    /// Returns the state of each layer.
    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Returns the limits in effect, which may be lower than those of the policy.
    #[must_use]
    pub fn limits(&self) -> &EffectiveLimits {
        &self.limits
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Returns the same sandbox with limits for a resident program with this many children.
    pub(crate) fn for_resident(&self, children: u64, child_memory: u64) -> Self {
        let mut limits = (*self.limits).clone();
        limits.fit_resident(&self.policy, self.plan(), children, child_memory);
        Self { limits: Arc::new(limits), resident: true, ..self.clone() }
    }

    pub(crate) fn is_resident(&self) -> bool {
        self.resident
    }

    pub(crate) fn plan(&self) -> Plan {
        self.layers.plan
    }

    /// Starts the helper and returns its process and the server's end of the socket. Blocks for about a millisecond.
    /// Requires a runtime context.
    pub(crate) fn start_helper(&self) -> Result<(Child, OwnedFd), Error> {
        let (server_end, helper_end) =
            channel::pair().map_err(Error::errno("creating a socket pair"))?;
        let mut command = self.helper.command();
        command.stdin(helper_end).stdout(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let child = command.spawn().map_err(|source| self.helper.unusable(source))?;
        Ok((child, server_end))
    }
}

#[derive(Debug)]
pub(crate) struct Helper {
    program: OwnedFd,
    path: PathBuf,
}

impl Helper {
    pub(crate) fn find() -> Result<Self, Error> {
        let own = Path::new("/proc/self/exe");
        let beside = own.read_link().ok().map(|own| own.with_file_name("mcs-sandbox"));
        if let Some(beside) = beside.filter(|path| path.exists()) {
            match Self::open(&beside) {
                Ok(helper) => return Ok(helper),
                Err(error) => {
                    tracing::warn!(%error, "using this program as the sandbox helper instead");
                }
            }
        }
        if !is_own_helper() {
            return Err(Error::HelperNotFound);
        }
        Self::open(own)
    }

    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::HelperUnusable { path: path.to_owned(), source };
        let program = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| unusable(errno.into()))?;
        let helper = Self { program, path: path.to_owned() };
        let build = helper.build().map_err(unusable)?;
        if build == BUILD.as_bytes() {
            Ok(helper)
        } else {
            Err(Error::HelperBuildMismatch { path: helper.path })
        }
    }

    /// Sets no user, group, working directory or `pre_exec`: with any of these the standard library forks this process,
    /// at a cost proportional to its memory, instead of calling `posix_spawn(3)`.
    #[expect(clippy::disallowed_methods, reason = "this is the sandbox crate")]
    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        command.arg0(HELPER_NAME).env_clear();
        command
    }

    /// Runs the executable to read its build id, with a time limit: it may be an arbitrary program.
    fn build(&self) -> io::Result<Vec<u8>> {
        let mut command = self.command();
        command.arg(PRINT_BUILD).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let build = child
            .stdout
            .take()
            .map_or(Ok(Vec::new()), |stdout| first_bytes(&File::from(OwnedFd::from(stdout))));
        // A helper exits after printing its build id; an arbitrary program might keep running.
        let _ = child.kill();
        child.wait()?;
        build
    }

    fn unusable(&self, source: io::Error) -> Error {
        Error::HelperUnusable { path: self.path.clone(), source }
    }
}

/// Reads up to 256 bytes with one read(2); a build id is written at once.
fn first_bytes(mut pipe: &File) -> io::Result<Vec<u8>> {
    let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let deadline = Instant::now() + BUILD_TIME_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            // signal(7): poll(2) is never restarted after a signal handler; the server has one for SIGCHLD.
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut bytes = vec![0; 256];
    let length = pipe.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
