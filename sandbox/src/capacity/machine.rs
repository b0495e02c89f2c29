//! Reads the limits of the machine and of the server's control group.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cgroup;

/// Bytes of kernel memory for one epoll watch on 64-bit machines; the default of `max_user_watches` is 4 % of the
/// memory. `fs/eventpoll.c`.
const WATCH_SIZE: u64 = 184;

/// Limits that programs share with other processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// `fs.epoll.max_user_watches`: for all processes of a user together.
    pub(super) max_user_watches: u64,
    /// `fs.file-max`: for all processes of the machine except root's.
    pub(super) max_files: u64,
    /// Smallest `pids.max` of the server's control group and of the groups above; `None` if there is none.
    pub(super) max_tasks: Option<u64>,
    /// Present processes and threads of the user that programs run as; 0 where each job has a count of its own.
    pub(super) user_tasks: u64,
}

impl Machine {
    /// Reads the limits of the machine, and counts the tasks of a user.
    pub(super) fn read(counted_user: Option<u32>) -> Self {
        let setting = |path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        // /proc/sys is hidden by ProcSubset=pid of systemd. The kernel computes the defaults from the memory.
        let memory = nix::sys::sysinfo::sysinfo().map_or(1 << 30, |info| info.ram_total());
        Self {
            max_user_watches: setting("/proc/sys/fs/epoll/max_user_watches")
                .unwrap_or(memory / 25 / WATCH_SIZE),
            // A tenth of the memory in KiB: `fs/file_table.c`.
            max_files: setting("/proc/sys/fs/file-max").unwrap_or(memory / 1024 / 10),
            max_tasks: max_tasks(),
            user_tasks: counted_user.map_or(0, user_tasks),
        }
    }
}

/// Returns the smallest `pids.max` from the server's control group up to the root of the mounted tree.
fn max_tasks() -> Option<u64> {
    cgroup::groups_with_pids()
        .into_iter()
        .flat_map(|(group, mount_point)| limits_above(&group, &mount_point))
        .min()
}

fn limits_above(group: &Path, mount_point: &Path) -> Vec<u64> {
    let groups: Vec<PathBuf> = group
        .ancestors()
        .take_while(|path| path.starts_with(mount_point))
        .map(Into::into)
        .collect();
    // The value "max" is no limit.
    let limit =
        |group: PathBuf| fs::read_to_string(group.join("pids.max")).ok()?.trim().parse().ok();
    groups.into_iter().filter_map(limit).collect()
}

/// Counts processes and threads whose entries in `/proc` belong to the user. Those of non-dumpable processes belong to
/// root and are missing.
fn user_tasks(uid: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let of_user = processes.filter_map(Result::ok).filter(|entry| {
        let is_process = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        is_process && entry.metadata().is_ok_and(|metadata| metadata.uid() == uid)
    });
    let threads =
        of_user.map(|entry| fs::read_dir(entry.path().join("task")).map_or(1, Iterator::count));
    // The server is not dumpable.
    let own = if nix::unistd::getuid().as_raw() == uid {
        fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
    } else {
        0
    };
    threads.chain([own]).map(|count| u64::try_from(count).unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        let machine = Machine::read(Some(nix::unistd::getuid().as_raw()));
        assert!(machine.max_user_watches > 1000 && machine.max_files > 1000, "{machine:?}");
        assert!(machine.user_tasks >= 1 && machine.max_tasks != Some(0), "{machine:?}");
        assert_eq!(Machine::read(Some(61_299)).user_tasks, 0, "no process has this user");
    }

    #[test]
    fn smallest_limit_of_all_levels_counts() {
        let mount_point = std::env::temp_dir().join(format!("mcs-pids-{}", std::process::id()));
        let group = mount_point.join("system.slice/scanner.service/server");
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join("pids.max"), "max\n").unwrap();
        fs::write(group.parent().unwrap().join("pids.max"), "8192\n").unwrap();
        fs::write(mount_point.join("system.slice/pids.max"), "9000\n").unwrap();
        assert_eq!(limits_above(&group, &mount_point), [8192, 9000]);
        fs::remove_dir_all(&mount_point).unwrap();
    }
}
