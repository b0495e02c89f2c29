//! Policy of a [`Sandbox`](crate::Sandbox): user, accessible resources and environment of all programs. Validated once
//! against the privileges of this process. credentials(7), getrlimit(2).

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use nix::unistd::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::Error;
use crate::layers::Mode;
use crate::limits::ResourceLimits;

/// User and group id of programs. Supplementary groups are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// User id; must not be 0.
    pub uid: u32,
    /// Group id; must not be 0.
    pub gid: u32,
}

/// Network access of programs. Unix sockets are configured by [`Paths::unix_sockets`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkAccess {
    /// No network.
    #[default]
    None,
    /// TCP connections to these ports of any host, and TCP and UDP to port 53 for name resolution. Before Landlock
    /// version 10 UDP is not limited to port 53.
    Ports(Vec<u16>),
    /// The server's network access.
    Host,
}

/// Paths that programs may access in addition to the system's programs and libraries. Paths must be absolute; missing
/// paths are skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paths {
    /// Files and directories that may be read and executed: programs, interpreters outside /usr, signatures,
    /// configuration.
    pub read_only: Vec<PathBuf>,
    /// Files and directories that may be written. Later jobs can read what a job wrote there.
    pub writable: Vec<PathBuf>,
    /// Unix sockets that programs may connect to.
    pub unix_sockets: Vec<PathBuf>,
}

/// Restrictions that apply to every job.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Layers that must be available.
    pub mode: Mode,
    /// Network access of programs.
    pub network: NetworkAccess,
    /// Additional paths that programs may access.
    pub paths: Paths,
    /// User that programs run as. A root server must set a user. Any other server cannot change the user and must use
    /// `None` or its own ids.
    pub user: Option<User>,
    /// Resource limits.
    pub limits: ResourceLimits,
    /// Location of the jobs' control groups.
    pub cgroup: Cgroup,
    /// Variables added to `PATH`, `LANG`, `HOME` (the job's directory) and `TMPDIR` (`tmp` in it), or replacing them.
    /// Programs inherit no other variable of the server.
    pub environment: Vec<(OsString, OsString)>,
}

impl fmt::Debug for Policy {
    /// Prints only the names of environment variables: values may be secrets.
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
    /// Validates the policy, sets `user` to `None` if the ids do not change, and resolves the control group.
    pub(crate) fn validated(mut self) -> Result<Self, Error> {
        let (uid, gid) = (geteuid(), getegid());
        match self.user {
            None if uid.is_root() => {
                // Without capabilities root still owns its files, including the server's keys.
                return Err(Error::Policy(
                    "a server that runs as root must set a user for programs",
                ));
            }
            Some(User { uid: 0, .. } | User { gid: 0, .. }) => {
                return Err(Error::Policy("programs must not run as root or with root's group"));
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
            // Rejects the root directory, and `..`, whose meaning changes with links on the path.
            if !path.is_absolute() || !plain || path.parent().is_none() {
                return Err(Error::Policy("a path is not absolute, is /, or contains .."));
            }
        }
        for (name, value) in &self.environment {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
                return Err(Error::Policy(
                    "a variable's name is empty or contains '=', or a variable contains NUL",
                ));
            }
        }
        self.cgroup = self.cgroup.claim_delegated();
        Ok(self)
    }
}
