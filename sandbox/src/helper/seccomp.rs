//! The filter of system calls: a deny-list, since a scan script may be anything from `sh` to a virus scanner, whose calls nobody
//! can list; what is on it is what such programs have no need of and what reaches beyond the job. Two programs, of which the
//! kernel takes the stricter answer:
//!
//! - `numbers`: another architecture's calls kill (they have numbers of their own, so a list of ours would not fit); numbers
//!   above the last that this list was made with do not exist (`ENOSYS`), x32's among them; clone3(2) does not exist either,
//!   since its flags lie in memory, which no filter reads. C libraries then fall back on clone(2).
//! - `denied`: the list. `EPERM`, as for somebody without the right to.
//!
//! seccomp(2), syscalls(2), `seccomp_unotify(2)`. The list is held against the whole table of calls by a test.

use std::collections::BTreeMap;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::Network;

/// The last call that the list was made with: mseal(2), Linux 6.10.
const LAST_KNOWN: c_long = libc::SYS_mseal;

// Not in `libc` yet. From 424 on calls have the same number everywhere.
const SYS_STATMOUNT: c_long = 457;
const SYS_LISTMOUNT: c_long = 458;
const SYS_LSM_SET_SELF_ATTR: c_long = 460;

/// Denied whatever their arguments.
const DENIED: &[c_long] = &[
    // Into other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Other namespaces, other roots, mounts.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Large parts of the kernel that a scanner has no use for, and most ways into it went through.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_fanotify_init,
    libc::SYS_memfd_secret,
    libc::SYS_vmsplice,
    SYS_LSM_SET_SELF_ATTR,
    // The machine's own.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// Of a process that is named by its number, 0 being the caller: denied for any other.
const OF_ANOTHER_PROCESS: &[(c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setattr, 0),
];

/// Flags of clone(2) that make namespaces.
const NEW_NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What puts bytes into a terminal's input, as if typed there. ioctl_tty(2).
const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Filters ready to be put in force.
pub(super) struct Filters([BpfProgram; 2]);

impl Filters {
    pub(super) fn new(plan: Plan, network: &Network) -> Result<Self, Refusal> {
        let denied =
            denied(plan, network).map_err(|_| Refusal::at(Step::Seccomp)(Errno::EINVAL))?;
        Ok(Self([numbers(), denied]))
    }

    /// For good, and for whatever this process executes. Wants `no_new_privs`.
    pub(super) fn apply(&self) -> Result<(), Refusal> {
        for filter in &self.0 {
            seccompiler::apply_filter(filter).map_err(|error| {
                let errno = match error {
                    seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                        Errno::try_from(error).unwrap_or(Errno::EINVAL)
                    }
                    _ => Errno::EINVAL,
                };
                Refusal::at(Step::Seccomp)(errno)
            })?;
        }
        // That nothing was asked for would succeed, were the filter not in force.
        match unshare(CloneFlags::empty()) {
            Err(Errno::EPERM) => Ok(()),
            _ => Err(Refusal::at(Step::Seccomp)(Errno::ENOTRECOVERABLE)),
        }
    }
}

fn denied(plan: Plan, network: &Network) -> Result<BpfProgram, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> =
        DENIED.iter().map(|call| (*call, Vec::new())).collect();
    if !plan.kills_all() {
        // Then a program is killed with its process group, which nothing may leave.
        rules.extend([(libc::SYS_setsid, Vec::new()), (libc::SYS_setpgid, Vec::new())]);
    }
    for (call, argument) in OF_ANOTHER_PROCESS {
        rules.insert(*call, vec![rule([condition(*argument, Ne, 0)?])?]);
    }
    for namespace in bits(NEW_NAMESPACES) {
        let flags = condition(0, MaskedEq(namespace), namespace)?;
        rules.entry(libc::SYS_clone).or_default().push(rule([flags])?);
    }
    for request in TERMINAL_INPUT {
        rules.entry(libc::SYS_ioctl).or_default().push(rule([condition(1, Eq, request)?])?);
    }
    // Another personality: only asking for one's own is let through, and the default one.
    let own = [condition(0, Ne, 0)?, condition(0, Ne, 0xffff_ffff)?];
    rules.insert(libc::SYS_personality, vec![rule(own)?]);
    let families = match network {
        Network::None => [libc::AF_UNIX].as_slice(),
        Network::Ports(_) | Network::Host => {
            &[libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]
        }
    };
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let other =
            families.iter().map(|family| condition(0, Ne, u64::from(family.unsigned_abs())));
        let other = other.collect::<Result<Vec<_>, _>>()?;
        rules.insert(call, vec![SeccompRule::new(other)?]);
    }
    if let Network::Ports(_) | Network::Host = network {
        // Raw sockets would take a capability; netlink, which libraries ask for addresses, is for routes alone.
        let netlink = condition(0, Eq, u64::from(libc::AF_NETLINK.unsigned_abs()))?;
        let other = condition(2, Ne, u64::from(libc::NETLINK_ROUTE.unsigned_abs()))?;
        rules.entry(libc::SYS_socket).or_default().push(rule([netlink, other])?);
    }
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::EPERM as u32),
        std::env::consts::ARCH.try_into()?,
    )?;
    Ok(filter.try_into()?)
}

fn rule<const N: usize>(
    conditions: [SeccompCondition; N],
) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// On the low half of an argument, which is all that the kernel takes of an `int`.
fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, seccompiler::Error> {
    Ok(SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?)
}

fn bits(flags: c_int) -> impl Iterator<Item = u64> {
    let flags = u64::from(flags.unsigned_abs());
    (0..32).map(|bit| 1 << bit).filter(move |bit| flags & bit != 0)
}

/// `seccompiler` compares numbers for equality only, so this one is written out. `struct seccomp_data`: number at 0,
/// architecture at 4.
fn numbers() -> BpfProgram {
    // AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64 of linux/audit.h.
    #[cfg(target_arch = "x86_64")]
    const ARCHITECTURE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const ARCHITECTURE: u32 = 0xc000_00b7;
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    vec![
        statement(LOAD, 4),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, 0),
        jump(GREATER, LAST_KNOWN as u32, 1, 0),
        jump(EQUAL, libc::SYS_clone3 as u32, 0, 1),
        statement(RETURN, libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]
}
