//! Limits of programs that depend on the machine and on the number of programs at once. Computed for
//! each plan that the probe tries: programs together must leave descriptors, epoll watches and tasks for the server and for other users of
//! the machine. epoll(7), `proc_sys_fs(5)`, cgroups(7), getrlimit(2).

mod machine;

use self::machine::Machine;
use crate::error::Error;
use crate::layers::Plan;
use crate::limits::ResourceLimits;
use crate::policy::Policy;

/// Tasks of the server's control group that programs leave free: threads of the server, helpers, and the processes that
/// a service manager starts for maintenance.
pub const RESERVED_TASKS: u64 = 512;

/// `open_files` is not lowered below this value: interpreters and scanners do not start with much less.
const MIN_OPEN_FILES: u64 = 64;

/// With fewer processes a shell script cannot run a pipeline.
const MIN_PROCESSES: u64 = 8;

/// Processes of the helper that count like those of the program: the helper and the first process of a pid namespace.
const HELPER_PROCESSES: u64 = 2;

/// Programs together use at most this part of a resource that all processes of a user or of the machine share.
const SHARE: u64 = 4;

/// Resource limits in effect, and how they differ from the configured ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectiveLimits {
    /// The limits that jobs get.
    pub limits: ResourceLimits,
    /// One sentence for each limit that was changed, with the reason, and for each gap that remains, with its size.
    pub notes: Vec<String>,
    /// Smallest `pids.max` of the server's control groups; `None` if there is none or the limits are not fitted.
    pub max_tasks: Option<u64>,
}

impl EffectiveLimits {
    /// Returns the configured limits, unchanged.
    pub(crate) fn unchanged(limits: &ResourceLimits) -> Self {
        Self { limits: limits.clone(), notes: Vec::new(), max_tasks: None }
    }

    /// Fits the configured limits to this machine, for `programs` programs at once.
    pub(crate) fn for_machine(policy: &Policy, plan: Plan, programs: u64) -> Result<Self, Error> {
        let uid = policy.user.map_or_else(|| nix::unistd::getuid().as_raw(), |user| user.uid);
        // Counting the tasks of a user reads all of /proc.
        let counted_user = (!plan.counts_own_processes(policy)).then_some(uid);
        Self::fit(policy, plan, programs.max(1), &Machine::read(counted_user))
    }

    fn fit(policy: &Policy, plan: Plan, programs: u64, machine: &Machine) -> Result<Self, Error> {
        let mut fitted = Self::unchanged(&policy.limits);
        fitted.max_tasks = machine.max_tasks;
        let own_count = plan.counts_own_processes(policy);
        if let Some(each) = fitted.limits.processes {
            let total = fitted.fit_processes(each, own_count, programs, machine)?;
            if let Some(configured) = fitted.limits.open_files {
                fitted.fit_open_files(total, configured, machine);
            }
        }
        if !own_count {
            fitted.notes.push(
                "no process count of its own for each job (control group or user namespace): one job \
                 can use up `processes` for all jobs"
                    .to_owned(),
            );
        }
        Ok(fitted)
    }

    /// Sets `processes` and returns the number of processes of all programs together.
    fn fit_processes(
        &mut self,
        each: u64,
        own_count: bool,
        programs: u64,
        machine: &Machine,
    ) -> Result<u64, Error> {
        let mut each = each.saturating_add(HELPER_PROCESSES);
        if let Some(max) = machine.max_tasks {
            let available = max.saturating_sub(RESERVED_TASKS) / programs;
            if available < MIN_PROCESSES {
                return Err(Error::TooFewTasks { max, programs, reserved: RESERVED_TASKS });
            }
            if available < each {
                self.notes.push(format!(
                    "processes lowered to {available} for each of {programs} programs, so that all leave \
                     {RESERVED_TASKS} of {max} tasks (pids.max, TasksMax=)"
                ));
                each = available;
            }
        }
        let all = each.saturating_mul(programs);
        let present = if own_count { 0 } else { machine.user_tasks };
        self.limits.processes = Some(if own_count { each } else { all.saturating_add(present) });
        Ok(all.saturating_add(present))
    }

    /// Changes the limits of one job to those of a resident program, whose children are jobs: processor time and time are
    /// limited for each child, and the others are multiplied. Limits that the kernel counts for the user stay, since they
    /// are for all jobs already.
    pub(crate) fn fit_resident(
        &mut self,
        policy: &Policy,
        plan: Plan,
        children: u64,
        child_memory: u64,
    ) {
        let limits = &mut self.limits;
        limits.cpu_time = None;
        let own = children.saturating_add(1 + HELPER_PROCESSES);
        let keeps_count = !plan.counts_own_processes(policy);
        limits.processes = limits.processes.map(|all| if keeps_count { all.max(own) } else { own });
        // The limit of one job for the program itself, and what each child may take.
        limits.memory = limits
            .memory
            .map(|each| each.saturating_add(each.min(child_memory).saturating_mul(children)));
        let factor = u32::try_from(children).unwrap_or(u32::MAX);
        limits.cpu_percent = limits.cpu_percent.map(|each| each.saturating_mul(factor));
    }

    /// Lowers `open_files` so that `processes` processes use at most a share of the epoll watches of a user and of the
    /// open files of the machine. A process with n descriptors can have n/2 epoll instances that each watch n/2 files.
    fn fit_open_files(&mut self, processes: u64, configured: u64, machine: &Machine) {
        let watches = machine.max_user_watches;
        let by_watches = 2 * (watches / SHARE / processes.max(1)).isqrt();
        let by_files = machine.max_files / SHARE / processes.max(1);
        let fitting = by_watches.min(by_files);
        let chosen = configured.min(fitting.max(MIN_OPEN_FILES));
        self.limits.open_files = Some(chosen);
        if chosen < configured {
            self.notes.push(format!(
                "open_files lowered from {configured} to {chosen} for {processes} processes in total"
            ));
        }
        let used = processes.saturating_mul((chosen / 2).pow(2));
        if used > watches / SHARE {
            self.notes.push(format!(
                "{processes} processes can register {used} epoll watches, {} % of the {watches} of a user \
                 (fs.epoll.max_user_watches): programs can prevent other processes of their user from using epoll",
                used.saturating_mul(100) / watches.max(1)
            ));
        }
        let used = processes.saturating_mul(chosen);
        if used > machine.max_files / SHARE {
            self.notes.push(format!(
                "{processes} processes can open {used} files, {} % of the machine's {} (fs.file-max)",
                used.saturating_mul(100) / machine.max_files.max(1),
                machine.max_files
            ));
        }
    }
}

impl Plan {
    /// Whether the process limit of a job counts its own processes only: `pids.max`, or `RLIMIT_NPROC` in a user
    /// namespace, which the helper of an unprivileged server enters with every job.
    fn counts_own_processes(self, policy: &Policy) -> bool {
        self.counts_processes() || (self.namespaces && (self.own_users || policy.user.is_none()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Controllers;
    use crate::policy::User;

    fn machine() -> Machine {
        Machine {
            max_user_watches: 5_491_511,
            max_files: 2_466_177,
            max_tasks: None,
            user_tasks: 30,
        }
    }

    fn plan(namespaces: bool, own_users: bool, pids: bool) -> Plan {
        Plan {
            seccomp: true,
            landlock: 7,
            namespaces,
            own_network: false,
            own_users,
            own_host_name: namespaces,
            cgroup: pids.then_some(Controllers { memory: false, pids, cpu: false }),
        }
    }

    fn policy(user: bool) -> Policy {
        Policy { user: user.then_some(User { uid: 1, gid: 1 }), ..Policy::default() }
    }

    fn fit(plan: Plan, user: bool, programs: u64, machine: &Machine) -> EffectiveLimits {
        EffectiveLimits::fit(&policy(user), plan, programs, machine).unwrap()
    }

    #[test]
    fn processes_are_per_job_where_the_kernel_counts_them_so() {
        for (plan, user) in [
            (plan(false, false, true), true),
            (plan(true, true, false), true),
            (plan(true, false, false), false),
        ] {
            let fitted = fit(plan, user, 5, &machine());
            assert_eq!(fitted.limits.processes, Some(64 + 2), "{plan:?}");
            assert!(!fitted.notes.iter().any(|note| note.contains("no process count")));
        }
        for (plan, user) in [
            (plan(false, false, false), true),
            (plan(false, false, false), false),
            (plan(true, false, false), true),
        ] {
            let fitted = fit(plan, user, 5, &machine());
            assert_eq!(fitted.limits.processes, Some(66 * 5 + 30), "{plan:?}");
            assert!(fitted.notes.iter().any(|note| note.contains("no process count")));
        }
    }

    #[test]
    fn open_files_leave_watches_and_files_of_the_machine() {
        let machine = machine();
        for programs in [1, 2, 5, 9, 17, 33] {
            let fitted = fit(plan(true, true, false), true, programs, &machine);
            let (total, each) = (programs * 66, fitted.limits.open_files.unwrap());
            let fits = total * (each / 2).pow(2) <= machine.max_user_watches / 4
                && total * each <= machine.max_files / 4;
            let named = fitted.notes.iter().any(|note| note.contains("epoll watches"));
            assert!(fits != named && (fits || each == 64), "{programs}: {fitted:?}");
            assert!(fitted.notes.iter().any(|note| note.contains("open_files lowered")));
        }
        // The file table is the tighter bound.
        let small = Machine { max_user_watches: u64::MAX, max_files: 100_000, ..machine };
        let fitted = fit(plan(true, true, false), true, 2, &small);
        assert_eq!(fitted.limits.open_files, Some(100_000 / 4 / 132));
        let tiny = Machine { max_files: 10_000, ..small };
        let fitted = fit(plan(true, true, false), true, 2, &tiny);
        assert_eq!(fitted.limits.open_files, Some(64));
        assert!(fitted.notes.iter().any(|note| note.contains("84 % of the machine's 10000")));
        // Large enough for the configured value.
        let large = Machine { max_user_watches: u64::MAX, max_files: u64::MAX, ..small };
        let fitted = fit(plan(true, true, false), true, 2, &large);
        assert_eq!((fitted.limits.open_files, fitted.notes), (Some(1024), vec![]));
    }

    #[test]
    fn all_programs_together_leave_tasks() {
        let machine = Machine { max_tasks: Some(1024), ..machine() };
        let fitted = fit(plan(true, true, false), true, 16, &machine);
        assert_eq!(fitted.limits.processes, Some((1024 - 512) / 16));
        assert_eq!(fitted.max_tasks, Some(1024));
        assert!(fitted.notes.iter().any(|note| note.contains("512 of 1024 tasks")));
        let unchanged = fit(plan(true, true, false), true, 2, &machine);
        assert_eq!(unchanged.limits.processes, Some(66));
        for max in [0, 512, 600] {
            let machine = Machine { max_tasks: Some(max), ..machine };
            let refused =
                EffectiveLimits::fit(&policy(true), plan(true, true, false), 16, &machine);
            assert!(matches!(refused, Err(Error::TooFewTasks { .. })), "{max}: {refused:?}");
        }
    }
}
