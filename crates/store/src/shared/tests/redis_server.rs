//! Stores in real servers.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) use mcs_testing::{RedisServer, free_port};
use zeroize::Zeroizing;

use super::*;
use crate::{SharedSettings, StoreServers};

/// Rights that the documentation recommends.
pub(super) const ACL: &str = "~mcs1:* +@read +@write +@connection +time +cluster -@dangerous";

/// Returns whether `redis-server` is installed, or reports that a test is skipped.
pub(super) fn is_installed(test: &str) -> bool {
    RedisServer::is_installed(test)
}

/// Writes a file into a directory.
pub(super) fn write(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// Starts a store with these addresses and this password.
pub(super) fn store(
    urls: &[String],
    password: Option<&str>,
    certificates: Option<&str>,
) -> (SharedStore, StoreEvents) {
    let password = password.map(|password| Zeroizing::new(password.to_owned()));
    let certificates = certificates.map(str::as_bytes);
    let servers = StoreServers::parse(urls, password, certificates).unwrap();
    // Long enough for a machine that is busy with other tests.
    let settings =
        SharedSettings { timeout: Duration::from_secs(2), ..SharedSettings::new(servers) };
    SharedStore::start(settings, secret()).unwrap()
}

/// Time of expiry of records of the tests.
pub(super) fn expiry() -> u64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    elapsed.unwrap().as_secs() + 3600
}

/// Waits until lookups are possible.
pub(super) async fn wait_available(store: &SharedStore) {
    wait_until("the store replies", async || get(store, not_clean(99_999)).await.is_some()).await;
}
