//! System calls without a safe wrapper in a dependency. This module contains all of the project's `unsafe` code, one
//! call per block. Each function is safe to call; requirements beyond types are checked or documented.

use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::panic;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sched::CloneFlags;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::sys::time::TimeVal;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::unix::AsyncFd;

mod child;
mod mapping;

pub(crate) use child::{address_space, exit_now, keep_descriptors};
pub use mapping::{SealedMapping, map_sealed};

use crate::usage::Usage;

/// Closes every descriptor except 0, 1 and 2. Must be called at process start, before any value owns a descriptor.
/// `close_range(2)`, Linux 5.9.
pub(crate) fn close_inherited() -> nix::Result<()> {
    // SAFETY: the call reads no memory; the descriptors it closes are inherited ones, which no value in this process
    // owns.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
    Errno::result(result).map(drop)
}

/// Resets every signal to its default action, because ignored signals stay ignored over execve(2). Calls
/// `rt_sigaction(2)` directly: the C library's wrapper rejects the two signals that it reserves for its threads, which
/// the server may have inherited as ignored.
pub(crate) fn reset_signals() {
    // All zero: SIG_DFL, no flags, an empty mask. As large as the kernel's struct is on any architecture, and larger.
    let default = [0_u64; 8];
    for signal in 1..=64_i32 {
        // The kernel rejects SIGKILL and SIGSTOP, whose action is always the default.
        // SAFETY: the call reads a struct within `default`, writes nothing through the null pointer, and installs no
        // handler, so no code of this process runs in a signal's context.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                // Bytes in the kernel's signal set: one bit for each of 64 signals.
                8_usize,
            )
        };
    }
}

/// Forks. The child runs `work` and exits with its result, or with 127 if it panics; no destructor of the parent's
/// values runs in the child. For single-threaded processes only. fork(2).
pub(crate) fn fork_child(work: impl FnOnce() -> c_int) -> nix::Result<Pid> {
    // SAFETY: the helper has one thread, so no lock can be held by a thread that the child lacks.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let code = panic::catch_unwind(panic::AssertUnwindSafe(work)).unwrap_or(127);
            // SAFETY: ends the process without running anything else of it.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Forks like [`fork_child`], with new namespaces for the child, in particular `CLONE_NEWPID`. clone(2).
pub(crate) fn fork_child_in(flags: CloneFlags, work: impl FnOnce() -> c_int) -> nix::Result<Pid> {
    let flags = c_long::from(flags.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM and with a null stack this is fork(2) with flags: the child goes on here, on a copy of
    // everything. The process has one thread, so no lock can be held by a thread that the child lacks.
    let result =
        unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, 0_usize, 0_usize, 0_usize) };
    let pid = Errno::result(result)?;
    if pid != 0 {
        return Ok(Pid::from_raw(c_int::try_from(pid).map_err(|_| Errno::EOVERFLOW)?));
    }
    let code = panic::catch_unwind(panic::AssertUnwindSafe(work)).unwrap_or(127);
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(code) }
}

/// Sets attributes of the topmost mount at `path` and, if `recursive`, of all mounts below it. Does not follow links.
/// `mount_setattr(2)`, Linux 5.12.
pub(crate) fn set_mount_attributes(
    path: &Path,
    attributes: u64,
    recursive: bool,
) -> nix::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let below = if recursive { libc::AT_RECURSIVE } else { 0 };
    // `struct mount_attr`: what to set, what to clear, propagation, user namespace.
    let attributes = [attributes, 0, 0, 0];
    // SAFETY: the path is a NUL-terminated string, and pointer and length are those of `attributes`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW | below,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    Errno::result(result).map(drop)
}

/// Returns the kernel's Landlock version; 0 if Landlock is missing or disabled. `landlock_create_ruleset(2)`.
pub(crate) fn landlock_abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    // SAFETY: with this flag the call takes a null pointer of length 0, reads no memory and makes no descriptor.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// Installs a filter for this thread and returns its listener, which receives the calls that the filter answers with
/// `SECCOMP_RET_USER_NOTIF`. Requires `no_new_privs`. seccomp(2), Linux 5.0.
pub(crate) fn install_notifying_filter(
    filter: &[seccompiler::sock_filter],
) -> nix::Result<OwnedFd> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| Errno::E2BIG)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` points to `len` instructions in the kernel's layout, and the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    Errno::result(result).and_then(adopt)
}

/// A system call that waits for a decision of the listener.
pub(crate) struct Notification {
    pub(crate) id: u64,
    pub(crate) pid: Pid,
    pub(crate) call: c_long,
    pub(crate) arguments: [u64; 6],
}

/// Receives the next notification; blocks until there is one. `seccomp_unotify(2)`.
pub(crate) fn receive_notification(listener: BorrowedFd<'_>) -> nix::Result<Notification> {
    let mut request = MaybeUninit::<libc::seccomp_notif>::zeroed();
    // SAFETY: the pointer is to a live, writable value of the type that the call fills, zeroed as it demands.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, request.as_mut_ptr())
    };
    Errno::result(result)?;
    // SAFETY: a struct of integers, zeroed before the call: any content is a valid value.
    let request = unsafe { request.assume_init() };
    Ok(Notification {
        id: request.id,
        pid: Pid::from_raw(request.pid.cast_signed()),
        call: c_long::from(request.data.nr),
        arguments: request.data.args,
    })
}

/// Fails the call with `denial`, or lets it continue as if there were no filter. `seccomp_unotify(2)`, Linux 5.5.
pub(crate) fn answer_notification(
    listener: BorrowedFd<'_>,
    id: u64,
    denial: Option<Errno>,
) -> nix::Result<()> {
    // SECCOMP_USER_NOTIF_FLAG_CONTINUE, with the type of `flags`.
    const CONTINUE: u32 = 1;
    let answer = libc::seccomp_notif_resp {
        id,
        val: 0,
        error: denial.map_or(0, |errno| -(errno as i32)),
        flags: if denial.is_none() { CONTINUE } else { 0 },
    };
    // SAFETY: the pointer is to a live value of the type that the call reads.
    let result = unsafe {
        libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer)
    };
    Errno::result(result).map(drop)
}

/// Returns a child that has ended, without reaping it. waitid(2); the wrapper in `nix` rejects termination by a
/// real-time signal.
pub(crate) fn ended_child() -> nix::Result<Option<Pid>> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the pointer is to a live, writable value of the type that the call fills.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, info.as_mut_ptr(), flags) };
    Errno::result(result)?;
    // SAFETY: zeroed before the call, and a zeroed `siginfo_t` is a valid one.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid(2) fills this member, or leaves it zero if no child has ended.
    let pid = unsafe { info.si_pid() };
    Ok((pid != 0).then(|| Pid::from_raw(pid)))
}

/// Reaps `pid` if it has ended. Returns its wait status, as in wait(2), and its resource usage.
pub(crate) fn wait_usage(pid: Pid) -> nix::Result<Option<(c_int, Usage)>> {
    let (reaped, status, usage) = wait4(pid, libc::WNOHANG)?;
    Ok((reaped.as_raw() != 0).then_some((status, usage)))
}

/// Waits until any child has ended and reaps it.
pub(crate) fn wait_any() -> nix::Result<(Pid, c_int, Usage)> {
    wait4(Pid::from_raw(-1), 0)
}

/// wait4(2); the wrapper in `nix` neither returns resource usage nor accepts real-time signals.
fn wait4(pid: Pid, options: c_int) -> nix::Result<(Pid, c_int, Usage)> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are to live, writable values of the types that the call fills.
    let result = unsafe { libc::wait4(pid.as_raw(), &raw mut status, options, usage.as_mut_ptr()) };
    let reaped = Errno::result(result)?;
    // SAFETY: a struct of integers, zeroed before the call: any content is a valid value.
    let usage = unsafe { usage.assume_init() };
    let usage = Usage {
        user_time: duration(usage.ru_utime),
        system_time: duration(usage.ru_stime),
        // getrusage(2): in kilobytes.
        max_rss: u64::try_from(usage.ru_maxrss).unwrap_or(0).saturating_mul(1024),
    };
    Ok((Pid::from_raw(reaped), status, usage))
}

fn duration(time: libc::timeval) -> Duration {
    let time = TimeVal::from(time);
    Duration::from_secs(u64::try_from(time.tv_sec()).unwrap_or(0))
        + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or(0))
}

/// Opens a descriptor that keeps referring to this process after its pid is reused. `pidfd_open(2)`, Linux 5.3.
pub(crate) fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: the call reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0_u32) };
    Errno::result(result).and_then(adopt)
}

/// Sends `SIGKILL` to a process or, if `group`, to the process group of that id, even if its leader has exited.
/// `pidfd_send_signal(2)`; groups require Linux 6.9, else the call fails with `EINVAL`.
pub(crate) fn pidfd_kill(pidfd: BorrowedFd<'_>, group: bool) -> nix::Result<()> {
    const PIDFD_SIGNAL_PROCESS_GROUP: u32 = 1 << 2;
    let flags = if group { PIDFD_SIGNAL_PROCESS_GROUP } else { 0 };
    // SAFETY: the siginfo pointer is null, which the call permits; it reads no other memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<libc::siginfo_t>(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

/// Increases the nice value of this process and its future children by `steps`. Requires no privilege. nice(2).
pub(crate) fn lower_priority(steps: c_int) {
    // SAFETY: the call reads and writes no memory.
    unsafe { libc::nice(steps) };
}

/// Sets the host name of this process's UTS namespace, and the same domain name. sethostname(2), setdomainname(2).
pub(crate) fn set_host_name(name: &str) -> nix::Result<()> {
    // SAFETY: pointer and length are those of `name`, which the call only reads.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    Errno::result(result)?;
    // SAFETY: as above.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    Errno::result(result).map(drop)
}

/// Gives a thread the policy `SCHED_IDLE`. Requires the effective user id of the thread's process, and no privilege.
/// Calls the kernel directly: musl's wrapper always fails. `sched_setscheduler(2)`.
pub(crate) fn set_idle_policy(thread: Pid) -> nix::Result<()> {
    let parameters = MaybeUninit::<libc::sched_param>::zeroed();
    // SAFETY: the call reads the struct of integers, zero, behind the pointer and writes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            thread.as_raw(),
            libc::SCHED_IDLE,
            parameters.as_ptr(),
        )
    };
    Errno::result(result).map(drop)
}

/// Gives a thread the nice value 19. Requires the effective user id of the thread's process, and no privilege.
/// setpriority(2).
pub(crate) fn set_lowest_nice(thread: Pid) -> nix::Result<()> {
    // SAFETY: the call reads and writes no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, thread.as_raw(), 19_i32)
    };
    Errno::result(result).map(drop)
}

/// Returns 128 bits from the kernel's random number generator. getrandom(2).
pub(crate) fn random_u128() -> nix::Result<u128> {
    let mut bytes = [0_u8; 16];
    // SAFETY: pointer and length are those of `bytes`.
    let result = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    // A request of up to 256 bytes is never cut short.
    Errno::result(result).map(|_| u128::from_ne_bytes(bytes))
}

/// Registers `fd` with the runtime's I/O driver.
pub(crate) fn async_fd(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` keeps its descriptor open, and its number, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// `SCM_MAX_FD` of unix(7). With space for the maximum, the kernel never truncates descriptors, which would leak them.
const MAX_DESCRIPTORS: usize = 253;

/// A message received from a socket.
pub(crate) struct ReceivedMessage {
    /// Number of bytes in the buffer.
    pub(crate) length: usize,
    /// Whether the message was longer than the buffer.
    pub(crate) is_truncated: bool,
    /// The attached descriptors, close-on-exec.
    pub(crate) fds: Vec<OwnedFd>,
}

/// Receives a message with its descriptors without blocking. The numbers of the descriptors do not leave this function,
/// so that each has exactly one owner. recvmsg(2), cmsg(3).
pub(crate) fn receive_message(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
) -> nix::Result<ReceivedMessage> {
    let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
    let mut slices = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
    let mut fds = Vec::new();
    // Truncated control data (ENOBUFS here) can only result from a full descriptor table.
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            // SAFETY: the kernel has made these descriptors for this message, and this iteration, which passes each of
            // them once, is the only use of their numbers.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let is_truncated = message.flags.contains(MsgFlags::MSG_TRUNC);
    Ok(ReceivedMessage { length: message.bytes, is_truncated, fds })
}

fn adopt(result: c_long) -> nix::Result<OwnedFd> {
    let fd = RawFd::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call that returned it made it for this process, and nothing else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads an extended attribute of up to 255 bytes. xattr(7), getxattr(2).
pub(crate) fn get_xattr(path: &Path, name: &str) -> nix::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    let mut value = vec![0_u8; 255];
    // SAFETY: both strings end with NUL, and the passed length is that of the buffer.
    let length = unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
    };
    let length = Errno::result(length)?;
    value.truncate(usize::try_from(length).map_err(|_| Errno::EOVERFLOW)?);
    Ok(value)
}

/// Limits the number of malloc arenas of the GNU C library to `max` for all threads; the default is eight per
/// processor. Memory freed in one arena is reused only in that arena, so each arena retains the peak usage of its
/// threads. Must be called while the process has a single thread. No effect with other C libraries. mallopt(3).
pub fn limit_malloc_arenas(max: usize) {
    #[cfg(target_env = "gnu")]
    {
        let max = c_int::try_from(max).unwrap_or(c_int::MAX);
        // SAFETY: the call reads no memory of this program; it sets a parameter that the allocator reads when a thread
        // starts. If the call fails, the default number of arenas remains.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, max) };
    }
    #[cfg(not(target_env = "gnu"))]
    let _max = max;
}

#[cfg(test)]
mod tests;
