//! Attacks by many processes, which keep what they have obtained until they are killed.

use std::fs::File;
use std::io::{PipeWriter, Read as _, Write as _};

use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{ForkResult, alarm, fork, pause, setsid};

use crate::calls::{call6, raw};

/// Limit of the harness, seconds, beneath the sandbox: no process of these attacks lives longer.
const LIFETIME: u32 = 60;

/// Number of descriptors that a process of the epoll attack needs besides epoll instances and watched files.
const OTHER_DESCRIPTORS: u64 = 8;

/// Performs an attack, writes one line with its extent to the FIFO, and waits to be killed.
pub(crate) fn flood(attack: &str, fifo: &str) -> ! {
    let mut fifo = File::options().write(true).open(fifo).unwrap();
    alarm::set(LIFETIME);
    let extent = match attack {
        "epoll" => sum_of_children(24, |result| {
            result.write_all(&register_watches(480).to_ne_bytes()).unwrap();
        }),
        "spin" => sum_of_children(400, |result| {
            // Denied where descendants are killed by their process group.
            let _ = setsid();
            result.write_all(&1_u64.to_ne_bytes()).unwrap();
            loop {
                std::hint::spin_loop();
            }
        }),
        other => panic!("unknown attack: {other:?}"),
    };
    // One write(2), because several processes write to the FIFO.
    fifo.write_all(format!("{extent}\n").as_bytes()).unwrap();
    loop {
        pause();
    }
}

/// Starts up to `count` processes that stay, and returns the sum of the numbers that they report. Ends early if fork(2)
/// fails.
fn sum_of_children(count: usize, work: impl Fn(&mut PipeWriter)) -> u64 {
    let (mut results, mut result) = std::io::pipe().unwrap();
    let mut started = 0;
    for _ in 0..count {
        // SAFETY: there is one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Parent { .. }) => started += 1,
            Ok(ForkResult::Child) => {
                alarm::set(LIFETIME);
                work(&mut result);
                loop {
                    pause();
                }
            }
            Err(_) => break,
        }
    }
    let mut sum = 0;
    for _ in 0..started {
        let mut number = [0; 8];
        results.read_exact(&mut number).unwrap();
        sum += u64::from_ne_bytes(number);
    }
    sum
}

/// Registers up to `side`² epoll watches, with as many instances as files, and returns their number. They stay until the
/// process ends.
fn register_watches(side: u64) -> u64 {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
    let side = side.min(descriptors.saturating_sub(OTHER_DESCRIPTORS) / 2);
    let files: Vec<_> = (0..side).map_while(|_| raw(libc::SYS_eventfd2, [0; 6]).ok()).collect();
    let mut watches = 0;
    for _ in 0..side {
        let Ok(epoll) = raw(libc::SYS_epoll_create1, [0; 6]) else { break };
        for file in &files {
            // EPOLL_CTL_ADD of EPOLLIN.
            let event = [1_u32, 0, 0];
            let added = call6(libc::SYS_epoll_ctl, [epoll, 1, *file, event.as_ptr() as i64, 0, 0]);
            if added.is_err() {
                return watches;
            }
            watches += 1;
        }
    }
    watches
}
