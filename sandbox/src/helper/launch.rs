//! Forks the child that becomes the program: steps 8 to 20 of the parent module, in order. The child reports a failed
//! step over its own socket, which execve(2) closes, so the program cannot forge reports. The first process of a pid
//! namespace reports the program's status over the same socket. credentials(7), capabilities(7),
//! `PR_SET_NO_NEW_PRIVS(2const)`, execve(2).

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use ::landlock::RulesetCreated;
use caps::CapSet;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc::c_int;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{
    Gid, Pid, Uid, close, dup2_stderr, dup2_stdin, dup2_stdout, execve, fchdir, fexecve, geteuid,
    setgroups, setresgid, setresuid, setsid,
};

use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::messages::{Disconnected, receive_message, reply};
use super::namespaces::Proc;
use super::seccomp::Filter;
use super::{init, landlock};
use crate::cgroup::Group;
use crate::channel;
use crate::error::{Refusal, Step};
use crate::layers::Plan;
use crate::limits::ResourceLimits;
use crate::policy::User;
use crate::protocol::{Prepare, RunCommand};
use crate::sys;
use crate::usage::Usage;

/// Nice value added for programs, so that the server responds while scripts use every processor: a program gets about a
/// tenth of the server's share. nice(2), sched(7).
const NICE_INCREMENT: c_int = 10;

/// `RLIMIT_SIGPENDING`: signals with data and POSIX timers.
const PENDING_SIGNALS: u64 = 128;

/// `RLIMIT_MEMLOCK`, bytes: enough for programs that keep keys out of swap.
const LOCKED_MEMORY: u64 = 64 * 1024;

/// Directories searched for a program without a path, unless the policy sets `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program's standard streams.
pub(super) struct Streams {
    stdout: OwnedFd,
    stderr: OwnedFd,
    /// `None` if the program inherits the helper's standard input, `/dev/null`.
    stdin: Option<OwnedFd>,
}

impl Streams {
    /// Takes the descriptors of a `Run` request: standard output, standard error and optionally standard input.
    pub(super) fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let streams = Self { stdout: fds.next()?, stderr: fds.next()?, stdin: fds.next() };
        fds.next().is_none().then_some(streams)
    }
}

pub(super) struct Launched {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Socket on which a monitored program's filter listener is received.
    pub(super) listener_socket: Option<OwnedFd>,
    child: OwnedFd,
}

impl Launched {
    /// Lets the child continue to the program.
    pub(super) fn release(&self) {
        // If the child has died, the supervision detects it.
        let _ = reply(self.child.as_fd(), &(), &[]);
    }

    /// Returns the first report of an ended child.
    pub(super) fn report(&self) -> Option<Report> {
        receive_message(self.child.as_fd()).ok().flatten().map(|(report, _)| report)
    }
}

/// Message from the child, or from the first process of its pid namespace.
#[derive(Serialize, Deserialize)]
pub(super) enum Report {
    /// The program was not executed.
    Refused(Refusal),
    /// The program ended. Sent from a pid namespace only, where the helper cannot wait for the program.
    Ended { status: c_int, usage: Usage },
}

/// Data prepared before fork(2) for the child.
struct ChildSetup<'a> {
    plan: Plan,
    /// Socket on which a monitored program's filter listener is sent.
    monitor_socket: Option<OwnedFd>,
    rules: Option<RulesetCreated>,
    filter: Option<Filter>,
    program_paths: Vec<CString>,
    /// The program's file, opened with the server's privileges.
    opened: Option<OwnedFd>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    limits: &'a ResourceLimits,
    user: Option<User>,
    directory: BorrowedFd<'a>,
    streams: &'a Streams,
}

pub(super) fn launch(
    directory: &Directory,
    prepare: &Prepare,
    run: &RunCommand,
    streams: &Streams,
) -> Result<Launched, Refusal> {
    let mut setup = prepare_child(directory, prepare, run, streams)?;
    let monitor = (run.monitored && prepare.plan.seccomp).then(channel::pair).transpose();
    let (listener_socket, monitor_socket) = monitor.map_err(Refusal::at(Step::Fork))?.unzip();
    setup.monitor_socket = monitor_socket;
    let (helper_end, child_end) = channel::pair().map_err(Refusal::at(Step::Fork))?;
    let send_report = |report| {
        let _ = reply(child_end.as_fd(), &report, &[]);
    };
    let ready = || {
        // Enters before the child forks, so that no process of the program is outside the group.
        let entered = directory.group.as_ref().map_or(Ok(()), Group::enter);
        entered.map_err(Refusal::at(Step::Cgroup))?;
        wait_for_release(&helper_end, &child_end)
    };
    let exec_child = |setup| {
        let Err(refusal) = restrict_and_exec(setup);
        send_report(Report::Refused(refusal));
        127
    };
    // The ids to map if the program gets its own user namespace.
    let mapped_user = prepare.user.zip(directory.proc.as_ref()).filter(|_| prepare.plan.own_users);
    let pid = if prepare.plan.namespaces {
        let (flags, step) = match mapped_user {
            Some(_) => (CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUSER, Step::IdMaps),
            None => (CloneFlags::CLONE_NEWPID, Step::Init),
        };
        sys::fork_child_in(flags, || {
            send_report(match init::run(ready, || exec_child(setup)) {
                Ok((status, usage)) => Report::Ended { status, usage },
                Err(refusal) => Report::Refused(refusal),
            });
            0
        })
        .map_err(Refusal::at(step))?
    } else {
        sys::fork_child(|| match ready() {
            Ok(()) => exec_child(setup),
            Err(refusal) => {
                send_report(Report::Refused(refusal));
                127
            }
        })
        .map_err(Refusal::at(Step::Fork))?
    };
    match map_ids_and_open(pid, mapped_user) {
        Ok(pidfd) => Ok(Launched { pid, pidfd, listener_socket, child: helper_end }),
        Err(refusal) => {
            // The child exits once its socket is closed.
            drop(helper_end);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(refusal)
        }
    }
}

/// Writes the id maps of a child in its own user namespace, and opens the child's pidfd.
fn map_ids_and_open(pid: Pid, mapped_user: Option<(User, &Proc)>) -> Result<OwnedFd, Refusal> {
    if let Some((user, proc)) = mapped_user {
        proc.write_id_maps(pid, user).map_err(Refusal::at(Step::IdMaps))?;
    }
    sys::pidfd_open(pid).map_err(Refusal::at(Step::Fork))
}

fn prepare_child<'a>(
    directory: &'a Directory,
    prepare: &'a Prepare,
    run: &'a RunCommand,
    streams: &'a Streams,
) -> Result<ChildSetup<'a>, Refusal> {
    let execute_error = Refusal::at(Step::Execute);
    let mut environment: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("HOME".into(), directory.path.clone().into()),
        ("TMPDIR".into(), directory.tmp()),
    ];
    for (name, value) in &prepare.environment {
        environment.retain(|(existing, _)| *existing != name.0);
        environment.push((name.0.clone(), value.0.clone()));
    }
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());

    // A program in a directory that its user cannot search (a checkout below /root) is executed by descriptor; a
    // minimal root makes its path accessible instead. Opened here, with the server's privileges; an error is reported
    // at execution.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opened = open(run.program.0.as_os_str(), flags, Mode::empty()).ok();
    let opened = opened.filter(|_| prepare.user.is_some() && !prepare.plan.namespaces);
    let program_paths = program_paths(&run.program.0, path.as_deref().unwrap_or_default());
    let arguments = [&run.program].into_iter().chain(&run.arguments).map(|text| text.0.clone());
    let environment = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (plan, view) = (prepare.plan, &prepare.view);
    let rules = (plan.landlock > 0)
        .then(|| landlock::rules(plan, view, &directory.path, Path::new(&run.program.0)))
        .transpose()?;
    let monitored = run.monitored && plan.seccomp;
    let servers_own = prepare.user.is_none();
    let filter =
        plan.seccomp.then(|| Filter::new(plan, view, servers_own, monitored)).transpose()?;
    Ok(ChildSetup {
        plan,
        monitor_socket: None,
        rules,
        filter,
        program_paths: c_strings(program_paths).map_err(&execute_error)?,
        opened,
        arguments: c_strings(arguments).map_err(&execute_error)?,
        environment: c_strings(environment).map_err(&execute_error)?,
        limits: &prepare.limits,
        user: prepare.user,
        directory: directory.fd.as_fd(),
        streams,
    })
}

/// Returns the paths to try: `program` itself or, if it contains no slash, one path in each directory of `path`.
fn program_paths(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    // Skips empty entries: they would name the working directory, which programs can write.
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program).into_os_string())
        .collect()
}

fn c_strings(texts: impl IntoIterator<Item = OsString>) -> nix::Result<Vec<CString>> {
    texts.into_iter().map(|text| CString::new(text.into_vec()).map_err(|_| Errno::EINVAL)).collect()
}

fn wait_for_release(helper_end: &OwnedFd, child_end: &OwnedFd) -> Result<(), Refusal> {
    // Closes this process's copy of the helper's end: while it is open, the helper's death would not cause end-of-file.
    let closed = close(helper_end.as_raw_fd());
    match receive_message::<()>(child_end.as_fd()) {
        Ok(Some(_)) => closed.map_err(Refusal::at(Step::Fork)),
        Ok(None) | Err(_) => Err(Refusal::at(Step::Fork)(Errno::EPIPE)),
    }
}

/// Performs steps 10 to 20 in the child.
fn restrict_and_exec(mut setup: ChildSetup<'_>) -> Result<Infallible, Refusal> {
    setsid().map_err(Refusal::at(Step::Session))?;
    sys::lower_priority(NICE_INCREMENT);
    apply_limits(setup.limits, setup.plan).map_err(Refusal::at(Step::Limits))?;
    // Without CAP_SETPCAP, no_new_privs must suffice: it prevents gaining capabilities of the bounding set.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        clear_capabilities(CapSet::Bounding).map_err(Refusal::at(Step::BoundingSet))?;
    }
    if setup.user.is_none() && geteuid().is_root() {
        // `Policy` enforces a user for root servers; this check prevents running as root if that validation is
        // bypassed.
        return Err(Refusal::at(Step::Uid)(Errno::EPERM));
    }
    if let Some(User { uid, gid }) = setup.user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).map_err(Refusal::at(Step::Groups))?;
        setresgid(gid, gid, gid).map_err(Refusal::at(Step::Gid))?;
        setresuid(uid, uid, uid).map_err(Refusal::at(Step::Uid))?;
    }
    // Ambient first: documented kernels drop it with the permitted set, but this code does not rely on that.
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        clear_capabilities(set).map_err(Refusal::at(Step::Capabilities))?;
    }
    prctl::set_no_new_privs().map_err(Refusal::at(Step::NoNewPrivileges))?;
    fchdir(setup.directory).map_err(Refusal::at(Step::WorkingDirectory))?;
    if let Some(rules) = setup.rules.take() {
        landlock::restrict(rules, setup.plan)?;
    }
    let Streams { stdout, stderr, stdin } = setup.streams;
    // Without `stdin` the program inherits the helper's standard input, /dev/null.
    stdin
        .as_ref()
        .map_or(Ok(()), dup2_stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .map_err(Refusal::at(Step::Streams))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(Refusal::at(Step::Signals))?;
    if let Some(filter) = &setup.filter {
        match &setup.monitor_socket {
            Some(monitor_socket) => {
                let listener = filter.apply_monitored()?;
                reply(monitor_socket.as_fd(), &(), &[listener.as_fd()])
                    .map_err(|Disconnected| Refusal::at(Step::Seccomp)(Errno::EPIPE))?;
            }
            None => filter.apply()?,
        }
    }
    Err(Refusal::at(Step::Execute)(execute(&setup)))
}

/// Tries the paths as execvp(3) does, except that files without an interpreter line are not run by a shell: such a
/// script must fail when it is first tried. Returns only on failure.
fn execute(setup: &ChildSetup<'_>) -> Errno {
    let mut error = Errno::ENOENT;
    for path in &setup.program_paths {
        let Err(errno) = execve(path, &setup.arguments, &setup.environment);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => error = errno,
            errno => return errno,
        }
    }
    match &setup.opened {
        Some(opened) if error == Errno::EACCES => execute_opened(setup, opened),
        _ => error,
    }
}

/// Executes the open file. The file's own execute permission is still checked; only directory search permission is
/// skipped. A script's interpreter opens it as `/dev/fd/N`, see execveat(2), so this descriptor stays open: read-only,
/// on the script.
fn execute_opened(setup: &ChildSetup<'_>, opened: &OwnedFd) -> Errno {
    if let Err(errno) = fcntl(opened, FcntlArg::F_SETFD(FdFlag::empty())) {
        return errno;
    }
    let Err(errno) = fexecve(opened, &setup.arguments, &setup.environment);
    errno
}

fn apply_limits(limits: &ResourceLimits, plan: Plan) -> nix::Result<()> {
    if let Some(time) = limits.cpu_time {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        lower_limit(Resource::RLIMIT_CPU, seconds.max(1), 1)?;
    }
    let values = [
        (Resource::RLIMIT_FSIZE, limits.file_size),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_NPROC, limits.processes.filter(|_| !plan.counts_processes())),
        (Resource::RLIMIT_AS, limits.address_space),
        // Charged to the user that created the user namespace, root for a root server, over all jobs. The C library uses
        // a pending signal for each POSIX timer. `sigqueue(3)`, `mq_overview(7)`, mlock(2).
        (Resource::RLIMIT_SIGPENDING, Some(PENDING_SIGNALS)),
        (Resource::RLIMIT_MSGQUEUE, Some(0)),
        (Resource::RLIMIT_MEMLOCK, Some(LOCKED_MEMORY)),
        // With more, a demoted program could raise its priority again. sched(7).
        (Resource::RLIMIT_NICE, Some(0)),
        (Resource::RLIMIT_RTPRIO, Some(0)),
        // core(5): a limit of 0 is not applied to dumps piped to a program. 1 is applied, and no dump fits into it.
        (Resource::RLIMIT_CORE, Some(1)),
    ];
    for (resource, value) in values {
        if let Some(value) = value {
            lower_limit(resource, value, 0)?;
        }
    }
    Ok(())
}

/// Lowers a limit. Never raises one: the server's limit may be lower, and raising it would require a capability.
fn lower_limit(resource: Resource, soft: rlim_t, hard_above: rlim_t) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    setrlimit(resource, soft.min(hard), soft.saturating_add(hard_above).min(hard))
}

fn clear_capabilities(set: CapSet) -> nix::Result<()> {
    // The crate's error contains the errno as text only.
    caps::clear(None, set).map_err(|_| Errno::last())
}
