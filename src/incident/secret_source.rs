//! Files with the secrets of incidents. They are read at each use, so that a new secret needs no restart.

use std::path::PathBuf;

use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::{
    chain::Chain,
    token_file::{TokenError, read_private},
};

/// File with a secret.
#[derive(Clone, Debug)]
pub(super) struct SecretSource {
    path: PathBuf,
    /// Key of the configuration.
    key: &'static str,
}

impl SecretSource {
    pub(super) fn new(path: PathBuf, key: &'static str) -> Self {
        Self { path, key }
    }

    /// Reads the secret. Blocks.
    pub(super) fn read_blocking(&self) -> Result<Zeroizing<String>, TokenError> {
        read_private(&self.path, self.key)
    }

    /// Reads the secret; the error is text for the log.
    pub(super) async fn read(&self) -> Result<Zeroizing<String>, String> {
        let source = self.clone();
        match spawn_blocking(move || source.read_blocking()).await {
            Ok(secret) => secret.map_err(|error| Chain(&error).to_string()),
            Err(error) => Err(error.to_string()),
        }
    }
}
