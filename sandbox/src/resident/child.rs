//! The child of one job: restricts itself, evaluates the media, writes one record and exits.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Pid, getppid};
use seccompiler::{BpfProgram, apply_filter};

use super::media::JobMedia;
use super::record::write_record;
use crate::sys;

/// Exit codes of a child that failed. The server reports them.
#[derive(Clone, Copy)]
pub(super) enum ChildFailure {
    /// A restriction could not be applied.
    Restrictions = 101,
    /// The media is not a regular file, or cannot be read.
    Media = 102,
    /// The evaluation panicked.
    Panic = 103,
    /// The result is too long, or cannot be written.
    Result = 104,
}

impl ChildFailure {
    /// Returns the failure with this exit code.
    pub(super) fn from_code(code: c_int) -> Option<Self> {
        let all = [Self::Restrictions, Self::Media, Self::Panic, Self::Result];
        all.into_iter().find(|failure| *failure as c_int == code)
    }

    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Restrictions => "the child's restrictions could not be applied",
            Self::Media => "the media could not be read",
            Self::Panic => "the evaluation panicked",
            Self::Result => "the result is too long or could not be written",
        }
    }
}

/// What a child needs.
pub(super) struct ChildJob<'a> {
    pub(super) job: u64,
    /// Memory beyond `address_space` and the media, bytes.
    pub(super) memory: u64,
    pub(super) cpu_seconds: u32,
    pub(super) argument: u32,
    pub(super) media: OwnedFd,
    pub(super) result: OwnedFd,
    /// Size of the address space of the resident program, bytes.
    pub(super) address_space: u64,
    pub(super) filter: &'a BpfProgram,
    pub(super) parent: Pid,
}

/// Evaluates the media of one job. An error means that the media could not be read.
pub(super) type Evaluate<'a> = dyn FnMut(&JobMedia) -> io::Result<Vec<u8>> + 'a;

/// Runs in the child, after fork(2). Ends the process without running a destructor of the parent's values.
pub(super) fn run(job: ChildJob<'_>, evaluate: &mut Evaluate<'_>) -> ! {
    let code = match complete(job, evaluate) {
        Ok(()) => 0,
        Err(failure) => failure as c_int,
    };
    sys::exit_now(code)
}

fn complete(job: ChildJob<'_>, evaluate: &mut Evaluate<'_>) -> Result<(), ChildFailure> {
    let (id, filter) = (job.job, job.filter);
    let (media, result) = restrict(job).map_err(|_| ChildFailure::Restrictions)?;
    // Applied last, because the filter forbids calls of `restrict`, such as fstat(2) and setrlimit(2).
    apply_filter(filter).map_err(|_| ChildFailure::Restrictions)?;
    let evaluated = catch_unwind(AssertUnwindSafe(|| evaluate(&media)));
    let evaluated = evaluated.map_err(|_panic| ChildFailure::Panic)?;
    let evaluated = evaluated.map_err(|_| ChildFailure::Media)?;
    write_record(result, id, &evaluated).map_err(|_| ChildFailure::Result)
}

/// Keeps only the media and the pipe, and sets the limits.
fn restrict(job: ChildJob<'_>) -> nix::Result<(JobMedia, BorrowedFd<'static>)> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before.
    if getppid() != job.parent {
        return Err(Errno::ESRCH);
    }
    let [file, result] = sys::keep_descriptors(job.media, job.result)?;
    let status = fstat(file)?;
    if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Errno::EINVAL);
    }
    let size = u64::try_from(status.st_size).map_err(|_| Errno::EOVERFLOW)?;
    let memory = job.address_space.saturating_add(size).saturating_add(job.memory);
    let cpu = rlim_t::from(job.cpu_seconds);
    let limits = [
        (Resource::RLIMIT_AS, memory, memory),
        // The first is SIGXCPU, which kills as well: the action is the default.
        (Resource::RLIMIT_CPU, cpu, cpu.saturating_add(1)),
        (Resource::RLIMIT_NOFILE, 0, 0),
        (Resource::RLIMIT_FSIZE, 0, 0),
        // core(5): a limit of 0 is not applied to dumps piped to a program.
        (Resource::RLIMIT_CORE, 1, 1),
        (Resource::RLIMIT_NPROC, 0, 0),
    ];
    for (resource, soft, hard) in limits {
        // Never raises a limit.
        let (_, highest) = getrlimit(resource)?;
        setrlimit(resource, soft.min(highest), hard.min(highest))?;
    }
    let length = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
    Ok((JobMedia { file, length, argument: job.argument }, result))
}
