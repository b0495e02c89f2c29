//! System calls of resident programs and of the children that they fork for each job.

use std::mem;
use std::num::NonZero;
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc::{self, c_int};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, dup2_stdin, dup2_stdout, sysconf};

/// Upper bound of an address space, pages: 52 bits of address space with pages of 4 KiB.
const MAX_PAGES: u64 = 1 << 40;

/// Makes `media` descriptor 0 and `result` descriptor 1, closes all other descriptors, and returns the two. Must be
/// called in a child that exits by [`exit_now`]: values of the parent that own a descriptor must not be dropped any more.
/// dup2(2), `close_range(2)`.
pub(crate) fn keep_descriptors(
    media: OwnedFd,
    result: OwnedFd,
) -> nix::Result<[BorrowedFd<'static>; 2]> {
    // Otherwise the first dup2(2) could close the second descriptor.
    if media.as_raw_fd() < 2 || result.as_raw_fd() < 2 {
        return Err(Errno::EBADF);
    }
    dup2_stdin(&media)?;
    dup2_stdout(&result)?;
    mem::forget((media, result));
    // SAFETY: the call reads no memory, and no value that owns one of the closed descriptors is used or dropped after it.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 2_u32, u32::MAX, 0_u32) };
    Errno::result(closed)?;
    // SAFETY: the descriptors 0 and 1 were opened above and stay open until the process exits.
    Ok(unsafe { [BorrowedFd::borrow_raw(0), BorrowedFd::borrow_raw(1)] })
}

/// Ends the process without running destructors or exit handlers. _exit(2).
pub(crate) fn exit_now(code: c_int) -> ! {
    // SAFETY: ends the process without running anything else of it.
    unsafe { libc::_exit(code) }
}

/// Returns the size of this process's address space, bytes, without `/proc`, which the minimal root lacks: the lowest
/// `RLIMIT_AS` with which one more page can be mapped, less that page. For single-threaded processes only. getrlimit(2).
pub(crate) fn address_space() -> nix::Result<u64> {
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|page| u64::try_from(page).ok());
    let page = page.and_then(NonZero::new).ok_or(Errno::EINVAL)?;
    let length = usize::try_from(page.get()).ok().and_then(NonZero::new).ok_or(Errno::EINVAL)?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS)?;
    let (mut too_low, mut enough) = (0, MAX_PAGES);
    while enough - too_low > 1 {
        let middle = too_low.midpoint(enough);
        setrlimit(Resource::RLIMIT_AS, middle.saturating_mul(page.get()).min(hard), hard)?;
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory that is in use.
        let mapped =
            unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) };
        match mapped {
            Ok(start) => {
                // SAFETY: unmaps exactly the page that was mapped above, which nothing refers to.
                unsafe { munmap(start, length.get()) }?;
                enough = middle;
            }
            Err(_) => too_low = middle,
        }
    }
    setrlimit(Resource::RLIMIT_AS, soft, hard)?;
    Ok(too_low.saturating_mul(page.get()))
}
