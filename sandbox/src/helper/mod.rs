//! The helper: a process of its own for each job, which restricts itself, then for each program forks a child that restricts
//! itself further, executes the program, and is watched. It knows the server only as the other end of descriptor 0.
//!
//! The order of the steps, and why each cannot come later. Which of the layers among them are taken the server says, by the
//! plan that its trial run settled; one that fails then ends the job.
//!
//! In the helper (`inherited`, then `directory`):
//!  1. Inherited descriptors are closed, before any is opened: later nobody could tell which are ours.
//!  2. Signals, mask and umask are reset, before the first fork and the first file: both inherit them.
//!  3. oom score and core dump filter, before 4: the files in `/proc` of a process that is not dumpable are root's.
//!  4. Not dumpable, before the first message: from then on the helper holds what another job's program must not reach.
//!     Child subreaper, before the first fork: orphans of earlier ones would go to init.
//!  5. The job's control group, before 6: the tree is mounted outside.
//!  6. Namespaces and id maps, then mounts and the minimal root (`namespaces`, `root`): before the job's directory, which lies
//!     on the job's own tmpfs, and while there are capabilities.
//!  7. The job's directory and the media's file, while the helper may still give them away with chown(2).
//!
//! In the child (`launch`), between fork(2) and execve(2):
//!  8. It waits until the server knows of it: a helper killed in between must not leave a program that nobody knows.
//!  9. In a pid namespace it is the first process there, which forks the child of the following steps (`init`): before the
//!     child's session, since a namespace is entered by fork only. Where the helper is root it is in a user namespace too, in
//!     which the helper has named the program's user during 8.
//! 10. Session, before anything can fail slowly: from here on its process group can be killed as one. Priority: not in the
//!     helper, which has to be as quick as the server.
//! 11. Resource limits, before the uid changes: a hard limit is lowered by anybody, but `RLIMIT_NPROC` is to count for the
//!     new uid from its first moment.
//! 12. Bounding set, before the uid: dropping from it takes `CAP_SETPCAP`, which goes with the uid.
//! 13. Supplementary groups, gid, uid: in this order, since the first two take capabilities that the third gives up.
//! 14. All other capability sets: where no uid changes they are still there.
//! 15. `no_new_privs`: Landlock and seccomp ask for it where there is no `CAP_SYS_ADMIN`; no execve(2) gives anything back.
//! 16. Working directory, as the new uid, so that a directory it cannot enter is found here and not by the program.
//! 17. Landlock: after the last path that only we need.
//! 18. Standard streams and signal mask: last of all that can be reported, then the socket is all that is left.
//! 19. seccomp: after the last system call but execve(2) that its filter denies.
//! 20. execve(2), which closes the rest.

mod bpf;
mod calls;
mod directory;
mod inherited;
mod init;
mod landlock;
mod launch;
mod namespaces;
mod root;
mod seccomp;
mod supervise;
mod watch;

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::directory::Directory;
use self::launch::Report;
use self::supervise::{End, Supervised};
use self::watch::Watch;
use crate::channel::{self, Packet};
use crate::dispatch::BUILD;
use crate::error::{Refusal, Step};
use crate::protocol::{FileState, Prepare, Reply, Request, Run, decode, encode};

/// The server has gone, or speaks no protocol of ours: either way there is nobody left to work for.
struct Gone;

/// One job from its first message to end-of-file. The exit code is for a person looking on; the server has been told all.
pub(crate) fn run() -> i32 {
    let outset = match inherited::leave_behind() {
        Ok(outset) => outset,
        Err(refusal) => {
            // Whatever failed, descriptor 0 is still the server's socket.
            let _ = reply(std::io::stdin().as_fd(), &Reply::Refused(refusal), &[]);
            return 1;
        }
    };
    match serve(outset.channel.as_fd(), &outset.children) {
        Ok(()) => 0,
        Err(Gone) => 1,
    }
}

/// A program's standard streams.
struct Streams {
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// `None`: the helper's own standard input, `/dev/null`.
    stdin: Option<OwnedFd>,
}

impl Streams {
    /// Takes the descriptors of [`Request::Run`] in their order.
    fn new(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let streams = Self { stdout: fds.next()?, stderr: fds.next()?, stdin: fds.next() };
        fds.next().is_none().then_some(streams)
    }
}

fn serve(channel: BorrowedFd<'_>, children: &SignalFd) -> Result<(), Gone> {
    let Some((Request::Prepare(prepare), _)) = next(channel)? else { return Err(Gone) };
    // Dropping the directory removes it, on whichever way this function is left.
    let directory = match take_up(channel, &prepare)? {
        Ok(directory) => directory,
        Err(refusal) => return reply(channel, &Reply::Refused(refusal), &[]),
    };
    while let Some((request, fds)) = next(channel)? {
        let (Request::Run(run), Some(streams)) = (request, Streams::new(fds)) else {
            return Err(Gone);
        };
        let program = Path::new(&run.program.0);
        let before = FileState::of(program);
        match run_program(channel, children, &directory, &prepare, &run, streams)? {
            Ok(End { status, usage, timed_out, survivors, attempts }) => {
                let program = before.filter(|before| FileState::of(program) == Some(*before));
                let ended = Reply::Ended { status, timed_out, usage, program, survivors, attempts };
                reply(channel, &ended, &[])?;
            }
            Err(refusal) => reply(channel, &Reply::Refused(refusal), &[])?,
        }
    }
    Ok(())
}

fn take_up(channel: BorrowedFd<'_>, prepare: &Prepare) -> Result<Result<Directory, Refusal>, Gone> {
    if prepare.build != BUILD {
        return Ok(Err(Refusal::at(Step::Build)(Errno::ENOEXEC)));
    }
    match Directory::make(prepare) {
        Ok((directory, media)) => {
            reply(channel, &Reply::Prepared, &[media.as_fd()])?;
            Ok(Ok(directory))
        }
        Err(refusal) => Ok(Err(refusal)),
    }
}

fn run_program(
    channel: BorrowedFd<'_>,
    children: &SignalFd,
    directory: &Directory,
    prepare: &Prepare,
    run: &Run,
    streams: Streams,
) -> Result<Result<End, Refusal>, Gone> {
    let launched = match launch::launch(directory, prepare, run, &streams) {
        Ok(launched) => launched,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // The program's processes alone hold them now, so that the server sees end-of-file when the last of these has gone.
    drop(streams);
    let told =
        reply(channel, &Reply::Started { pid: launched.pid.as_raw() }, &[launched.pidfd.as_fd()]);
    if told.is_ok() {
        launched.go();
    }
    // Supervised even where the server has gone by now: then it ends at once, as it would a moment later.
    let filter = launched.filter.as_ref();
    let mut watch = filter.map(|filter| Watch::new(&prepare.view, &directory.path, filter.as_fd()));
    let watching = watch.as_mut();
    let program = Supervised { pid: launched.pid, group: directory.group.as_ref() };
    let mut end = supervise::supervise(channel, children, program, watching, run.time_limit)?;
    end.attempts = watch.map(Watch::noted).unwrap_or_default();
    Ok(match launched.report() {
        Some(Report::Refused(refusal)) => Err(refusal),
        Some(Report::Ended { status, usage }) => Ok(End { status, usage, ..end }),
        // The namespace's first process was killed, and not by us: what it would have said is not known.
        _ if prepare.plan.namespaces && !end.timed_out => {
            Err(Refusal::at(Step::Init)(Errno::ECHILD))
        }
        _ => Ok(end),
    })
}

/// The next message; `None` at end-of-file.
fn next<M: DeserializeOwned>(channel: BorrowedFd<'_>) -> Result<Option<(M, Vec<OwnedFd>)>, Gone> {
    loop {
        match channel::receive(channel) {
            Ok(Some(Packet { bytes, fds })) => {
                return decode(&bytes).map(|message| Some((message, fds))).map_err(|_| Gone);
            }
            Ok(None) => return Ok(None),
            Err(Errno::EAGAIN) => {
                let mut ready = [PollFd::new(channel, PollFlags::POLLIN)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(_) => return Err(Gone),
                }
            }
            Err(Errno::EINTR) => {}
            Err(_) => return Err(Gone),
        }
    }
}

/// Never waits: the server reads every answer before it asks again, so the socket has room.
fn reply(
    channel: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> Result<(), Gone> {
    let packet = encode(message).map_err(|_| Gone)?;
    channel::send(channel, &packet, fds).map_err(|_| Gone)
}
