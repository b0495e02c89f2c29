//! What can go wrong, as the server's code tells it apart. A program's own end is never among it: that is an
//! [`Outcome`](crate::Outcome).

use std::path::PathBuf;
use std::{fmt, io};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::plan::Layer;

/// Why a sandbox, a job or a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy cannot be put in force by this process.
    #[error("the sandbox's policy is refused: {0}")]
    Policy(&'static str),
    /// An argument of the call that failed breaks its documented bounds.
    #[error("{0}")]
    Argument(&'static str),
    /// The helper's program cannot be opened or started.
    #[error("the sandbox's helper {} cannot be used", path.display())]
    NoHelper {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The helper's program is of another build than this one.
    #[error("the sandbox's helper {} is of another build", path.display())]
    StaleHelper {
        /// Where it lies.
        path: PathBuf,
    },
    /// There is no helper beside this program, and it is not its own helper: `main` does not call
    /// [`dispatch`](crate::dispatch()).
    #[error("there is no sandbox helper beside this program")]
    Undispatched,
    /// A step before the program's first instruction failed. The program did not run.
    #[error("not started: {step} failed")]
    NotStarted {
        /// The step.
        step: Step,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The helper ended without being asked. What it watched over was killed and removed by the server's side.
    #[error("the sandbox's helper ended unexpectedly")]
    HelperGone,
    /// The helper did not answer in time and was killed.
    #[error("the sandbox's helper did not answer in time")]
    HelperStuck,
    /// An earlier call of this job failed or was abandoned: nothing runs in it any more.
    #[error("the job is over")]
    Over,
    /// The helper, or the server, said what it must not.
    #[error("the sandbox's protocol was broken: {0}")]
    Protocol(&'static str),
    /// Less holds here than the policy's [`Mode`](crate::Mode) demands.
    #[error("the sandbox is too weak here: {lacks} ({layers})")]
    TooWeak {
        /// What is missing.
        lacks: String,
        /// What holds, and why the rest does not.
        layers: Box<crate::Layers>,
    },
    /// The trial run gave another result than a sandbox that holds.
    #[error("the sandbox's trial run failed: {0}")]
    Probe(String),
    /// In the trial run a layer was found not to hold although each of its steps had succeeded.
    #[error("{0} does not hold: {1}")]
    Layer(Layer, &'static str),
    /// A system call failed in the server.
    #[error("{doing} failed")]
    Io {
        /// What the call was for.
        doing: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing, source }
    }

    pub(crate) fn errno(doing: &'static str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::Io { doing, source: errno.into() }
    }
}

/// A step on the way to the program's first instruction, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Closing the descriptors that the helper inherited.
    Descriptors,
    /// Setting signals to their defaults.
    Signals,
    /// Making the helper adopt orphans, and keeping others from tracing it.
    Supervision,
    /// Comparing the helper's build with the server's.
    Build,
    /// Making the job's control group, or entering it.
    Cgroup,
    /// Entering namespaces.
    Namespaces,
    /// Naming the ids of the user namespace.
    IdMaps,
    /// Building the minimal root.
    Root,
    /// Making the job's directory.
    Directory,
    /// Making the media's file.
    Media,
    /// Forking.
    Fork,
    /// Becoming the first process of a pid namespace.
    Init,
    /// Leaving the server's session.
    Session,
    /// Setting the resource limits.
    Limits,
    /// Emptying the capability bounding set.
    BoundingSet,
    /// Leaving the supplementary groups.
    Groups,
    /// Changing the group id.
    Gid,
    /// Changing the user id.
    Uid,
    /// Dropping the capabilities.
    Capabilities,
    /// Setting `no_new_privs`.
    NoNewPrivileges,
    /// Entering the job's directory.
    WorkingDirectory,
    /// Restricting paths, ports and scopes.
    Landlock,
    /// Setting standard input, output and error.
    Streams,
    /// Filtering system calls.
    Seccomp,
    /// Executing the program: it is missing, not executable, or its interpreter is.
    Execute,
}

impl Step {
    /// The layer that fails with this step; none where it is the base or the program.
    pub(crate) fn layer(self) -> Option<Layer> {
        match self {
            Self::Namespaces | Self::IdMaps | Self::Root | Self::Init => Some(Layer::Namespaces),
            Self::Cgroup => Some(Layer::Cgroup),
            Self::Landlock => Some(Layer::Landlock),
            Self::Seccomp => Some(Layer::Seccomp),
            _ => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptors => "closing inherited descriptors",
            Self::Signals => "resetting signals",
            Self::Supervision => "becoming the supervisor",
            Self::Build => "comparing builds",
            Self::Cgroup => "making the control group",
            Self::Namespaces => "entering namespaces",
            Self::IdMaps => "mapping ids",
            Self::Root => "building the minimal root",
            Self::Directory => "making the job's directory",
            Self::Media => "making the media's file",
            Self::Fork => "forking",
            Self::Init => "becoming the first process",
            Self::Session => "leaving the session",
            Self::Limits => "setting resource limits",
            Self::BoundingSet => "emptying the capability bounding set",
            Self::Groups => "leaving supplementary groups",
            Self::Gid => "changing the group id",
            Self::Uid => "changing the user id",
            Self::Capabilities => "dropping capabilities",
            Self::NoNewPrivileges => "setting no_new_privs",
            Self::WorkingDirectory => "entering the job's directory",
            Self::Landlock => "restricting by Landlock",
            Self::Streams => "setting the standard streams",
            Self::Seccomp => "filtering system calls",
            Self::Execute => "executing the program (or the interpreter it names)",
        })
    }
}

/// A failed step with the kernel's reason, as it travels from the program's process and from the helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) step: Step,
    pub(crate) errno: i32,
}

impl Refusal {
    pub(crate) fn at(step: Step) -> impl Fn(Errno) -> Self {
        move |errno| Self { step, errno: errno as i32 }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::NotStarted { step: refusal.step, source: io::Error::from_raw_os_error(refusal.errno) }
    }
}
