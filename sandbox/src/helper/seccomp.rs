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
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use super::calls::{self, BY_KIND, LAST_KNOWN, NEW_NAMESPACES, OF_ANOTHER_PROCESS, TERMINAL_INPUT};
use super::watch::WITH_PATH;
use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::Network;
use crate::sys;

const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Filters ready to be put in force.
pub(super) struct Filters([BpfProgram; 2]);

impl Filters {
    /// With `watched`, the list has also what a watch asks about.
    pub(super) fn new(plan: Plan, network: &Network, watched: bool) -> Result<Self, Refusal> {
        let asked = if watched { WITH_PATH } else { &[] };
        let denied =
            denied(plan, network, asked).map_err(|_| Refusal::at(Step::Seccomp)(Errno::EINVAL))?;
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
        Self::check()
    }

    /// The same, but that the second asks whoever holds the descriptor which is returned; until that one listens, calls on
    /// its list wait.
    pub(super) fn apply_watched(&self) -> Result<OwnedFd, Refusal> {
        let [numbers, denied] = &self.0;
        let refused = Refusal::at(Step::Seccomp);
        seccompiler::apply_filter(numbers).map_err(|_| refused(Errno::EINVAL))?;
        let mut watched = denied.clone();
        let is_denial = |it: &&mut sock_filter| {
            it.code == RETURN && it.k == libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32
        };
        watched.iter_mut().filter(is_denial).for_each(|it| it.k = libc::SECCOMP_RET_USER_NOTIF);
        sys::listen_to_filter(&watched).map_err(refused)
    }

    fn check() -> Result<(), Refusal> {
        // That nothing was asked for would succeed, were the filter not in force.
        match unshare(CloneFlags::empty()) {
            Err(Errno::EPERM) => Ok(()),
            _ => Err(Refusal::at(Step::Seccomp)(Errno::ENOTRECOVERABLE)),
        }
    }
}

fn denied(
    plan: Plan,
    network: &Network,
    asked: &[c_long],
) -> Result<BpfProgram, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = calls::denied()
        .map(|(call, _)| call)
        .chain(asked.iter().copied())
        .map(|call| (call, Vec::new()))
        .collect();
    if !plan.kills_all() {
        // Then a program is killed with its process group, which nothing may leave.
        rules.extend([(libc::SYS_setsid, Vec::new()), (libc::SYS_setpgid, Vec::new())]);
    }
    for ((call, _), argument) in OF_ANOTHER_PROCESS {
        rules.insert(*call, vec![rule([condition(*argument, Ne, 0)?])?]);
    }
    for ((call, _), process) in BY_KIND {
        rules.entry(*call).or_default().push(rule([condition(0, Ne, *process)?])?);
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
