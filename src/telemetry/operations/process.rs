//! Resource usage of this process: `proc_pid_stat(5)`, `proc_pid_fd(5)`.

use std::fs;

use nix::{
    sys::resource::{Resource, getrlimit},
    unistd::{SysconfVar, sysconf},
};

/// Values from `/proc/self/stat`.
pub(super) struct Stat {
    /// User and system CPU time.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    /// Time from the start of the system to the start of the process, seconds.
    pub(super) started_after_boot: u64,
}

pub(super) fn stat() -> Option<Stat> {
    let ticks = u32::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    parse(&fs::read_to_string("/proc/self/stat").ok()?, ticks, page)
}

pub(super) fn open_fds() -> Option<u64> {
    // Subtracts the descriptor that reads the directory.
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    u64::try_from(entries.count()).ok()?.checked_sub(1)
}

pub(super) fn max_fds() -> Option<u64> {
    getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft)
}

fn parse(stat: &str, ticks: u32, page: u64) -> Option<Stat> {
    // The process name (field 2) may contain any character, including parentheses.
    let (_, fields) = stat.rsplit_once(')')?;
    let field = |number: usize| fields.split_ascii_whitespace().nth(number - 3);
    let (user, system): (u32, u32) = (field(14)?.parse().ok()?, field(15)?.parse().ok()?);
    Some(Stat {
        cpu_seconds: (f64::from(user) + f64::from(system)) / f64::from(ticks),
        threads: field(20)?.parse().ok()?,
        resident_bytes: field(24)?.parse::<u64>().ok()?.checked_mul(page)?,
        started_after_boot: field(22)?.parse::<u64>().ok()?.checked_div(ticks.into())?,
    })
}

/// Returns the start of the system, seconds since 1970: `btime` in `proc_stat(5)`.
pub(super) fn boot_time() -> Option<u64> {
    parse_boot_time(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_boot_time(stat: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_process_name_with_parentheses_and_spaces() {
        let text =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 11 12 13 14 150 250 17 18 20 0 9 0 220 23 300 25";
        let stat = parse(text, 100, 4096).unwrap();
        assert!((stat.cpu_seconds - 4.0).abs() < f64::EPSILON);
        assert_eq!((stat.threads, stat.resident_bytes), (9, 300 * 4096));
        assert_eq!(stat.started_after_boot, 2);
        for truncated in ["", "7", "7 (a) S 1", "7 (a) S 1 7 7 0 -1 4194560 11 12 13 14 x 250"] {
            assert!(parse(truncated, 100, 4096).is_none(), "{truncated}");
        }
    }

    #[test]
    fn boot_time_is_a_line_of_its_own() {
        assert_eq!(parse_boot_time("cpu 1 2\nctxt 3\nbtime 1700000000\n"), Some(1_700_000_000));
        assert_eq!(parse_boot_time("cpu 1 2\nxbtime 5\nbtime x\n"), None);
    }

    #[test]
    fn reads_own_process() {
        let stat = stat().unwrap();
        assert!(stat.resident_bytes > 1 << 20 && stat.threads > 0);
        let started = boot_time().unwrap() + stat.started_after_boot;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        // The start of the system has whole seconds.
        assert!(started <= now + 2, "{started} {now}");
        assert!(open_fds().unwrap() >= 3 && open_fds() <= max_fds());
    }
}
