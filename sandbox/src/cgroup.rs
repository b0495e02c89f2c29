//! Control groups: one per job, created in the part of the cgroup v2 tree that is delegated to the server. A group
//! limits the resources of all processes of a job together and kills them atomically. See cgroups(7) and the kernel's
//! document "Control Group v2".

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat, write};

use crate::layers::Controllers;
use crate::limits::ResourceLimits;
use crate::sys;

/// Time limit for the processes of a killed group to exit.
const KILL_TIMEOUT: Duration = Duration::from_secs(1);

/// Interval at which [`Group::kill`] checks whether the group is empty.
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// Child groups of the delegated group. The server moves into its own child group because a group with enabled
/// controllers may not contain processes itself.
const SERVER: &str = "server";
const JOBS: &str = "jobs";

/// CPU weight of the server's group against 100 for the group of all jobs: the server answers requests while jobs use
/// every processor. Programs outside the service compete with the service as a whole.
const SERVER_WEIGHT: &str = "1000";

/// Location of the control groups of jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cgroup {
    /// Control groups are not used, for the given reason.
    Off(&'static str),
    /// The control group of this process, if systemd has delegated it (`Delegate=`, systemd.resource-control(5)). All
    /// processes of the group, including this one, are moved to a child group.
    Delegated,
    /// The given group, which contains no processes.
    In(PathBuf),
}

impl Default for Cgroup {
    fn default() -> Self {
        Self::Off("not configured")
    }
}

impl Controllers {
    /// Returns interface files and values that apply `limits`. Every file must be writable.
    fn settings(self, limits: &ResourceLimits, resident: bool) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        if let (true, Some(memory)) = (self.memory, limits.memory) {
            settings.push(("memory.max", memory.to_string()));
            // Kills the whole group: a script whose scanner was killed could still exit with "clean". A resident program
            // and its other children survive; the kernel kills the process with the most memory, which is a child.
            settings.push(("memory.oom.group", if resident { "0" } else { "1" }.to_owned()));
        }
        if let (true, Some(processes)) = (self.pids, limits.processes) {
            settings.push(("pids.max", processes.to_string()));
        }
        if self.cpu {
            // Sets the default weight explicitly, so that jobs share the processors equally; see `SERVER_WEIGHT`.
            settings.push(("cpu.weight", "100".to_owned()));
        }
        if let (true, Some(percent)) = (self.cpu, limits.cpu_percent) {
            // Microseconds per period of 100 ms.
            settings.push(("cpu.max", format!("{} 100000", u64::from(percent) * 1000)));
        }
        settings
    }
}

impl Cgroup {
    /// Resolves `Delegated` to the group for jobs, or to `Off` with the reason.
    pub(crate) fn claim_delegated(self) -> Self {
        if self != Self::Delegated {
            return self;
        }
        match current_group().filter(|group| is_delegated(group)) {
            None => Self::Off("not delegated by systemd (Delegate=yes)"),
            Some(group) => claim(&group).map_or_else(
                |error| {
                    tracing::warn!(%error, group = %group.display(), "delegated cgroup unusable");
                    Self::Off("the delegated group is unusable")
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

    /// Returns the controllers that are enabled for child groups.
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
            // The layers report a controller that is not delegated.
            let _ = fs::write(group.join("cgroup.subtree_control"), controller);
        }
    }
    // The file is missing if the controller is not delegated.
    let _ = fs::write(server.join("cpu.weight"), SERVER_WEIGHT);
    // Removes groups of jobs of a killed server: the delegated group belongs to this server alone.
    for entry in fs::read_dir(&jobs)?.filter_map(Result::ok) {
        if let (Ok(true), Some(name)) =
            (entry.file_type().map(|kind| kind.is_dir()), entry.file_name().to_str())
        {
            drop(Group::open_existing(&jobs, name));
        }
    }
    Ok(jobs)
}

/// Returns the path of this process's group in the mounted cgroup v2 tree.
fn current_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounted_path(own, &mounts)
}

/// Returns the paths of this process's groups in mounted trees that can have the controller `pids`, cgroup v2 or v1,
/// each with its mount point.
pub(crate) fn groups_with_pids() -> Vec<(PathBuf, PathBuf)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    pids_groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"))
}

/// Parses `/proc/self/cgroup`, cgroups(7): hierarchy, controllers of version 1, path, separated by colons.
fn pids_groups(groups: &str, mounts: &str) -> Vec<(PathBuf, PathBuf)> {
    let has_pids = |list: &str| list.split(',').any(|name| name == "pids");
    let found = groups.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => mounted_at(path, mounts, |kind| kind.starts_with("cgroup2 ")),
            // The controllers are among the options of the mount.
            _ if has_pids(controllers) => mounted_at(path, mounts, |kind| {
                kind.starts_with("cgroup ") && kind.rsplit(' ').next().is_some_and(has_pids)
            }),
            _ => None,
        }
    });
    found.collect()
}

fn mounted_path(group: &str, mounts: &str) -> Option<PathBuf> {
    mounted_at(group, mounts, |kind| kind.starts_with("cgroup2 ")).map(|(path, _)| path)
}

/// Returns the path of a group in a mounted tree, and the mount point. Parses `proc_pid_mountinfo(5)`: field 4 is the
/// root of the mount, field 5 the mount point; the type follows " - ".
fn mounted_at(
    group: &str,
    mounts: &str,
    is_tree: impl Fn(&str) -> bool,
) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?, fields.next()?);
        let relative = Path::new(group).strip_prefix(root).ok()?;
        let plain =
            relative.components().all(|part| matches!(part, std::path::Component::Normal(_)));
        (is_tree(kind) && plain)
            .then(|| (Path::new(mount_point).join(relative), PathBuf::from(mount_point)))
    })
}

/// Whether systemd has delegated `group`: by an extended attribute, or before systemd 251 by ownership.
fn is_delegated(group: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let marked = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| sys::get_xattr(group, name).is_ok_and(|value| value == b"1"));
    let user = geteuid();
    let owned =
        !user.is_root() && group.metadata().is_ok_and(|metadata| metadata.uid() == user.as_raw());
    marked || owned
}

/// The control group of a job. Dropping it kills its processes and removes it.
pub(crate) struct Group {
    parent: OwnedFd,
    directory: OwnedFd,
    name: String,
}

const DIRECTORY: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

impl Group {
    /// Creates the group and applies its limits.
    pub(crate) fn create(
        parent: &Path,
        name: &str,
        controllers: Controllers,
        limits: &ResourceLimits,
        resident: bool,
    ) -> nix::Result<Self> {
        let parent = open(parent, DIRECTORY, Mode::empty())?;
        mkdirat(&parent, name, Mode::S_IRWXU)?;
        let group = Self::open(parent, name)?;
        for (file, value) in controllers.settings(limits, resident) {
            group.write(file, &value)?;
        }
        // Keeps plaintext off the disk. The file is missing on kernels without swap accounting.
        match controllers.memory.then(|| group.write("memory.swap.max", "0")) {
            Some(Err(errno)) if errno != Errno::ENOENT => return Err(errno),
            _ => {}
        }
        // Detects a missing `cgroup.kill` (before Linux 5.14) now instead of at the first kill.
        group.file("cgroup.kill")?;
        Ok(group)
    }

    /// Opens a group that another process created.
    pub(crate) fn open_existing(parent: &Path, name: &str) -> nix::Result<Self> {
        Self::open(open(parent, DIRECTORY, Mode::empty())?, name)
    }

    fn open(parent: OwnedFd, name: &str) -> nix::Result<Self> {
        let directory = openat(&parent, name, DIRECTORY, Mode::empty())?;
        Ok(Self { parent, directory, name: name.to_owned() })
    }

    /// Moves the calling process into the group.
    pub(crate) fn enter(&self) -> nix::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Lets the group's processes run only when no other group beside it has work, or gives them the lowest weight
    /// (before Linux 5.15). Requires the CPU controller.
    pub(crate) fn demote(&self) -> nix::Result<()> {
        self.write("cpu.idle", "1").or_else(|_| self.write("cpu.weight", "1"))
    }

    /// Kills all processes of the group. Returns whether the group is empty within [`KILL_TIMEOUT`].
    pub(crate) fn kill(&self) -> bool {
        let deadline = Instant::now() + KILL_TIMEOUT;
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
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    fn is_empty(&self) -> bool {
        let mut events = [0; 256];
        let length = self
            .open_file("cgroup.events", OFlag::O_RDONLY)
            .and_then(|file| nix::unistd::read(&file, &mut events))
            .unwrap_or(0);
        let events = events.get(..length).unwrap_or_default();
        events.split(|byte| *byte == b'\n').any(|line| line == b"populated 0")
    }

    fn write(&self, file: &str, value: &str) -> nix::Result<()> {
        write(&self.file(file)?, value.as_bytes()).map(drop)
    }

    fn file(&self, name: &str) -> nix::Result<OwnedFd> {
        self.open_file(name, OFlag::O_WRONLY)
    }

    fn open_file(&self, name: &str, flags: OFlag) -> nix::Result<OwnedFd> {
        openat(self.directory.as_fd(), name, flags | OFlag::O_CLOEXEC, Mode::empty())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
        // If processes are left, the next server to start removes the group.
        let _ = unlinkat(&self.parent, self.name.as_str(), UnlinkatFlags::RemoveDir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolves_group_path_below_mount_point() {
        let mounts = "\
            24 1 0:20 / /proc rw - proc proc rw\n\
            32 24 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
        let group = "/system.slice/scanner.service";
        let expected = "/sys/fs/cgroup/system.slice/scanner.service";
        assert_eq!(mounted_path(group, mounts), Some(expected.into()));
        assert_eq!(mounted_path("/", mounts), Some("/sys/fs/cgroup/".into()));
        // Outside the mounted part of the tree.
        assert_eq!(mounted_path("/../other", mounts), None);
        assert_eq!(mounted_path(group, "24 1 0:20 / /proc rw - proc proc rw"), None);

        let part = "32 24 0:28 /docker/abc /cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted_path("/docker/abc/server", part), Some("/cgroup/server".into()));
        assert_eq!(mounted_path("/elsewhere", part), None);
    }

    #[test]
    fn finds_groups_with_pids_of_both_versions() {
        let mounts = "\
            30 24 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            31 24 0:27 /docker/a /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let groups = "8:pids:/docker/a/b\n1:cpu:/docker/a\n0::/system.slice\n";
        let expected = [
            ("/sys/fs/cgroup/pids/b".into(), "/sys/fs/cgroup/pids".into()),
            ("/sys/fs/cgroup/unified/system.slice".into(), "/sys/fs/cgroup/unified".into()),
        ];
        assert_eq!(pids_groups(groups, mounts), expected);
        assert!(pids_groups("", mounts).is_empty());
    }

    #[test]
    fn sets_only_limits_of_available_controllers() {
        let limits = ResourceLimits {
            cpu_percent: Some(150),
            memory: Some(1 << 20),
            ..ResourceLimits::default()
        };
        let settings =
            |memory, pids, cpu| Controllers { memory, pids, cpu }.settings(&limits, false);
        assert!(settings(false, false, false).is_empty());
        let all = settings(true, true, true);
        assert!(all.contains(&("memory.max", "1048576".to_owned())));
        assert!(all.contains(&("pids.max", "64".to_owned())));
        assert!(all.contains(&("cpu.max", "150000 100000".to_owned())));
        assert!(all.contains(&("cpu.weight", "100".to_owned())));
        assert!(all.contains(&("memory.oom.group", "1".to_owned())));
        let resident = Controllers { memory: true, pids: true, cpu: true }.settings(&limits, true);
        assert!(resident.contains(&("memory.oom.group", "0".to_owned())));
    }
}
