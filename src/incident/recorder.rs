//! Receives plain media from jobs, and writes what incidents need to the store.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::RecordName;
use tokio::sync::mpsc;
use tracing::error;

use super::{
    entry::Incident,
    incident_store::{IncidentStore, IncidentWrite},
    seen::{SeenMedia, expiry},
    seen_recorder::SeenRecorder,
};
use crate::{
    media::{disposition, hex},
    scan::{
        infection::Infection,
        report::{PlainMedia, PlainMediaObserver, PlainMediaRecorded},
    },
    text::single_line,
};

/// How long an entry stays in the outbox.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Maximum length of a text in an incident, bytes.
const MAX_TEXT: usize = 1000;

/// Writes incidents to the outbox, and keeps which media had a content.
pub struct IncidentRecorder {
    pub(super) store: IncidentStore,
    /// How long an incident is not created again.
    pub(super) keep: Duration,
    pub(super) seen: SeenRecorder,
    /// Receives the names of entries after they are written.
    pub(super) written: mpsc::UnboundedSender<RecordName>,
}

impl IncidentRecorder {
    /// Returns the observer for jobs.
    #[must_use]
    pub fn into_observer(self) -> PlainMediaObserver {
        Arc::new(move |media| self.record(media))
    }

    /// Records media. Returns a future that the job awaits before anything about the media is stored.
    fn record(&self, media: &PlainMedia<'_>) -> Option<PlainMediaRecorded> {
        let seen = SeenMedia::new(media);
        let infection = media.infection;
        let recorded = infection.and_then(|infection| self.add_incident(&seen, infection, media));
        self.seen.record(media, seen);
        recorded
    }

    /// Requests the entry. Later changes of the store are not written before, if the job awaits the future.
    fn add_incident(
        &self,
        seen: &SeenMedia,
        infection: &Infection,
        media: &PlainMedia<'_>,
    ) -> Option<PlainMediaRecorded> {
        let name = seen.incident_name(&self.store.secret());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut incident = Incident {
            id: name.to_hex(),
            found: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            content: hex(media.content),
            engine: infection.engine.to_owned(),
            finding: single_line(&infection.finding, MAX_TEXT),
            file_name: file_name(media),
            location: infection.location.as_ref().map(|text| single_line(text, MAX_TEXT)),
            media: Vec::new(),
            is_announced: false,
            targets: BTreeMap::new(),
        };
        incident.add_media(seen.mxc.clone(), seen.base_url.clone());
        let (keep, max_age) = (expiry(self.keep), expiry(MAX_AGE));
        let write = match self.store.add_incident(name, keep, max_age, incident.encode()) {
            Ok(write) => write,
            Err(error) => {
                error!(%error, "an incident is lost");
                return None;
            }
        };
        let IncidentWrite { must_wait, written: is_written } = write;
        let written = self.written.clone();
        // In a task, so that the incident is written when the job ends early.
        let task = tokio::spawn(async move {
            if is_written.await {
                // Fails only when the service stops.
                let _ = written.send(name);
            }
        });
        must_wait.then(|| -> PlainMediaRecorded { Box::pin(async { drop(task.await) }) })
    }
}

/// Returns the name of the file, if the homeserver has one.
fn file_name(media: &PlainMedia<'_>) -> Option<String> {
    let name = disposition::file_name(media.headers.disposition.as_ref()?)?;
    Some(single_line(&name, MAX_TEXT))
}
