//! Examination of a store's file by another process than the one that uses it. Takes no lock that another process waits for,
//! and does not change the database.

use std::{
    fs, io,
    path::Path,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode};

use crate::{
    database::{FileContent, OpenFailure, check_file, is_damage, open_inspector, read_entries},
    error::{DamageCause, StoreError},
    store_path::StorePath,
};

/// Pause between interrupts of a check: an interrupt between two statements has no effect.
const INTERRUPT_PAUSE: Duration = Duration::from_millis(50);

/// What a store's file contains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreInspection {
    /// There is no file yet.
    Missing,
    /// The next process that opens the store sets the file aside, for this reason.
    Unusable(DamageCause),
    /// The next process can use the file.
    Good {
        /// Number of records, including expired ones.
        entries: u64,
        /// Size of the database, bytes.
        size: u64,
        /// Whether a process has the store open, or ended without closing it.
        is_open: bool,
        /// Whether the structure was checked to its end within the time limit.
        is_checked: bool,
    },
}

impl StoreInspection {
    /// Examines the file at a path: whether this program can use it, its structure and the number of its records. Checking
    /// the structure takes at most `time_limit`. Blocking.
    ///
    /// Root may examine the store of another user.
    ///
    /// # Errors
    /// If the file or its directory cannot be used, or cannot be read at the moment.
    pub fn of_file(path: &Path, time_limit: Duration) -> Result<Self, StoreError> {
        let path = StorePath::for_inspection(path)?;
        let Some(size) = path.checked_size()? else { return Ok(Self::Missing) };
        let mut is_open = path.was_left_open();
        let mut result = inspect(&path, is_open, time_limit);
        // Another process has opened the store meanwhile, so that the file may have changed while it was read.
        if !is_open && path.was_left_open() {
            is_open = true;
            result = inspect(&path, is_open, time_limit);
        }
        match result {
            Ok((entries, is_checked)) => Ok(Self::Good { entries, size, is_open, is_checked }),
            Err(OpenFailure::Damaged(cause)) => Ok(Self::Unusable(cause)),
            Err(OpenFailure::Failed(source)) => {
                Err(StoreError::Database { path: path.database(), source })
            }
        }
    }
}

/// Returns the number of records, and whether the check of the structure has finished. `is_open`: whether there is a
/// write-ahead log.
fn inspect(
    path: &StorePath,
    is_open: bool,
    time_limit: Duration,
) -> Result<(u64, bool), OpenFailure> {
    let connection = open_inspector(path, is_open)?;
    if check_file(&connection)? == FileContent::Empty {
        return Ok((0, true));
    }
    let entries = read_entries(&connection)?;
    Ok((entries, check_structure(&connection, time_limit)?))
}

/// Checks the structure of the database. Returns `false` at the time limit.
fn check_structure(connection: &Connection, time_limit: Duration) -> Result<bool, OpenFailure> {
    let interrupt = connection.get_interrupt_handle();
    let (finished, wait) = mpsc::channel::<()>();
    let result = thread::scope(|scope| {
        scope.spawn(move || {
            let mut pause = time_limit;
            while wait.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                interrupt.interrupt();
                pause = INTERRUPT_PAUSE;
            }
        });
        let check = "PRAGMA quick_check(1)";
        let result = connection.query_one(check, [], |row| row.get::<_, String>(0));
        drop(finished);
        result
    });
    match result {
        Ok(result) if result == "ok" => Ok(true),
        Ok(damage) => Err(OpenFailure::Damaged(DamageCause::Damaged(damage))),
        Err(error) if is_damage(&error) => {
            Err(OpenFailure::Damaged(DamageCause::Damaged(error.to_string())))
        }
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(false)
        }
        Err(error) => Err(OpenFailure::Failed(error)),
    }
}

impl StorePath {
    /// Returns the size of the database, after checking that the service could open it; `None` if it does not exist.
    fn checked_size(&self) -> Result<Option<u64>, StoreError> {
        let path = self.database();
        match fs::symlink_metadata(&path) {
            Ok(metadata) => self.check_private(&path, &metadata).map(|()| Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::File { path, source }),
        }
    }
}
