//! The system call filter. It is a deny-list: a scan script may be anything from `sh` to a virus scanner, whose calls
//! cannot be enumerated. The list contains calls that such programs do not need or that reach beyond the job; they fail
//! with `EPERM`. Calls of another architecture kill the process, because they have different numbers. Numbers above the
//! highest known one, including those of x32, fail with `ENOSYS`. clone3(2) also fails with `ENOSYS`, because a filter
//! cannot read its flags, which are in memory. C libraries then fall back to clone(2).
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
    self, ARGUMENT_VALUE, CHANGE_MODE, EXCLUSIVE_LOCK, LAST_KNOWN, LEAVE_PROCESS_GROUP,
    NEW_NAMESPACES, OTHER_PROCESS, PIDFD_REQUESTS, SEND_FLAGS, SHARED_IPC, TARGET_KIND,
    TERMINAL_INPUT,
};
use super::monitor::monitored_calls;
use crate::error::{Refusal, Step};
use crate::layers::{LANDLOCK_UNIX_SOCKETS, Plan};
use crate::policy::NetworkAccess;
use crate::sys;
use crate::view::View;

/// `SOCK_TYPE_MASK`: the other bits of the argument are flags.
const SOCKET_TYPE_MASK: u64 = 0xf;

/// Flag of `linux/socket.h` with which sending connects a TCP socket.
const MSG_FASTOPEN: u64 = 0x2000_0000;

/// `EPERM`.
const DENIED: u32 = libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32;
/// `ENOSYS`.
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32;

/// A compiled filter.
pub(super) struct Filter(BpfProgram);

impl Filter {
    /// Compiles the filter. `servers_own`: programs run as the server's user. If `monitored`, the filter also
    /// lists the calls that the monitor records.
    pub(super) fn new(
        plan: Plan,
        view: &View,
        servers_own: bool,
        monitored: bool,
    ) -> Result<Self, Refusal> {
        let forwarded: Vec<_> =
            monitored.then(|| monitored_calls(plan)).into_iter().flatten().collect();
        let decisions = decisions(plan, view, servers_own, &forwarded).ok();
        let program = decisions.and_then(|decisions| bpf::compile(decisions, LAST_KNOWN, UNKNOWN));
        program.map(Self).ok_or_else(|| Refusal::at(Step::Seccomp)(Errno::EINVAL))
    }

    /// Installs the filter permanently for this process and its descendants. Requires `no_new_privs`.
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
        Self::verify_installed()
    }

    /// Installs the filter with a listener that decides about denied calls. Such calls block until the listener is
    /// used. Requires `no_new_privs`.
    pub(super) fn apply_monitored(&self) -> Result<OwnedFd, Refusal> {
        let mut monitored = self.0.clone();
        let denials = monitored.iter_mut().filter(|instruction| bpf::returns(instruction, DENIED));
        denials.for_each(|instruction| instruction.k = libc::SECCOMP_RET_USER_NOTIF);
        sys::install_notifying_filter(&monitored).map_err(Refusal::at(Step::Seccomp))
    }

    fn verify_installed() -> Result<(), Refusal> {
        // unshare(2) without flags succeeds unless the filter denies it.
        match unshare(CloneFlags::empty()) {
            Err(Errno::EPERM) => Ok(()),
            _ => Err(Refusal::at(Step::Seccomp)(Errno::ENOTRECOVERABLE)),
        }
    }
}

fn decisions(
    plan: Plan,
    view: &View,
    servers_own: bool,
    forwarded: &[c_long],
) -> Result<BTreeMap<c_long, Decision>, seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let conditional = [
        // Descendants are killed by process group, so they must not leave the group.
        (!plan.kills_all(), LEAVE_PROCESS_GROUP),
        (!plan.bounds_shared_ipc(), SHARED_IPC),
        (!plan.namespaces && servers_own, CHANGE_MODE),
    ];
    let conditional =
        conditional.into_iter().filter(|(denied, _)| *denied).flat_map(|(_, calls)| calls);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = calls::denied()
        .chain(conditional.copied())
        .map(|(call, _)| call)
        .chain(forwarded.iter().copied())
        .map(|call| (call, Vec::new()))
        .collect();
    for ((call, _), argument) in OTHER_PROCESS {
        rules.insert(*call, vec![rule([condition(*argument, Ne, 0)?])?]);
    }
    for ((call, _), process) in TARGET_KIND {
        rules.entry(*call).or_default().push(rule([condition(0, Ne, *process)?])?);
    }
    for namespace in bits(NEW_NAMESPACES) {
        let flags = condition(0, MaskedEq(namespace), namespace)?;
        rules.entry(libc::SYS_clone).or_default().push(rule([flags])?);
    }
    for request in TERMINAL_INPUT {
        rules.entry(libc::SYS_ioctl).or_default().push(rule([condition(1, Eq, request)?])?);
    }
    for ((call, _), argument, value) in ARGUMENT_VALUE {
        rules.entry(*call).or_default().push(rule([condition(*argument, Eq, *value)?])?);
    }
    let exclusive = condition(1, MaskedEq(EXCLUSIVE_LOCK), EXCLUSIVE_LOCK)?;
    rules.entry(libc::SYS_flock).or_default().push(rule([exclusive])?);
    let pidfd_request = condition(1, MaskedEq(0xff00), PIDFD_REQUESTS)?;
    rules.entry(libc::SYS_ioctl).or_default().push(rule([pidfd_request])?);
    // Allows querying the personality and setting the default one.
    let changes = [condition(0, Ne, 0)?, condition(0, Ne, 0xffff_ffff)?];
    rules.insert(libc::SYS_personality, vec![rule(changes)?]);
    add_socket_rules(plan, view, &mut rules)?;
    let decision = |rules: Vec<_>| {
        if rules.is_empty() { Decision::Always(DENIED) } else { Decision::Where(rules, DENIED) }
    };
    let mut decisions: BTreeMap<_, _> =
        rules.into_iter().map(|(call, rules)| (call, decision(rules))).collect();
    decisions.insert(libc::SYS_clone3, Decision::Always(UNKNOWN));
    Ok(decisions)
}

/// Adds rules for socket families and types, and for operations on sockets that Landlock does not cover.
fn add_socket_rules(
    plan: Plan,
    view: &View,
    rules: &mut BTreeMap<c_long, Vec<SeccompRule>>,
) -> Result<(), seccompiler::Error> {
    use SeccompCmpOp::{MaskedEq, Ne};
    let mut families = Vec::new();
    // The minimal root or Landlock hides path-based unix sockets. If neither does and no socket is configured, unix
    // sockets are denied: through a socket of its user, such as a session's D-Bus, a program could act outside the job.
    if plan.namespaces
        || plan.landlock >= LANDLOCK_UNIX_SOCKETS
        || !view.paths.unix_sockets.is_empty()
    {
        families.push(libc::AF_UNIX);
    } else {
        // A datagram socket of a pair can send to any path. SOCK_DGRAM and SOCK_RAW have this bit, other types do not.
        let datagram = condition(1, MaskedEq(2), 2)?;
        rules.entry(libc::SYS_socketpair).or_default().push(rule([datagram])?);
    }
    let unix = condition(0, Ne, number(libc::AF_UNIX))?;
    rules.entry(libc::SYS_socketpair).or_default().push(rule([unix])?);
    if view.network != NetworkAccess::None {
        families.extend([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
        add_internet_rules(rules)?;
    }
    let other = families.iter().map(|family| condition(0, Ne, number(*family)));
    let other = other.collect::<Result<Vec<_>, _>>()?;
    if other.is_empty() {
        rules.insert(libc::SYS_socket, Vec::new());
    } else {
        rules.entry(libc::SYS_socket).or_default().push(SeccompRule::new(other)?);
    }
    if let NetworkAccess::Ports(_) = view.network {
        // Landlock covers connect(2) and bind(2). Sending can connect too (before Linux 7.2), and listening binds to a
        // port.
        for (call, flags) in SEND_FLAGS {
            let connects = condition(*flags, MaskedEq(MSG_FASTOPEN), MSG_FASTOPEN)?;
            rules.entry(call.0).or_default().push(rule([connects])?);
        }
        rules.insert(libc::SYS_listen, Vec::new());
    }
    Ok(())
}

/// Adds rules for the types and protocols of internet and netlink sockets.
fn add_internet_rules(
    rules: &mut BTreeMap<c_long, Vec<SeccompRule>>,
) -> Result<(), seccompiler::Error> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    // Raw sockets require a capability. Netlink is limited to `NETLINK_ROUTE`, which libraries use to list addresses.
    let netlink = condition(0, Eq, number(libc::AF_NETLINK))?;
    let other = condition(2, Ne, number(libc::NETLINK_ROUTE))?;
    rules.entry(libc::SYS_socket).or_default().push(rule([netlink, other])?);
    // Allows TCP and UDP only: MPTCP connects to TCP servers, and Landlock does not restrict it as TCP.
    for family in [libc::AF_INET, libc::AF_INET6] {
        let family = || condition(0, Eq, number(family));
        for (kind, protocol) in
            [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]
        {
            let kind = condition(1, MaskedEq(SOCKET_TYPE_MASK), number(kind))?;
            let (unnamed, named) = (condition(2, Ne, 0)?, condition(2, Ne, number(protocol))?);
            let other = rule([family()?, kind, unnamed, named])?;
            rules.entry(libc::SYS_socket).or_default().push(other);
        }
        // All other types: 3, 4 to 7, and 8 to 15.
        for bits in [3, 4, 8] {
            let kind = condition(1, MaskedEq(bits), bits)?;
            rules.entry(libc::SYS_socket).or_default().push(rule([family()?, kind])?);
        }
    }
    Ok(())
}

fn number(number: c_int) -> u64 {
    u64::from(number.unsigned_abs())
}

fn rule<const N: usize>(
    conditions: [SeccompCondition; N],
) -> Result<SeccompRule, seccompiler::Error> {
    Ok(SeccompRule::new(conditions.into())?)
}

/// Compares the low 32 bits of an argument: the kernel ignores the others of an `int`.
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
mod tests;
