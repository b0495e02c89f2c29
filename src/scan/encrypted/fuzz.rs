//! Fuzz target: examines any bytes as a file and checks the bound on reads. `cargo test` replays the kept corpus.

#![expect(clippy::expect_used, reason = "a panic is how a failure is reported to the fuzzer")]

use std::{cell::Cell, io};

use super::{Encryption, ReadAt, detect};

/// A file that counts reads and their bytes. A read returns at most `most` bytes.
struct Counted<'a> {
    bytes: &'a [u8],
    most: usize,
    read: Cell<u64>,
    reads: Cell<u64>,
}

impl ReadAt for Counted<'_> {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let most = buffer.len().min(self.most);
        let read = self.bytes.read_at(buffer.get_mut(..most).unwrap_or_default(), offset)?;
        self.reads.set(self.reads.get() + 1);
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

/// Examines these bytes as a file.
///
/// # Panics
/// Where the bound on reads is broken, or where the result depends on how the file is read.
pub fn file(bytes: &[u8]) {
    let whole = examined(bytes, usize::MAX, bytes.len() as u64);
    let piecewise = examined(bytes, 1021, bytes.len() as u64);
    let bounded = [whole, piecewise].contains(&Some(Encryption::Unbounded));
    assert!(whole == piecewise || bounded, "{whole:?} {piecewise:?}");
    // Covers a file that is truncated while it is read.
    let _cut = examined(bytes, usize::MAX, bytes.len() as u64 + 4096);
}

pub(super) fn examined(bytes: &[u8], most: usize, length: u64) -> Option<Encryption> {
    let file = Counted { bytes, most, read: Cell::new(0), reads: Cell::new(0) };
    let found = detect(&file, length).expect("bytes in memory are read");
    let bound = length * 8 + (16 << 20);
    let cost = file.read.get() + 128 * file.reads.get();
    assert!(cost <= bound, "{cost} of {bound} for {length} bytes");
    found
}

#[cfg(test)]
#[test]
fn inputs_kept_by_the_fuzzer_hold() {
    crate::scan::engines::fake::each_of_corpus("encrypted", file);
}
