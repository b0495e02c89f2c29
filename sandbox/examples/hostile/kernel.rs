//! Attacks on the kernel: system calls that the filter denies.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::process::exit;

use nix::errno::Errno;
use nix::libc;

use crate::calls::{call, call6, raw, succeeds_with};
use crate::{Attack, number};

pub(crate) fn attack_kernel(words: &[&str]) -> Attack {
    let text = |text: &str| CString::new(text).unwrap().into_raw() as i64;
    let zeroes = Box::leak(Box::new([0_u64; 32])).as_mut_ptr() as i64;
    match words {
        ["unshare"] => call(libc::SYS_unshare, [i64::from(libc::CLONE_NEWUSER), 0, 0]),
        ["setns"] => {
            let own = File::open("/proc/self/ns/user").map_err(|_| Errno::ENOENT)?;
            call(libc::SYS_setns, [i64::from(own.as_raw_fd()), 0, 0])
        }
        ["clone"] => {
            let flags = i64::from(libc::CLONE_NEWUSER | libc::SIGCHLD);
            match raw(libc::SYS_clone, [flags, 0, 0, 0, 0, 0])? {
                0 => exit(0),
                _ => Ok(()),
            }
        }
        // The size is invalid: EINVAL means that the call was permitted.
        ["clone3"] => succeeds_with(call(libc::SYS_clone3, [zeroes, 1, 0]), Errno::EINVAL),
        ["mount"] => call6(libc::SYS_mount, [text("none"), text("/tmp"), text("tmpfs"), 0, 0, 0]),
        ["umount"] => call(libc::SYS_umount2, [text("/usr"), 2, 0]),
        ["pivot_root"] => call(libc::SYS_pivot_root, [text("."), text("."), 0]),
        ["chroot"] => call(libc::SYS_chroot, [text("."), 0, 0]),
        ["fsopen"] => call(libc::SYS_fsopen, [text("tmpfs"), 0, 0]),
        ["keyctl"] => call(libc::SYS_keyctl, [0, -3, 1]),
        ["add_key"] => call6(libc::SYS_add_key, [text("user"), text("mcs"), text("x"), 1, -1, 0]),
        ["bpf"] => call(libc::SYS_bpf, [0, zeroes, 48]),
        ["perf_event_open"] => call6(libc::SYS_perf_event_open, [zeroes, 0, -1, -1, 0, 0]),
        ["userfaultfd"] => call(libc::SYS_userfaultfd, [1, 0, 0]),
        ["io_uring_setup"] => call(libc::SYS_io_uring_setup, [1, zeroes, 0]),
        ["x32"] => call(0x4000_0000 + libc::SYS_getpid, [0; 3]),
        ["unknown"] => call(9999, [0; 3]),
        ["personality"] => call(libc::SYS_personality, [0x0040_0000, 0, 0]),
        // Descriptor 0 is no terminal: ENOTTY means that the filter permitted the call.
        ["tiocsti"] => succeeds_with(
            call(libc::SYS_ioctl, [0, libc::TIOCSTI.try_into().unwrap(), text("x")]),
            Errno::ENOTTY,
        ),
        ["mknod"] => {
            let mode = i64::from(libc::S_IFCHR | 0o666);
            call6(libc::SYS_mknodat, [i64::from(libc::AT_FDCWD), text("zero"), mode, 0x105, 0, 0])
        }
        ["shmat", id] => call(libc::SYS_shmat, [number(id), 0, 0]),
        ["raise-limits"] => {
            let more = [u64::MAX, u64::MAX];
            call6(libc::SYS_prlimit64, [0, 1, more.as_ptr() as i64, 0, 0, 0])
        }
        other => panic!("unknown attack: {other:?}"),
    }
}

/// The 32-bit system call entry, where getpid has number 20.
pub(crate) fn int80() -> Attack {
    #[cfg(target_arch = "x86_64")]
    {
        let result: i64;
        // SAFETY: getpid reads and writes no memory.
        unsafe {
            std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
        }
        if result > 0 { Ok(()) } else { Err(Errno::ENOSYS) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    Err(Errno::ENOSYS)
}
