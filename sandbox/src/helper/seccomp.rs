//! The filter of system calls: a deny-list, since a scan script may be anything from `sh` to a virus scanner, whose calls nobody
//! can list; what is on it is what such programs have no need of and what reaches beyond the job. Two programs, of which the
//! kernel takes the stricter answer:
//!
//! - `numbers`: another architecture's calls kill (they have numbers of their own, so a list of ours would not fit); numbers
//!   above the last that this list was made with do not exist (`ENOSYS`), x32's among them; clone3(2) does not exist either,
//!   since its flags lie in memory, which no filter reads. C libraries then fall back on clone(2).
//! - `denied`: the list. `EPERM`, as for somebody without the right to.
//!
//! seccomp(2), syscalls(2).

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
use super::watch::asked_about;
use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::Network;
use crate::sys;

const RETURN: u16 = code(libc::BPF_RET | libc::BPF_K);

/// Filters ready to be put in force.
pub(super) struct Filters([BpfProgram; 2]);

impl Filters {
    /// With `watched`, the list has also what a watch asks about.
    pub(super) fn new(plan: Plan, network: &Network, watched: bool) -> Result<Self, Refusal> {
        let asked: Vec<_> = watched.then(|| asked_about(plan)).into_iter().flatten().collect();
        let denied =
            denied(plan, network, &asked).map_err(|_| Refusal::at(Step::Seccomp)(Errno::EINVAL))?;
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
    const LOAD: u16 = code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS);
    const EQUAL: u16 = code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    const GREATER: u16 = code(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K);
    let statement = |code, k| sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    vec![
        statement(LOAD, 4),
        jump(EQUAL, ARCHITECTURE, 1, 0),
        statement(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        statement(LOAD, 0),
        jump(GREATER, number(LAST_KNOWN), 1, 0),
        jump(EQUAL, number(libc::SYS_clone3), 0, 1),
        statement(RETURN, libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
    ]
}

#[expect(clippy::cast_possible_truncation, reason = "operation codes are below 256")]
const fn code(operation: u32) -> u16 {
    operation as u16
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of calls are below 1000"
)]
const fn number(call: c_long) -> u32 {
    call as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const DENY: u32 = libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32;
    const NONE: u32 = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32;
    #[cfg(target_arch = "x86_64")]
    const HERE: u32 = 0xc000_003e;
    #[cfg(target_arch = "aarch64")]
    const HERE: u32 = 0xc000_00b7;

    /// What the kernel's machine does with a filter, of the instructions that ours are made of.
    fn answer(filter: &BpfProgram, architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(call.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut at, mut accumulator) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = filter[at].clone();
            at += 1;
            let class = u32::from(code) & 0x07;
            let operation = u32::from(code) & 0xf0;
            let mut branch = |taken: bool| at += usize::from(if taken { jt } else { jf });
            match (class, operation) {
                (libc::BPF_LD, _) => {
                    let offset = k as usize;
                    accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
                }
                (libc::BPF_ALU, libc::BPF_AND) => accumulator &= k,
                (libc::BPF_JMP, libc::BPF_JA) => at += k as usize,
                (libc::BPF_JMP, libc::BPF_JEQ) => branch(accumulator == k),
                (libc::BPF_JMP, libc::BPF_JGT) => branch(accumulator > k),
                (libc::BPF_JMP, libc::BPF_JGE) => branch(accumulator >= k),
                (libc::BPF_RET, _) => return k,
                _ => panic!("an instruction that is not known: {code:#x}"),
            }
        }
    }

    fn plan(namespaces: bool) -> Plan {
        Plan {
            seccomp: true,
            landlock: 0,
            namespaces,
            own_network: false,
            own_users: false,
            cgroup: None,
        }
    }

    /// The stricter answer of both, which is the smaller number for all that ours give.
    fn decide(filters: &Filters, call: c_long, arguments: [u64; 6]) -> u32 {
        let call = u32::try_from(call).unwrap();
        filters.0.iter().map(|it| answer(it, HERE, call, arguments)).min().unwrap()
    }

    fn filters(network: &Network, namespaces: bool) -> Filters {
        Filters::new(plan(namespaces), network, false).unwrap_or_else(|_| panic!("no filter"))
    }

    #[test]
    fn of_all_numbers_the_listed_ones_are_denied_and_what_is_beyond_does_not_exist() {
        let filters = filters(&Network::None, true);
        let listed: BTreeSet<_> = calls::denied().map(|(call, _)| call).collect();
        for call in 0..=LAST_KNOWN {
            // Of the calling process, an ordinary file, a unix socket.
            let arguments = if [libc::SYS_socket, libc::SYS_socketpair].contains(&call) {
                [libc::AF_UNIX as u64, 1, 0, 0, 0, 0]
            } else if call == libc::SYS_ioprio_set {
                [1, 0, 0, 0, 0, 0]
            } else {
                [0; 6]
            };
            let expected = match call {
                libc::SYS_clone3 => NONE,
                call if listed.contains(&call) => DENY,
                _ => ALLOW,
            };
            assert_eq!(decide(&filters, call, arguments), expected, "{call}");
        }
        // x32's numbers have this bit.
        for call in [LAST_KNOWN + 1, 0x4000_0000, 0x4000_0000 + libc::SYS_getpid, 0xffff_ffff] {
            assert_eq!(decide(&filters, call, [0; 6]), NONE, "{call:#x}");
        }
        for filter in &filters.0 {
            // AUDIT_ARCH_I386, AUDIT_ARCH_ARM.
            for other in [0x4000_0003, 0x4000_0028, 0] {
                let answer = answer(filter, other, 1, [0; 6]);
                assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS, "{other:#x}");
            }
        }
    }

    #[test]
    fn arguments_are_judged_where_the_call_itself_is_harmless() {
        let filters = filters(&Network::None, true);
        let decide =
            |call, first: u64, second: u64| decide(&filters, call, [first, second, 0, 0, 0, 0]);
        for namespace in bits(NEW_NAMESPACES) {
            assert_eq!(decide(libc::SYS_clone, namespace | 0x11, 0), DENY, "{namespace:#x}");
        }
        assert_eq!(decide(libc::SYS_clone, (libc::CLONE_VM | libc::CLONE_THREAD) as u64, 0), ALLOW);
        assert_eq!(decide(libc::SYS_ioctl, 0, libc::TIOCSTI), DENY);
        // The kernel looks at the low half alone.
        assert_eq!(decide(libc::SYS_ioctl, 0, libc::TIOCSTI | 1 << 32), DENY);
        assert_eq!(decide(libc::SYS_ioctl, 0, libc::TCGETS), ALLOW);
        assert_eq!(decide(libc::SYS_prlimit64, 1, 0), DENY);
        assert_eq!(decide(libc::SYS_sched_setaffinity, 4711, 0), DENY);
        assert_eq!(decide(libc::SYS_setpriority, 0, 4711), DENY);
        // PRIO_USER: all of the server's, under the server's own uid.
        assert_eq!(decide(libc::SYS_setpriority, 2, 0), DENY);
        assert_eq!(decide(libc::SYS_personality, 0xffff_ffff, 0), ALLOW);
        // ADDR_NO_RANDOMIZE.
        assert_eq!(decide(libc::SYS_personality, 0x0040_0000, 0), DENY);
    }

    #[test]
    fn sockets_are_of_the_families_that_the_network_needs() {
        let decide = |network: &Network, family: u16, protocol: u16| {
            let arguments = [family.into(), 1, protocol.into(), 0, 0, 0];
            decide(&filters(network, true), libc::SYS_socket, arguments)
        };
        let ports = Network::Ports(vec![1344]);
        for family in 0..50 {
            let unix = i32::from(family) == libc::AF_UNIX;
            let internet =
                [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].contains(&family.into());
            let expected = |allowed| if allowed { ALLOW } else { DENY };
            assert_eq!(decide(&Network::None, family, 0), expected(unix), "{family}");
            for network in [&ports, &Network::Host] {
                assert_eq!(decide(network, family, 0), expected(unix || internet), "{family}");
            }
        }
        for protocol in 1..32 {
            assert_eq!(decide(&ports, 16, protocol), DENY, "{protocol}");
        }
    }

    #[test]
    fn a_process_group_is_left_only_where_something_else_kills_all() {
        for call in [libc::SYS_setsid, libc::SYS_setpgid] {
            assert_eq!(decide(&filters(&Network::None, true), call, [0; 6]), ALLOW);
            assert_eq!(decide(&filters(&Network::None, false), call, [0; 6]), DENY);
        }
    }
}
