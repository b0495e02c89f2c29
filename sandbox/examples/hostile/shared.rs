//! Attacks on other jobs and the machine through objects and limits that all processes share.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::calls::{attack_result, call, call6, raw};
use crate::{Attack, number};

/// Host name of a job in a UTS namespace.
const NEUTRAL: &str = "localhost";

pub(crate) fn attack_shared(words: &[&str]) -> Attack {
    let fd = |file: &File| i64::from(file.as_raw_fd());
    match words {
        ["lease"] => {
            fs::write("tmp/leased", "x").unwrap();
            let file = File::open("tmp/leased").unwrap();
            call(libc::SYS_fcntl, [fd(&file), libc::F_SETLEASE.into(), libc::F_RDLCK.into()])
        }
        ["dnotify"] => {
            let directory = File::open(".").unwrap();
            call(libc::SYS_fcntl, [fd(&directory), libc::F_NOTIFY.into(), 1])
        }
        ["flock", path] => {
            let file = File::open(path).or_else(|_| File::create(path)).unwrap();
            call(libc::SYS_flock, [fd(&file), i64::from(libc::LOCK_EX | libc::LOCK_NB), 0])
        }
        ["record-lock", path] => lock_record(path),
        ["fadvise", path] => {
            let file = File::open(path).unwrap();
            let advice = libc::POSIX_FADV_DONTNEED.into();
            call6(libc::SYS_fadvise64, [fd(&file), 0, 0, advice, 0, 0])
        }
        ["cachestat", path] => {
            let file = File::open(path).unwrap();
            let (range, found) = ([0_u64, 4096], [0_u64; 5]);
            let (range, found) = (range.as_ptr() as i64, found.as_ptr() as i64);
            call6(451, [fd(&file), range, found, 0, 0, 0])
        }
        ["sync"] => call(libc::SYS_sync, [0; 3]),
        // A file system in memory.
        ["syncfs"] => call(libc::SYS_syncfs, [fd(&File::open("/dev/null").unwrap()), 0, 0]),
        ["pidfd-info", pid] => {
            // PIDFD_GET_INFO with the first version of `struct pidfd_info`, 64 bytes.
            let pidfd = raw(libc::SYS_pidfd_open, [number(pid), 0, 0, 0, 0, 0])?;
            let mut info = [0_u64; 8];
            call(libc::SYS_ioctl, [pidfd, 0xc040_ff0b, info.as_mut_ptr() as i64])
        }
        ["host-name"] => {
            let name = nix::sys::utsname::uname()?;
            let hidden = name.nodename() == NEUTRAL && name.domainname() == NEUTRAL;
            if hidden { Err(Errno::ENOENT) } else { Ok(()) }
        }
        _ => use_up(words),
    }
}

/// Locks a file with fcntl(2).
fn lock_record(path: &str) -> Attack {
    let file = File::create(path).unwrap();
    let lock = libc::flock {
        l_type: libc::F_WRLCK.try_into().unwrap(),
        l_whence: libc::SEEK_SET.try_into().unwrap(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_SETLK(&lock)).map(drop)
}

/// Attacks on limits that processes share.
fn use_up(words: &[&str]) -> Attack {
    match words {
        ["signals"] => queue_signals(),
        ["message-queue"] => {
            let name = CString::new(format!("mcs-hostile-{}", std::process::id())).unwrap();
            let flags = i64::from(libc::O_CREAT | libc::O_RDWR);
            raw(libc::SYS_mq_open, [name.as_ptr() as i64, flags, 0o600, 0, 0, 0])?;
            call(libc::SYS_mq_unlink, [name.as_ptr() as i64, 0, 0])
        }
        ["locked-memory"] => {
            let memory = vec![1_u8; 1 << 20];
            call(libc::SYS_mlock, [memory.as_ptr() as i64, 1 << 20, 0])
        }
        ["segment"] => {
            let segment = raw(libc::SYS_shmget, [0, 4096, 0o1600, 0, 0, 0])?;
            call(libc::SYS_shmctl, [segment, i64::from(libc::IPC_RMID), 0])
        }
        ["pipe"] => {
            let (read_end, _write_end) = std::io::pipe().unwrap();
            let end = i64::from(read_end.as_raw_fd());
            call(libc::SYS_fcntl, [end, libc::F_SETPIPE_SZ.into(), 1 << 20])
        }
        ["socket-buffer"] => fill_socket_pair(),
        ["epoll"] => watch_with_epoll(),
        other => panic!("unknown attack: {other:?}"),
    }
}

/// Queues signals that are never delivered.
fn queue_signals() -> Attack {
    // A real-time signal: each instance is queued. The mask and the info are structs of the kernel.
    const SIGNAL: i64 = 40;
    let mask = [1_u64 << (SIGNAL - 1)];
    call6(libc::SYS_rt_sigprocmask, [0, mask.as_ptr() as i64, 0, 8, 0, 0])?;
    let mut info = [0_i32; 32];
    // SI_QUEUE.
    info[2] = -1;
    let own = i64::from(std::process::id());
    (0..1000).try_for_each(|_| call(libc::SYS_rt_sigqueueinfo, [own, SIGNAL, info.as_ptr() as i64]))
}

fn fill_socket_pair() -> Attack {
    let (mut writer, _reader) = UnixStream::pair().map_err(|_| Errno::EPERM)?;
    writer.set_nonblocking(true).unwrap();
    let mut held = 0;
    loop {
        match writer.write(&[0; 4096]) {
            Ok(written) => held += written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return attack_result::<()>(Err(error)),
        }
    }
    if held >= 100 << 10 { Ok(()) } else { Err(Errno::ENOBUFS) }
}

/// Watches pipes with several epoll instances. Succeeds if that is possible, and panics if the number of watches exceeds
/// the documented bound of (descriptors / 2)².
fn watch_with_epoll() -> Attack {
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?.0;
    let mut pipes = Vec::new();
    // The harness's own limit: at most 64 × 64 watches. A pipe has two descriptors, an instance one.
    let side = usize::try_from(limit / 4).unwrap().saturating_sub(4).min(64);
    while let (Ok(pipe), true) = (std::io::pipe(), pipes.len() < side) {
        pipes.push(pipe);
    }
    let mut watches = 0;
    for _ in 0..side {
        let epoll = raw(libc::SYS_epoll_create1, [0; 6])?;
        for (read_end, _) in &pipes {
            let event = [1_u32, 0, 0];
            let end = i64::from(read_end.as_raw_fd());
            call6(libc::SYS_epoll_ctl, [epoll, 1, end, event.as_ptr() as i64, 0, 0])?;
            watches += 1;
        }
    }
    assert!(watches <= (limit / 2).pow(2), "{watches} watches with {limit} descriptors");
    if watches > 0 { Ok(()) } else { Err(Errno::EMFILE) }
}
