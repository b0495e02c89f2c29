//! Restricted environments in which tests are rerun.

use std::ffi::CString;
use std::fs;

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, geteuid};

use crate::calls::call6;

/// Executes a command in a restricted environment.
pub(crate) fn exec_within(environment: &str, command: &[&str]) -> ! {
    match environment {
        "unchanged" => {}
        "docker" => {
            keep_docker_capabilities();
            apply_docker_seccomp_profile();
        }
        "read-only" => {
            let is_root = geteuid().is_root();
            let mut flags = CloneFlags::CLONE_NEWNS;
            if !is_root {
                flags |= CloneFlags::CLONE_NEWUSER;
            }
            let (uid, gid) = (geteuid(), nix::unistd::getegid());
            unshare(flags).unwrap();
            if !is_root {
                map_ids(uid, gid);
            }
            let whole = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            mount("none", "/", "", whole, "");
            let writable = std::env::temp_dir();
            // `struct mount_attr`: attributes to set and to clear. Makes all mounts but /proc read-only, as in
            // containers.
            for (path, attributes) in [(c"/", [1_u64, 0, 0, 0]), (c"/proc", [0, 1, 0, 0])] {
                const RECURSIVE: i64 = 0x8000;
                let attributes = attributes.as_ptr() as i64;
                let arguments = [-100, path.as_ptr() as i64, RECURSIVE, attributes, 32, 0];
                call6(libc::SYS_mount_setattr, arguments).unwrap();
            }
            mount(
                "none",
                &writable.to_string_lossy(),
                "tmpfs",
                nix::mount::MsFlags::empty(),
                "mode=1777",
            );
        }
        "no-user-namespaces" => {
            let (uid, gid) = (geteuid(), nix::unistd::getegid());
            unshare(CloneFlags::CLONE_NEWUSER).unwrap();
            map_ids(uid, gid);
            // Applies to the new namespace only.
            fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
        }
        other => panic!("unknown environment: {other:?}"),
    }
    let command: Vec<_> = command.iter().map(|word| CString::new(*word).unwrap()).collect();
    let program = command.first().expect("a command");
    panic!("{:?}", nix::unistd::execv(program, &command));
}

fn map_ids(uid: Uid, gid: Gid) {
    fs::write("/proc/self/setgroups", "deny").unwrap();
    fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")).unwrap();
    fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")).unwrap();
}

fn mount(source: &str, target: &str, kind: &str, flags: nix::mount::MsFlags, options: &str) {
    nix::mount::mount(Some(source), target, Some(kind), flags, Some(options)).unwrap();
}

/// Keeps only the capabilities that Docker grants to root by default.
fn keep_docker_capabilities() {
    use caps::{CapSet, Capability, CapsHashSet};
    let kept: CapsHashSet = [
        Capability::CAP_AUDIT_WRITE,
        Capability::CAP_CHOWN,
        Capability::CAP_DAC_OVERRIDE,
        Capability::CAP_FOWNER,
        Capability::CAP_FSETID,
        Capability::CAP_KILL,
        Capability::CAP_MKNOD,
        Capability::CAP_NET_BIND_SERVICE,
        Capability::CAP_NET_RAW,
        Capability::CAP_SETFCAP,
        Capability::CAP_SETGID,
        Capability::CAP_SETPCAP,
        Capability::CAP_SETUID,
        Capability::CAP_SYS_CHROOT,
    ]
    .into();
    if geteuid().is_root() {
        for dropped in caps::all().difference(&kept) {
            caps::drop(None, CapSet::Bounding, *dropped).unwrap();
        }
        for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
            let current = caps::read(None, set).unwrap();
            let remaining = current.intersection(&kept).copied().collect();
            caps::set(None, set, &remaining).unwrap();
        }
    }
}

/// Denies the calls that Docker's default profile denies without additional capabilities.
fn apply_docker_seccomp_profile() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    const CALLS: &[c_long] = &[
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_mount_setattr,
        libc::SYS_fsopen,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
    ];
    let rules = CALLS.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(Errno::EPERM as u32),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}
