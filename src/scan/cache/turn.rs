//! One scan among several replicas: which of them scans a content, and how the others wait for its verdict.

use std::time::Duration;

use mcs_store::{LeaseResult, ScanLease};
use tokio::time::{Instant, sleep};

use super::{ContentKey, ResultCache, ScannedContent};
use crate::scan::engines::Versions;

/// Pauses between two questions whether another replica has finished its scan.
const MIN_PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(200);

/// What a replica does about a content without a verdict.
pub enum ScanTurn {
    /// Another replica has scanned the content.
    Known(ScannedContent),
    /// This replica scans it. The lease, if there is one, keeps other replicas from doing so at the same time.
    Scan(Option<ScanLease>),
}

impl ResultCache {
    /// Decides which replica scans a content. Waits while another replica scans it, until that replica has a verdict or gives
    /// up its lease, at most for `store.wait`. Without the store, this replica scans. `look_up` returns the verdict if it is
    /// known.
    pub async fn turn<F: Future<Output = Option<ScannedContent>>>(
        &self,
        key: &ContentKey,
        versions: Versions,
        look_up: impl Fn() -> F,
    ) -> ScanTurn {
        let end = Instant::now() + self.max_wait_for_replicas();
        let mut pause = MIN_PAUSE;
        loop {
            let lease = match self.acquire_lease(key, versions).await {
                LeaseResult::Unavailable => return ScanTurn::Scan(None),
                LeaseResult::Acquired(lease) => Some(lease),
                LeaseResult::Held if Instant::now() >= end => return ScanTurn::Scan(None),
                LeaseResult::Held => None,
            };
            if lease.is_none() {
                sleep(pause).await;
                pause = (pause * 3 / 2).min(MAX_PAUSE);
            }
            // Another replica may have finished since the last lookup.
            match (look_up().await, lease) {
                (Some(scanned), lease) => {
                    if let Some(lease) = lease {
                        lease.release().await;
                    }
                    return ScanTurn::Known(scanned);
                }
                (None, Some(lease)) => return ScanTurn::Scan(Some(lease)),
                (None, None) => {}
            }
        }
    }
}
