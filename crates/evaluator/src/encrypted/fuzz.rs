//! Fuzz target: examines any bytes as a file and checks the bound on reads. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use std::{cell::Cell, io};

use super::{detect::detect, encryption::Encryption, reader::ReadAt};

/// A file that counts reads and their bytes.
struct CountingFile<'a> {
    bytes: &'a [u8],
    /// Maximum number of bytes per read.
    read_size: usize,
    read_bytes: Cell<u64>,
    reads: Cell<u64>,
}

impl ReadAt for CountingFile<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let length = buffer.len().min(self.read_size);
        let count = self.bytes.read_at(buffer.get_mut(..length).unwrap_or_default(), offset)?;
        self.reads.set(self.reads.get() + 1);
        self.read_bytes.set(self.read_bytes.get() + count as u64);
        Ok(count)
    }
}

/// Checks one input: the bytes of a file.
///
/// # Panics
/// If the bound on reads is exceeded, or if the result depends on the lengths of reads.
pub fn check(bytes: &[u8]) {
    let whole = examine(bytes, usize::MAX, bytes.len() as u64);
    let piecewise = examine(bytes, 1021, bytes.len() as u64);
    let is_unbounded = [whole, piecewise].contains(&Some(Encryption::Unbounded));
    assert!(whole == piecewise || is_unbounded, "{whole:?} {piecewise:?}");
    // A file that is truncated while it is examined.
    let _truncated = examine(bytes, usize::MAX, bytes.len() as u64 + 4096);
}

/// Examines a file and checks the cost of its reads.
pub(super) fn examine(bytes: &[u8], read_size: usize, length: u64) -> Option<Encryption> {
    let file = CountingFile { bytes, read_size, read_bytes: Cell::new(0), reads: Cell::new(0) };
    let encryption = detect(&file, length).expect("reads from memory cannot fail");
    let bound = length * 8 + (16 << 20);
    let cost = file.read_bytes.get() + 128 * file.reads.get();
    assert!(cost <= bound, "{cost} of {bound} for {length} bytes");
    encryption
}

#[cfg(test)]
#[test]
fn kept_inputs_satisfy_invariants() {
    mcs_testing::replay_corpus("encrypted", check);
}
