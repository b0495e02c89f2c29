//! The calls that a program is denied, by number and name. syscalls(2).

use nix::libc::{self, c_int, c_long};

/// The last call that the list was made with: mseal(2), Linux 6.10.
pub(super) const LAST_KNOWN: c_long = libc::SYS_mseal;

/// A call and its name.
pub(super) type Call = (c_long, &'static str);

macro_rules! calls {
    ($($call:ident),* $(,)?) => { &[$((libc::$call, stringify!($call))),*] };
}

/// Denied whatever their arguments.
const DENIED: &[Call] = calls![
    // Into other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_process_mrelease,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_move_pages,
    SYS_migrate_pages,
    // Other namespaces, other roots, mounts.
    SYS_unshare,
    SYS_setns,
    SYS_chroot,
    SYS_pivot_root,
    SYS_mount,
    SYS_umount2,
    SYS_mount_setattr,
    SYS_move_mount,
    SYS_open_tree,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_name_to_handle_at,
    SYS_open_by_handle_at,
    SYS_quotactl,
    SYS_quotactl_fd,
    SYS_swapon,
    SYS_swapoff,
    // Large parts of the kernel that a scanner has no use for, and most ways into it went through.
    SYS_bpf,
    SYS_perf_event_open,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_fanotify_init,
    // Tells what others do with files, whatever Landlock says of these.
    SYS_inotify_init1,
    SYS_memfd_secret,
    SYS_vmsplice,
    // The machine's own.
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_acct,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_clock_adjtime,
    SYS_adjtimex,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
];

/// The same, of calls that `libc` does not name yet. From 424 on they have the same number everywhere.
const DENIED_NEW: &[Call] =
    &[(457, "SYS_statmount"), (458, "SYS_listmount"), (460, "SYS_lsm_set_self_attr")];

/// The same, of calls that other architectures never had, or that `libc` names on this one alone.
#[cfg(target_arch = "x86_64")]
const DENIED_OLD: &[Call] = calls![
    SYS_inotify_init,
    SYS_iopl,
    SYS_ioperm,
    SYS_kexec_file_load,
    SYS_modify_ldt,
    SYS_uselib,
    SYS_ustat,
    SYS_sysfs,
    SYS__sysctl,
];
#[cfg(not(target_arch = "x86_64"))]
const DENIED_OLD: &[Call] = &[(294, "SYS_kexec_file_load")];

/// Denied where a program is killed with its process group.
pub(super) const LEAVING_THE_GROUP: &[Call] = calls![SYS_setsid, SYS_setpgid];

/// Denied without namespaces: what these make outlives its process, up to all of the machine's memory, and others of its user
/// have theirs there. `sysvipc(7)`, `mq_overview(7)`.
pub(super) const SHARED: &[Call] = calls![
    SYS_shmget,
    SYS_shmat,
    SYS_shmctl,
    SYS_msgget,
    SYS_msgsnd,
    SYS_msgrcv,
    SYS_msgctl,
    SYS_semget,
    SYS_semop,
    SYS_semtimedop,
    SYS_semctl,
    SYS_mq_open,
    SYS_mq_unlink,
];

/// Denied without namespaces to the server's own user: Landlock has no right for modes, so a program could shut the server out
/// of its own directory, or open its key to everybody. What is open already can still be changed: tools need that for what
/// they write. The last is fchmodat2(2), Linux 6.6. inode(7), acl(5).
pub(super) const MODES: &[Call] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "SYS_chmod"),
    (libc::SYS_fchmodat, "SYS_fchmodat"),
    (libc::SYS_setxattr, "SYS_setxattr"),
    (libc::SYS_lsetxattr, "SYS_lsetxattr"),
    (452, "SYS_fchmodat2"),
];

/// Of calls that send, the argument with their flags.
pub(super) const SENDING: &[(Call, u8)] = &[
    ((libc::SYS_sendto, "SYS_sendto"), 3),
    ((libc::SYS_sendmsg, "SYS_sendmsg"), 2),
    ((libc::SYS_sendmmsg, "SYS_sendmmsg"), 3),
];

/// What takes a kind of target before its number: denied for all but this kind, which is a process.
pub(super) const BY_KIND: &[(Call, u64)] = &[
    ((libc::SYS_setpriority, "SYS_setpriority"), 0),
    ((libc::SYS_ioprio_set, "SYS_ioprio_set"), 1),
];

/// Of a process that is named by its number, 0 being the caller: denied for any other.
pub(super) const OF_ANOTHER_PROCESS: &[(Call, u8)] = &[
    ((libc::SYS_prlimit64, "SYS_prlimit64"), 0),
    ((libc::SYS_setpriority, "SYS_setpriority"), 1),
    ((libc::SYS_ioprio_set, "SYS_ioprio_set"), 1),
    ((libc::SYS_sched_setaffinity, "SYS_sched_setaffinity"), 0),
    ((libc::SYS_sched_setparam, "SYS_sched_setparam"), 0),
    ((libc::SYS_sched_setscheduler, "SYS_sched_setscheduler"), 0),
    ((libc::SYS_sched_setattr, "SYS_sched_setattr"), 0),
];

/// Flags of clone(2) that make namespaces.
pub(super) const NEW_NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// What puts bytes into a terminal's input, as if typed there. `ioctl_tty(2)`.
pub(super) const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// All that are denied whatever their arguments.
pub(super) fn denied() -> impl Iterator<Item = Call> {
    DENIED.iter().chain(DENIED_NEW).chain(DENIED_OLD).copied()
}

/// The name of a call that is denied, with its arguments or without regard to them.
pub(super) fn name(number: c_long) -> Option<&'static str> {
    const WITH_ARGUMENTS: &[Call] =
        calls![SYS_clone, SYS_ioctl, SYS_listen, SYS_personality, SYS_socket, SYS_socketpair,];
    let by_plan = [LEAVING_THE_GROUP, SHARED, MODES].into_iter().flatten().copied();
    let sending = SENDING.iter().map(|(call, _)| *call);
    let by_process = OF_ANOTHER_PROCESS.iter().map(|(call, _)| *call);
    let by_kind = BY_KIND.iter().map(|(call, _)| *call);
    denied()
        .chain(WITH_ARGUMENTS.iter().copied())
        .chain(by_plan)
        .chain(sending)
        .chain(by_process)
        .chain(by_kind)
        .find(|(call, _)| *call == number)
        .and_then(|(_, name)| name.strip_prefix("SYS_"))
}
