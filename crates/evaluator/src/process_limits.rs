//! Limits of an evaluator's processes, setrlimit(2).

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::unpack::{MAX_WINDOW, UnpackSettings};

/// Maximum size of the stack, bytes. Depth is limited, but decoders for mail and PDF recurse on their input.
const STACK: rlim_t = 16 << 20;

/// Memory besides media, unpacked files and decoders, bytes: matches of strings, buffers, free memory of the allocator.
const MARGIN: rlim_t = 128 << 20;

/// Memory for each unpacked file, bytes: its digest, in a table that doubles its size when it is full.
const PER_FILE: rlim_t = 128;

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

/// Returns the memory that the evaluation of a media file may take in addition to the file, bytes. A failed
/// allocation ends the process, and the evaluation fails.
#[must_use]
pub fn memory_allowance(settings: &UnpackSettings) -> u64 {
    let unpacked = if settings.enabled {
        // Twice the size for the files in memory, and once for the free part of the buffer that is being filled.
        let files = settings.max_file.min(settings.max_total).saturating_mul(3);
        let digests = settings.max_files.saturating_mul(PER_FILE);
        files.saturating_add(digests).saturating_add(MAX_WINDOW as u64)
    } else {
        0
    };
    unpacked.saturating_add(STACK + MARGIN)
}
