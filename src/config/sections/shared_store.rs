//! Keys of `[store]` about a store that replicas share.

use std::{fmt, path::PathBuf, time::Duration};

use mcs_store::StoreServers;

use super::prelude::*;

settings! {
    /// Settings of a store in Valkey or Redis.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct SharedStoreSettings {
        /// Addresses of the servers.
        pub urls: Vec<StoreUrl> = list(url()).or_else(Vec::new),
        /// File with the password, in place of one in the addresses.
        pub password_path: Option<PathBuf> = optional(paths::key(paths::path)),
        /// PEM file of certificates that are trusted in place of the system's.
        pub ca_certificates: Option<PathBuf> = optional(paths::key(paths::file)),
        /// Time limit for one command.
        pub timeout: Duration = duration(MILLISECOND..=Duration::from_secs(10)),
        /// How long a job waits for the scan of the same content by another replica.
        pub wait: Duration = duration(Duration::ZERO..=MAX_DURATION),
    }
    check check
}

/// Address of a server, which may contain a password. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// Returns the address, with its password.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// Returns the address with a placeholder in place of the password.
    fn without_password(&self) -> String {
        let parts = self.0.split_once("://").and_then(|(scheme, rest)| {
            let (user, host) = rest.rsplit_once('@')?;
            let (name, _password) = user.split_once(':')?;
            Some(format!("{scheme}://{name}:{}@{host}", format::SECRET))
        });
        parts.unwrap_or_else(|| self.0.clone())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.without_password())
    }
}

fn url() -> Key<StoreUrl> {
    let parse = |value: RawValue<'_>| parse_secret(value).map(StoreUrl);
    Key::new(parse, |url: &StoreUrl| format::quoted(&url.without_password())).opaque()
}

/// Checks the addresses together, because several ones must be of one cluster.
fn check(settings: SharedStoreSettings, store: &mut Section<'_, '_>) -> SharedStoreSettings {
    let urls: Vec<_> = settings.urls.iter().map(|url| url.reveal().to_owned()).collect();
    let (has_password, has_certificates) =
        (settings.password_path.is_some(), settings.ca_certificates.is_some());
    if let Err(error) = StoreServers::check(&urls, has_password, has_certificates)
        && store.has("urls")
    {
        store.conflict("urls", error.to_string());
    }
    settings
}
