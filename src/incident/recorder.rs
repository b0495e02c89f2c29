//! Receives plain media from jobs, and writes what incidents need to the store.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::{FileStore, RecordName};
use tokio::sync::mpsc;
use tracing::{debug, error};

use super::{
    entry::Incident,
    seen::{SeenMedia, expiry},
    seen_recorder::SeenRecorder,
};
use crate::{
    media::{disposition, hex},
    scan::{
        infection::Infection,
        report::{PlainMedia, PlainMediaObserver},
    },
    text::single_line,
};

/// How long an entry stays in the outbox.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Maximum length of a text in an incident, bytes.
const MAX_TEXT: usize = 1000;

/// Writes incidents to the outbox, and keeps which media had a content.
pub struct IncidentRecorder {
    pub(super) store: Arc<FileStore>,
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

    fn record(&self, media: &PlainMedia<'_>) {
        let seen = SeenMedia::new(media);
        if let Some(infection) = media.infection {
            self.add_incident(&seen, infection, media);
        }
        self.seen.record(media, seen);
    }

    /// Requests the entry. Later changes of the store are not written before.
    fn add_incident(&self, seen: &SeenMedia, infection: &Infection, media: &PlainMedia<'_>) {
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
        let added = match self.store.add_incident(name, keep, max_age, &incident.encode()) {
            Ok(added) => added,
            Err(error) => {
                error!(%error, "an incident is lost");
                return;
            }
        };
        let written = self.written.clone();
        tokio::spawn(async move {
            match added.await {
                // Fails only when the service stops; the next start reads the outbox.
                Ok(()) => drop(written.send(name)),
                Err(error) => debug!(%error, "an incident is not in the outbox"),
            }
        });
    }
}

/// Returns the name of the file, if the homeserver has one.
fn file_name(media: &PlainMedia<'_>) -> Option<String> {
    let name = disposition::file_name(media.headers.disposition.as_ref()?)?;
    Some(single_line(&name, MAX_TEXT))
}
