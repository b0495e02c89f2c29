//! The loop of a resident program: receives jobs and forks a child for each. It never reads media. It is single-threaded
//! and handles one message at a time: between receiving the descriptors of a job and closing them it forks exactly one
//! child, so that no child inherits a descriptor of another job.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic;

use nix::errno::Errno;
use nix::libc::c_int;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};
use seccompiler::BpfProgram;

use super::child::{self, ChildJob, Evaluate};
use super::filter;
use super::media::JobMedia;
use super::message::{ResidentReply, ResidentRequest};
use crate::channel::{self, Packet};
use crate::sys;

/// Serves the jobs of a server that has started this process by
/// [`Sandbox::start_resident`](crate::Sandbox::start_resident), until the server closes the socket.
///
/// `load` reads the data that the server passes. The function that it returns evaluates the media of one job; it runs in a
/// separate child with limited memory, in which all system calls that pure computation does not need are forbidden, and panics
/// are failures. Its result must not be longer than [`MAX_RESULT`](crate::MAX_RESULT). It returns an error only if the media cannot
/// be read.
///
/// Must be called while the process has a single thread. Changes the actions of signals and the panic hook.
///
/// # Errors
/// If the data cannot be loaded, a restriction cannot be applied, or the server violates the protocol.
pub fn serve_resident<E>(load: impl FnOnce(Vec<File>) -> io::Result<E>) -> io::Result<()>
where
    E: FnMut(&JobMedia) -> io::Result<Vec<u8>>,
{
    let stdin = io::stdin();
    let socket = stdin.as_fd();
    // The files in /proc of a dumpable process belong to its user. Children inherit this.
    prctl::set_dumpable(false)?;
    let data = receive_data(socket)?;
    let mut evaluate = load(data)?;
    // Rust's handlers would print, which the filter kills: with the default action, the wait status is the real signal.
    sys::reset_signals();
    panic::set_hook(Box::new(|_| {}));
    let mut ended = SigSet::empty();
    ended.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&ended), None)?;
    let children = SignalFd::with_flags(&ended, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let mut parent = Parent {
        socket,
        children,
        filter: filter::compile().map_err(io::Error::other)?,
        address_space: sys::address_space()?,
        pid: getpid(),
        // Reads the seed of hash tables, which children cannot: getrandom(2) is forbidden.
        running: HashMap::new(),
        evaluate: &mut evaluate,
    };
    let served = parent.reply(ResidentReply::Ready, &[]).and_then(|()| parent.serve());
    parent.kill_all();
    Ok(served?)
}

struct Parent<'a> {
    socket: BorrowedFd<'a>,
    children: SignalFd,
    filter: BpfProgram,
    /// Size of the address space of this process, bytes.
    address_space: u64,
    pid: Pid,
    /// The children that have not been reaped, by the numbers of their jobs. So their pids are not reused.
    running: HashMap<u64, Pid>,
    evaluate: &'a mut Evaluate<'a>,
}

impl Parent<'_> {
    /// Handles messages until the server has closed the socket.
    fn serve(&mut self) -> nix::Result<()> {
        loop {
            let mut ready = [
                PollFd::new(self.socket, PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno),
            }
            let [has_message, has_ended] = ready.map(|fd| fd.any().unwrap_or(true));
            if has_ended {
                self.reap()?;
            }
            if has_message {
                match channel::receive(self.socket) {
                    Ok(Some(packet)) => self.handle(packet)?,
                    // ECONNRESET: the server exited with unread messages.
                    Ok(None) | Err(Errno::ECONNRESET) => return Ok(()),
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
        }
    }

    fn handle(&mut self, packet: Packet) -> nix::Result<()> {
        let Packet { bytes, fds } = packet;
        match (ResidentRequest::decode(&bytes), fds.is_empty()) {
            (Some(ResidentRequest::Evaluate { job, memory, cpu_seconds, argument }), false) => {
                let [media, result] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| Errno::EPROTO)?;
                let (address_space, parent) = (self.address_space, self.pid);
                let filter = &self.filter;
                let child = ChildJob {
                    job,
                    memory,
                    cpu_seconds,
                    argument,
                    media,
                    result,
                    address_space,
                    filter,
                    parent,
                };
                let evaluate = &mut *self.evaluate;
                let started = sys::fork_child(move || child::run(child, evaluate));
                self.started(job, started)
            }
            (Some(ResidentRequest::Kill { job }), true) => {
                if let Some(child) = self.running.get(&job) {
                    let _ = kill(*child, Signal::SIGKILL);
                }
                Ok(())
            }
            (Some(ResidentRequest::FindChild { job }), true) => {
                match self.running.get(&job).map(|child| sys::pidfd_open(*child)) {
                    // Too many descriptors are in flight, unix(7): the child keeps its priority.
                    Some(Ok(child)) => {
                        match self.reply(ResidentReply::Child { job }, &[child.as_fd()]) {
                            Err(Errno::ETOOMANYREFS) => Ok(()),
                            result => result,
                        }
                    }
                    // The child keeps its priority.
                    Some(Err(_)) | None => Ok(()),
                }
            }
            _ => Err(Errno::EPROTO),
        }
    }

    /// Records the child of a job, or reports the error of fork(2).
    fn started(&mut self, job: u64, child: nix::Result<Pid>) -> nix::Result<()> {
        match child {
            Ok(pid) => {
                self.running.insert(job, pid);
                Ok(())
            }
            Err(errno) => self.reply(ResidentReply::NotStarted { job, errno: errno as i32 }, &[]),
        }
    }

    /// Reaps the children that have ended, and reports them.
    fn reap(&mut self) -> nix::Result<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        while let Some((pid, status)) = next_ended()? {
            let job = self.running.iter().find(|(_, child)| **child == pid).map(|(job, _)| *job);
            if let Some(job) = job {
                self.running.remove(&job);
                self.reply(ResidentReply::Ended { job, status }, &[])?;
            }
        }
        Ok(())
    }

    /// Sends a message. Waits while the socket is full; the server receives at any time.
    fn reply(&self, reply: ResidentReply, fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
        loop {
            match channel::send(self.socket, &reply.encode(), fds) {
                Err(Errno::EAGAIN) => {
                    let mut ready = [PollFd::new(self.socket, PollFlags::POLLOUT)];
                    let _ = poll(&mut ready, PollTimeout::NONE);
                }
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    fn kill_all(&mut self) {
        for (_, child) in self.running.drain() {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
        }
    }
}

/// Reaps a child that has ended. Returns its pid and wait status.
fn next_ended() -> nix::Result<Option<(Pid, c_int)>> {
    loop {
        match sys::ended_child() {
            Ok(Some(pid)) => {
                return Ok(sys::wait_usage(pid)?.map(|(status, _)| (pid, status)));
            }
            Ok(None) | Err(Errno::ECHILD) => return Ok(None),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Receives the first message.
fn receive_data(socket: BorrowedFd<'_>) -> nix::Result<Vec<File>> {
    loop {
        match channel::receive(socket) {
            Ok(Some(Packet { bytes, fds })) => {
                return match ResidentRequest::decode(&bytes) {
                    Some(ResidentRequest::Load) => Ok(fds.into_iter().map(File::from).collect()),
                    _ => Err(Errno::EPROTO),
                };
            }
            Ok(None) => return Err(Errno::EPIPE),
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(socket, PollFlags::POLLIN)];
                let _ = poll(&mut ready, PollTimeout::NONE);
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
