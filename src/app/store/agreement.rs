//! Compares the request keys of replicas. Clients encrypt requests with the public key that one replica has served; a
//! replica with another key answers them with `MCS_BAD_DECRYPTION`.

use std::time::Duration;

use tokio::time::interval;
use tracing::{info, warn};

use crate::{http::CurrentState, scan::cache::VerdictRecords};

/// Time between two comparisons. Replicas count for a minute after their last one.
const INTERVAL: Duration = Duration::from_secs(10);

/// Compares the keys through the store, if it is shared, until the future is dropped.
pub(in crate::app) async fn compare_keys(records: VerdictRecords, current: CurrentState) {
    let Some(store) = records.shared_store() else { return };
    let mut timer = interval(INTERVAL);
    let mut known = 0;
    loop {
        timer.tick().await;
        let own = current.load().keys.fingerprint();
        let found = store.fingerprints(own).await.map(|found| found.len() as u64);
        records.set_replica_keys(found);
        // While the store is not available, nothing is known about the other replicas.
        let Some(found) = found else { continue };
        if found > 1 && found != known {
            warn!(
                keys = found,
                "replicas have different request keys, so clients get MCS_BAD_DECRYPTION from some of them; copy one key to all"
            );
        } else if found == 1 && known > 1 {
            info!("all replicas have the same request key");
        }
        known = found;
    }
}
