use std::collections::BTreeSet;

use seccompiler::sock_filter;

use super::*;
use crate::layers::Controllers;
use crate::policy::Paths;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const DENY: u32 = DENIED;
const NONE: u32 = UNKNOWN;
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Interprets the BPF instructions that the filters use.
fn evaluate(filter: &BpfProgram, architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
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
            _ => panic!("unknown instruction: {code:#x}"),
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
        own_host_name: false,
        cgroup: None,
    }
}

fn decide(filter: &Filter, call: c_long, arguments: [u64; 6]) -> u32 {
    evaluate(&filter.0, NATIVE, u32::try_from(call).unwrap(), arguments)
}

fn view(network: &NetworkAccess) -> View {
    View { network: network.clone(), paths: Paths::default() }
}

fn build_filter(plan: Plan, view: &View, servers_own: bool) -> Filter {
    Filter::new(plan, view, servers_own, false).unwrap_or_else(|_| panic!("no filter"))
}

fn filter_for(network: &NetworkAccess, namespaces: bool) -> Filter {
    build_filter(plan(namespaces), &view(network), false)
}

#[test]
fn denies_listed_calls_and_reports_unknown_numbers_as_missing() {
    let group = Controllers { memory: true, pids: true, cpu: true };
    let plan = Plan { cgroup: Some(group), ..plan(true) };
    let filter = build_filter(plan, &view(&NetworkAccess::None), false);
    let listed: BTreeSet<_> = calls::denied().map(|(call, _)| call).collect();
    for call in 0..=LAST_KNOWN {
        // Arguments that are allowed: the calling process, a regular file, a unix socket.
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
    // Numbers of x32 have bit 30 set.
    for call in [LAST_KNOWN + 1, 0x4000_0000, 0x4000_0000 + libc::SYS_getpid, 0xffff_ffff] {
        assert_eq!(decide(&filter, call, [0; 6]), NONE, "{call:#x}");
    }
    // AUDIT_ARCH_I386, AUDIT_ARCH_ARM.
    for other in [0x4000_0003, 0x4000_0028, 0] {
        let action = evaluate(&filter.0, other, 1, [0; 6]);
        assert_eq!(action, libc::SECCOMP_RET_KILL_PROCESS, "{other:#x}");
    }
}

#[test]
fn filters_calls_by_argument() {
    let filter = filter_for(&NetworkAccess::None, true);
    let decide = |call, first: u64, second: u64| decide(&filter, call, [first, second, 0, 0, 0, 0]);
    for namespace in bits(NEW_NAMESPACES) {
        assert_eq!(decide(libc::SYS_clone, namespace | 0x11, 0), DENY, "{namespace:#x}");
    }
    assert_eq!(decide(libc::SYS_clone, (libc::CLONE_VM | libc::CLONE_THREAD) as u64, 0), ALLOW);
    assert_eq!(decide(libc::SYS_ioctl, 0, libc::TIOCSTI), DENY);
    // The kernel evaluates the low half only.
    assert_eq!(decide(libc::SYS_ioctl, 0, libc::TIOCSTI | 1 << 32), DENY);
    assert_eq!(decide(libc::SYS_ioctl, 0, libc::TCGETS), ALLOW);
    assert_eq!(decide(libc::SYS_prlimit64, 1, 0), DENY);
    assert_eq!(decide(libc::SYS_sched_setaffinity, 4711, 0), DENY);
    assert_eq!(decide(libc::SYS_setpriority, 0, 4711), DENY);
    // PRIO_USER: all processes of the server's uid.
    assert_eq!(decide(libc::SYS_setpriority, 2, 0), DENY);
    assert_eq!(decide(libc::SYS_personality, 0xffff_ffff, 0), ALLOW);
    // ADDR_NO_RANDOMIZE.
    assert_eq!(decide(libc::SYS_personality, 0x0040_0000, 0), DENY);
}

#[test]
fn allows_socket_families_required_by_network_access() {
    let decide = |network: &NetworkAccess, family: u16, protocol: u16| {
        let arguments = [family.into(), 1, protocol.into(), 0, 0, 0];
        decide(&filter_for(network, true), libc::SYS_socket, arguments)
    };
    let ports = NetworkAccess::Ports(vec![1344]);
    for family in 0..50 {
        let unix = i32::from(family) == libc::AF_UNIX;
        let internet = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].contains(&family.into());
        let expected = |allowed| if allowed { ALLOW } else { DENY };
        assert_eq!(decide(&NetworkAccess::None, family, 0), expected(unix), "{family}");
        for network in [&ports, &NetworkAccess::Host] {
            assert_eq!(decide(network, family, 0), expected(unix || internet), "{family}");
        }
    }
    for protocol in 1..32 {
        assert_eq!(decide(&ports, 16, protocol), DENY, "{protocol}");
    }
}

#[test]
fn allows_only_tcp_and_udp_internet_sockets() {
    const NONBLOCK: u64 = libc::SOCK_NONBLOCK as u64 | libc::SOCK_CLOEXEC as u64;
    for network in [NetworkAccess::Ports(vec![1344]), NetworkAccess::Host] {
        let filter = filter_for(&network, true);
        for family in [libc::AF_INET as u64, libc::AF_INET6 as u64] {
            for kind in 0..16 {
                // 1 is ICMP, 132 SCTP, 256 SMC, 262 MPTCP.
                for protocol in [0, 1, 6, 17, 33, 132, 136, 256, 262] {
                    let allowed = matches!((kind, protocol), (1, 0 | 6) | (2, 0 | 17));
                    let arguments = [family, kind | NONBLOCK, protocol, 0, 0, 0];
                    // Type 0 does not exist; the kernel rejects it.
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
fn denies_fastopen_and_listen_with_port_list() {
    for (network, expected) in
        [(NetworkAccess::Ports(vec![1344]), DENY), (NetworkAccess::Host, ALLOW)]
    {
        let filter = filter_for(&network, true);
        for ((call, name), argument) in SEND_FLAGS {
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
fn allows_unix_sockets_only_if_isolated_or_configured() {
    let configured = View {
        paths: Paths { unix_sockets: vec!["/run/clamd.sock".into()], ..Paths::default() },
        ..view(&NetworkAccess::None)
    };
    for network in [NetworkAccess::None, NetworkAccess::Ports(vec![1344]), NetworkAccess::Host] {
        for (plan, view, expected) in [
            (plan(false), view(&network), DENY),
            (plan(false), configured.clone(), ALLOW),
            (plan(true), view(&network), ALLOW),
            (Plan { landlock: 8, ..plan(false) }, view(&network), DENY),
            (Plan { landlock: 9, ..plan(false) }, view(&network), ALLOW),
        ] {
            let filter = build_filter(plan, &view, false);
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
fn denies_shared_ipc_unless_job_has_namespace_and_memory_limit() {
    let group = |memory| Some(Controllers { memory, pids: true, cpu: true });
    for (namespaces, cgroup, expected) in [
        (true, group(true), ALLOW),
        (true, group(false), DENY),
        (true, None, DENY),
        (false, group(true), DENY),
    ] {
        let plan = Plan { cgroup, ..plan(namespaces) };
        let filter = build_filter(plan, &view(&NetworkAccess::None), false);
        for (call, _) in SHARED_IPC {
            assert_eq!(decide(&filter, *call, [0; 6]), expected, "{plan:?}");
        }
    }
}

#[test]
fn denies_effects_on_files_and_processes_of_other_jobs() {
    let filter = filter_for(&NetworkAccess::None, true);
    let decide = |call, arguments: [u64; 4]| {
        let [first, second, third, fourth] = arguments;
        decide(&filter, call, [first, second, third, fourth, 0, 0])
    };
    // F_SETLEASE, F_NOTIFY and F_SETPIPE_SZ; F_GETLEASE, F_SETLK and F_GETPIPE_SZ.
    for (denied, allowed) in [(1024, 1025), (1026, 6), (1031, 1032)] {
        assert_eq!(decide(libc::SYS_fcntl, [3, denied, 0, 0]), DENY);
        assert_eq!(decide(libc::SYS_fcntl, [3, allowed, 0, 0]), ALLOW);
    }
    // LOCK_SH, LOCK_EX and LOCK_UN, each also with LOCK_NB.
    for (operation, expected) in [(1, ALLOW), (2, DENY), (8, ALLOW)] {
        assert_eq!(decide(libc::SYS_flock, [3, operation, 0, 0]), expected);
        assert_eq!(decide(libc::SYS_flock, [3, operation | 4, 0, 0]), expected);
    }
    for advice in 0..6 {
        let expected = if advice == 4 { DENY } else { ALLOW };
        assert_eq!(decide(libc::SYS_fadvise64, [3, 0, 0, advice]), expected);
    }
    // The size of the struct is a part of the request and differs between kernels.
    for size in [64, 72, 80, 96] {
        assert_eq!(decide(libc::SYS_ioctl, [3, 0xc000_ff0b | size << 16, 0, 0]), DENY);
    }
    assert_eq!(calls::name(libc::SYS_fcntl), Some("fcntl"));
    assert_eq!(calls::name(libc::SYS_flock), Some("flock"));
}

#[test]
fn denies_mode_changes_as_servers_user_without_namespaces() {
    let view = view(&NetworkAccess::None);
    for (call, _) in CHANGE_MODE {
        for (namespaces, servers_own) in [(false, false), (true, false), (true, true)] {
            let filter = build_filter(plan(namespaces), &view, servers_own);
            assert_eq!(decide(&filter, *call, [0; 6]), ALLOW);
        }
        assert_eq!(decide(&build_filter(plan(false), &view, true), *call, [0; 6]), DENY);
    }
}

#[test]
fn denies_leaving_process_group_without_namespaces() {
    for call in [libc::SYS_setsid, libc::SYS_setpgid] {
        assert_eq!(decide(&filter_for(&NetworkAccess::None, true), call, [0; 6]), ALLOW);
        assert_eq!(decide(&filter_for(&NetworkAccess::None, false), call, [0; 6]), DENY);
    }
}
