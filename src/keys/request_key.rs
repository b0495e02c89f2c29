//! The server's Curve25519 request key, and decryption of what clients encrypt for it with Olm's `PkEncryption`.
//! Sources: vodozemac's `pk_encryption` and the key file formats of the two earlier scanners. In libolm's scheme the
//! MAC does not cover the ciphertext: a forged body is detected only by its padding and by parsing the plaintext.

pub use crate::config::sections::crypto::{PickleKey, Settings};

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use base64::Engine;
use sha2::{Digest as _, Sha256};
use vodozemac::{
    Curve25519PublicKey, Curve25519SecretKey, LibolmPickleError,
    pk_encryption::{Message, PkDecryption},
};
use zeroize::{Zeroize, Zeroizing};

use super::{file, notice::KeyNotice};
use crate::{
    identity::denied_user,
    lenient_base64::{self, STANDARD},
};

/// Key pair of the server.
pub struct RequestKey {
    decryption: PkDecryption,
}

/// Reason why a key could not be loaded. Contains the path, never a part of the content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file does not exist, and no key may be generated.
    #[error("{}: the file does not exist; {remedy}", path.display())]
    Missing {
        path: PathBuf,
        /// Advice for the operator.
        remedy: &'static str,
    },
    /// The file cannot be read.
    #[error("{}: the key cannot be read{}", path.display(), denied_user(source))]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("{}: a new key cannot be written{}", path.display(), denied_user(source))]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The content is not a key in the expected format.
    #[error("{}: this is not a key: found {found}, expected {expected}", path.display())]
    Content {
        path: PathBuf,
        /// Description of the content without quoting it, since it may be a damaged secret.
        found: &'static str,
        /// Expected format.
        expected: &'static str,
    },
    /// `crypto.pickle_key` does not decrypt the pickle.
    #[error("{}: the pickle is damaged, or crypto.pickle_key does not match", path.display())]
    WrongPickleKey { path: PathBuf },
}

impl KeyError {
    /// Returns whether the file exists and is wrong. Otherwise it is missing or cannot be read yet: its volume may be
    /// mounted later.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Write { .. } => false,
            // Errors of `file::read` about an existing file, not of the system.
            Self::Read { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::InvalidInput
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::FileTooLarge
                    | io::ErrorKind::Other
            ),
            Self::Content { .. } | Self::WrongPickleKey { .. } => true,
        }
    }
}

/// Reason why an encrypted body could not be decrypted. Clients get a single error for all of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// The named part is not base64.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// Not 32 bytes, or a point without contributory behaviour.
    #[error("ephemeral is not a usable Curve25519 key")]
    Ephemeral,
    /// Encrypted for another key, or damaged.
    #[error("mac mismatch")]
    Mac,
    /// Damaged, or not encrypted with Olm's scheme.
    #[error("invalid padding of the ciphertext")]
    Padding,
}

const SECRET_EXPECTED: &str = "32 bytes in base64";
const PICKLE_EXPECTED: &str = "the pickle of a libolm PkDecryption, version 1";

/// Length in bytes to which libolm truncates the HMAC; no other length is accepted.
const MAC_LENGTH: usize = 8;

impl RequestKey {
    /// Reads the key, or generates it if the settings allow that. Performs blocking I/O.
    pub fn load(settings: &Settings) -> Result<(Self, Vec<KeyNotice>), KeyError> {
        if let Some(loaded) = Self::load_existing(settings)? {
            return Ok(loaded);
        }
        let Settings::RequestSecret { path, .. } = settings else {
            return Err(missing(settings));
        };
        match Self::generate(path) {
            Ok(generated) => Ok((generated, vec![KeyNotice::Generated { path: path.clone() }])),
            // Another process created the key concurrently: both must use the same one.
            Err(KeyError::Write { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists =>
            {
                Self::load_existing(settings)?.ok_or_else(|| missing(settings))
            }
            Err(error) => Err(error),
        }
    }

    /// Generates a key and writes it to a new file with mode 0600. Performs blocking I/O.
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let generated = Self { decryption: PkDecryption::new() };
        let mut secret = generated.decryption.secret_key().to_bytes();
        // Capacity includes the newline: growing would leave a copy that is not wiped.
        let mut content = Zeroizing::new(String::with_capacity(64));
        STANDARD.encode_string(secret.as_slice(), &mut content);
        secret.zeroize();
        content.push('\n');
        file::create(path, content.as_bytes())
            .map_err(|source| KeyError::Write { path: path.into(), source })?;
        Ok(generated)
    }

    /// Passes the private key to a function that derives another key from it. The copy is wiped.
    pub fn derive<T>(&self, derive: impl FnOnce(&[u8]) -> T) -> T {
        let mut secret = self.decryption.secret_key().to_bytes();
        let derived = derive(secret.as_slice());
        secret.zeroize();
        derived
    }

    /// Reads the key during a reload. Never generates one: a temporarily missing file must not change the key.
    pub fn reload(settings: &Settings) -> Result<(Self, Vec<KeyNotice>), KeyError> {
        let remedy = "restore the key; a new one is generated only at startup";
        let Settings::RequestSecret { path, .. } = settings else { return Self::load(settings) };
        let missing = || KeyError::Missing { path: path.clone(), remedy };
        Self::load_existing(settings)?.ok_or_else(missing)
    }

    /// Reads an existing key; returns `None` if [`RequestKey::load`] would generate one.
    pub fn load_existing(settings: &Settings) -> Result<Option<(Self, Vec<KeyNotice>)>, KeyError> {
        let (path, generate) = match settings {
            Settings::RequestSecret { path, generate } => (path, *generate),
            Settings::Pickle { path, .. } => (path, false),
        };
        let file = match file::read(path, generate) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if generate { Ok(None) } else { Err(missing(settings)) };
            }
            Err(source) => return Err(KeyError::Read { path: path.clone(), source }),
        };
        let decryption = match settings {
            Settings::RequestSecret { path, .. } => from_secret(path, &file.content)?,
            Settings::Pickle { path, key } => from_pickle(path, &file.content, key)?,
        };
        let mut notices = Vec::new();
        if file.mode & 0o007 != 0 {
            notices.push(KeyNotice::ReadableByOthers { path: path.clone(), mode: file.mode });
        }
        Ok(Some((Self { decryption }, notices)))
    }

    /// Decrypts a body encrypted for this key. Each part is base64 in the standard or URL-safe alphabet, with or
    /// without padding.
    pub fn open(
        &self,
        ciphertext: &str,
        mac: &str,
        ephemeral: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let decode = |name, text| lenient_base64::decode(text).map_err(|_| OpenError::Base64(name));
        let ephemeral_key = decode("ephemeral", ephemeral)?;
        let message = Message {
            ciphertext: decode("ciphertext", ciphertext)?,
            mac: decode("mac", mac)?,
            ephemeral_key: Curve25519PublicKey::from_slice(&ephemeral_key)
                .map_err(|_| OpenError::Ephemeral)?,
        };
        if message.mac.len() != MAC_LENGTH {
            return Err(OpenError::Mac);
        }
        self.decryption.decrypt(&message).map(Zeroizing::new).map_err(|error| {
            use vodozemac::pk_encryption::Error;
            match error {
                Error::NonContributoryKey => OpenError::Ephemeral,
                Error::Mac(_) => OpenError::Mac,
                Error::InvalidPadding(_) => OpenError::Padding,
            }
        })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.decryption.public_key() == other.decryption.public_key()
    }

    /// Returns the first bytes of the SHA-256 of the public key.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 8] {
        let digest: [u8; 32] = Sha256::digest(self.decryption.public_key().as_bytes()).into();
        digest.first_chunk().copied().unwrap_or_default()
    }

    /// Returns the Curve25519 public key in unpadded base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.decryption.public_key().to_base64()
    }
}

fn from_secret(path: &Path, content: &str) -> Result<PkDecryption, KeyError> {
    let content_error =
        |found| KeyError::Content { path: path.into(), found, expected: SECRET_EXPECTED };
    if content.trim().is_empty() {
        return Err(content_error("nothing"));
    }
    let bytes = Zeroizing::new(
        lenient_base64::decode(content.trim()).map_err(|_| content_error("other text"))?,
    );
    let secret: &[u8; 32] =
        bytes.as_slice().try_into().map_err(|_| content_error("a wrong number of bytes"))?;
    Ok(PkDecryption::from_key(Curve25519SecretKey::from_slice(secret)))
}

fn from_pickle(path: &Path, content: &str, key: &PickleKey) -> Result<PkDecryption, KeyError> {
    let content_error =
        |found| KeyError::Content { path: path.into(), found, expected: PICKLE_EXPECTED };
    PkDecryption::from_libolm_pickle(content.trim(), key.reveal().as_bytes()).map_err(|error| {
        match error {
            LibolmPickleError::Base64(_) => content_error("other text"),
            LibolmPickleError::MissingVersion | LibolmPickleError::Version(..) => {
                content_error("a pickle of another version")
            }
            LibolmPickleError::Decryption(_) => KeyError::WrongPickleKey { path: path.into() },
            LibolmPickleError::PublicKey(_)
            | LibolmPickleError::InvalidSession
            | LibolmPickleError::Decode(_)
            | LibolmPickleError::Encode(_) => content_error("a pickle of something else"),
        }
    })
}

fn missing(settings: &Settings) -> KeyError {
    match settings {
        Settings::RequestSecret { path, .. } => KeyError::Missing {
            path: path.clone(),
            remedy: "copy the key there, or set crypto.generate to true to generate one",
        },
        Settings::Pickle { path, .. } => KeyError::Missing {
            path: path.clone(),
            remedy: "copy the pickle there, or correct crypto.pickle_path",
        },
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey(..)")
    }
}

#[cfg(test)]
pub(super) mod tests;
