//! The child of one job: restricts itself, reads the media, evaluates it, writes one record and exits.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc::c_int;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::uio::pread;
use nix::unistd::{Pid, getppid};
use seccompiler::{BpfProgram, apply_filter};

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
    pub(super) media: OwnedFd,
    pub(super) result: OwnedFd,
    /// Size of the address space of the resident program, bytes.
    pub(super) address_space: u64,
    pub(super) filter: &'a BpfProgram,
    pub(super) parent: Pid,
}

/// Runs in the child, after fork(2). Ends the process without running a destructor of the parent's values.
pub(super) fn run(job: ChildJob<'_>, evaluate: &mut dyn FnMut(&[u8]) -> Vec<u8>) -> ! {
    let code = match complete(job, evaluate) {
        Ok(()) => 0,
        Err(failure) => failure as c_int,
    };
    sys::exit_now(code)
}

fn complete(
    job: ChildJob<'_>,
    evaluate: &mut dyn FnMut(&[u8]) -> Vec<u8>,
) -> Result<(), ChildFailure> {
    let (id, filter) = (job.job, job.filter);
    let (media, result, length) = restrict(job).map_err(|_| ChildFailure::Restrictions)?;
    // After the last call that the filter kills: fstat(2) and setrlimit(2).
    apply_filter(filter).map_err(|_| ChildFailure::Restrictions)?;
    // Read rather than mapped: the server has the file open for writing.
    let media = read_media(media, length).map_err(|_| ChildFailure::Media)?;
    let evaluated = catch_unwind(AssertUnwindSafe(|| evaluate(&media)));
    let evaluated = evaluated.map_err(|_panic| ChildFailure::Panic)?;
    write_record(result, id, &evaluated).map_err(|_| ChildFailure::Result)
}

/// Keeps only the media and the pipe, and sets the limits. Returns the length of the media.
fn restrict(job: ChildJob<'_>) -> nix::Result<(BorrowedFd<'static>, BorrowedFd<'static>, usize)> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have ended before.
    if getppid() != job.parent {
        return Err(Errno::ESRCH);
    }
    let [media, result] = sys::keep_descriptors(job.media, job.result)?;
    let status = fstat(media)?;
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
    Ok((media, result, usize::try_from(size).map_err(|_| Errno::EFBIG)?))
}

fn read_media(media: BorrowedFd<'_>, length: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match pread(media, rest, i64::try_from(read).map_err(|_| Errno::EFBIG)?) {
            // The file is shorter than before.
            Ok(0) => return Err(Errno::EIO),
            Ok(count) => read += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}
