//! Resource limits of programs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Resource limits of each process of a program, as in getrlimit(2). `None` keeps the server's limit; a value above the
/// server's hard limit is lowered to that limit. Core dumps are always disabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// `RLIMIT_CPU`, rounded up to seconds: processor time over all threads of one process. The process receives
    /// SIGXCPU at the limit and SIGKILL one second later.
    pub cpu_time: Option<Duration>,
    /// `RLIMIT_FSIZE`, bytes: maximum size of each written file. The sum over all files is not limited.
    pub file_size: Option<u64>,
    /// `RLIMIT_NOFILE`: highest descriptor number plus one.
    pub open_files: Option<u64>,
    /// Processes and threads of one job: `pids.max` with cgroups, else `RLIMIT_NPROC`. Without a cgroup and a user
    /// namespace the kernel counts all processes of the *user id* on the machine;
    /// [`SandboxBuilder::for_programs`](crate::SandboxBuilder::for_programs) scales the value for that case. Not
    /// enforced for uid 0, `CAP_SYS_ADMIN` or `CAP_SYS_RESOURCE`.
    pub processes: Option<u64>,
    /// `RLIMIT_AS`, bytes of address space. Scanners map far more than they use: below 4 GiB a full signature database
    /// fails to load.
    pub address_space: Option<u64>,
    /// Bytes that a job may write in total, excluding the media: the size of its tmpfs. Requires namespaces.
    pub disk: u64,
    /// `memory.max`, bytes: memory of all processes of a job together, including files in its tmpfs and page cache; no
    /// swap. A job that exceeds the limit is killed as a whole. Requires cgroups.
    pub memory: Option<u64>,
    /// `cpu.max`: processor time of all processes of a job together, in percent of one processor. Requires cgroups.
    pub cpu_percent: Option<u32>,
}

impl Default for ResourceLimits {
    /// 10 minutes of processor time, files of 1 GiB, 1024 descriptors, 64 processes, unlimited address space,
    /// 512 MiB of disk, 4 GiB of memory, unlimited processors.
    fn default() -> Self {
        Self {
            cpu_time: Some(Duration::from_secs(600)),
            file_size: Some(1 << 30),
            open_files: Some(1024),
            processes: Some(64),
            address_space: None,
            disk: 512 << 20,
            memory: Some(4 << 30),
            cpu_percent: None,
        }
    }
}
