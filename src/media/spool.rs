//! The spool: the disk that media use on their way. Its budget is counted over all jobs and all
//! bodies being served, and reserved before anything is written, so that a full disk is an answer
//! (503) rather than an accident. Knows no media and no HTTP.

mod budget;

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use budget::Budget;
pub use budget::{Account, Reservation, SpoolFull};

/// Where bodies are spooled, and how much of the disk they may take.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
    budget: Arc<Budget>,
}

impl Spool {
    /// A spool of at most `limit` bytes, for bodies of at most `max_size` bytes; `directory` exists
    /// and is the server's own.
    #[must_use]
    pub fn new(directory: PathBuf, limit: u64, max_size: u64) -> Self {
        Self { directory, budget: Arc::new(Budget::new(limit, max_size)) }
    }

    /// The same spool with other bounds: what is held counts in both.
    #[must_use]
    pub fn with_bounds(&self, limit: u64, max_size: u64) -> Self {
        let budget = Arc::new(self.budget.with_bounds(limit, max_size));
        Self { directory: self.directory.clone(), budget }
    }

    /// Where jobs' directories are made.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The account of what comes from `server` (a host without its port; case does not matter) for
    /// the one with this token.
    #[must_use]
    pub fn account(&self, server: &str, token: Option<&[u8]>) -> Account {
        self.budget.account(Some(server), token)
    }

    /// The account of what is nobody else's: it has the whole budget.
    #[must_use]
    pub fn own_account(&self) -> Account {
        self.budget.account(None, None)
    }

    /// Bytes reserved at the moment.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Bytes of the whole budget.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// A file without a name: gone with its last descriptor, whatever becomes of the server.
    pub(crate) fn nameless_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(&self.directory)
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
