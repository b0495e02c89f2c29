//! A program controlled by an attacker, for the tests of the sandbox. It performs one attack, named by the first
//! argument, and exits with 0 if the attack succeeded, with 10 if it was denied (and prints the error), and with
//! another code if it could not be tried.
//!
//! It refuses to run unless it is contained: `no_new_privs` is set and it is not root. The tests own all targets. It
//! also creates restricted environments in which tests are rerun (`within`) and acts as a faulty helper.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "part of the tests; a panic reports an attack that could not be tried"
)]

mod calls;
mod environments;
mod faulty_helper;
mod floods;
mod kernel;
mod network;
mod priority;
mod resident;
mod resources;
mod shared;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::process::exit;

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::unistd::{geteuid, getppid};

use calls::{attack_result, call, call6, io_result, raw};
use environments::exec_within;
use faulty_helper::act_as_helper;
use floods::flood;
use kernel::{attack_kernel, int80};
use network::attack_network;
use priority::await_demotion;
use resources::{exhaust, leave_processes};
use shared::attack_shared;

/// `Ok` means that the sandbox failed to prevent the attack.
type Attack = nix::Result<()>;

const DENIED: i32 = 10;
const NOT_CONTAINED: i32 = 99;

fn main() {
    let mut arguments = std::env::args();
    if arguments.next().is_some_and(|name| name == "mcs-sandbox-helper") {
        return act_as_helper(arguments.next().as_deref());
    }
    let arguments: Vec<String> = arguments.collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["within", environment, command @ ..] = &words[..] {
        exec_within(environment, command);
    }
    // Shared memory for another attack, created and removed outside the sandbox.
    match &words[..] {
        ["make-segment"] => {
            println!("{}", raw(libc::SYS_shmget, [0, 4096, 0o1666, 0, 0, 0]).unwrap());
            return;
        }
        ["remove-segment", id] => {
            return call(libc::SYS_shmctl, [number(id), i64::from(libc::IPC_RMID), 0]).unwrap();
        }
        _ => {}
    }
    if geteuid().is_root() || !prctl::get_no_new_privs().unwrap() {
        exit(NOT_CONTAINED);
    }
    // The second word identifies the processes of a test.
    if let ["resident", _] = &words[..] {
        resident::serve();
    }
    match attack(&words) {
        Ok(()) => exit(0),
        Err(errno) => {
            println!("{errno}");
            exit(DENIED);
        }
    }
}

fn attack(words: &[&str]) -> Attack {
    match words {
        ["read", path] => {
            attack_result(File::open(path).and_then(|mut file| file.read(&mut [0; 1])))
        }
        // One entry is the job's own; more entries are other jobs.
        ["list", path] => match io_result(fs::read_dir(path))?.count() {
            0 | 1 => Err(Errno::ENOENT),
            _ => Ok(()),
        },
        ["write", path] => attack_result(File::create_new(path)),
        ["rewrite", path] => rewrite_media(path),
        ["replace", path] => attack_result(fs::remove_file(path))
            .and_then(|()| attack_result(fs::write(path, "clean"))),
        ["append", path] => attack_result(
            File::options().append(true).open(path).and_then(|mut file| file.write_all(b"x")),
        ),
        ["lock", path] => attack_result(
            File::open(path).and_then(|file| file.try_lock().map_err(std::io::Error::from)),
        ),
        ["link", path] => attack_result(fs::hard_link(path, "link")),
        ["stat", path] => attack_result(fs::metadata(path)),
        ["chmod", path] => attack_result(fs::set_permissions(
            path,
            std::os::unix::fs::PermissionsExt::from_mode(0o640),
        )),
        ["inotify", path] => watch(path),
        ["descriptors"] => leaked_descriptor(),
        // kill(2) succeeds if it reached any process; the test checks the victim instead.
        ["kill-all"] => {
            call(libc::SYS_kill, [-1, i64::from(libc::SIGKILL), 0]).and(Err(Errno::EPERM))
        }
        ["kill-parent"] => kill_parent(),
        ["limit", what] => exhaust(what),
        ["shared", attack @ ..] => attack_shared(attack),
        ["flood", attack, fifo] => flood(attack, fifo),
        ["leave", fifo, how] => {
            leave_processes(fifo, how);
            Ok(())
        }
        ["await-demotion", fifo] => {
            await_demotion(fifo);
            Ok(())
        }
        ["int80"] => int80(),
        _ => attack_network(words)
            .or_else(|| attack_process(words))
            .unwrap_or_else(|| attack_kernel(words)),
    }
}

/// Watches a file with inotify(7).
fn watch(path: &str) -> Attack {
    let path = CString::new(path).unwrap();
    let watch = raw(libc::SYS_inotify_init1, [0; 6])?;
    call(libc::SYS_inotify_add_watch, [watch, path.as_ptr() as i64, 0x20])
}

/// Attacks on a process given by pid.
fn attack_process(words: &[&str]) -> Option<Attack> {
    let [name, pid] = words else { return None };
    let pid: i64 = pid.parse().ok()?;
    let mut zeroes = [0_u64; 16];
    let buffer = zeroes.as_mut_ptr() as i64;
    Some(match *name {
        // Signal 0 only checks the permission.
        "kill" => call(libc::SYS_kill, [pid, 0, 0]),
        "ptrace" => call(libc::SYS_ptrace, [i64::from(libc::PTRACE_SEIZE), pid, 0]),
        "process_vm_readv" => {
            // Reads from an unmapped address: EFAULT means that the access was permitted.
            let vector = [buffer, 8];
            let vector = vector.as_ptr() as i64;
            match call6(libc::SYS_process_vm_readv, [pid, vector, 1, vector, 1, 0]) {
                Err(Errno::EFAULT) => Ok(()),
                other => other,
            }
        }
        "pidfd_getfd" => raw(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0, 0])
            .and_then(|pidfd| call(libc::SYS_pidfd_getfd, [pidfd, 0, 0])),
        "prlimit" => {
            // Reads the limits: setting them requires the same permission.
            call6(libc::SYS_prlimit64, [pid, 7, 0, buffer, 0, 0])
        }
        "setpriority" => call(libc::SYS_setpriority, [0, pid, 19]),
        "sched_setaffinity" => {
            zeroes[0] = 1;
            call(libc::SYS_sched_setaffinity, [pid, 8, zeroes.as_ptr() as i64])
        }
        _ => return None,
    })
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

fn rewrite_media(path: &str) -> Attack {
    let _ = fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600));
    attack_result(
        File::options().write(true).open(path).and_then(|mut file| file.write_all(b"clean")),
    )
}

fn leaked_descriptor() -> Attack {
    use nix::fcntl::{FcntlArg, fcntl};
    // SAFETY: F_GETFD only tests whether the descriptor is open, and changes nothing.
    let open =
        |number| fcntl(unsafe { std::os::fd::BorrowedFd::borrow_raw(number) }, FcntlArg::F_GETFD);
    (3..1024).find_map(|number| open(number).ok()).map(drop).ok_or(Errno::EBADF)
}

/// Kills the parent. The helper dies; the first process of a pid namespace survives.
fn kill_parent() -> Attack {
    let parent = getppid();
    nix::sys::signal::kill(parent, nix::sys::signal::Signal::SIGKILL)?;
    std::thread::sleep(std::time::Duration::from_millis(200));
    if getppid() == parent { Err(Errno::EPERM) } else { Ok(()) }
}
