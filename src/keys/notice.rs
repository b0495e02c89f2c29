//! What operators need to know about files with secrets.

use std::{fmt, path::PathBuf};

/// Information for the operator about a loaded key or secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyNotice {
    /// A new key was generated, since the file was missing and `crypto.generate` is set.
    Generated { path: PathBuf },
    /// All users can access the file. Access for its group is left to the operator.
    ReadableByOthers {
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
}

impl fmt::Display for KeyNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated { path } => {
                write!(
                    f,
                    "{}: generated a new request key, since the file did not exist",
                    path.display()
                )
            }
            Self::ReadableByOthers { path, mode } => write!(
                f,
                "{}: mode {mode:04o} allows other users to read the secret; set it to 0600 or 0640",
                path.display()
            ),
        }
    }
}
