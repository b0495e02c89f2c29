//! The spool: the disk that media use on their way. Its budget is counted over all jobs and all
//! bodies being served, and reserved before anything is written, so that a full disk is an answer
//! (503) rather than an accident. Knows no media and no HTTP.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Where bodies are spooled, and how much of the disk they may take.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    budget: Arc<Budget>,
}

#[derive(Debug)]
struct Budget {
    limit: u64,
    used: AtomicU64,
}

impl Spool {
    /// A spool of at most `limit` bytes; `directory` exists and is the server's own.
    #[must_use]
    pub fn new(directory: PathBuf, limit: u64) -> Self {
        Self { directory, budget: Arc::new(Budget { limit, used: AtomicU64::new(0) }) }
    }

    /// Where jobs' directories are made.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// A reservation of nothing, to be grown.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation { budget: Arc::clone(&self.budget), bytes: 0 }
    }

    /// Bytes reserved at the moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.budget.used.load(Ordering::Relaxed)
    }

    /// A file without a name: gone with its last descriptor, whatever becomes of the server.
    pub(super) fn nameless_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.directory)
    }
}

/// A share of the spool's budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

/// The budget is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolFull;

impl Reservation {
    /// Whether the share is at least `bytes`.
    pub(super) fn holds(&self, bytes: u64) -> bool {
        self.bytes >= bytes
    }

    /// Makes the share at least `bytes` in all. On an error it is as it was.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), SpoolFull> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        self.budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(more).filter(|sum| *sum <= self.budget.limit)
            })
            .map_err(|_| SpoolFull)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        self.budget.used.fetch_sub(less, Ordering::Relaxed);
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

/// A body on disk that only the server can write, with its share of the budget.
#[derive(Debug)]
pub struct SpooledFile {
    file: File,
    len: u64,
    _reservation: Reservation,
}

impl SpooledFile {
    /// `file` holds `len` bytes that nobody else can change.
    pub(super) fn new(file: File, len: u64, reservation: Reservation) -> Self {
        Self { file, len, _reservation: reservation }
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads at `offset` without moving anything; blocking.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_budget_and_come_back() {
        let spool = Spool::new(std::env::temp_dir(), 100);
        let mut first = spool.reservation();
        let mut second = spool.reservation();
        assert_eq!(first.grow_to(60), Ok(()));
        assert_eq!(first.grow_to(50), Ok(()), "a smaller share is held already");
        assert_eq!(second.grow_to(41), Err(SpoolFull));
        assert_eq!(second.grow_to(40), Ok(()));
        assert_eq!(spool.used(), 100);
        first.shrink_to(10);
        assert_eq!(second.grow_to(90), Ok(()));
        drop((first, second));
        assert_eq!(spool.used(), 0);
        assert_eq!(spool.reservation().grow_to(u64::MAX), Err(SpoolFull));
    }
}
