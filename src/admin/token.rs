//! The secret token of operators.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::identity::denied_user;

/// Minimum length of a token, bytes.
const MIN_LENGTH: usize = 16;

/// Maximum length of a token, bytes: a longer file is the wrong one.
const MAX_LENGTH: usize = 1024;

/// Permissions that the file must not have: any for all users, and writing for the group. The group may read the file, as
/// Kubernetes requires for mounted secrets.
const FORBIDDEN_MODE: u32 = 0o027;

/// Digest of the token. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

/// Reason why a token cannot be used. Contains no part of the file.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("{} (admin.token_path) cannot be read{}", path.display(), denied_user(source))]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{} (admin.token_path) has mode {mode:04o}, so that scan scripts and other users can use it (chmod 0600)",
        path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error(
        "{} (admin.token_path) contains {found}, expected one line with at least {MIN_LENGTH} visible ASCII characters \
         (openssl rand -hex 32)",
        path.display()
    )]
    Content { path: PathBuf, found: String },
}

impl TokenError {
    /// Returns whether the operator has to change the file.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Read { .. } => false,
            Self::Mode { .. } | Self::Content { .. } => true,
        }
    }
}

impl AdminToken {
    /// Reads the token. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, others can use it, or it contains no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        let (text, mode) =
            read(path).map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
        if mode & FORBIDDEN_MODE != 0 {
            return Err(TokenError::Mode { path: path.to_owned(), mode });
        }
        let content = |found| TokenError::Content { path: path.to_owned(), found };
        Ok(Self::new(parse(&text).map_err(content)?))
    }

    fn new(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// Returns whether this is the token. The time does not depend on the token.
    #[must_use]
    pub fn is(&self, token: &[u8]) -> bool {
        self.0.ct_eq(&Self::new(token).0).into()
    }
}

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken(..)")
    }
}

/// Reads the token for a client, whatever the mode of the file is. Blocks.
///
/// # Errors
/// If the file cannot be read, or contains no token.
pub fn read_for_client(path: &Path) -> Result<Zeroizing<String>, TokenError> {
    let (text, _) =
        read(path).map_err(|source| TokenError::Read { path: path.to_owned(), source })?;
    let token =
        parse(&text).map_err(|found| TokenError::Content { path: path.to_owned(), found })?;
    Ok(Zeroizing::new(String::from_utf8_lossy(token).into_owned()))
}

/// Returns the content and the permissions of a regular file.
fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, u32)> {
    // Without O_NONBLOCK, opening a FIFO would block.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // Full capacity from the start: growing would leave copies that are not wiped.
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_LENGTH + 2));
    file.take(MAX_LENGTH as u64 + 2).read_to_end(&mut text)?;
    Ok((text, metadata.permissions().mode() & 0o7777))
}

/// Returns the token in a file, or what the file contains instead.
fn parse(text: &[u8]) -> Result<&[u8], String> {
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
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(content: &str, mode: u32) -> Result<AdminToken, TokenError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        AdminToken::load(&path)
    }

    #[test]
    fn accepts_only_the_token() {
        let token = load("0123456789abcdef\n", 0o600).unwrap();
        assert!(token.is(b"0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef\n", "0123456789abcdeF"] {
            assert!(!token.is(other.as_bytes()), "{other:?}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(..)");
    }

    #[test]
    fn rejects_files_that_others_can_use() {
        for (mode, is_accepted) in [
            (0o400, true),
            (0o440, true),
            (0o604, false),
            (0o660, false),
            (0o602, false),
            (0o601, false),
        ] {
            let loaded = load("0123456789abcdef", mode);
            assert_eq!(loaded.is_ok(), is_accepted, "{mode:o}");
            assert!(loaded.err().is_none_or(|error| error.is_configuration()), "{mode:o}");
        }
    }

    #[test]
    fn rejects_other_contents_without_quoting_them() {
        for (content, found) in [
            ("", "nothing"),
            ("\n", "nothing"),
            ("short-token\n", "11 characters"),
            ("0123456789 abcdef", "spaces, several lines"),
            ("0123456789\nabcdef", "spaces, several lines"),
            ("0123456789äbcdef", "spaces, several lines or other characters"),
            (&"x".repeat(2000), "more than 1024 bytes"),
        ] {
            let error = load(content, 0o600).unwrap_err().to_string();
            assert!(error.contains(found), "{error}");
            assert!(!error.contains("short-token"), "{error}");
        }
        let error = AdminToken::load(Path::new("/nowhere/token")).unwrap_err();
        assert!(!error.is_configuration(), "{error}");
        assert!(AdminToken::load(Path::new("/")).is_err());
    }
}
