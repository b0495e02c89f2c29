//! Tests of the system calls.

use std::fs::File;
use std::os::fd::AsFd as _;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::*;

/// Reads a field of `proc_pid_stat(5)`, counted from 1, of a thread of this process.
fn stat_field(thread: Pid, field: usize) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_ascii_whitespace().nth(field - 3).unwrap().parse().unwrap()
}

#[test]
fn lowers_priority_of_one_thread() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let (end, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sender.send(nix::unistd::gettid()).unwrap();
        wait.recv().unwrap_err();
    });
    let id = receiver.recv().unwrap();
    set_idle_policy(id).unwrap();
    assert_eq!(stat_field(id, 41), libc::SCHED_IDLE);
    set_lowest_nice(id).unwrap();
    assert_eq!(stat_field(id, 19), 19);
    let own = nix::unistd::gettid();
    assert_eq!((stat_field(own, 41), stat_field(own, 19) < 19), (libc::SCHED_OTHER, true));
    drop(end);
    thread.join().unwrap();
    assert_eq!(set_idle_policy(id), Err(Errno::ESRCH));
}

#[test]
fn maps_sealed_files_only() {
    let sealed = |content: &[u8]| crate::sealed("test", content).unwrap();
    let content = b"bytes".repeat(10_000);
    let file = sealed(&content);
    let mapped = map_sealed(&file).unwrap();
    drop(file);
    assert_eq!(mapped, content);
    assert!(map_sealed(&sealed(b"")).unwrap().is_empty());
    let mapping = SealedMapping::new(&sealed(&content)).unwrap();
    assert_eq!(*mapping, content);
    drop(mapping);
    assert!(SealedMapping::new(&sealed(b"")).unwrap().is_empty());

    let path = std::env::temp_dir().join(format!("mcs-map-{}", std::process::id()));
    std::fs::write(&path, "bytes").unwrap();
    let plain = File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let (write, shrink) = (SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_SHRINK);
    // With a seal against future writes, an existing mapping can still write.
    let future = SealFlag::F_SEAL_FUTURE_WRITE | shrink | SealFlag::F_SEAL_GROW;
    let unsealed = [SealFlag::empty(), write, shrink, future].map(|seals| {
        let file = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::write(&file, b"bytes").unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        File::from(file)
    });
    for file in unsealed.iter().chain([&plain]) {
        assert_eq!(map_sealed(file).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn received_descriptors_are_open_and_owned_once() {
    let (sender, socket) = crate::channel::pair().unwrap();
    let file = crate::sealed("test", b"content").unwrap();
    let fds = [file.as_fd(), sender.as_fd(), file.as_fd()];
    crate::channel::send(sender.as_fd(), b"x", &fds).unwrap();
    let mut buffer = [0; 8];
    let received = receive_message(socket.as_fd(), &mut buffer).unwrap();
    assert_eq!((received.length, received.is_truncated), (1, false));
    let mut numbers: Vec<_> = received.fds.iter().map(OwnedFd::as_raw_fd).collect();
    numbers.extend([file.as_raw_fd(), sender.as_raw_fd(), socket.as_raw_fd()]);
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 6, "each descriptor has a number of its own");
    let [first, second, third] = <[OwnedFd; 3]>::try_from(received.fds).unwrap();
    // Closing one leaves the others open.
    drop((first, second));
    assert_eq!(map_sealed(&File::from(third)).unwrap(), b"content");
}
