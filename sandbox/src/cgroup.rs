//! Control groups: one for each job, where a part of the cgroup v2 tree is the server's own. They limit what all processes of a
//! job use together, and kill them all at once. cgroups(7), and the kernel's own "Control Group v2".

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat, write};
use serde::{Deserialize, Serialize};

use crate::policy::Limits;
use crate::sys;

/// How long the end of what was killed is waited for.
const HUNT: Duration = Duration::from_secs(1);

/// How often.
const ROUND: Duration = Duration::from_millis(2);

/// In the delegated group: the server itself, since a group with groups below it that are limited has no processes of its own;
/// and the jobs.
const SERVER: &str = "server";
const JOBS: &str = "jobs";

/// Where the groups of jobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Nowhere, and why.
    Off(&'static str),
    /// In the group that this process is in, if systemd has delegated it (`Delegate=`, systemd.resource-control(5)). All
    /// processes there, this one among them, are moved to a group below it.
    Delegated,
    /// In this group, in which there are no processes.
    In(PathBuf),
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::Off("not asked for")
    }
}

/// What can be limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) pids: bool,
    pub(crate) cpu: bool,
}

impl Controllers {
    /// With their limits, as a group's files have them: whose it is, the file, its content. What a file is missing for is
    /// refused, but for swap, which a kernel may not count.
    fn settings(self, limits: &Limits) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let (true, Some(memory)) = (self.memory, limits.memory) {
            settings.push(("memory.max", memory.to_string()));
            // All or nobody: a script that goes on without the scanner it has started would say anything.
            settings.push(("memory.oom.group", "1".to_owned()));
        }
        if let (true, Some(processes)) = (self.pids, limits.processes) {
            settings.push(("pids.max", processes.to_string()));
        }
        if let (true, Some(percent)) = (self.cpu, limits.cpu_percent) {
            // Microseconds in each tenth of a second.
            settings.push(("cpu.max", format!("{} 100000", u64::from(percent) * 1000)));
        }
        settings
    }
}

impl Cgroup {
    /// With the delegated group taken possession of.
    pub(crate) fn claimed(self) -> Self {
        if self != Self::Delegated {
            return self;
        }
        match own_group().filter(|group| is_delegated(group)) {
            None => Self::Off("systemd has delegated none to this service (Delegate=yes)"),
            Some(group) => claim(&group).map_or_else(
                |error| {
                    tracing::warn!(%error, group = %group.display(), "the delegated cgroup cannot be used");
                    Self::Off("the delegated one cannot be used")
                },
                Self::In,
            ),
        }
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::In(path) => Some(path),
            Self::Off(_) | Self::Delegated => None,
        }
    }

    /// What groups made there can be limited in.
    pub(crate) fn controllers(&self) -> Option<Controllers> {
        let enabled = fs::read_to_string(self.path()?.join("cgroup.subtree_control")).ok()?;
        let has = |name| enabled.split_ascii_whitespace().any(|found| found == name);
        Some(Controllers { memory: has("memory"), pids: has("pids"), cpu: has("cpu") })
    }
}

fn claim(group: &Path) -> io::Result<PathBuf> {
    let (server, jobs) = (group.join(SERVER), group.join(JOBS));
    for directory in [&server, &jobs] {
        match fs::create_dir(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    for pid in fs::read_to_string(group.join("cgroup.procs"))?.lines() {
        fs::write(server.join("cgroup.procs"), pid)?;
    }
    for group in [group, &jobs] {
        for controller in ["+memory", "+pids", "+cpu"] {
            // One that is not delegated is told among the layers.
            let _ = fs::write(group.join("cgroup.subtree_control"), controller);
        }
    }
    // What a killed server's jobs have left: the group is this server's alone.
    for entry in fs::read_dir(&jobs)?.filter_map(Result::ok) {
        if let (Ok(true), Some(name)) =
            (entry.file_type().map(|kind| kind.is_dir()), entry.file_name().to_str())
        {
            drop(Group::existing(&jobs, name));
        }
    }
    Ok(jobs)
}

/// Where the cgroup v2 tree shows the group of this process.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    place_of(own, &mounts)
}

/// `proc_pid_mountinfo(5)`: the fourth field is what of the tree is mounted, the fifth where; the type comes after a dash.
fn place_of(group: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, place) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        let plain = below.components().all(|it| matches!(it, std::path::Component::Normal(_)));
        (kind.starts_with("cgroup2 ") && plain).then(|| Path::new(place).join(below))
    })
}

/// systemd says so in an attribute; before its version 251 it is seen by the owner, to whom it gives the group.
fn is_delegated(group: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let said = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| sys::attribute(group, name).is_ok_and(|value| value == b"1"));
    let user = geteuid();
    let owned = !user.is_root() && group.metadata().is_ok_and(|it| it.uid() == user.as_raw());
    said || owned
}

/// A job's group; with it go all its processes.
pub(crate) struct Group {
    parent: OwnedFd,
    directory: OwnedFd,
    name: String,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Group {
    /// A new one, with its limits.
    pub(crate) fn make(
        parent: &Path,
        name: &str,
        controllers: Controllers,
        limits: &Limits,
    ) -> nix::Result<Self> {
        let parent = open(parent, DIRECTORY, Mode::empty())?;
        mkdirat(&parent, name, Mode::S_IRWXU)?;
        let this = Self::open(parent, name)?;
        for (file, value) in controllers.settings(limits) {
            this.write(file, &value)?;
        }
        // Nothing of a job goes to a disk. Not every kernel counts swap.
        match controllers.memory.then(|| this.write("memory.swap.max", "0")) {
            Some(Err(errno)) if errno != Errno::ENOENT => return Err(errno),
            _ => {}
        }
        // Found now, not when it is needed: Linux 5.14.
        this.file("cgroup.kill")?;
        Ok(this)
    }

    /// One that another process has made, if it is there.
    pub(crate) fn existing(parent: &Path, name: &str) -> nix::Result<Self> {
        Self::open(open(parent, DIRECTORY, Mode::empty())?, name)
    }

    fn open(parent: OwnedFd, name: &str) -> nix::Result<Self> {
        let directory = openat(&parent, name, DIRECTORY, Mode::empty())?;
        Ok(Self { parent, directory, name: name.to_owned() })
    }

    /// Moves the calling process into it.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills all that is in it. Whether nothing is left within [`HUNT`].
    pub(crate) fn kill(&self) -> bool {
        let deadline = Instant::now() + HUNT;
        loop {
            if self.write("cgroup.kill", "1").is_err() {
                return false;
            }
            if self.is_empty() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(ROUND);
        }
    }

    fn is_empty(&self) -> bool {
        let mut said = [0; 256];
        let length = self
            .open_file("cgroup.events", OFlag::O_RDONLY)
            .and_then(|file| nix::unistd::read(&file, &mut said))
            .unwrap_or(0);
        let said = said.get(..length).unwrap_or_default();
        said.split(|byte| *byte == b'\n').any(|line| line == b"populated 0")
    }

    fn write(&self, file: &str, value: &str) -> nix::Result<()> {
        write(&self.file(file)?, value.as_bytes()).map(drop)
    }

    fn file(&self, name: &str) -> nix::Result<OwnedFd> {
        self.open_file(name, OFlag::O_WRONLY)
    }

    fn open_file(&self, name: &str, how: OFlag) -> nix::Result<OwnedFd> {
        openat(self.directory.as_fd(), name, how | OFlag::O_CLOEXEC, Mode::empty())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        // Where that was in vain it stays, and the next server to start tries again.
        let _ = unlinkat(&self.parent, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_where_the_tree_is_mounted() {
        let mounts = "\
            24 1 0:20 / /proc rw - proc proc rw\n\
            32 24 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let group = "/system.slice/scanner.service";
        let expected = "/sys/fs/cgroup/system.slice/scanner.service";
        assert_eq!(place_of(group, mounts), Some(expected.into()));
        assert_eq!(place_of("/", mounts), Some("/sys/fs/cgroup/".into()));
        // Outside of what is seen here.
        assert_eq!(place_of("/../other", mounts), None);
        assert_eq!(place_of(group, "24 1 0:20 / /proc rw - proc proc rw"), None);

        let part = "32 24 0:28 /docker/abc /cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(place_of("/docker/abc/server", part), Some("/cgroup/server".into()));
        assert_eq!(place_of("/elsewhere", part), None);
    }

    #[test]
    fn only_what_can_be_limited_is() {
        let limits = Limits { cpu_percent: Some(150), memory: Some(1 << 20), ..Limits::default() };
        let of = |memory, pids, cpu| Controllers { memory, pids, cpu }.settings(&limits);
        assert!(of(false, false, false).is_empty());
        let all = of(true, true, true);
        assert!(all.contains(&("memory.max", "1048576".to_owned())));
        assert!(all.contains(&("pids.max", "4096".to_owned())));
        assert!(all.contains(&("cpu.max", "150000 100000".to_owned())));
    }
}
