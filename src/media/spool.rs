//! The spool: disk space for media that is being scanned or served. Its budget covers all jobs and all bodies being
//! served, and is reserved before anything is written, so that requests fail with 503 instead of filling the disk.

mod budget;

use std::{fs::File, io, os::unix::fs::FileExt, path::Path, sync::Arc};

use budget::Budget;
pub use budget::{Account, Reservation, SpoolFull};
pub(super) use budget::{NeededSpace, SMALL_BODY};

use super::run_directory::RunDirectory;
use crate::tenancy::Tenant;

/// Directory for bodies, with a budget.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: Arc<RunDirectory>,
    budget: Arc<Budget>,
}

impl Spool {
    /// Creates a spool of at most `limit` bytes, for bodies of at most `max_size` bytes.
    #[must_use]
    pub fn new(directory: Arc<RunDirectory>, limit: u64, max_size: u64) -> Self {
        Self { directory, budget: Arc::new(Budget::new(limit, max_size)) }
    }

    /// Returns the same spool with other limits. The current usage counts in both.
    #[must_use]
    pub fn with_bounds(&self, limit: u64, max_size: u64) -> Self {
        let budget = Arc::new(self.budget.with_bounds(limit, max_size));
        Self { directory: Arc::clone(&self.directory), budget }
    }

    /// Returns the directory in which the directories of jobs are created. Creates the directory again if it has
    /// disappeared.
    ///
    /// # Errors
    /// As [`RunDirectory::ensure`].
    pub fn directory(&self) -> io::Result<&Path> {
        self.directory.ensure()
    }

    /// Returns the account of one job of a tenant.
    #[must_use]
    pub(crate) fn account(&self, tenant: Tenant) -> Account {
        self.budget.account(Some(tenant))
    }

    /// Returns an account without a tenant, which may use the whole budget.
    #[must_use]
    pub fn unlimited_account(&self) -> Account {
        self.budget.account(None)
    }

    /// Returns the number of reserved bytes.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.budget.used()
    }

    /// Returns the size of the budget, in bytes.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// Creates an unnamed file. The kernel deletes the file when its last descriptor is closed, even if this process is
    /// killed.
    pub(crate) fn create_unnamed_file(&self) -> io::Result<File> {
        tempfile::tempfile_in(self.directory()?)
    }
}

/// A body on disk, with its reservation. Only this process can write to the file.
#[derive(Debug)]
pub struct SpooledFile {
    file: File,
    len: u64,
    _reservation: Reservation,
}

impl SpooledFile {
    /// `file` contains `len` bytes, and no other process can modify it.
    pub(super) fn new(file: File, len: u64, reservation: Reservation) -> Self {
        Self { file, len, _reservation: reservation }
    }

    /// Returns the length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads from `offset`; the file position does not change. Blocking.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
}
