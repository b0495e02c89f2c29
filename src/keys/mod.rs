//! The server's Curve25519 request key, and opening what clients encrypted for it with Olm's
//! PkEncryption. Knows no HTTP. Sources: olm's `docs/`, vodozemac's `pk_encryption`.
use std::path::PathBuf;

/// `[crypto]`, checked: exactly one source of the key.
#[derive(Clone, Debug)]
pub enum Settings {
    /// A file of 32 bytes in base64, as the Python scanner keeps it.
    RequestSecret {
        /// The file.
        path: PathBuf,
        /// Whether a missing file is made (mode 0600).
        generate: bool,
    },
    /// A libolm `PkDecryption` pickle, as the Node scanner keeps it.
    Pickle {
        /// The file.
        path: PathBuf,
        /// What it is encrypted with.
        key: PickleKey,
    },
}

/// A pickle key: zeroized, never printed.
#[derive(Clone, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct PickleKey(String);

impl PickleKey {
    /// Takes the key over.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key)
    }
}

impl std::fmt::Debug for PickleKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PickleKey(..)")
    }
}

/// The server's key pair.
pub struct RequestKey {}
