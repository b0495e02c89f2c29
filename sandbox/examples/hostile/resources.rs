//! Attacks that use up resources or leave processes behind.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::exit;

use nix::errno::Errno;
use nix::unistd::{ForkResult, pause, setsid};

use crate::Attack;
use crate::calls::attack_result;

/// Uses far more than the limits of the tests, but too little to harm the machine.
pub(crate) fn exhaust(resource: &str) -> Attack {
    match resource {
        "processes" => {
            for _ in 0..1000 {
                // SAFETY: there is one thread, and the child only waits to be killed.
                if let ForkResult::Child = unsafe { nix::unistd::fork() }? {
                    loop {
                        pause();
                    }
                }
            }
            Ok(())
        }
        "memory" => {
            let mut all = Vec::new();
            for _ in 0..64 {
                let mut piece: Vec<u8> = Vec::new();
                piece.try_reserve_exact(16 << 20).map_err(|_| Errno::ENOMEM)?;
                while piece.len() < 16 << 20 {
                    piece.extend_from_slice(&[1; 4096]);
                }
                all.push(piece);
            }
            Ok(())
        }
        "disk" => {
            let mut file = File::create("large").unwrap();
            (0..64).try_for_each(|_| attack_result(file.write_all(&vec![1; 1 << 20])))
        }
        "disk-many-files" => (0..64).try_for_each(|index| {
            attack_result(fs::write(format!("tmp/{index}"), vec![1; 1 << 20]))
        }),
        "files" => {
            (0..70_000).try_for_each(|index| attack_result(File::create(format!("tmp/{index}"))))
        }
        "descriptors" => {
            let mut all = Vec::new();
            (0..5000)
                .try_for_each(|_| attack_result(File::open("/dev/null").map(|file| all.push(file))))
        }
        other => panic!("unknown resource: {other:?}"),
    }
}

/// Leaves processes behind that keep the FIFO open, and returns once they are detached.
pub(crate) fn leave_processes(fifo: &str, how: &str) {
    let mut fifo_end = File::options().write(true).open(fifo).unwrap();
    let (mut read_end, write_end) = std::io::pipe().unwrap();
    let fork = || {
        // SAFETY: there is one thread.
        unsafe { nix::unistd::fork() }.unwrap()
    };
    if let ForkResult::Child = fork() {
        drop(read_end);
        let _ = setsid();
        if let ForkResult::Child = fork() {
            writeln!(fifo_end, "away").unwrap();
            drop(write_end);
            match how {
                "asleep" => loop {
                    pause();
                },
                // Each process forks a successor and exits; the last one keeps the FIFO open.
                "churning" => loop {
                    if let ForkResult::Parent { .. } = fork() {
                        exit(0);
                    }
                },
                other => panic!("unknown method: {other:?}"),
            }
        }
        exit(0);
    }
    drop(write_end);
    // End-of-file arrives once the remaining process has written its line.
    read_end.read_to_end(&mut Vec::new()).unwrap();
}
