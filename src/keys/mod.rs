//! The server's Curve25519 request key, and opening what clients encrypted for it with Olm's
//! `PkEncryption`. Knows no HTTP and no configuration file. Sources: vodozemac's `pk_encryption`
//! (libolm's scheme, whose MAC does not cover the ciphertext: a forged body is caught only by its
//! padding and by what parses the result), and the key files of the two earlier scanners.

mod file;
mod ring;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use vodozemac::{
    Curve25519PublicKey, Curve25519SecretKey, LibolmPickleError,
    pk_encryption::{Message, PkDecryption},
};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub use ring::Keyring;

use crate::identity::by;

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
    /// A libolm `PkDecryption` pickle, as the Node scanner and the older Python one keep it.
    Pickle {
        /// The file.
        path: PathBuf,
        /// What it is encrypted with.
        key: PickleKey,
    },
}

/// A pickle key: zeroized, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PickleKey(String);

/// The server's key pair.
pub struct RequestKey {
    decryption: PkDecryption,
}

/// What an operator should know of a key that was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyNotice {
    /// There was none and `crypto.generate` is set.
    Generated {
        /// The new file.
        path: PathBuf,
    },
    /// Anyone on this machine can read it. A group's members are the operator's choice.
    ReadableByOthers {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Why there is no key. Carries the file's name, never a part of its content.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No file, and it is not to be made.
    #[error(
        "{}: there is no such file; {remedy}", path.display()
    )]
    Missing {
        /// The file named in the configuration.
        path: PathBuf,
        /// What the operator can do.
        remedy: &'static str,
    },
    /// The file cannot be read.
    #[error("{}: the key cannot be read{}", path.display(), by(source))]
    Read {
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file cannot be made.
    #[error("{}: a new key cannot be written{}", path.display(), by(source))]
    Write {
        /// The key file.
        path: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}: this is not a key: found {found}, expected {expected}", path.display())]
    Content {
        /// The key file.
        path: PathBuf,
        /// In general words: the content may be a damaged secret.
        found: &'static str,
        /// What a key file looks like.
        expected: &'static str,
    },
    /// `crypto.pickle_key` does not open the pickle.
    #[error("{}: crypto.pickle_key does not open this pickle, or it is damaged", path.display())]
    WrongPickleKey {
        /// The pickle.
        path: PathBuf,
    },
}

/// Why an encrypted body does not open. The client is told no more than that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OpenError {
    /// One of the three parts.
    #[error("{0} is not base64")]
    Base64(&'static str),
    /// Not 32 bytes, or a point that leads to no secret.
    #[error("ephemeral is not a usable Curve25519 key")]
    Ephemeral,
    /// Sealed for another key, or damaged.
    #[error("the mac is not that of this key")]
    Mac,
    /// Damaged, or sealed by something that is not Olm.
    #[error("the ciphertext has no valid padding")]
    Padding,
}

const SECRET_EXPECTED: &str = "32 bytes in base64";
const PICKLE_EXPECTED: &str = "the pickle of a libolm PkDecryption, version 1";

/// libolm truncates the HMAC to this many bytes and takes no other length.
const MAC_LENGTH: usize = 8;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, LENIENT.with_encode_padding(false));
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

impl RequestKey {
    /// Reads the key, or makes it where the settings say so. Blocks on the disk; for the start.
    pub fn load(settings: &Settings) -> Result<(Self, Vec<KeyNotice>), KeyError> {
        if let Some(loaded) = Self::load_existing(settings)? {
            return Ok(loaded);
        }
        let Settings::RequestSecret { path, .. } = settings else {
            return Err(missing(settings));
        };
        let generated = Self { decryption: PkDecryption::new() };
        let mut secret = generated.decryption.secret_key().to_bytes();
        // With room for the line's end: growing would leave a copy behind.
        let mut content = Zeroizing::new(String::with_capacity(64));
        STANDARD.encode_string(secret.as_slice(), &mut content);
        secret.zeroize();
        content.push('\n');
        match file::create(path, content.as_bytes()) {
            Ok(()) => Ok((generated, vec![KeyNotice::Generated { path: path.clone() }])),
            // Another start was faster: both must hold the same key.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Self::load_existing(settings)?.ok_or_else(|| missing(settings))
            }
            Err(source) => Err(KeyError::Write { path: path.clone(), source }),
        }
    }

    /// Reads the key once more, for a service that has one. It makes none, whatever the settings say: a
    /// file that is gone for a moment must not change the key.
    pub fn load_again(settings: &Settings) -> Result<(Self, Vec<KeyNotice>), KeyError> {
        let remedy = "put the key there; only a start makes a new one";
        let Settings::RequestSecret { path, .. } = settings else { return Self::load(settings) };
        let missing = || KeyError::Missing { path: path.clone(), remedy };
        Self::load_existing(settings)?.ok_or_else(missing)
    }

    /// Reads the key and makes nothing: `None` where [`RequestKey::load`] would make it.
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

    /// Opens what a client sealed for this key. Each part is base64: standard or URL-safe, padded
    /// or not.
    pub fn open(
        &self,
        ciphertext: &str,
        mac: &str,
        ephemeral: &str,
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let decode = |name, text| decode(text).ok_or(OpenError::Base64(name));
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

    fn is_same(&self, other: &Self) -> bool {
        self.decryption.public_key() == other.decryption.public_key()
    }

    /// What clients seal for: unpadded base64 of the Curve25519 public key.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.decryption.public_key().to_base64()
    }
}

fn from_secret(path: &Path, content: &str) -> Result<PkDecryption, KeyError> {
    let wrong = |found| KeyError::Content { path: path.into(), found, expected: SECRET_EXPECTED };
    if content.trim().is_empty() {
        return Err(wrong("nothing"));
    }
    let bytes = Zeroizing::new(decode(content.trim()).ok_or_else(|| wrong("other text"))?);
    let secret: &[u8; 32] =
        bytes.as_slice().try_into().map_err(|_| wrong("another number of bytes"))?;
    Ok(PkDecryption::from_key(Curve25519SecretKey::from_slice(secret)))
}

fn from_pickle(path: &Path, content: &str, key: &PickleKey) -> Result<PkDecryption, KeyError> {
    let wrong = |found| KeyError::Content { path: path.into(), found, expected: PICKLE_EXPECTED };
    PkDecryption::from_libolm_pickle(content.trim(), key.0.as_bytes()).map_err(
        |error| match error {
            LibolmPickleError::Base64(_) => wrong("other text"),
            LibolmPickleError::MissingVersion | LibolmPickleError::Version(..) => {
                wrong("a pickle of another version")
            }
            LibolmPickleError::Decryption(_) => KeyError::WrongPickleKey { path: path.into() },
            LibolmPickleError::PublicKey(_)
            | LibolmPickleError::InvalidSession
            | LibolmPickleError::Decode(_)
            | LibolmPickleError::Encode(_) => wrong("a pickle of something else"),
        },
    )
}

fn missing(settings: &Settings) -> KeyError {
    match settings {
        Settings::RequestSecret { path, .. } => KeyError::Missing {
            path: path.clone(),
            remedy: "put the key there, or set crypto.generate to true to have one made",
        },
        Settings::Pickle { path, .. } => KeyError::Missing {
            path: path.clone(),
            remedy: "put the pickle there, or correct crypto.pickle_path",
        },
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

impl PickleKey {
    /// Takes the key over.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key)
    }

    #[cfg(test)]
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated { path } => {
                write!(f, "{}: no request key there, a new one was made", path.display())
            }
            Self::ReadableByOthers { path, mode } => write!(
                f,
                "{}: mode {mode:04o} lets others at the key; set it to 0600 or 0640",
                path.display()
            ),
        }
    }
}

impl fmt::Debug for PickleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PickleKey(..)")
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestKey(..)")
    }
}

#[cfg(test)]
mod tests;
