//! Errors of the sandbox. The exit of a program is not an error: see [`Termination`](crate::Termination).

use std::path::PathBuf;
use std::{fmt, io};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::layers::{Layer, Layers};

/// Error of building a sandbox, of a job or of a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy is invalid, or this process cannot enforce it.
    #[error("invalid sandbox policy: {0}")]
    Policy(&'static str),
    /// An argument violates its documented bounds.
    #[error("{0}")]
    Argument(&'static str),
    /// The helper executable cannot be opened or started.
    #[error("cannot use the sandbox helper {}", path.display())]
    HelperUnusable {
        /// Path of the executable.
        path: PathBuf,
        /// Cause reported by the kernel.
        source: io::Error,
    },
    /// The helper executable was built from different sources.
    #[error(
        "the sandbox helper {} belongs to another build; reinstall the program and its helper together",
        path.display()
    )]
    HelperBuildMismatch {
        /// Path of the executable.
        path: PathBuf,
    },
    /// No helper executable exists beside this program, and this program cannot serve as its own helper because `main`
    /// does not call [`dispatch`](crate::dispatch()).
    #[error("no sandbox helper found beside this program")]
    HelperNotFound,
    /// A step before the program's first instruction failed. The program did not run.
    #[error("not started: {step} failed")]
    NotStarted {
        /// The step.
        step: Step,
        /// Cause reported by the kernel.
        source: io::Error,
    },
    /// The helper exited unexpectedly. The server's side killed the program and removed the directory.
    #[error("the sandbox helper exited unexpectedly")]
    HelperExited,
    /// The helper did not reply in time and was killed.
    #[error("the sandbox helper did not reply in time")]
    HelperTimedOut,
    /// An earlier call on this job failed or was cancelled; the job cannot run programs any more.
    #[error("the job has ended")]
    JobEnded,
    /// The helper or the server sent a message that violates the protocol.
    #[error("sandbox protocol violation: {0}")]
    Protocol(&'static str),
    /// The available layers do not satisfy the policy's [`Mode`](crate::Mode).
    #[error("the sandbox is too weak here: {missing} ({layers})")]
    InsufficientLayers {
        /// Missing layers or features.
        missing: String,
        /// State of each layer, with the reason where a layer is off.
        layers: Box<Layers>,
    },
    /// The control group of the server permits too few tasks (`pids.max`) for the programs at once.
    #[error(
        "the control group permits {max} tasks (pids.max, TasksMax=), too few for {programs} programs and \
         {reserved} others; raise the limit or lower scan.max_scripts"
    )]
    TooFewTasks {
        /// The limit.
        max: u64,
        /// Number of programs at once.
        programs: u64,
        /// Tasks that programs leave free.
        reserved: u64,
    },
    /// The probe run failed.
    #[error("the probe run of the sandbox failed: {0}")]
    Probe(String),
    /// The probe run found a layer ineffective although each of its steps had succeeded.
    #[error("{0} is ineffective: {1}")]
    LayerIneffective(Layer, &'static str),
    /// A resident program was not ready in time, or ended. The text has the reason.
    #[error("the resident program failed: {0}")]
    Resident(String),
    /// A system call failed in the server.
    #[error("{doing} failed")]
    Io {
        /// Purpose of the call.
        doing: &'static str,
        /// Cause reported by the kernel.
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

/// A step before the program's first instruction, in order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Closing inherited descriptors.
    Descriptors,
    /// Resetting signal dispositions and the signal mask.
    Signals,
    /// Becoming child subreaper and preventing other processes from tracing the helper.
    Supervision,
    /// Comparing the builds of helper and server.
    Build,
    /// Creating or entering the job's control group.
    Cgroup,
    /// Entering namespaces.
    Namespaces,
    /// Writing the id maps of the user namespace.
    IdMaps,
    /// Setting a neutral host name in a UTS namespace.
    HostName,
    /// Building the minimal root.
    Root,
    /// Creating the job's directory.
    Directory,
    /// Creating the media's file.
    Media,
    /// Forking.
    Fork,
    /// Starting the first process of a pid namespace.
    Init,
    /// Starting a new session.
    Session,
    /// Setting the resource limits.
    Limits,
    /// Emptying the capability bounding set.
    BoundingSet,
    /// Dropping supplementary groups.
    Groups,
    /// Changing the group id.
    Gid,
    /// Changing the user id.
    Uid,
    /// Dropping the capabilities.
    Capabilities,
    /// Setting `no_new_privs`.
    NoNewPrivileges,
    /// Changing to the job's directory.
    WorkingDirectory,
    /// Restricting paths, ports and scopes with Landlock.
    Landlock,
    /// Redirecting standard input, output and error.
    Streams,
    /// Installing the system call filter.
    Seccomp,
    /// Executing the program. Fails if the program or its interpreter is missing or not executable.
    Execute,
}

impl Step {
    /// Returns the layer that this step belongs to; `None` for the base layer and for the program.
    pub(crate) fn layer(self) -> Option<Layer> {
        match self {
            Self::Namespaces | Self::IdMaps | Self::HostName | Self::Root | Self::Init => {
                Some(Layer::Namespaces)
            }
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
            Self::HostName => "hiding the host name",
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

/// A failed step and its errno, as sent by the child and the helper.
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
