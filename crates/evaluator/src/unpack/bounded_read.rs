//! Reads within a limit.

use std::io::{self, Read};

/// Capacity of the first buffer for a file, bytes.
const FIRST_CAPACITY: usize = 16 * 1024;

/// Reads at most `max_length` bytes. The capacity of the buffer is at most that, too.
pub(super) fn read_up_to(
    mut decoder: impl Read,
    max_length: usize,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    while bytes.len() < max_length {
        let additional =
            bytes.len().max(FIRST_CAPACITY).min(max_length.saturating_sub(bytes.len()));
        bytes.reserve_exact(additional);
        // The standard library extends a buffer only after it has read more bytes than fit.
        let length = decoder.by_ref().take(additional as u64).read_to_end(bytes)?;
        if length < additional {
            break;
        }
    }
    Ok(())
}
