//! Accesses that a program was denied.

use std::path::PathBuf;

use crate::protocol::{Attempt, Text};

/// An access that a program was denied, or a hidden path that it tried to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// System call, by name.
    Call(String),
    /// Path that exists on the machine but is hidden, see [`Paths::read_only`](crate::Paths).
    Read(PathBuf),
    /// Path that is not writable, see [`Paths::writable`](crate::Paths). Programs should use `TMPDIR` instead.
    Write(PathBuf),
    /// Unix socket that is not allowed, see [`Paths::unix_sockets`](crate::Paths).
    Connect(PathBuf),
    /// TCP port that is not allowed, see [`NetworkAccess::Ports`](crate::NetworkAccess).
    Port(u16),
}

impl Denial {
    /// Returns `None` for paths that do not exist on the machine: libraries probe for many optional files.
    pub(crate) fn from_attempt(attempt: Attempt) -> Option<Self> {
        let existing = |path: Text| {
            let path = PathBuf::from(path.0);
            path.symlink_metadata().is_ok().then_some(path)
        };
        Some(match attempt {
            Attempt::Call(name) => Self::Call(name),
            Attempt::Read(path) => Self::Read(existing(path)?),
            Attempt::Write(path) => Self::Write(path.0.into()),
            Attempt::Connect(path) => Self::Connect(existing(path)?),
            Attempt::Port(port) => Self::Port(port),
        })
    }
}
