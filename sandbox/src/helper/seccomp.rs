//! The filter of system calls: a deny-list, since a scan script may be anything from `sh` to a virus scanner, whose calls nobody
//! can list; what is on it is what such programs have no need of and what reaches beyond the job: `EPERM`, as for somebody
//! without the right to. Another architecture's calls kill (they have numbers of their own, so a list of ours would not fit);
//! numbers above the last that this list was made with do not exist (`ENOSYS`), x32's among them; clone3(2) does not exist
//! either, since its flags lie in memory, which no filter reads. C libraries then fall back on clone(2).
//!
//! seccomp(2), syscalls(2).

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sched::{CloneFlags, unshare};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::bpf::{self, Decision};
use super::calls::{
    self, BY_KIND, LAST_KNOWN, LEAVING_THE_GROUP, MODES, NEW_NAMESPACES, OF_ANOTHER_PROCESS,
    SENDING, SHARED, TERMINAL_INPUT,
};
use super::watch::asked_about;
use crate::error::{Refusal, Step};
use crate::plan::{LANDLOCK_UNIX_SOCKETS, Plan};
use crate::policy::Network;
use crate::sys;
use crate::view::View;

/// `SOCK_TYPE_MASK`: the rest of the argument is flags.
const SOCKET_KIND: u64 = 0xf;

/// Of `linux/socket.h`: a TCP socket connects with what it sends first.
const MSG_FASTOPEN: u64 = 0x2000_0000;

/// `EPERM`.
const DENIED: u32 = libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32;
/// `ENOSYS`.
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32;

/// A filter ready to be put in force.
pub(super) struct Filter(BpfProgram);

impl Filter {
    /// For a program of a user other than the server's, or of the `servers_own`. With `watched`, the list has also what a
    /// watch asks about.
    pub(super) fn new(
        plan: Plan,
        view: &View,
        servers_own: bool,
        watched: bool,
    ) -> Result<Self, Refusal> {
        let asked: Vec<_> = watched.then(|| asked_about(plan)).into_iter().flatten().collect();
        let listed = listed(plan, view, servers_own, &asked).ok();
        let program = listed.and_then(|listed| bpf::compile(listed, LAST_KNOWN, UNKNOWN));
        program.map(Self).ok_or_else(|| Refusal::at(Step::Seccomp)(Errno::EINVAL))
    }

    /// For good, and for whatever this process executes. Wants `no_new_privs`.
    pub(super) fn apply(&self) -> Result<(), Refusal> {
        seccompiler::apply_filter(&self.0).map_err(|error| {
            let errno = match error {
                seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
                    Errno::try_from(error).unwrap_or(Errno::EINVAL)
                }
                _ => Errno::EINVAL,
            };
            Refusal::at(Step::Seccomp)(errno)
        })?;
        Self::check()
    }

    /// The same, but that whoever holds the descriptor which is returned is asked about what is denied; until that one
    /// listens, such calls wait. Wants `no_new_privs`.
    pub(super) fn apply_watched(&self) -> Result<OwnedFd, Refusal> {
        let mut watched = self.0.clone();
        let denials = watched.iter_mut().filter(|it| bpf::returns(it, DENIED));
        denials.for_each(|it| it.k = libc::SECCOMP_RET_USER_NOTIF);
        sys::listen_to_filter(&watched).map_err(Refusal::at(Step::Seccomp))
    }

    fn check() -> Result<(), Refusal> {
        // That nothing was asked for would succeed, were the filter not in force.
        match unshare(CloneFlags::empty()) {
            Err(Errno::EPERM) => Ok(()),
            _ => Err(Refusal::at(Step::Seccomp)(Errno::ENOTRECOVERABLE)),
        }
    }
}

fn listed(
    plan: Plan,
    view: &View,
    servers_own: bool,
    asked: &[c_long],
) -> Result<BTreeMap<c_long, Decision>, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let beyond = [
        // Then a program is killed with its process group, which nothing may leave.
        (!plan.kills_all(), LEAVING_THE_GROUP),
        (!plan.namespaces, SHARED),
        (!plan.namespaces && servers_own, MODES),
    ];
    let beyond = beyond.into_iter().filter(|(denied, _)| *denied).flat_map(|(_, calls)| calls);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = calls::denied()
        .chain(beyond.copied())
        .map(|(call, _)| call)
        .chain(asked.iter().copied())
        .map(|call| (call, Vec::new()))
        .collect();
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
    sockets(plan, view, &mut rules)?;
    let decision = |rules: Vec<_>| {
        if rules.is_empty() { Decision::Always(DENIED) } else { Decision::Where(rules, DENIED) }
    };
    let mut listed: BTreeMap<_, _> =
        rules.into_iter().map(|(call, rules)| (call, decision(rules))).collect();
    listed.insert(libc::SYS_clone3, Decision::Always(UNKNOWN));
    Ok(listed)
}

/// Which sockets there are, and what is done with them that Landlock does not see.
fn sockets(
    plan: Plan,
    view: &View,
    rules: &mut BTreeMap<c_long, Vec<SeccompRule>>,
) -> Result<(), seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let number = |number: c_int| u64::from(number.unsigned_abs());
    let mut families = Vec::new();
    // Those with a path are kept apart by the minimal root or by Landlock; where neither does it and none is wanted, there are
    // none: at one of its user's, a session's D-Bus for instance, a program could have others work for it.
    if plan.namespaces
        || plan.landlock >= LANDLOCK_UNIX_SOCKETS
        || !view.paths.unix_sockets.is_empty()
    {
        families.push(libc::AF_UNIX);
    } else {
        // A datagram socket of a pair can be sent from to any path. SOCK_DGRAM and SOCK_RAW have this bit, the others have not.
        let datagram = condition(1, MaskedEq(2), 2)?;
        rules.entry(libc::SYS_socketpair).or_default().push(rule([datagram])?);
    }
    let unix = condition(0, Ne, number(libc::AF_UNIX))?;
    rules.entry(libc::SYS_socketpair).or_default().push(rule([unix])?);
    if view.network != Network::None {
        families.extend([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
        // Raw sockets would take a capability; netlink, which libraries ask for addresses, is for routes alone.
        let netlink = condition(0, Eq, number(libc::AF_NETLINK))?;
        let other = condition(2, Ne, number(libc::NETLINK_ROUTE))?;
        rules.entry(libc::SYS_socket).or_default().push(rule([netlink, other])?);
        // TCP and UDP alone: of the others MPTCP connects wherever TCP does, and Landlock does not take it for TCP.
        for family in [libc::AF_INET, libc::AF_INET6] {
            let family = || condition(0, Eq, number(family));
            for (kind, protocol) in
                [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]
            {
                let kind = condition(1, MaskedEq(SOCKET_KIND), number(kind))?;
                let (unnamed, named) = (condition(2, Ne, 0)?, condition(2, Ne, number(protocol))?);
                let other = rule([family()?, kind, unnamed, named])?;
                rules.entry(libc::SYS_socket).or_default().push(other);
            }
            // The kinds but these two: 3, those from 4 on, those from 8 on.
            for bits in [3, 4, 8] {
                let kind = condition(1, MaskedEq(bits), bits)?;
                rules.entry(libc::SYS_socket).or_default().push(rule([family()?, kind])?);
            }
        }
    }
    let other = families.iter().map(|family| condition(0, Ne, number(*family)));
    let other = other.collect::<Result<Vec<_>, _>>()?;
    if other.is_empty() {
        rules.insert(libc::SYS_socket, Vec::new());
    } else {
        rules.entry(libc::SYS_socket).or_default().push(SeccompRule::new(other)?);
    }
    if let Network::Ports(_) = view.network {
        // Landlock knows connect(2) and bind(2): sending can connect as well (before Linux 7.2), and listening binds to some port.
        for (call, flags) in SENDING {
            let connects = condition(*flags, MaskedEq(MSG_FASTOPEN), MSG_FASTOPEN)?;
            rules.entry(call.0).or_default().push(rule([connects])?);
        }
        rules.insert(libc::SYS_listen, Vec::new());
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use seccompiler::sock_filter;

    use super::*;
    use crate::policy::Paths;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const DENY: u32 = DENIED;
    const NONE: u32 = UNKNOWN;
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

    fn decide(filter: &Filter, call: c_long, arguments: [u64; 6]) -> u32 {
        answer(&filter.0, HERE, u32::try_from(call).unwrap(), arguments)
    }

    fn view(network: &Network) -> View {
        View { network: network.clone(), paths: Paths::default() }
    }

    fn made(plan: Plan, view: &View, servers_own: bool) -> Filter {
        Filter::new(plan, view, servers_own, false).unwrap_or_else(|_| panic!("no filter"))
    }

    fn filter_for(network: &Network, namespaces: bool) -> Filter {
        made(plan(namespaces), &view(network), false)
    }

    #[test]
    fn of_all_numbers_the_listed_ones_are_denied_and_what_is_beyond_does_not_exist() {
        let filter = filter_for(&Network::None, true);
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
            assert_eq!(decide(&filter, call, arguments), expected, "{call}");
        }
        // x32's numbers have this bit.
        for call in [LAST_KNOWN + 1, 0x4000_0000, 0x4000_0000 + libc::SYS_getpid, 0xffff_ffff] {
            assert_eq!(decide(&filter, call, [0; 6]), NONE, "{call:#x}");
        }
        // AUDIT_ARCH_I386, AUDIT_ARCH_ARM.
        for other in [0x4000_0003, 0x4000_0028, 0] {
            let answer = answer(&filter.0, other, 1, [0; 6]);
            assert_eq!(answer, libc::SECCOMP_RET_KILL_PROCESS, "{other:#x}");
        }
    }

    #[test]
    fn arguments_are_judged_where_the_call_itself_is_harmless() {
        let filter = filter_for(&Network::None, true);
        let decide =
            |call, first: u64, second: u64| decide(&filter, call, [first, second, 0, 0, 0, 0]);
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
            decide(&filter_for(network, true), libc::SYS_socket, arguments)
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
    fn of_the_internets_protocols_there_are_tcp_and_udp() {
        const NONBLOCK: u64 = libc::SOCK_NONBLOCK as u64 | libc::SOCK_CLOEXEC as u64;
        for network in [Network::Ports(vec![1344]), Network::Host] {
            let filter = filter_for(&network, true);
            for family in [libc::AF_INET as u64, libc::AF_INET6 as u64] {
                for kind in 0..16 {
                    // 1 is ICMP, 132 SCTP, 256 SMC, 262 MPTCP.
                    for protocol in [0, 1, 6, 17, 33, 132, 136, 256, 262] {
                        let allowed = matches!((kind, protocol), (1, 0 | 6) | (2, 0 | 17));
                        let arguments = [family, kind | NONBLOCK, protocol, 0, 0, 0];
                        // There is no kind 0: the kernel says so itself.
                        if kind > 0 {
                            let expected = if allowed { ALLOW } else { DENY };
                            let found = decide(&filter, libc::SYS_socket, arguments);
                            assert_eq!(found, expected, "{family} {kind} {protocol}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_port_is_reached_by_connecting_alone() {
        for (network, expected) in [(Network::Ports(vec![1344]), DENY), (Network::Host, ALLOW)] {
            let filter = filter_for(&network, true);
            for ((call, name), argument) in SENDING {
                for flags in [0, libc::MSG_NOSIGNAL as u64] {
                    let sends = |flags| {
                        let mut arguments = [3, 0, 0, 0, 0, 0];
                        arguments[usize::from(*argument)] = flags;
                        decide(&filter, *call, arguments)
                    };
                    assert_eq!(sends(flags), ALLOW, "{name}");
                    assert_eq!(sends(flags | libc::MSG_FASTOPEN as u64), expected, "{name}");
                }
            }
            assert_eq!(decide(&filter, libc::SYS_listen, [3, 8, 0, 0, 0, 0]), expected);
        }
    }

    #[test]
    fn unix_sockets_with_paths_are_there_where_something_else_keeps_them_apart_or_one_is_wanted() {
        let wanted = View {
            paths: Paths { unix_sockets: vec!["/run/clamd.sock".into()], ..Paths::default() },
            ..view(&Network::None)
        };
        for network in [Network::None, Network::Ports(vec![1344]), Network::Host] {
            for (plan, view, expected) in [
                (plan(false), view(&network), DENY),
                (plan(false), wanted.clone(), ALLOW),
                (plan(true), view(&network), ALLOW),
                (Plan { landlock: 8, ..plan(false) }, view(&network), DENY),
                (Plan { landlock: 9, ..plan(false) }, view(&network), ALLOW),
            ] {
                let filter = made(plan, &view, false);
                for (kind, of_pair) in [(1, ALLOW), (2, expected), (3, expected), (5, ALLOW)] {
                    let arguments = [libc::AF_UNIX as u64, kind | 0o2_000_000, 0, 0, 0, 0];
                    assert_eq!(decide(&filter, libc::SYS_socket, arguments), expected);
                    let found = decide(&filter, libc::SYS_socketpair, arguments);
                    assert_eq!(found, of_pair, "{plan:?} {kind}");
                }
            }
        }
    }

    #[test]
    fn what_processes_of_a_machine_share_is_denied_where_it_is_not_the_jobs_own() {
        for (call, _) in SHARED {
            assert_eq!(decide(&filter_for(&Network::None, true), *call, [0; 6]), ALLOW);
            assert_eq!(decide(&filter_for(&Network::None, false), *call, [0; 6]), DENY);
        }
    }

    #[test]
    fn modes_are_not_changed_where_the_servers_files_are_in_reach_and_its_users_own() {
        let view = view(&Network::None);
        for (call, _) in MODES {
            for (namespaces, servers_own) in [(false, false), (true, false), (true, true)] {
                let filter = made(plan(namespaces), &view, servers_own);
                assert_eq!(decide(&filter, *call, [0; 6]), ALLOW);
            }
            assert_eq!(decide(&made(plan(false), &view, true), *call, [0; 6]), DENY);
        }
    }

    #[test]
    fn a_process_group_is_left_only_where_something_else_kills_all() {
        for call in [libc::SYS_setsid, libc::SYS_setpgid] {
            assert_eq!(decide(&filter_for(&Network::None, true), call, [0; 6]), ALLOW);
            assert_eq!(decide(&filter_for(&Network::None, false), call, [0; 6]), DENY);
        }
    }
}
