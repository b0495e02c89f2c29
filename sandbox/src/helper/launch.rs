//! Forks the child that becomes the program. Steps 8 to 20 of the module above, in one function in their order. The child
//! says which step failed over a socket of its own that execve(2) closes, so the program cannot speak in its name; the first
//! process of a pid namespace says over the same socket how the program ended.
//! credentials(7), capabilities(7), `PR_SET_NO_NEW_PRIVS(2const)`, execve(2).

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use caps::CapSet;
use landlock::RulesetCreated;
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
use super::seccomp::Filter;
use super::{Gone, Streams, init, landlock as paths, next, reply};
use crate::cgroup::Group;
use crate::channel;
use crate::error::{Refusal, Step};
use crate::plan::Plan;
use crate::policy::{Limits, User};
use crate::protocol::{Prepare, Run, Usage};
use crate::sys;

/// Steps of nice(2) below the server, which has to answer while every processor is a script's: about a third of its share.
const LESS_URGENT: c_int = 5;

/// Where a program without a path is looked for, unless the policy sets `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) struct Launched {
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    /// Where a watched program's filter arrives.
    pub(super) filter: Option<OwnedFd>,
    child: OwnedFd,
}

impl Launched {
    /// Lets the child go on to the program.
    pub(super) fn go(&self) {
        // If the child has died that is seen where its end is waited for.
        let _ = reply(self.child.as_fd(), &(), &[]);
    }

    /// What an ended child has said, the first of it.
    pub(super) fn report(&self) -> Option<Report> {
        next(self.child.as_fd()).ok().flatten().map(|(report, _)| report)
    }
}

/// From the child, or from the first process of its pid namespace.
#[derive(Serialize, Deserialize)]
pub(super) enum Report {
    /// The program was not executed.
    Refused(Refusal),
    /// The program ended; from a pid namespace only, where the helper cannot see it.
    Ended { status: c_int, usage: Usage },
}

/// What the child needs, made before fork(2).
struct Program<'a> {
    plan: Plan,
    /// Where its filter is sent, if it is watched.
    watcher: Option<OwnedFd>,
    rules: Option<RulesetCreated>,
    filter: Option<Filter>,
    candidates: Vec<CString>,
    /// The program itself, opened with the server's rights.
    opened: Option<OwnedFd>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    limits: &'a Limits,
    user: Option<User>,
    directory: BorrowedFd<'a>,
    streams: &'a Streams,
}

pub(super) fn launch(
    directory: &Directory,
    prepare: &Prepare,
    run: &Run,
    streams: &Streams,
) -> Result<Launched, Refusal> {
    let mut program = program(directory, prepare, run, streams)?;
    let mut filter = None;
    if run.watched && prepare.plan.seccomp {
        let (ours, theirs) = channel::pair().map_err(Refusal::at(Step::Fork))?;
        (filter, program.watcher) = (Some(ours), Some(theirs));
    }
    let (ours, theirs) = channel::pair().map_err(Refusal::at(Step::Fork))?;
    let say = |report| {
        let _ = reply(theirs.as_fd(), &report, &[]);
    };
    let ready = || {
        // Before it forks: nothing of the program is ever outside.
        let entered = directory.group.as_ref().map_or(Ok(()), Group::enter);
        entered.map_err(Refusal::at(Step::Cgroup))?;
        wait_for_go(&ours, &theirs)
    };
    let become_it = |program| {
        let Err(refusal) = become_program(program);
        say(Report::Refused(refusal));
        127
    };
    // Where ids are to be named for it.
    let users = prepare.user.zip(directory.proc.as_ref());
    let pid = if prepare.plan.namespaces {
        let (flags, step) = match users {
            Some(_) => (CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWUSER, Step::IdMaps),
            None => (CloneFlags::CLONE_NEWPID, Step::Init),
        };
        sys::fork_child_in(flags, || {
            say(match init::run(ready, || become_it(program)) {
                Ok((status, usage)) => Report::Ended { status, usage },
                Err(refusal) => Report::Refused(refusal),
            });
            0
        })
        .map_err(Refusal::at(step))?
    } else {
        sys::fork_child(|| match ready() {
            Ok(()) => become_it(program),
            Err(refusal) => {
                say(Report::Refused(refusal));
                127
            }
        })
        .map_err(Refusal::at(Step::Fork))?
    };
    let named = users.map_or(Ok(()), |(user, proc)| proc.name_in(pid, user));
    let named = named.map_err(Refusal::at(Step::IdMaps));
    let opened = named.and_then(|()| sys::pidfd_open(pid).map_err(Refusal::at(Step::Fork)));
    match opened {
        Ok(pidfd) => Ok(Launched { pid, pidfd, filter, child: ours }),
        Err(refusal) => {
            // Its end of the socket closes unheard, and it exits.
            drop(ours);
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(refusal)
        }
    }
}

fn program<'a>(
    directory: &'a Directory,
    prepare: &'a Prepare,
    run: &'a Run,
    streams: &'a Streams,
) -> Result<Program<'a>, Refusal> {
    let unusable = Refusal::at(Step::Execute);
    let mut environment: Vec<(OsString, OsString)> = vec![
        ("PATH".into(), DEFAULT_PATH.into()),
        ("LANG".into(), "C.UTF-8".into()),
        ("HOME".into(), directory.path.clone().into()),
        ("TMPDIR".into(), directory.tmp()),
    ];
    for (name, value) in &prepare.environment {
        environment.retain(|(known, _)| *known != name.0);
        environment.push((name.0.clone(), value.0.clone()));
    }
    let path = environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());

    // One that lies where the program's user cannot pass (a checkout below /root) is executed by descriptor, unless a minimal
    // root has laid its path bare. Opened now, while that can be done; what fails here is told when it is executed.
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opened = open(run.program.0.as_os_str(), flags, Mode::empty()).ok();
    let opened = opened.filter(|_| prepare.user.is_some() && !prepare.plan.namespaces);
    let candidates = candidates(&run.program.0, path.as_deref().unwrap_or_default());
    let arguments = [&run.program].into_iter().chain(&run.arguments).map(|text| text.0.clone());
    let environment = environment.into_iter().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name
    });
    let (plan, view) = (prepare.plan, &prepare.view);
    let rules = (plan.landlock > 0)
        .then(|| paths::rules(plan, view, &directory.path, Path::new(&run.program.0)))
        .transpose()?;
    let watched = run.watched && plan.seccomp;
    let servers_own = prepare.user.is_none();
    let filter = plan.seccomp.then(|| Filter::new(plan, view, servers_own, watched)).transpose()?;
    Ok(Program {
        plan,
        watcher: None,
        rules,
        filter,
        candidates: c_strings(candidates).map_err(&unusable)?,
        opened,
        arguments: c_strings(arguments).map_err(&unusable)?,
        environment: c_strings(environment).map_err(&unusable)?,
        limits: &prepare.limits,
        user: prepare.user,
        directory: directory.fd.as_fd(),
        streams,
    })
}

/// The files that `program` may mean: itself, or without a slash, one in each directory of `path`.
fn candidates(program: &OsStr, path: &OsStr) -> Vec<OsString> {
    if program.as_bytes().contains(&b'/') {
        return vec![program.to_owned()];
    }
    // An empty entry would be the working directory, which is the program's to write.
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(program).into_os_string())
        .collect()
}

fn c_strings(texts: impl IntoIterator<Item = OsString>) -> nix::Result<Vec<CString>> {
    texts.into_iter().map(|text| CString::new(text.into_vec()).map_err(|_| Errno::EINVAL)).collect()
}

fn wait_for_go(ours: &OwnedFd, theirs: &OwnedFd) -> Result<(), Refusal> {
    // This process's copy of the helper's end: while it is open the helper's death would not be seen.
    let closed = close(ours.as_raw_fd());
    match next::<()>(theirs.as_fd()) {
        Ok(Some(_)) => closed.map_err(Refusal::at(Step::Fork)),
        Ok(None) | Err(_) => Err(Refusal::at(Step::Fork)(Errno::EPIPE)),
    }
}

/// In the child.
fn become_program(mut program: Program<'_>) -> Result<Infallible, Refusal> {
    setsid().map_err(Refusal::at(Step::Session))?;
    sys::lower_priority(LESS_URGENT);
    limit(program.limits, program.plan).map_err(Refusal::at(Step::Limits))?;
    // Without the right to, no_new_privs has to do, with which nothing of the set can be had.
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP).unwrap_or(false) {
        clear(CapSet::Bounding).map_err(Refusal::at(Step::BoundingSet))?;
    }
    if program.user.is_none() && geteuid().is_root() {
        // A server of ours names a user, see `Policy`; should that check ever be passed by, nothing runs as root.
        return Err(Refusal::at(Step::Uid)(Errno::EPERM));
    }
    if let Some(User { uid, gid }) = program.user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        setgroups(&[]).map_err(Refusal::at(Step::Groups))?;
        setresgid(gid, gid, gid).map_err(Refusal::at(Step::Gid))?;
        setresuid(uid, uid, uid).map_err(Refusal::at(Step::Uid))?;
    }
    // Ambient first: it goes with the permitted set, but only in kernels that do as documented.
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        clear(set).map_err(Refusal::at(Step::Capabilities))?;
    }
    prctl::set_no_new_privs().map_err(Refusal::at(Step::NoNewPrivileges))?;
    fchdir(program.directory).map_err(Refusal::at(Step::WorkingDirectory))?;
    if let Some(rules) = program.rules.take() {
        paths::restrict(rules, program.plan)?;
    }
    let Streams { stdout, stderr, stdin } = program.streams;
    // Without one of its own the program has the helper's standard input: /dev/null.
    stdin
        .as_ref()
        .map_or(Ok(()), dup2_stdin)
        .and_then(|()| dup2_stdout(stdout))
        .and_then(|()| dup2_stderr(stderr))
        .map_err(Refusal::at(Step::Streams))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(Refusal::at(Step::Signals))?;
    if let Some(filter) = &program.filter {
        match &program.watcher {
            Some(watcher) => {
                let listener = filter.apply_watched()?;
                reply(watcher.as_fd(), &(), &[listener.as_fd()])
                    .map_err(|Gone| Refusal::at(Step::Seccomp)(Errno::EPIPE))?;
            }
            None => filter.apply()?,
        }
    }
    Err(Refusal::at(Step::Execute)(execute(&program)))
}

/// Tries the candidates as execvp(3) does, but for its running of files without an interpreter by a shell: a script that
/// names none is to be found out when it is tried first. Returns only on failure.
fn execute(program: &Program<'_>) -> Errno {
    let mut found = Errno::ENOENT;
    for candidate in &program.candidates {
        let Err(errno) = execve(candidate, &program.arguments, &program.environment);
        match errno {
            Errno::ENOENT | Errno::ENOTDIR => {}
            Errno::EACCES => found = errno,
            errno => return errno,
        }
    }
    match &program.opened {
        Some(opened) if found == Errno::EACCES => execute_opened(program, opened),
        _ => found,
    }
}

/// The right to execute is the file's own and is checked all the same; only the way to it is spared. A script's interpreter
/// opens it as `/dev/fd/N`, see execveat(2), so this one descriptor stays: on the script itself, for reading.
fn execute_opened(program: &Program<'_>, opened: &OwnedFd) -> Errno {
    if let Err(errno) = fcntl(opened, FcntlArg::F_SETFD(FdFlag::empty())) {
        return errno;
    }
    let Err(errno) = fexecve(opened, &program.arguments, &program.environment);
    errno
}

fn limit(limits: &Limits, plan: Plan) -> nix::Result<()> {
    if let Some(time) = limits.cpu_time {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        lower(Resource::RLIMIT_CPU, seconds.max(1), 1)?;
    }
    let values = [
        (Resource::RLIMIT_FSIZE, limits.file_size),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_NPROC, limits.processes.filter(|_| !plan.counts_processes())),
        (Resource::RLIMIT_AS, limits.address_space),
        // core(5): 0 is not applied where dumps are piped to a program, 1 is, and no dump fits into it.
        (Resource::RLIMIT_CORE, Some(1)),
    ];
    for (resource, value) in values {
        if let Some(value) = value {
            lower(resource, value, 0)?;
        }
    }
    Ok(())
}

/// Never raises: that a limit of the server's is lower still is no failure, and raising would take a capability.
fn lower(resource: Resource, soft: rlim_t, hard_above: rlim_t) -> nix::Result<()> {
    let (_, hard) = getrlimit(resource)?;
    setrlimit(resource, soft.min(hard), soft.saturating_add(hard_above).min(hard))
}

fn clear(set: CapSet) -> nix::Result<()> {
    // The crate's error has the kernel's only as text.
    caps::clear(None, set).map_err(|_| Errno::last())
}
