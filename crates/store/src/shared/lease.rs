//! Leases: one of several replicas scans a content.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::Value;
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::record::{RecordName, VersionTag};

use super::{
    connection::{CallError, StoreCall},
    event_seal::NodeId,
    key_names::{lease_key, push_hex},
    link::StoreLink,
    replies::only,
};

/// Time until a lease expires that is not renewed, in milliseconds.
const LEASE_TIME: &[u8] = b"15000";

const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// Time after a renewal during which no other replica can have acquired the lease, if the clocks of this system and of
/// the server do not differ by a third in speed.
const CERTAIN_TIME: Duration = Duration::from_secs(10);

/// Result of [`SharedStore::acquire_lease`](super::SharedStore::acquire_lease).
#[derive(Debug)]
pub enum LeaseResult {
    /// This process is to scan the content.
    Acquired(ScanLease),
    /// Another replica scans the content, or has stopped to do so less than 15 s ago.
    Held,
    /// The store is not available.
    Unavailable,
}

/// Lease of a scan, renewed every 5 s in the background while the value exists. Saves work only: no result depends on
/// the lease. Dropping the value releases the lease in the background; if that fails, it expires within 15 s.
pub struct ScanLease {
    state: Arc<LeaseState>,
    renewal: AbortHandle,
    is_released: bool,
}

struct LeaseState {
    link: Arc<StoreLink>,
    key: Vec<u8>,
    /// Name of this process, which shows in the server to whom the lease belongs.
    owner: Vec<u8>,
    /// Start of the last call that acquired or renewed the lease.
    renewed: Mutex<Instant>,
}

/// Acquires a lease.
pub(crate) async fn acquire(
    link: Arc<StoreLink>,
    node: NodeId,
    name: &RecordName,
    version: VersionTag,
) -> LeaseResult {
    let mut owner = Vec::new();
    push_hex(&mut owner, &node);
    let start = Instant::now();
    let state =
        LeaseState { link, key: lease_key(name, version), owner, renewed: Mutex::new(start) };
    match state.set(b"NX").await {
        Ok(true) => {}
        Ok(false) => return LeaseResult::Held,
        Err(_) => return LeaseResult::Unavailable,
    }
    let state = Arc::new(state);
    let renewal = tokio::spawn(renew(Arc::clone(&state))).abort_handle();
    LeaseResult::Acquired(ScanLease { state, renewal, is_released: false })
}

impl LeaseState {
    /// Sets the lease under a condition. Returns whether the condition was true.
    async fn set(&self, condition: &[u8]) -> Result<bool, CallError> {
        let arguments = [&self.key[..], &self.owner, condition, b"PX", LEASE_TIME];
        let call = StoreCall::new(&self.key).command("SET", &arguments);
        let decode = |replies| match only(replies)? {
            Value::Okay => Ok(true),
            Value::Nil => Ok(false),
            _ => Err(CallError::Reply("SET returned neither OK nor nothing")),
        };
        self.link.query(&call, decode).await
    }

    /// Deletes the lease, unless another replica may have acquired it in the meantime.
    async fn delete(&self) {
        if self.is_certain() {
            let call = StoreCall::new(&self.key).command("DEL", &[&self.key]);
            let _ = self.link.query(&call, only).await;
        }
    }

    /// Returns whether no other replica can have acquired the lease.
    fn is_certain(&self) -> bool {
        self.renewed.lock().elapsed() < CERTAIN_TIME
    }
}

/// Renews a lease, until it may belong to another replica.
async fn renew(state: Arc<LeaseState>) {
    loop {
        sleep(RENEWAL_INTERVAL).await;
        if !state.is_certain() {
            return;
        }
        let start = Instant::now();
        match state.set(b"XX").await {
            Ok(true) => *state.renewed.lock() = start,
            // Deleted by an operator, or evicted.
            Ok(false) => return,
            Err(_) => {}
        }
    }
}

impl ScanLease {
    /// Deletes the lease, unless another replica may have acquired it in the meantime: that is, 10 s or more after the
    /// last successful renewal. Failure and cancellation leave the lease to expire.
    pub async fn release(mut self) {
        self.is_released = true;
        self.renewal.abort();
        self.state.delete().await;
    }
}

/// Releases the lease in the background, so that a scan that was cancelled does not keep others waiting.
impl Drop for ScanLease {
    fn drop(&mut self) {
        self.renewal.abort();
        if !self.is_released
            && let Ok(runtime) = Handle::try_current()
        {
            let state = Arc::clone(&self.state);
            runtime.spawn(async move { state.delete().await });
        }
    }
}

impl fmt::Debug for ScanLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScanLease({})", self.state.key.escape_ascii())
    }
}
