//! Watches what a program is refused, for a person who tries a new script: calls that the filter denies, and paths that it
//! asks for and is not shown. The filter asks the helper about them instead of answering itself; the helper notes each,
//! and gives the filter's own answer. A watched program is held no less than another. `seccomp_unotify(2)`.

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

use super::{calls, next};
use crate::plan::Plan;
use crate::policy::Network;
use crate::protocol::Attempt;
use crate::sys::{self, Notification};
use crate::view::View;

/// Calls that are asked about for the path or the address in them, and go on as they would.
const OPENING: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_execve,
    libc::SYS_connect,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

/// The same, where what is not shown is not even seen.
const LOOKING: &[c_long] = &[
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

/// What a watched program's filter asks about beside what it denies.
pub(super) fn asked_about(plan: Plan) -> impl Iterator<Item = c_long> {
    let looking = if plan.namespaces { LOOKING } else { &[] };
    OPENING.iter().chain(looking).copied()
}

/// Attempts that are noted, and bytes in them: what fits into one packet, many times more than a person reads.
const MAX_NOTED: usize = 400;
const MAX_BYTES: usize = 24 * 1024;

/// As `sa_family_t`.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Connected to by libraries that look up names, over UDP, which no rule is for: DNS, and none at all.
const OF_NAMES: [u16; 2] = [53, 0];

/// `PATH_MAX`, with its NUL.
const MAX_PATH: usize = 4096;

pub(super) struct Watch<'a> {
    view: &'a View,
    job: &'a Path,
    /// Where the filter's listener comes from.
    source: BorrowedFd<'a>,
    listener: Option<OwnedFd>,
    noted: BTreeSet<Attempt>,
    bytes: usize,
}

impl<'a> Watch<'a> {
    pub(super) fn new(view: &'a View, job: &'a Path, source: BorrowedFd<'a>) -> Self {
        Self { view, job, source, listener: None, noted: BTreeSet::new(), bytes: 0 }
    }

    /// Readable when there is something to [`attend`](Self::attend) to.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_ref().map_or(self.source, |listener| listener.as_fd())
    }

    /// Takes the listener, or answers one question of the filter's.
    pub(super) fn attend(&mut self) {
        if self.listener.is_some() {
            self.answer();
        } else {
            let came = next::<()>(self.source).ok().flatten();
            self.listener = came.and_then(|((), fds)| fds.into_iter().next());
        }
    }

    pub(super) fn noted(self) -> Vec<Attempt> {
        self.noted.into_iter().collect()
    }

    fn answer(&mut self) {
        let Some(listener) = &self.listener else { return };
        // Else the process has died, or all have: then there is nothing to be asked any more.
        if let Ok(asked) = sys::notification(listener.as_fd()) {
            let watched = OPENING.contains(&asked.call) || LOOKING.contains(&asked.call);
            let attempt = match asked.call {
                libc::SYS_connect => self.address_of(&asked),
                _ if watched => self.path_of(&asked),
                _ => Some(call_of(&asked)),
            };
            let denial = (!watched).then_some(Errno::EPERM);
            let _ = sys::answer_notification(listener.as_fd(), asked.id, denial);
            self.note(attempt);
        }
    }

    fn note(&mut self, attempt: Option<Attempt>) {
        let Some(attempt) = attempt else { return };
        let bytes = self.bytes + attempt.len();
        if self.noted.len() < MAX_NOTED && bytes <= MAX_BYTES && self.noted.insert(attempt) {
            self.bytes = bytes;
        }
    }

    /// The path, if the program is not shown it.
    fn path_of(&self, asked: &Notification) -> Option<Attempt> {
        let [first, second, third, ..] = asked.arguments;
        let writes = |flags: u64| {
            let flags =
                flags & u64::from(libc::O_ACCMODE.unsigned_abs() | libc::O_CREAT.unsigned_abs());
            flags != u64::from(libc::O_RDONLY.unsigned_abs())
        };
        let (path, write) = match asked.call {
            libc::SYS_openat => (string(asked.pid, second)?, writes(third)),
            libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 => {
                (string(asked.pid, second)?, false)
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (string(asked.pid, first)?, writes(second)),
            // The path alone, or first: execve(2), stat(2), lstat(2), access(2).
            _ => (string(asked.pid, first)?, false),
        };
        let shown = self.view.shows(&path, write, self.job);
        let attempt = if write { Attempt::Write } else { Attempt::Read };
        (path.is_absolute() && !shown).then(|| attempt(path.into()))
    }

    /// The address, if the program may not connect to it: `struct sockaddr` of unix(7), ip(7), ipv6(7).
    fn address_of(&self, asked: &Notification) -> Option<Attempt> {
        let [_, address, ..] = asked.arguments;
        let family: [u8; 2] = bytes(asked.pid, address, 2)?.try_into().ok()?;
        let rest = address.checked_add(2)?;
        match u16::from_ne_bytes(family) {
            AF_UNIX => {
                // An abstract name begins with NUL.
                let socket = string(asked.pid, rest)?;
                let shown = self.view.paths.unix_sockets.contains(&socket);
                (socket.is_absolute() && !shown).then(|| Attempt::Connect(socket.into()))
            }
            AF_INET | AF_INET6 => {
                let port = u16::from_be_bytes(bytes(asked.pid, rest, 2)?.try_into().ok()?);
                let Network::Ports(open) = &self.view.network else { return None };
                (!open.contains(&port) && !OF_NAMES.contains(&port)).then_some(Attempt::Port(port))
            }
            _ => None,
        }
    }
}

fn call_of(asked: &Notification) -> Attempt {
    let name = calls::name(asked.call);
    Attempt::Call(name.map_or_else(|| asked.call.to_string(), str::to_owned))
}

/// What a process has at this address, up to the NUL. It may change it meanwhile: it is for being read by a person alone.
fn string(pid: Pid, address: u64) -> Option<PathBuf> {
    let mut found = Vec::new();
    while found.len() < MAX_PATH {
        let from = address.checked_add(found.len() as u64)?;
        // No further than the page, the next may not be there.
        let rest = MAX_PATH - usize::try_from(from % MAX_PATH as u64).ok()?;
        let piece = bytes(pid, from, rest)?;
        if let Some(end) = piece.iter().position(|byte| *byte == 0) {
            found.extend(piece.get(..end)?);
            return Some(OsString::from_vec(found).into());
        }
        found.extend(piece);
    }
    None
}

fn bytes(pid: Pid, address: u64, length: usize) -> Option<Vec<u8>> {
    let mut piece = vec![0; length];
    let remote = RemoteIoVec { base: usize::try_from(address).ok()?, len: length };
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut piece)], &[remote]).ok()?;
    piece.truncate(read);
    (read > 0).then_some(piece)
}
