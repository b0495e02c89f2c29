//! The helper: one process per job that restricts itself and, for each program, forks a child that restricts itself
//! further and executes the program under the helper's supervision. The helper communicates with the server over the
//! socket on descriptor 0 only.
//!
//! Steps in order of execution, each with the reason why it cannot run later. The server's plan, determined by the
//! probe run, selects the layers. A failed step ends the run or the job.
//!
//! In the helper (`inherited`, then `directory`):
//!  1. Close inherited descriptors, before any is opened: afterwards inherited and own descriptors are
//!     indistinguishable.
//!  2. Reset signal dispositions, signal mask and umask, before the first fork and the first file: both inherit them.
//!  3. Set oom score and core dump filter, before step 4: the `/proc` files of a non-dumpable process belong to root.
//!  4. Become non-dumpable, before the first message: afterwards the helper holds data that programs of other jobs must
//!     not reach. Become child subreaper, before the first fork: init would adopt orphans of earlier children.
//!  5. Create the job's control group, before step 6: the cgroup tree is mounted outside the minimal root.
//!  6. Enter namespaces, write id maps and set a neutral host name, then mount the minimal root (`namespaces`, `root`): before the job's
//!     directory, which is on the job's own tmpfs, and while the helper has capabilities.
//!  7. Create the job's directory and the media's file, while the helper can still change their owner with chown(2).
//!
//! In the child (`launch`), between fork(2) and execve(2):
//!  8. Wait until the server has received the child's pidfd: otherwise a helper killed in between would leave a program
//!     that the server cannot find.
//!  9. In a pid namespace, the first process forks the child for the following steps (`init`): before the child's
//!     session, since a pid namespace is entered by fork only. If the helper is root, this process is in a user
//!     namespace too, whose id maps the helper writes during step 8.
//! 10. Start a session, before any slow step: from here on the process group can be killed as a whole. Lower the
//!     priority: not in the helper, which must respond as fast as the server.
//! 11. Set resource limits, before the uid changes: any process may lower a hard limit, but `RLIMIT_NPROC` must count
//!     for the new uid from the start.
//! 12. Empty the bounding set, before the uid changes: dropping from it requires `CAP_SETPCAP`, which is lost with the
//!     uid.
//! 13. Drop supplementary groups, then change gid, then uid: the first two require capabilities that the third drops.
//! 14. Empty all other capability sets: if the uid does not change, they are still populated.
//! 15. Set `no_new_privs`: Landlock and seccomp require it without `CAP_SYS_ADMIN`, and execve(2) then cannot restore
//!     privileges.
//! 16. Change the working directory, with the new uid: an inaccessible directory fails here, not in the program.
//! 17. Enforce Landlock: after the last access to a path that only the helper needs.
//! 18. Redirect the standard streams and reset the signal mask: after every other preparation, since from here on
//!     failures can be reported over the socket only.
//! 19. Install the seccomp filter: after the last system call, other than execve(2), that the filter denies.
//! 20. Execute the program with execve(2), which closes all other descriptors.

mod bpf;
mod calls;
mod demotion;
mod directory;
mod inherited;
mod init;
mod landlock;
mod launch;
mod messages;
mod monitor;
mod namespaces;
mod root;
mod seccomp;
mod supervise;

use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signalfd::SignalFd;

use self::demotion::{Demotion, Leader};
use self::directory::Directory;
use self::launch::{Report, Streams};
use self::messages::{Disconnected, receive_message, reply};
use self::monitor::DenialMonitor;
use self::supervise::{End, SupervisedProgram};
use crate::build_id::BUILD;
use crate::error::{Refusal, Step};
use crate::protocol::{FileState, Prepare, Reply, Request, RunCommand};

/// Serves one job until end-of-file. Returns the process's exit code, which is informational: errors are reported over
/// the socket.
pub(crate) fn run() -> i32 {
    let inherited = match inherited::reset_inherited() {
        Ok(inherited) => inherited,
        Err(refusal) => {
            // Descriptor 0 is the server's socket even if a step failed.
            let _ = reply(std::io::stdin().as_fd(), &Reply::Refused(refusal), &[]);
            return 1;
        }
    };
    match serve(inherited.channel.as_fd(), &inherited.children) {
        Ok(()) => 0,
        Err(Disconnected) => 1,
    }
}

fn serve(channel: BorrowedFd<'_>, children: &SignalFd) -> Result<(), Disconnected> {
    let Some((Request::Prepare(prepare), _)) = receive_message(channel)? else {
        return Err(Disconnected);
    };
    // Dropping the directory removes it on every return path.
    let directory = match create_directory(channel, &prepare)? {
        Ok(directory) => directory,
        Err(refusal) => return reply(channel, &Reply::Refused(refusal), &[]),
    };
    while let Some((request, fds)) = receive_message(channel)? {
        // The program that the server demoted has ended meanwhile.
        if matches!(request, Request::Demote) {
            continue;
        }
        let (Request::Run(run), Some(streams)) = (request, Streams::from_fds(fds)) else {
            return Err(Disconnected);
        };
        let program = Path::new(&run.program.0);
        let before = FileState::from_path(program);
        match run_program(channel, children, &directory, &prepare, &run, streams)? {
            Ok(End { status, usage, timed_out, survivors, attempts }) => {
                let program =
                    before.filter(|before| FileState::from_path(program) == Some(*before));
                let ended = Reply::Ended { status, timed_out, usage, program, survivors, attempts };
                reply(channel, &ended, &[])?;
            }
            Err(refusal) => reply(channel, &Reply::Refused(refusal), &[])?,
        }
    }
    Ok(())
}

fn create_directory(
    channel: BorrowedFd<'_>,
    prepare: &Prepare,
) -> Result<Result<Directory, Refusal>, Disconnected> {
    if prepare.build != BUILD {
        return Ok(Err(Refusal::at(Step::Build)(Errno::ENOEXEC)));
    }
    match Directory::create(prepare) {
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
    run: &RunCommand,
    streams: Streams,
) -> Result<Result<End, Refusal>, Disconnected> {
    let launched = match launch::launch(directory, prepare, run, &streams) {
        Ok(launched) => launched,
        Err(refusal) => return Ok(Err(refusal)),
    };
    // Closes the helper's copies, so that the server receives end-of-file once the program's last process has exited.
    drop(streams);
    let started =
        reply(channel, &Reply::Started { pid: launched.pid.as_raw() }, &[launched.pidfd.as_fd()]);
    if started.is_ok() {
        launched.release();
    }
    // Supervises the child even if the server has disconnected: supervision then ends it at once.
    let listener_socket = launched.listener_socket.as_ref();
    let mut monitor = listener_socket
        .map(|socket| DenialMonitor::new(&prepare.view, &directory.path, socket.as_fd()));
    let active_monitor = monitor.as_mut();
    let program = SupervisedProgram { pid: launched.pid, group: directory.group.as_ref() };
    let with_cpu = prepare.plan.cgroup.is_some_and(|controllers| controllers.cpu);
    let demotion = Demotion::new(
        directory.group.as_ref().filter(|_| with_cpu),
        directory.proc.as_ref(),
        prepare.user,
        if prepare.plan.namespaces { Leader::First } else { Leader::Program }(launched.pid),
    );
    let mut end =
        supervise::supervise(channel, children, program, active_monitor, demotion, run.time_limit)?;
    end.attempts = monitor.map(DenialMonitor::into_attempts).unwrap_or_default();
    Ok(match launched.report() {
        Some(Report::Refused(refusal)) => Err(refusal),
        Some(Report::Ended { status, usage }) => Ok(End { status, usage, ..end }),
        // The namespace's first process was killed from outside, so the program's status is unknown.
        _ if prepare.plan.namespaces && !end.timed_out => {
            Err(Refusal::at(Step::Init)(Errno::ECHILD))
        }
        _ => Ok(end),
    })
}
