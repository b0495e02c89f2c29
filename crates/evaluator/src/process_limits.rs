//! Limits that an evaluator sets for its own process, setrlimit(2). The limits of the sandbox are those of all programs,
//! and its limit of memory needs a cgroup.

use std::{hint::black_box, io};

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, rlim_t, setrlimit},
};

use crate::unpack::{MAX_WINDOW, UnpackSettings};

/// Maximum size of the stack, bytes. Depth is limited, but decoders for mail and PDF recurse on their input.
const STACK: rlim_t = 16 << 20;

/// Memory besides media, unpacked files and decoders, bytes: matches of strings, buffers, free memory of the allocator.
const MARGIN: rlim_t = 128 << 20;

/// Memory for each unpacked file, bytes: its digest, in a table that doubles its size when it is full.
const PER_FILE: rlim_t = 128;

/// Precision of the measured address space, bytes.
const STEP: rlim_t = 8 << 20;

/// Maximum number of steps. A program instrumented for tests reserves more than this; it gets no limit.
const MAX_STEPS: rlim_t = 256;

/// Size of the allocation that a measurement tries, bytes. The C library asks the system for one of this size and does
/// not use memory that was freed before, mallopt(3), `M_MMAP_THRESHOLD`.
const PROBE: u32 = 32 << 20;

/// Raises the limit of the stack. The stack of the main thread, on which an evaluator runs, grows up to the limit in
/// force when it grows; the kernel leaves at least 128 MiB for it, `mmap_base()`.
///
/// # Errors
/// If the system refuses a value that it allows.
pub(crate) fn raise_stack_limit() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_STACK)?;
    setrlimit(Resource::RLIMIT_STACK, soft.max(STACK.min(hard)), hard)?;
    Ok(())
}

/// Limits the address space to its current size and what a media file of `media` bytes may take. An allocation that
/// fails aborts the process, which is a failure and no result.
///
/// # Errors
/// If the system refuses a value that it allows.
pub(crate) fn limit_memory(media: u64, settings: &UnpackSettings) -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_AS)?;
    let current = address_space(soft, hard)?;
    let limit = current.map_or(soft, |size| size.saturating_add(allowance(media, settings)));
    setrlimit(Resource::RLIMIT_AS, limit.min(soft), hard)?;
    Ok(())
}

/// Returns the memory that the evaluation of a media file of this size may take, bytes.
fn allowance(media: u64, settings: &UnpackSettings) -> rlim_t {
    let unpacked = if settings.enabled {
        // Twice the size for the files in memory, and once for the free part of the buffer that is being filled.
        let files = settings.max_file.min(settings.max_total).saturating_mul(3);
        let digests = settings.max_files.saturating_mul(PER_FILE);
        files.saturating_add(digests).saturating_add(MAX_WINDOW as u64)
    } else {
        0
    };
    media.saturating_add(unpacked).saturating_add(STACK + MARGIN)
}

/// Measures the size of this process's address space, rounded up to [`STEP`]. The sandbox has no `/proc`, so the
/// result follows from the lowest limit with which an allocation succeeds. Returns `None` for more than [`MAX_STEPS`],
/// and if the limit in force, `soft`, is lower.
///
/// # Errors
/// If the system refuses a value that it allows.
fn address_space(soft: rlim_t, hard: rlim_t) -> Result<Option<rlim_t>, Errno> {
    for size in (1..=MAX_STEPS).map(|steps| steps * STEP) {
        let limit = size + rlim_t::from(PROBE);
        if limit > soft {
            break;
        }
        setrlimit(Resource::RLIMIT_AS, limit, hard)?;
        // The compiler may omit an allocation that is not used.
        let mut probe = black_box(Vec::<u8>::new());
        let is_enough = probe.try_reserve_exact(PROBE as usize).is_ok();
        drop(black_box(probe));
        if is_enough {
            return Ok(Some(size));
        }
    }
    Ok(None)
}
