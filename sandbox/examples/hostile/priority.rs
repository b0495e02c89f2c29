//! A program whose processes use the processors until the server demotes them.

use std::fs::File;
use std::io::Write as _;
use std::process::exit;

use nix::errno::Errno;
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use crate::calls::raw;

/// Policy of sched(7) with the lowest priority.
const SCHED_IDLE: i64 = 5;

/// Spins in three threads of two processes until each of them has the policy `SCHED_IDLE`, then tries to leave that
/// policy. Panics unless a new process has inherited the policy and cannot leave it.
pub(crate) fn await_demotion(fifo: &str) {
    let mut fifo = File::options().write(true).open(fifo).unwrap();
    let child = fork_child(spin_until_idle);
    let thread = std::thread::spawn(spin_until_idle);
    writeln!(fifo, "{}", policy()).unwrap();
    spin_until_idle();
    thread.join().unwrap();
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    let late = fork_child(|| {
        assert_eq!(policy(), SCHED_IDLE);
        let normal = 0_i32;
        let parameters = (&raw const normal) as i64;
        let left = raw(libc::SYS_sched_setscheduler, [0, 0, parameters, 0, 0, 0]);
        assert_eq!(left, Err(Errno::EPERM));
    });
    assert_eq!(waitpid(late, None), Ok(WaitStatus::Exited(late, 0)));
}

fn spin_until_idle() {
    while policy() != SCHED_IDLE {
        std::hint::spin_loop();
    }
}

/// Returns the policy of the calling thread.
fn policy() -> i64 {
    raw(libc::SYS_sched_getscheduler, [0; 6]).unwrap()
}

fn fork_child(work: impl FnOnce()) -> nix::unistd::Pid {
    // SAFETY: there is one thread, or the child runs code that needs no lock.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            work();
            exit(0);
        }
    }
}
