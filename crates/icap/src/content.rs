//! Access to the file that is scanned.

use std::io;

use bytes::Bytes;

/// A file to scan. Its content must not change during the scan.
pub trait Content: Sync {
    /// Returns the length in bytes.
    fn len(&self) -> u64;

    /// Returns whether the file is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads some bytes at `offset`, at most `max`. Returns no bytes at or beyond the end. An implementation may limit
    /// the length, which bounds the memory for one scan.
    fn read_chunk(&self, offset: u64, max: u64) -> impl Future<Output = io::Result<Bytes>> + Send;
}
