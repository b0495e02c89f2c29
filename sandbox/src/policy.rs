//! What holds for every job of a [`Sandbox`](crate::Sandbox): who the program is, what it may use, what it sees in its
//! environment. Checked once, against what this process is able to enforce. credentials(7), getrlimit(2).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cgroup::Cgroup;
use crate::plan::Mode;

/// The ids that a program runs under. Supplementary groups are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id, never 0.
    pub uid: u32,
    /// Group id, never 0.
    pub gid: u32,
}

/// Resource limits of each process of a program, as in getrlimit(2). `None` leaves what the server has; a value above the
/// server's own hard limit counts as that limit. Core dumps are off whatever these say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `RLIMIT_CPU`, rounded up to seconds: processor time over all threads of one process, then SIGXCPU, and SIGKILL a
    /// second later.
    pub cpu_time: Option<Duration>,
    /// `RLIMIT_FSIZE`, bytes: the largest file that can be written. It bounds each file, not their sum.
    pub file_size: Option<u64>,
    /// `RLIMIT_NOFILE`: the highest descriptor number plus one.
    pub open_files: Option<u64>,
    /// `RLIMIT_NPROC`: processes and threads. The kernel counts all that the *user id* has on the machine, not those of
    /// the job, and enforces it for nobody with uid 0, `CAP_SYS_ADMIN` or `CAP_SYS_RESOURCE`. So it has to leave room for
    /// all jobs at once and, where the program runs under the server's own uid, for the server. With cgroups it is
    /// `pids.max` instead, which counts the job's own.
    pub processes: Option<u64>,
    /// `RLIMIT_AS`, bytes of address space. Scanners map far more than they use: below 4 GiB a full signature database does
    /// not load.
    pub address_space: Option<u64>,
    /// Bytes that a job may write in all, beside the media: the size of its tmpfs. Needs namespaces.
    pub disk: u64,
    /// `memory.max`, bytes: what all processes of a job use together, what they have written to its tmpfs and to caches
    /// among it; no swap. One that needs more is killed as a whole. Needs cgroups.
    pub memory: Option<u64>,
    /// `cpu.max`: processor time of all processes of a job together, in percent of one processor. Needs cgroups.
    pub cpu_percent: Option<u32>,
}

impl Default for Limits {
    /// 10 minutes of processor time, files of 1 GiB, 1024 descriptors, 4096 processes per uid, any address space, 512 MiB
    /// of disk, 4 GiB of memory, as many processors as there are.
    fn default() -> Self {
        Self {
            cpu_time: Some(Duration::from_secs(600)),
            file_size: Some(1 << 30),
            open_files: Some(1024),
            processes: Some(4096),
            address_space: None,
            disk: 512 << 20,
            memory: Some(4 << 30),
            cpu_percent: None,
        }
    }
}

/// Whom a program may reach by network. Unix sockets are [`Paths::unix_sockets`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Nobody.
    #[default]
    None,
    /// TCP to these ports of any host; to port 53 too, and UDP, for names. UDP is not held to port 53 before Landlock
    /// version 10.
    Ports(Vec<u16>),
    /// Whomever the server may.
    Host,
}

/// What of the file system a program has besides the system's own programs and libraries. Absolute paths; one that is not
/// there is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Files and directories that may be read and executed: the programs themselves, their interpreters where these are not
    /// below /usr, signatures, configuration.
    pub read_only: Vec<PathBuf>,
    /// Files and directories that may be written. What one job writes there the next one reads.
    pub writable: Vec<PathBuf>,
    /// Sockets that may be connected to.
    pub unix_sockets: Vec<PathBuf>,
}

/// What holds for every job.
#[derive(Clone, Default)]
pub struct Policy {
    /// What the machine has to give.
    pub mode: Mode,
    /// Whom a program may reach.
    pub network: Network,
    /// What it sees.
    pub paths: Paths,
    /// Who the program is. A server that is root has to name a user, any other server cannot become one: it leaves this
    /// `None`, or names itself.
    pub user: Option<User>,
    /// Resource limits.
    pub limits: Limits,
    /// Where each job has a control group of its own.
    pub cgroup: Cgroup,
    /// Added to `PATH`, `LANG`, `HOME` (the job's directory) and `TMPDIR` (`tmp` below it), or put in their place.
    /// Nothing else of the server's environment reaches a program.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Policy {
    /// The environment's values may be secrets: its names are enough for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.environment.iter().map(|(name, _)| name).collect();
        f.debug_struct("Policy")
            .field("mode", &self.mode)
            .field("network", &self.network)
            .field("paths", &self.paths)
            .field("user", &self.user)
            .field("limits", &self.limits)
            .field("cgroup", &self.cgroup)
            .field("environment", &names)
            .finish()
    }
}

impl Policy {
    /// Settles `user` (to `None` where nothing is to be changed) and checks the rest.
    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        let (uid, gid) = (geteuid(), getegid());
        match self.user {
            None if uid.is_root() => {
                // Without capabilities root still owns its files, the server's keys among them.
                return Err(Error::Policy(
                    "a server that is root has to name a user for the programs",
                ));
            }
            Some(User { uid: 0, .. } | User { gid: 0, .. }) => {
                return Err(Error::Policy("programs do not run as root or with its group"));
            }
            Some(user) if !uid.is_root() => {
                if user.uid != uid.as_raw() || user.gid != gid.as_raw() {
                    return Err(Error::Policy("only root can run programs as another user"));
                }
                self.user = None;
            }
            None | Some(_) => {}
        }
        let Paths { read_only, writable, unix_sockets } = &self.paths;
        for path in read_only.iter().chain(writable).chain(unix_sockets) {
            let plain = path.components().all(|part| {
                matches!(part, std::path::Component::RootDir | std::path::Component::Normal(_))
            });
            // The whole root, or a path that means another one once a link on it changes, is nobody's wish.
            if !path.is_absolute() || !plain || path.parent().is_none() {
                return Err(Error::Policy("a path is not absolute, is /, or has .. in it"));
            }
        }
        for (name, value) in &self.environment {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(Error::Policy(
                    "a name in the environment is empty or has '=', or a NUL is in it",
                ));
            }
        }
        self.cgroup = self.cgroup.claimed();
        Ok(self)
    }
}
