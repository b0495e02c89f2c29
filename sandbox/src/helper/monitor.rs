//! Records what a monitored program is denied, for testing a new script: system calls denied by the filter, and paths
//! that are hidden from the program. The filter forwards these calls to the helper, which records them and replies with
//! the filter's own decision. Monitoring does not weaken the restrictions. `seccomp_unotify(2)`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IoSliceMut;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::calls;
use super::messages::receive_message;
use crate::layers::Plan;
use crate::policy::NetworkAccess;
use crate::protocol::Attempt;
use crate::sys::{self, Notification};
use crate::view::View;

/// Calls forwarded because of the path or address they use; they continue unchanged.
const ACCESS_CALLS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_execve,
    libc::SYS_connect,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

/// Calls forwarded for the same reason where hidden paths do not exist for the program.
const STAT_CALLS: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];

/// Returns the calls that a monitored program's filter forwards in addition to denied calls.
pub(super) fn monitored_calls(plan: Plan) -> impl Iterator<Item = c_long> {
    let stat_calls = if plan.namespaces { STAT_CALLS } else { &[] };
    ACCESS_CALLS.iter().chain(stat_calls).copied()
}

/// Maximum number and total bytes of recorded attempts: they must fit into one packet.
const MAX_ATTEMPTS: usize = 400;
const MAX_BYTES: usize = 24 * 1024;

/// Address families, as `sa_family_t`.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Ports to which resolver libraries connect UDP sockets, which no rule concerns: DNS, and 0 for source address
/// selection.
const RESOLVER_PORTS: [u16; 2] = [53, 0];

/// `PATH_MAX`, including the NUL.
const MAX_PATH: usize = 4096;

pub(super) struct DenialMonitor<'a> {
    view: &'a View,
    job: &'a Path,
    /// Socket on which the filter's listener is received.
    source: BorrowedFd<'a>,
    listener: Option<OwnedFd>,
    attempts: BTreeSet<Attempt>,
    bytes: usize,
}

impl<'a> DenialMonitor<'a> {
    pub(super) fn new(view: &'a View, job: &'a Path, source: BorrowedFd<'a>) -> Self {
        Self { view, job, source, listener: None, attempts: BTreeSet::new(), bytes: 0 }
    }

    /// Returns the descriptor that becomes readable when [`handle_event`](Self::handle_event) has work.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_ref().map_or(self.source, |listener| listener.as_fd())
    }

    /// Receives the listener or handles one notification.
    pub(super) fn handle_event(&mut self) {
        if self.listener.is_some() {
            self.handle_notification();
        } else {
            let message = receive_message::<()>(self.source).ok().flatten();
            self.listener = message.and_then(|((), fds)| fds.into_iter().next());
        }
    }

    pub(super) fn into_attempts(self) -> Vec<Attempt> {
        self.attempts.into_iter().collect()
    }

    fn handle_notification(&mut self) {
        let Some(listener) = &self.listener else { return };
        // An error means that the calling process has died.
        if let Ok(notification) = sys::receive_notification(listener.as_fd()) {
            let continues = ACCESS_CALLS.contains(&notification.call)
                || STAT_CALLS.contains(&notification.call);
            let attempt = match notification.call {
                libc::SYS_connect => self.forbidden_address(&notification),
                _ if continues => self.hidden_path(&notification),
                _ => Some(denied_call(&notification)),
            };
            let denial = (!continues).then_some(Errno::EPERM);
            let _ = sys::answer_notification(listener.as_fd(), notification.id, denial);
            self.record(attempt);
        }
    }

    fn record(&mut self, attempt: Option<Attempt>) {
        let Some(attempt) = attempt else { return };
        let bytes = self.bytes + attempt.len();
        if self.attempts.len() < MAX_ATTEMPTS && bytes <= MAX_BYTES && self.attempts.insert(attempt)
        {
            self.bytes = bytes;
        }
    }

    /// Returns an attempt if the call's path is hidden from the program.
    fn hidden_path(&self, notification: &Notification) -> Option<Attempt> {
        let [first, second, third, ..] = notification.arguments;
        let writes = |flags: u64| {
            let flags =
                flags & u64::from(libc::O_ACCMODE.unsigned_abs() | libc::O_CREAT.unsigned_abs());
            flags != u64::from(libc::O_RDONLY.unsigned_abs())
        };
        let (path, write) = match notification.call {
            libc::SYS_openat => (read_string(notification.pid, second)?, writes(third)),
            libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 => {
                (read_string(notification.pid, second)?, false)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (read_string(notification.pid, first)?, writes(second)),
            // The path is the only or first argument: execve(2), stat(2), lstat(2), access(2).
            _ => (read_string(notification.pid, first)?, false),
        };
        let shown = self.view.shows(&path, write, self.job);
        let attempt = if write { Attempt::Write } else { Attempt::Read };
        (path.is_absolute() && !shown).then(|| attempt(path.into()))
    }

    /// Returns an attempt if connecting to the address is not allowed: `struct sockaddr` of unix(7), ip(7), ipv6(7).
    fn forbidden_address(&self, notification: &Notification) -> Option<Attempt> {
        let [_, address, ..] = notification.arguments;
        let family: [u8; 2] = read_bytes(notification.pid, address, 2)?.try_into().ok()?;
        let rest = address.checked_add(2)?;
        match u16::from_ne_bytes(family) {
            AF_UNIX => {
                // Abstract names start with NUL and yield an empty path.
                let socket = read_string(notification.pid, rest)?;
                let shown = self.view.paths.unix_sockets.contains(&socket);
                (socket.is_absolute() && !shown).then(|| Attempt::Connect(socket.into()))
            }
            AF_INET | AF_INET6 => {
                let port =
                    u16::from_be_bytes(read_bytes(notification.pid, rest, 2)?.try_into().ok()?);
                let NetworkAccess::Ports(open) = &self.view.network else { return None };
                (!open.contains(&port) && !RESOLVER_PORTS.contains(&port))
                    .then_some(Attempt::Port(port))
            }
            _ => None,
        }
    }
}

fn denied_call(notification: &Notification) -> Attempt {
    let name = calls::name(notification.call);
    Attempt::Call(name.map_or_else(|| notification.call.to_string(), str::to_owned))
}

/// Reads a NUL-terminated string from another process. The process may change it concurrently, so the result is only
/// for display.
fn read_string(pid: Pid, address: u64) -> Option<PathBuf> {
    let mut found = Vec::new();
    while found.len() < MAX_PATH {
        let from = address.checked_add(found.len() as u64)?;
        // Reads up to the end of the page: the next page may not be mapped.
        let rest = MAX_PATH - usize::try_from(from % MAX_PATH as u64).ok()?;
        let piece = read_bytes(pid, from, rest)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            found.extend(piece.get(..end)?);
            return Some(OsString::from_vec(found).into());
        }
        found.extend(piece);
    }
    None
}

fn read_bytes(pid: Pid, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut piece = vec![0; length];
    let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: length };
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut piece)], &[remote]).ok()?;
    piece.truncate(read);
    (read > 0).then_some(piece)
}
