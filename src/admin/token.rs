//! The secret token of operators.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::token_file::{read_any, read_private};

pub use crate::token_file::TokenError;

/// Key of the configuration.
const KEY: &str = "admin.token_path";

/// Digest of the token. `Debug` prints nothing of it.
#[derive(Clone)]
pub struct AdminToken([u8; 32]);

impl AdminToken {
    /// Reads the token. Blocks.
    ///
    /// # Errors
    /// If the file cannot be read, others can use it, or it contains no token.
    pub fn load(path: &Path) -> Result<Self, TokenError> {
        Ok(Self::new(read_private(path, KEY)?.as_bytes()))
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
    read_any(path, KEY)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

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
