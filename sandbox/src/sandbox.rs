//! The server's side, before there is a job: finds the helper's program, makes sure that it is of this build, and starts it.
//! The program is opened once and executed by descriptor, so replacing it on disk does not disturb a server that runs.

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

use crate::channel;
use crate::dispatch::{ASK_BUILD, BUILD, HELPER_NAME, is_own_helper};
use crate::plan::Plan;
use crate::{Error, Job, Layer, Layers, Policy, probe};

/// How long a helper may take to name its build.
const BUILD_TIME_LIMIT: Duration = Duration::from_secs(5);

/// A sandbox before its trial run: what is wanted is known, what holds here is not.
#[derive(Debug)]
pub struct Candidate {
    helper: Arc<Helper>,
    policy: Arc<Policy>,
}

impl Candidate {
    /// Takes as helper the file `mcs-sandbox` beside this program where it is of this very build, else this program itself,
    /// whose `main` has to call [`dispatch`](crate::dispatch()). To be called once, at start: it blocks while the helper is
    /// asked for its build (milliseconds, at most 5 s).
    pub fn new(policy: Policy) -> Result<Self, Error> {
        let policy = Arc::new(policy.checked()?);
        let helper = Arc::new(Helper::find()?);
        Ok(Self { helper, policy })
    }

    /// The same with a named helper: `mcs-sandbox`, or a program whose `main` calls [`dispatch`](crate::dispatch()).
    pub fn with_helper(path: &Path, policy: Policy) -> Result<Self, Error> {
        let policy = Arc::new(policy.checked()?);
        let helper = Arc::new(Helper::open(path)?);
        Ok(Self { helper, policy })
    }

    /// Tries everything, end to end: a job in `parent`, a shell in it that looks at itself, and whether nothing is left. A
    /// layer that fails is left out, with the reason, and the rest tried again. What has passed in the end is put in force
    /// for every job, nothing less.
    ///
    /// # Errors
    /// [`Error::TooWeak`] where less holds than the policy's mode demands; or the base layer's own.
    pub async fn settle(self, parent: &Path) -> Result<Sandbox, Error> {
        probe::settle(&self.policy, |layers| self.taken(layers), parent).await
    }

    /// Takes these layers and no others, untried: for tests of what a weaker machine would do.
    #[must_use]
    pub fn untried(self, layers: &[Layer]) -> Sandbox {
        let plan = Plan::of(layers, &self.policy);
        let left_out = Layer::ALL.into_iter().filter(|layer| !plan.has(*layer));
        let off = left_out.map(|layer| (layer, "left out".to_owned())).collect();
        self.taken(Layers {
            plan,
            base: "untried".to_owned(),
            off,
            no_users: None,
            no_cgroup: None,
        })
    }

    fn taken(&self, layers: Layers) -> Sandbox {
        let (helper, policy) = (Arc::clone(&self.helper), Arc::clone(&self.policy));
        Sandbox { helper, policy, layers: Arc::new(layers) }
    }
}

/// The helper's program and what holds for every job. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    helper: Arc<Helper>,
    policy: Arc<Policy>,
    layers: Arc<Layers>,
}

impl Sandbox {
    /// Where the helper's program was when it was opened.
    #[must_use]
    pub fn helper(&self) -> &Path {
        &self.helper.path
    }

    /// What holds for every job.
    #[must_use]
    pub fn layers(&self) -> &Layers {
        &self.layers
    }

    /// Starts a helper and has it make a job's directory in `parent`, with an empty file `media_name` in it.
    ///
    /// `parent` exists, is the caller's, has an absolute path of `[A-Za-z0-9._/-]`, and lets the job's user through (mode
    /// 0711) where the policy names one. `media_name` is of `[A-Za-z0-9._-]`, up to 255 bytes, begins with neither `.` nor
    /// `-` and is not `tmp`. The future may be dropped at any time; nothing is left then.
    /// To be polled by a tokio runtime with input, output and time enabled, as everything of a [`Job`].
    pub async fn prepare(&self, parent: &Path, media_name: &str) -> Result<Job, Error> {
        Job::prepare(self, parent, media_name).await
    }

    /// What every job is held to.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// A candidate with another policy, for a server that goes on: its helper is the one that is open, whatever has become of
    /// the file since, and its jobs' groups are made where they are now.
    pub fn revised(&self, mut policy: Policy) -> Result<Candidate, Error> {
        policy.cgroup = self.policy.cgroup.clone();
        let policy = Arc::new(policy.checked()?);
        Ok(Candidate { helper: Arc::clone(&self.helper), policy })
    }

    pub(crate) fn plan(&self) -> Plan {
        self.layers.plan
    }

    /// Starts the helper; beside it our end of its socket. It blocks for about a millisecond. In the context of a runtime.
    pub(crate) fn start_helper(&self) -> Result<(Child, OwnedFd), Error> {
        let (ours, theirs) = channel::pair().map_err(Error::errno("making a socket pair"))?;
        let mut command = self.helper.command();
        command.stdin(theirs).stdout(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let child = command.spawn().map_err(|source| self.helper.unusable(source))?;
        Ok((child, ours))
    }
}

#[derive(Debug)]
struct Helper {
    program: OwnedFd,
    path: PathBuf,
}

impl Helper {
    fn find() -> Result<Self, Error> {
        let own = Path::new("/proc/self/exe");
        let beside = own.read_link().ok().map(|own| own.with_file_name("mcs-sandbox"));
        if let Some(beside) = beside.filter(|path| path.exists()) {
            match Self::open(&beside) {
                Ok(helper) => return Ok(helper),
                Err(error) => {
                    tracing::warn!(%error, "this program is used as the sandbox's helper instead");
                }
            }
        }
        if !is_own_helper() {
            return Err(Error::Undispatched);
        }
        Self::open(own)
    }

    fn open(path: &Path) -> Result<Self, Error> {
        let unusable = |source| Error::NoHelper { path: path.to_owned(), source };
        let program = open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| unusable(errno.into()))?;
        let this = Self { program, path: path.to_owned() };
        let build = this.build().map_err(unusable)?;
        if build == BUILD.as_bytes() {
            Ok(this)
        } else {
            Err(Error::StaleHelper { path: this.path })
        }
    }

    /// No user, group, working directory or `pre_exec`: with any of these the standard library forks this process, at a cost
    /// that grows with its memory, where otherwise it calls `posix_spawn(3)`.
    #[expect(clippy::disallowed_methods, reason = "this is the sandbox crate")]
    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.program.as_raw_fd()));
        command.arg0(HELPER_NAME).env_clear();
        command
    }

    /// What the program says of itself. It may be any program: so it is not waited for without end.
    fn build(&self) -> io::Result<Vec<u8>> {
        let mut command = self.command();
        command.arg(ASK_BUILD).stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let answer = child
            .stdout
            .take()
            .map_or(Ok(Vec::new()), |stdout| first_bytes(&File::from(OwnedFd::from(stdout))));
        // It has nothing left to do, and a program that is not ours may have begun anything.
        let _ = child.kill();
        child.wait()?;
        answer
    }

    fn unusable(&self, source: io::Error) -> Error {
        Error::NoHelper { path: self.path.clone(), source }
    }
}

/// A build's name is written at once.
fn first_bytes(mut pipe: &File) -> io::Result<Vec<u8>> {
    let mut ready = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    let end = Instant::now() + BUILD_TIME_LIMIT;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut ready, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
            // signal(7): poll(2) is never restarted, and a server has handlers (SIGCHLD at the least).
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut bytes = vec![0; 256];
    let length = pipe.read(&mut bytes)?;
    bytes.truncate(length);
    Ok(bytes)
}
