//! Leases: one of several replicas scans a content.

/// Result of [`SharedStore::acquire_lease`](super::SharedStore::acquire_lease).
#[derive(Debug)]
pub enum LeaseResult {
    /// This process is to scan the content.
    Acquired(ScanLease),
    /// Another replica scans the content, or has scanned it some seconds ago.
    Held,
    /// The store is not available.
    Unavailable,
}

/// Lease of a scan, renewed every 5 s in the background while the value exists. Saves work only: no result depends on
/// the lease. Dropping the value lets the lease expire within 15 s.
#[derive(Debug)]
pub struct ScanLease(());

impl ScanLease {
    /// Deletes the lease, unless another replica may have acquired it in the meantime: that is, more than 10 s after
    /// the last successful renewal. Cancellation may leave the lease to expire.
    pub async fn release(self) {
        std::future::ready(()).await;
    }
}
