//! The secrets of `[store]`.

use std::path::PathBuf;

use mcs_store::StoreSecret;
use zeroize::Zeroizing;

use crate::{
    app::store_error::StoreSetupError,
    config::sections::store::Settings,
    keys::{KeyNotice, read_secret},
};

/// Minimum length of the secret in `store.secret_path`, bytes: 128 bits in hexadecimal digits.
const MIN_SECRET: usize = 32;

/// Contents of the files with secrets.
pub(super) struct StoreSecrets {
    /// Of `store.secret_path`.
    pub(super) secret: Option<StoreSecret>,
    /// Of `store.password_path`.
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) notices: Vec<KeyNotice>,
}

/// Reads the files with secrets.
pub(super) fn read_secrets(settings: &Settings) -> Result<StoreSecrets, StoreSetupError> {
    let mut notices = Vec::new();
    let mut read = |key, path: Option<&PathBuf>| -> Result<_, StoreSetupError> {
        let Some(path) = path else { return Ok(None) };
        let failed = |source| StoreSetupError::Secret { key, path: path.clone(), source };
        let (content, notice) = read_secret(path).map_err(failed)?;
        notices.extend(notice);
        Ok(Some(content))
    };
    let password = read("store.password_path", settings.password_path())?;
    let secret = read("store.secret_path", settings.secret_path.as_ref())?;
    if let (Some(secret), Some(path)) = (&secret, &settings.secret_path)
        && secret.len() < MIN_SECRET
    {
        let (path, length) = (path.clone(), secret.len());
        return Err(StoreSetupError::ShortSecret { path, length });
    }
    let secret = secret.map(|secret| StoreSecret::derive(secret.as_bytes()));
    Ok(StoreSecrets { secret, password, notices })
}
