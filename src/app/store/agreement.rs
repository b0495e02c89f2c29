//! Compares what replicas must agree on, through the store that they share: the request keys, because clients encrypt
//! requests with the public key that one replica has served, and another key answers them with `MCS_BAD_DECRYPTION`; and the
//! clocks, because records contain times.

use std::time::Duration;

use tokio::time::interval;
use tracing::{info, warn};

use crate::{
    http::CurrentState,
    scan::cache::{MAX_CLOCK_DIFFERENCE, VerdictRecords},
};

/// Time between two comparisons. Replicas count for a minute after their last one.
const INTERVAL: Duration = Duration::from_secs(10);

/// Whether the clock differs from that of the store.
#[derive(Default)]
struct ClockState {
    differs: bool,
}

impl ClockState {
    /// Updates the state. Returns whether it has changed.
    fn update(&mut self, seconds: u64) -> bool {
        let differs = differs(seconds);
        std::mem::replace(&mut self.differs, differs) != differs
    }
}

/// Returns whether clocks differ by too much.
pub(super) fn differs(seconds: u64) -> bool {
    seconds > MAX_CLOCK_DIFFERENCE.as_secs()
}

/// Compares the clock with that of the store, if it is shared, until the future is dropped.
pub(in crate::app) async fn compare_clocks(records: VerdictRecords) {
    let Some(store) = records.shared_store() else { return };
    let mut timer = interval(INTERVAL);
    let mut state = ClockState::default();
    loop {
        timer.tick().await;
        let seconds = store.clock_difference().await;
        records.set_clock_difference(seconds);
        let Some(seconds) = seconds.filter(|seconds| state.update(*seconds)) else { continue };
        if state.differs {
            warn!(
                seconds,
                "the clock differs from that of the shared verdict store, so stored verdicts expire too early or too late; synchronise both"
            );
        } else {
            info!("the clock agrees with that of the shared verdict store");
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_is_reported_when_its_state_changes() {
        let mut state = ClockState::default();
        for (seconds, has_changed, differs) in [
            (0, false, false),
            (60, false, false),
            (61, true, true),
            (3600, false, true),
            (60, true, false),
            (59, false, false),
            (u64::MAX, true, true),
        ] {
            assert_eq!((state.update(seconds), state.differs), (has_changed, differs), "{seconds}");
        }
    }
}
