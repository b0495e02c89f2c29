//! (being written)
use std::fs::File;

/// A body on disk that only the server can write.
#[derive(Debug)]
pub struct SpooledFile {
    file: File,
    len: u64,
}

impl SpooledFile {
    /// Bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty body is never on the spool")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads at `offset` without moving anything; blocking.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(&self.file, buffer, offset)
    }
}
