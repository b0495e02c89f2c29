//! Reasons why the store cannot be used. The messages are for operators.

use std::{io, path::PathBuf};

/// Reason why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "explained by the messages")]
pub enum StoreError {
    #[error("the path of the store, {}, has no file name; give the path of a file", path.display())]
    NoFileName { path: PathBuf },
    #[error("the directory of the store, {}, cannot be used; create it", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the directory of the store, {}, is not a directory", path.display())]
    NotADirectory { path: PathBuf },
    #[error(
        "the directory of the store, {}, can be written by other users; remove the permission with chmod go-w, or use another directory",
        path.display()
    )]
    WritableDirectory { path: PathBuf },
    #[error(
        "the directory of the store, {}, belongs to user {owner}; it must belong to root or to user {user}, as whom this process runs",
        path.display()
    )]
    DirectoryOwner { path: PathBuf, owner: u32, user: u32 },
    #[error("{} is a symbolic link; give the path of the file itself", path.display())]
    SymbolicLink { path: PathBuf },
    #[error("{} is not a regular file; move it away, or give another path for the store", path.display())]
    NotRegular { path: PathBuf },
    #[error("{} belongs to user {owner}; it must belong to user {user}, as whom this process runs", path.display())]
    FileOwner { path: PathBuf, owner: u32, user: u32 },
    #[error("{} can be used by other users (mode {mode:o}); change it with chmod 600", path.display())]
    FileMode { path: PathBuf, mode: u32 },
    #[error("{} cannot be opened", path.display())]
    File { path: PathBuf, source: io::Error },
    /// `holder`: PID of the process, if it is known.
    #[error(
        "the store {} is used by another process{}; stop it, or give another path",
        path.display(),
        holder.map(|pid| format!(", PID {pid}")).unwrap_or_default()
    )]
    Locked { path: PathBuf, holder: Option<u32> },
    #[error("{} cannot be opened as a database; check the disk and the free space", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    #[error("the new file {} is damaged; check the disk: {cause}", path.display())]
    NewFileDamaged { path: PathBuf, cause: DamageCause },
    #[error("a thread of the store cannot be started")]
    Thread(#[source] io::Error),
}

/// Reason why a file was set aside and replaced.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DamageCause {
    /// The file is not a database, or contains invalid structures.
    #[error("the database is damaged: {0}")]
    Damaged(String),
    /// The database belongs to another program.
    #[error("the database belongs to another program (application ID {0})")]
    OtherApplication(i32),
    /// The database was made by an earlier or a later version of this program.
    #[error("the database has schema version {0}, made by another version of this program")]
    OtherVersion(i32),
    /// The database has other tables.
    #[error("the database has other tables than those of this program")]
    OtherSchema,
}

/// A change was not written: the write failed, too many changes were queued, or the store was closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the store has not written the change; the cause is in the log")]
pub struct NotDurable;
