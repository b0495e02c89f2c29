//! Reads the outbox of a file, and reports new incidents.

use std::{sync::Arc, time::Duration};

use mcs_store::{FileStore, RecordName};
use tokio::{
    sync::mpsc,
    time::{interval, sleep},
};
use tracing::{error, info, warn};

use super::{
    entry::Incident,
    event::{IncidentEvent, IncidentObserver, IncidentState},
    outbox::Outbox,
    seen::{SeenIndex, SeenMedia},
    step_plan::StepKind,
};
use crate::{media::parse_hex, metrics::Metrics, scan::engines::engine_name};

/// Time between two removals of incidents that are too old.
pub(super) const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Pause before the store is read again.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Number of attempts to read the other media with a content.
const READ_ATTEMPTS: usize = 5;

/// Takes entries of the store over to the outbox in memory.
#[derive(Clone)]
pub(super) struct OutboxReader {
    pub(super) outbox: Outbox,
    pub(super) seen: SeenIndex,
    pub(super) metrics: Arc<Metrics>,
    pub(super) observer: IncidentObserver,
}

impl OutboxReader {
    /// Reads what an earlier process has left, then each new entry, until dropped.
    pub(super) async fn run_file(
        self,
        store: Arc<FileStore>,
        mut written: mpsc::UnboundedReceiver<RecordName>,
    ) {
        self.read_all(&store).await;
        let mut expiry = interval(EXPIRY_INTERVAL);
        loop {
            tokio::select! {
                Some(name) = written.recv() => self.read_one(&store, name).await,
                _ = expiry.tick() => self.give_up_expired(),
            }
        }
    }

    async fn read_all(&self, store: &FileStore) {
        let (mut after, mut found) = (None, 0);
        loop {
            let Some(page) = store.outbox(after).await else {
                sleep(READ_PAUSE).await;
                continue;
            };
            found += page.entries.len();
            if page.expired > 0 {
                let incidents = page.expired;
                warn!(incidents, "incidents of an earlier process were not done within 7 days");
            }
            if page.unreadable > 0 {
                let incidents = page.unreadable;
                error!(
                    incidents,
                    "incidents of an earlier process are lost: the outbox has another secret, or was altered"
                );
            }
            for entry in &page.entries {
                if let Some((number, incident)) = self.outbox.insert(entry) {
                    self.announce(number, &incident).await;
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if found > 0 {
            info!(incidents = found, "continuing incidents of an earlier process");
        }
    }

    async fn read_one(&self, store: &FileStore, name: RecordName) {
        for _ in 0..READ_ATTEMPTS {
            let Some(page) = store.outbox_entry(name).await else {
                sleep(READ_PAUSE).await;
                continue;
            };
            // None if the same incident was created before.
            if let Some(entry) = page.entries.first()
                && let Some((number, incident)) = self.outbox.insert(entry)
            {
                self.announce(number, &incident).await;
            }
            return;
        }
        warn!("an incident waits for the next start, because the store cannot be read");
    }

    /// Adds the other media with the content, and reports the incident.
    pub(super) async fn announce(&self, number: u64, incident: &Incident) {
        let mut incident = incident.clone();
        let others = self.other_media(&incident).await;
        for media in &others {
            incident.add_media(media.mxc.clone(), media.base_url.clone());
        }
        let Incident { id, engine, finding, media, .. } = &incident;
        warn!(incident = id, engine, finding, media = media.len(), "malware in media");
        self.metrics.incidents.record(engine_name(engine).unwrap_or("unknown"));
        (self.observer)(&IncidentEvent { incident: &incident, state: IncidentState::Created });
        self.outbox.announce(number, incident);
        // After the incident that contains it. The process may be killed in between, which may cause a second incident.
        for media in &others {
            if let Err(error) = self.seen.mark(media) {
                warn!(%error, "a second incident about the same media is possible");
            }
        }
    }

    /// Returns the media with the content of an incident that has no incident of its own.
    async fn other_media(&self, incident: &Incident) -> Vec<SeenMedia> {
        let content = parse_hex(&incident.content).unwrap_or_default();
        for _ in 0..READ_ATTEMPTS {
            let Some(seen) = self.seen.media(&content).await else {
                sleep(READ_PAUSE).await;
                continue;
            };
            let mut others = Vec::new();
            for media in seen {
                if !self.seen.is_marked(&media).await {
                    others.push(media);
                }
            }
            return others;
        }
        warn!(incident = incident.id, "other media with the content is not known");
        Vec::new()
    }

    pub(super) fn give_up_expired(&self) {
        let lost = self.outbox.remove_expired();
        if !lost.is_empty() {
            warn!(steps = lost.len(), "steps of incidents were not done within 7 days");
        }
        for kind in lost {
            let name = match kind {
                StepKind::Quarantine => "quarantine",
                StepKind::Notify(index) => {
                    let target = self.outbox.plan().targets.get(index);
                    target.map_or("unknown", |target| target.kind)
                }
            };
            self.metrics.incidents.record_step(name, "given_up");
        }
    }
}
