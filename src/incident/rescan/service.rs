//! Notices that the engines have changed, and starts passes.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep};
use tracing::{info, warn};

use super::{
    fetcher::{CurrentScanner, RescanFetcher},
    pass::{PassParts, RescanPass},
    source::RescanSource,
    stored_state::{self, StoredState},
};
use crate::{
    config::sections::incident::RescanSettings,
    incident::{incident_store::IncidentStore, secret_source::SecretSource, seen::SeenIndex},
    media::service_client::ServiceClient,
    metrics::Metrics,
    scan::engines::EngineState,
};

/// Key of the file with the token.
pub(in crate::incident) const RESCAN_TOKEN: &str = "incident.token_path";

/// Longest pause between two questions for the state of the engines.
const MAX_POLL: Duration = Duration::from_secs(5);

/// Time without a known state of the engines after which that is logged.
const MAX_UNKNOWN: Duration = Duration::from_secs(600);

/// What rescans need besides their settings.
pub struct RescanParts {
    pub store: IncidentStore,
    /// How long the names of media are kept.
    pub keep: Duration,
    pub client: ServiceClient,
    pub metrics: Arc<Metrics>,
    pub current: CurrentScanner,
    /// Whether malware causes incidents.
    pub has_incidents: bool,
}

/// Scans served media again after changes of the engines.
pub struct RescanService {
    source: RescanSource,
    seen: SeenIndex,
    metrics: Arc<Metrics>,
    delay: Duration,
    ticks: Interval,
    has_incidents: bool,
    /// State of the engines in the last complete pass of this process, or the stored one if the engines have not changed.
    last: Option<EngineState>,
    /// Whether the engines were in another state since, for however short a time.
    has_changed: bool,
    /// Whether the store had the state of a pass since the last one.
    was_stored: bool,
}

impl RescanService {
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn new(settings: &RescanSettings, parts: RescanParts) -> Self {
        let RescanParts { store, keep, client, metrics, current, has_incidents } = parts;
        let token = SecretSource::new(settings.token_path.clone(), RESCAN_TOKEN);
        let source = RescanFetcher { current, token, client }.into_source();
        let seen = SeenIndex::new(store, keep);
        Self::with_source(source, seen, settings, metrics, has_incidents)
    }

    pub(super) fn with_source(
        source: RescanSource,
        seen: SeenIndex,
        settings: &RescanSettings,
        metrics: Arc<Metrics>,
        has_incidents: bool,
    ) -> Self {
        let mut ticks = interval(Duration::from_secs(1) / settings.rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let delay = settings.delay;
        Self {
            source,
            seen,
            metrics,
            delay,
            ticks,
            has_incidents,
            last: None,
            has_changed: false,
            was_stored: false,
        }
    }

    /// Runs until dropped or stopped. `stopping` completes when the service stops; what is left is done after the next start.
    pub async fn run(mut self, stopping: impl Future<Output = ()>) {
        let metrics = Arc::clone(&self.metrics);
        tokio::select! {
            () = self.run_passes() => {}
            () = stopping => {
                if metrics.rescans.is_running() {
                    info!("rescan interrupted by the stop, continuing after the next start");
                }
            }
        }
    }

    async fn run_passes(&mut self) {
        loop {
            let state = self.wait_for_change().await;
            self.metrics.rescans.set_running(Some(0));
            let parts = PassParts {
                source: &self.source,
                seen: &self.seen,
                metrics: &self.metrics,
                ticks: &mut self.ticks,
                has_incidents: self.has_incidents,
            };
            let end = Box::pin(RescanPass::new(parts, state).run()).await;
            self.metrics.rescans.set_running(None);
            if let Ok(counts) = end {
                stored_state::store(self.seen.store(), state);
                (self.last, self.has_changed, self.was_stored) = (Some(state), false, false);
                info!(results = %counts, "served media was scanned again");
            } else {
                self.has_changed = true;
                info!("the engines have changed again, beginning the rescan again");
            }
        }
    }

    /// Waits until the engines have changed, and have not changed again for a while.
    async fn wait_for_change(&mut self) -> EngineState {
        let poll = (self.delay / 4).min(MAX_POLL);
        let mut since: Option<(EngineState, Instant)> = None;
        let mut unknown_until = Instant::now() + MAX_UNKNOWN;
        let mut is_logged = false;
        loop {
            match (self.source.engines)(()).await {
                None => {
                    since = None;
                    if Instant::now() >= unknown_until && !std::mem::replace(&mut is_logged, true) {
                        warn!(
                            "changes of the engines cannot be noticed: a version is not known, or the canary has not passed"
                        );
                    }
                }
                Some(state) => {
                    unknown_until = Instant::now() + MAX_UNKNOWN;
                    self.has_changed |= self.last.is_some_and(|last| last != state);
                    let (current, start) = *since.get_or_insert((state, Instant::now()));
                    if current != state {
                        since = Some((state, Instant::now()));
                    } else if start.elapsed() >= self.delay && self.is_due(state).await {
                        return state;
                    }
                }
            }
            sleep(poll).await;
        }
    }

    /// Returns whether served media was not scanned again with these engines.
    async fn is_due(&mut self, state: EngineState) -> bool {
        let Some(stored) = stored_state::compare(self.seen.store(), state).await else {
            return false;
        };
        let was_stored = self.was_stored;
        self.was_stored |= stored != StoredState::Missing;
        match (self.last, stored) {
            (None, StoredState::Same) => {
                self.last = Some(state);
                false
            }
            (None, StoredState::Missing | StoredState::Other) => true,
            // All records were removed, or the state is not written yet.
            (Some(_), StoredState::Missing) => was_stored || self.has_changed,
            // Other replicas may have other engines for a while.
            (Some(_), StoredState::Same | StoredState::Other) => self.has_changed,
        }
    }
}
