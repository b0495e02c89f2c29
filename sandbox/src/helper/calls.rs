//! System calls that programs are denied, by number and name. syscalls(2).

use nix::libc::{self, c_int, c_long};

/// Highest system call number known to this list: mseal(2), Linux 6.10.
pub(super) const LAST_KNOWN: c_long = libc::SYS_mseal;

/// Number and name of a system call.
pub(super) type Call = (c_long, &'static str);

macro_rules! calls {
    ($($call:ident),* $(,)?) => { &[$((libc::$call, stringify!($call))),*] };
}

/// Denied regardless of arguments.
const DENIED: &[Call] = calls![
    // Access to other processes.
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_process_madvise,
    SYS_process_mrelease,
    SYS_pidfd_getfd,
    SYS_kcmp,
    SYS_move_pages,
    SYS_migrate_pages,
    // Namespaces, roots and mounts.
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
    // Large kernel attack surface that scanners do not need; source of most past exploits.
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
    // Reports file accesses of other processes, regardless of Landlock.
    SYS_inotify_init1,
    SYS_memfd_secret,
    SYS_vmsplice,
    // Delay other processes by writing all of their data to disk. sync(2) cannot return an error, so its denial does
    // not affect programs.
    SYS_sync,
    SYS_syncfs,
    // Administration of the machine.
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

/// Denied regardless of arguments; not named by `libc` yet. Numbers from 424 on are equal on all architectures.
const DENIED_NEW: &[Call] =
    // The first reports which parts of a shared file are in memory: cachestat(2), Linux 6.5.
    &[
        (451, "SYS_cachestat"),
        (457, "SYS_statmount"),
        (458, "SYS_listmount"),
        (460, "SYS_lsm_set_self_attr"),
    ];

/// Denied regardless of arguments; missing on other architectures or named by `libc` on this one only.
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

/// Denied where descendants of a program are killed by process group.
pub(super) const LEAVE_PROCESS_GROUP: &[Call] = calls![SYS_setsid, SYS_setpgid];

/// Denied unless the job has its own IPC namespace and a memory limit: these objects can use all of the machine's memory
/// and, without a namespace, outlive the process and are shared with other processes of the same user. `sysvipc(7)`,
/// `mq_overview(7)`.
pub(super) const SHARED_IPC: &[Call] = calls![
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

/// Denied without namespaces if programs run as the server's user. Landlock has no right for modes, so a program could
/// make the server's directory inaccessible or its key world-readable. Modes of open files can still be changed, which
/// tools need for their output files. The last entry is fchmodat2(2), Linux 6.6. inode(7), acl(5).
pub(super) const CHANGE_MODE: &[Call] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, "SYS_chmod"),
    (libc::SYS_fchmodat, "SYS_fchmodat"),
    (libc::SYS_setxattr, "SYS_setxattr"),
    (libc::SYS_lsetxattr, "SYS_lsetxattr"),
    (452, "SYS_fchmodat2"),
];

/// Calls that send, with the index of their flags argument.
pub(super) const SEND_FLAGS: &[(Call, u8)] = &[
    ((libc::SYS_sendto, "SYS_sendto"), 3),
    ((libc::SYS_sendmsg, "SYS_sendmsg"), 2),
    ((libc::SYS_sendmmsg, "SYS_sendmmsg"), 3),
];

/// Calls whose first argument is the kind of target: denied unless the kind is this value, a process.
pub(super) const TARGET_KIND: &[(Call, u64)] = &[
    ((libc::SYS_setpriority, "SYS_setpriority"), 0),
    ((libc::SYS_ioprio_set, "SYS_ioprio_set"), 1),
];

/// Calls with a pid argument at this index: denied unless the pid is 0, the caller.
pub(super) const OTHER_PROCESS: &[(Call, u8)] = &[
    ((libc::SYS_prlimit64, "SYS_prlimit64"), 0),
    ((libc::SYS_setpriority, "SYS_setpriority"), 1),
    ((libc::SYS_ioprio_set, "SYS_ioprio_set"), 1),
    ((libc::SYS_sched_setaffinity, "SYS_sched_setaffinity"), 0),
    ((libc::SYS_sched_setparam, "SYS_sched_setparam"), 0),
    ((libc::SYS_sched_setscheduler, "SYS_sched_setscheduler"), 0),
    ((libc::SYS_sched_setattr, "SYS_sched_setattr"), 0),
];

/// Flags of clone(2) that create namespaces.
pub(super) const NEW_NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET;

/// Calls that are denied if the argument at the index has this value, or contains this flag. Files that several jobs can
/// read would otherwise let one job delay or observe the others.
pub(super) const ARGUMENT_VALUE: &[(Call, u8, u64)] = &[
    // A lease makes open(2) of the file block in other processes, for 45 s by default.
    ((libc::SYS_fcntl, "SYS_fcntl"), 1, libc::F_SETLEASE as u64),
    // Reports file accesses of other processes, like inotify(7).
    ((libc::SYS_fcntl, "SYS_fcntl"), 1, libc::F_NOTIFY as u64),
    // A pipe of default size holds 64 KiB of kernel memory, an enlarged one 1 MiB. pipe(7).
    ((libc::SYS_fcntl, "SYS_fcntl"), 1, libc::F_SETPIPE_SZ as u64),
    // Drops a shared file from memory, so that the next reader waits for the disk. `posix_fadvise(2)`.
    ((libc::SYS_fadvise64, "SYS_fadvise64"), 3, libc::POSIX_FADV_DONTNEED as u64),
];

/// Bit of flock(2) for an exclusive lock, which needs no write access to the file. Shared locks do not exclude each
/// other.
pub(super) const EXCLUSIVE_LOCK: u64 = libc::LOCK_EX as u64;

/// Magic number (second-lowest byte) of the requests of a pidfd, of which `PIDFD_GET_INFO` reports the user and control
/// group of any process. `linux/pidfd.h`.
pub(super) const PIDFD_REQUESTS: u64 = 0xff00;

/// Requests that insert bytes into a terminal's input. `ioctl_tty(2)`.
pub(super) const TERMINAL_INPUT: [u64; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Returns all calls that are denied regardless of arguments.
pub(super) fn denied() -> impl Iterator<Item = Call> {
    DENIED.iter().chain(DENIED_NEW).chain(DENIED_OLD).copied()
}

/// Returns the name of a call that is denied always or for some arguments.
pub(super) fn name(number: c_long) -> Option<&'static str> {
    const WITH_ARGUMENTS: &[Call] = calls![
        SYS_clone,
        SYS_flock,
        SYS_ioctl,
        SYS_listen,
        SYS_personality,
        SYS_socket,
        SYS_socketpair,
    ];
    let by_plan = [LEAVE_PROCESS_GROUP, SHARED_IPC, CHANGE_MODE].into_iter().flatten().copied();
    let sending = SEND_FLAGS.iter().map(|(call, _)| *call);
    let by_process = OTHER_PROCESS.iter().map(|(call, _)| *call);
    let by_value = ARGUMENT_VALUE.iter().map(|(call, ..)| *call);
    let by_kind = TARGET_KIND.iter().map(|(call, _)| *call);
    denied()
        .chain(WITH_ARGUMENTS.iter().copied())
        .chain(by_plan)
        .chain(sending)
        .chain(by_process)
        .chain(by_kind)
        .chain(by_value)
        .find(|(call, _)| *call == number)
        .and_then(|(_, name)| name.strip_prefix("SYS_"))
}
