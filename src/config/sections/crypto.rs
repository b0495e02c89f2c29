//! `[crypto]`: exactly one source of the request key, by default a systemd credential.

use std::{fmt, path::PathBuf};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::prelude::*;

const SECRET: &str = "request_secret_path";
const PICKLE: &str = "pickle_path";
const PICKLE_KEY: &str = "pickle_key";
const GENERATE: &str = "generate";

/// systemd credential that is used if the configuration names no source.
const CREDENTIAL: &str = "matrix-content-scanner.request_secret";

/// Validated `[crypto]` section: the single source of the key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settings {
    /// File with 32 bytes in base64, the format of the Python scanner.
    RequestSecret {
        path: PathBuf,
        /// Whether to create a missing file (mode 0600).
        generate: bool,
    },
    /// Pickle of a libolm `PkDecryption`, the format of the Node scanner and of older versions of the Python one.
    Pickle {
        path: PathBuf,
        /// Key that encrypts the pickle.
        key: PickleKey,
    },
}

/// Pickle key; zeroized on drop, hidden in debug output.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct PickleKey(String);

impl PickleKey {
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key)
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for PickleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PickleKey(..)")
    }
}

impl KeyGroup for Settings {
    fn read(crypto: &mut Section<'_, '_>) -> Option<Self> {
        let secret_path = path().read(crypto, SECRET)?;
        let pickle_path = path().read(crypto, PICKLE)?;
        let pickle_key = pickle_key().read(crypto, PICKLE_KEY)?;
        let generate = generate().read(crypto, GENERATE)?;
        let credential = crypto.credential(CREDENTIAL);
        check_sources(crypto, generate, credential.is_some());
        match (secret_path, pickle_path, pickle_key) {
            (Some(path), ..) => Some(Self::RequestSecret { path, generate }),
            (None, Some(path), Some(key)) => Some(Self::Pickle { path, key }),
            (None, None, None) => {
                credential.map(|path| Self::RequestSecret { path, generate: false })
            }
            _ => None,
        }
    }

    fn write(&self, lines: &mut Lines) {
        match self {
            Self::RequestSecret { path: file, generate: is_generated } => {
                path().write(&Some(file.clone()), SECRET, lines);
                generate().write(is_generated, GENERATE, lines);
            }
            Self::Pickle { path: file, key } => {
                path().write(&Some(file.clone()), PICKLE, lines);
                pickle_key().write(&Some(key.clone()), PICKLE_KEY, lines);
            }
        }
    }
}

fn check_sources(crypto: &mut Section<'_, '_>, generate: bool, has_credential: bool) {
    let [has_secret, has_pickle, has_key] = [SECRET, PICKLE, PICKLE_KEY].map(|key| crypto.has(key));
    if has_secret && (has_pickle || has_key) {
        let key = if has_pickle { PICKLE } else { PICKLE_KEY };
        crypto.conflict(key, format!("found beside {SECRET}, expected one source of the key"));
    } else if has_pickle && !has_key {
        crypto.missing(PICKLE_KEY, "the passphrase of the pickle, since pickle_path is set");
    } else if has_key && !has_pickle {
        crypto.missing(PICKLE, "the path of the pickle, since pickle_key is set");
    } else if !has_secret && !has_pickle && !has_credential {
        let expected = "the path of the request key (generate-key FILE writes one), or pickle_path and \
                        pickle_key";
        crypto.missing(SECRET, expected);
    }
    if generate && has_pickle && !has_secret {
        crypto.conflict(
            GENERATE,
            format!("found true beside {PICKLE}, expected false: only {SECRET} is generated"),
        );
    }
    if generate && !has_secret && !has_pickle && has_credential {
        let message =
            format!("found true without {SECRET}, expected false: the key is a credential");
        crypto.conflict(GENERATE, message);
    }
}

fn path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::path))
}

fn pickle_key() -> Key<Option<PickleKey>> {
    let key = Key::new(
        |value| parse_secret(value).map(PickleKey::new),
        |_| format::quoted(format::SECRET),
    );
    optional(key.opaque())
}

/// Off unless it is set: an existing service must not replace a lost key.
fn generate() -> Key<bool> {
    boolean().or_else(|| false)
}
