//! What the cache in memory does so that replicas with one store answer alike: it drops what another replica has made
//! invalid, and asks for the infections that others have found.

use std::time::{Duration, Instant};

use mcs_store::{LeaseResult, StoreEvent, StoreEvents};
use tokio::time::interval;
use tracing::{debug, info};

use super::{
    ContentKey, MediaTag, ResultCache, VerdictRecords, clock, generation::Subject,
    store_message::StoreMessage,
};
use crate::scan::{
    decisions::DecisionKeeper,
    engines::{EngineFingerprint, Versions},
};

/// Time until verdicts that could not be compared with the store are looked up again.
const CONFIRMATION_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time between two lines of the log about lost events, since a store may cause many.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Logs that events may be missing.
#[derive(Default)]
struct LostEvents {
    logged: Option<Instant>,
}

impl LostEvents {
    fn log(&mut self, event: &StoreEvent) {
        let is_recent = self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL);
        if *event == StoreEvent::Lost && !is_recent {
            self.logged = Some(Instant::now());
            info!("changes of other replicas may be missing, looking all verdicts up again");
        }
    }
}

impl ResultCache {
    /// Asks for the right to scan a content, so that only one replica does.
    pub(super) async fn acquire_lease(&self, key: &ContentKey, versions: Versions) -> LeaseResult {
        match self.shared_records() {
            Some(records) => records.acquire_lease(key, versions).await,
            None => LeaseResult::Unavailable,
        }
    }

    /// Returns how long a job waits for the scan of the same content by another replica.
    pub(super) fn max_wait_for_replicas(&self) -> Duration {
        self.shared_records().map_or(Duration::ZERO, VerdictRecords::wait)
    }

    /// Applies the changes of other replicas, and compares verdicts with the store that could not be compared before, until
    /// the future is dropped.
    pub async fn follow_replicas(&self, mut events: StoreEvents, decisions: DecisionKeeper) {
        let mut confirmation = interval(CONFIRMATION_INTERVAL);
        let mut lost = LostEvents::default();
        loop {
            tokio::select! {
                // In order, so that a simulation is repeatable.
                biased;
                _ = confirmation.tick() => self.drop_unconfirmed(),
                event = events.next() => {
                    lost.log(&event);
                    if self.apply(event) {
                        decisions.set_outdated();
                    }
                }
            }
        }
    }

    /// Drops what has become invalid. Returns whether the decisions of operators may have changed.
    fn apply(&self, event: StoreEvent) -> bool {
        let message = match event {
            StoreEvent::Message(message) => StoreMessage::decode(&message),
            StoreEvent::Lost => {
                self.drop_verdicts();
                return true;
            }
        };
        self.tables.invalidations.add_change();
        match message {
            Ok(StoreMessage::Infected { content, engines }) => {
                let engines_fingerprint = EngineFingerprint(engines);
                self.tables.verdicts.remove(&ContentKey { content, engines_fingerprint });
            }
            Ok(StoreMessage::Forgotten { content }) => {
                // Results of scans in progress are not kept either.
                self.tables.invalidations.forget(Subject::Content(content), clock::now());
                self.tables.verdicts.retain(|key, _| key.content != content);
            }
            Ok(StoreMessage::MediaForgotten { tag }) => {
                let tag = MediaTag(tag);
                self.tables.invalidations.forget(Subject::Media(tag), clock::now());
                self.tables.media.retain(|key, _| key.tag() != tag);
            }
            Ok(StoreMessage::AllRemoved) => {
                if let Some(store) = self.shared_records().and_then(VerdictRecords::shared_store) {
                    store.drop_findings();
                }
                self.drop_verdicts();
            }
            Ok(StoreMessage::Decided { .. }) => return true,
            Err(error) => {
                debug!(%error, "a replica of another version has changed something");
                self.drop_verdicts();
                return true;
            }
        }
        false
    }

    /// Drops from memory what is in the store. It is looked up there, and stored again under a new secret.
    pub(in crate::scan) fn drop_stored(&self) {
        if self.records().is_some_and(VerdictRecords::is_in_use) {
            self.drop_verdicts();
            self.tables.media.clear();
        }
    }

    /// Drops the verdicts in memory. They are looked up again.
    fn drop_verdicts(&self) {
        self.tables.invalidations.add_change();
        *self.tables.unconfirmed.lock() = super::UnconfirmedVerdicts::default();
        self.tables.verdicts.clear();
    }

    /// Drops verdicts that could not be compared with the store, if it is available again.
    fn drop_unconfirmed(&self) {
        if !self.shared_records().is_some_and(VerdictRecords::is_in_use) {
            return;
        }
        let unconfirmed = std::mem::take(&mut *self.tables.unconfirmed.lock());
        let Some(keys) = unconfirmed.keys() else { return self.drop_verdicts() };
        for key in keys {
            self.tables.verdicts.remove(&key);
        }
    }

    fn shared_records(&self) -> Option<&VerdictRecords> {
        self.records().filter(|records| records.shared_store().is_some())
    }
}
