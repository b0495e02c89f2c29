//! Starts a store that replicas share.

use std::fs;

use mcs_store::{SecretRing, SharedSettings, SharedStore, StoreEvents, StoreServers};
use zeroize::Zeroizing;

use crate::{
    app::store_error::StoreSetupError, config::sections::shared_store::SharedStoreSettings,
};

/// Starts to connect in the background.
pub(super) fn start(
    settings: &SharedStoreSettings,
    secrets: SecretRing,
    password: Option<Zeroizing<String>>,
) -> Result<(SharedStore, StoreEvents), StoreSetupError> {
    let servers = servers(settings, password)?;
    let settings = SharedSettings { timeout: settings.timeout, ..SharedSettings::new(servers) };
    Ok(SharedStore::start(settings, secrets)?)
}

fn servers(
    settings: &SharedStoreSettings,
    password: Option<Zeroizing<String>>,
) -> Result<StoreServers, StoreSetupError> {
    let urls: Vec<_> = settings.urls.iter().map(|url| url.reveal().to_owned()).collect();
    let certificates = match &settings.ca_certificates {
        Some(path) => Some(
            fs::read(path)
                .map_err(|source| StoreSetupError::Certificates { path: path.clone(), source })?,
        ),
        None => None,
    };
    Ok(StoreServers::parse(&urls, password, certificates.as_deref())?)
}
