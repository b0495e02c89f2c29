//! Files with a secret token that the operator has placed. The token is never part of an error or of the log.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::identity::denied_user;

/// Minimum length of a token, bytes.
pub(crate) const MIN_LENGTH: usize = 16;

/// Maximum length of a token, bytes: a longer file is the wrong one.
pub(crate) const MAX_LENGTH: usize = 1024;

/// Permissions that the file must not have: any for all users, and writing for the group. The group may read the file, as
/// Kubernetes requires for mounted secrets.
const FORBIDDEN_MODE: u32 = 0o027;

/// Reason why a token cannot be used. Contains no part of the file. `key`: the key of the configuration.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{} ({key}) cannot be read{}", path.display(), denied_user(source))]
    Read { path: PathBuf, key: &'static str, source: io::Error },
    #[error(
        "{} ({key}) has mode {mode:04o}, so that scan scripts and other users can use it (chmod 0600)",
        path.display()
    )]
    Mode { path: PathBuf, key: &'static str, mode: u32 },
    #[error(
        "{} ({key}) contains {found}, expected one line with at least {MIN_LENGTH} visible ASCII characters \
         (openssl rand -hex 32)",
        path.display()
    )]
    Content { path: PathBuf, key: &'static str, found: String },
    #[error("{} ({key}), line {line}: {problem}", path.display())]
    Line { path: PathBuf, key: &'static str, line: usize, problem: String },
}

impl TokenError {
    /// Returns whether the operator has to change the file.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Read { .. } => false,
            Self::Mode { .. } | Self::Content { .. } | Self::Line { .. } => true,
        }
    }
}

/// Whether the permissions of a file are checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FileAccess {
    /// No other user can use the file.
    Private,
    /// Any permissions.
    Any,
}

/// Reads a token that no other user can use. Blocks.
///
/// # Errors
/// If the file cannot be read, others can use it, or it contains no token.
pub(crate) fn read_private(
    path: &Path,
    key: &'static str,
) -> Result<Zeroizing<String>, TokenError> {
    let text = read(path, key, FileAccess::Private, MAX_LENGTH)?;
    parse(&text).map_err(|found| TokenError::Content { path: path.to_owned(), key, found })
}

/// Reads the bytes of a file with tokens. If the file has more than `limit` bytes besides an end of line, the last bytes are
/// missing, and the result is longer than `limit`. Blocks.
///
/// # Errors
/// If the file cannot be read, or others can use it.
pub(crate) fn read(
    path: &Path,
    key: &'static str,
    access: FileAccess,
    limit: usize,
) -> Result<Zeroizing<Vec<u8>>, TokenError> {
    let (text, mode) = read_file(path, limit).map_err(|source| TokenError::Read {
        path: path.to_owned(),
        key,
        source,
    })?;
    if access == FileAccess::Private && mode & FORBIDDEN_MODE != 0 {
        return Err(TokenError::Mode { path: path.to_owned(), key, mode });
    }
    Ok(text)
}

/// Returns the content and the permissions of a regular file.
fn read_file(path: &Path, limit: usize) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // Without O_NONBLOCK, opening a FIFO would block.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // Full capacity from the start: growing would leave copies that are not wiped.
    let mut text = Zeroizing::new(Vec::with_capacity(limit + 2));
    file.take(limit as u64 + 2).read_to_end(&mut text)?;
    Ok((text, metadata.permissions().mode() & 0o7777))
}

/// Returns the token in a text, or what the text contains instead.
pub(crate) fn parse(text: &[u8]) -> Result<Zeroizing<String>, String> {
    let token = text.trim_ascii();
    if token.is_empty() {
        return Err("nothing".to_owned());
    }
    if token.len() > MAX_LENGTH {
        return Err(format!("more than {MAX_LENGTH} bytes"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err("spaces, several lines or other characters".to_owned());
    }
    if token.len() < MIN_LENGTH {
        return Err(format!("{} characters", token.len()));
    }
    Ok(Zeroizing::new(String::from_utf8_lossy(token).into_owned()))
}
