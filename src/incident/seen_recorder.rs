//! Receives plain media from jobs, and has its names kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::warn;

use super::{
    incident_store::IncidentStore,
    seen::{SeenIndex, SeenMedia},
};
use crate::scan::{
    Wants,
    report::{PlainMedia, PlainMediaObserver},
};

/// Maximum number of media that wait to be kept. Of more, the content's media is not complete.
const MAX_WAITING: usize = 1024;

/// Keeps which media had a content.
pub struct SeenRecorder {
    sender: mpsc::Sender<SeenMedia>,
    overflow_logged: AtomicBool,
}

impl SeenRecorder {
    /// Returns a recorder, and the media that waits to be kept.
    pub(super) fn new() -> (Self, mpsc::Receiver<SeenMedia>) {
        let (sender, media) = mpsc::channel(MAX_WAITING);
        (Self { sender, overflow_logged: false.into() }, media)
    }

    /// Returns a recorder that keeps media in a store, and the task that does so.
    pub fn start(store: IncidentStore, keep: Duration) -> (Self, impl Future<Output = ()> + use<>) {
        let (recorder, media) = Self::new();
        (recorder, keep_seen(SeenIndex::new(store, keep), media))
    }

    /// Returns the observer for jobs.
    #[must_use]
    pub fn into_observer(self) -> PlainMediaObserver {
        Arc::new(move |media| {
            self.record(media, SeenMedia::new(media));
            None
        })
    }

    /// Has media kept, in the background. A rescan does not keep media for longer.
    pub(super) fn record(&self, media: &PlainMedia<'_>, seen: SeenMedia) {
        if media.request.wants == Wants::Rescan {
            return;
        }
        if self.sender.try_send(seen).is_ok() {
            self.overflow_logged.store(false, Ordering::Relaxed);
        } else if !self.overflow_logged.swap(true, Ordering::Relaxed) {
            warn!(
                waiting = MAX_WAITING,
                "the store is too slow, media of later incidents may be incomplete"
            );
        }
    }
}

/// Keeps which media had a content, until dropped.
pub(super) async fn keep_seen(index: SeenIndex, mut media: mpsc::Receiver<SeenMedia>) {
    while let Some(seen) = media.recv().await {
        if let Err(error) = index.add(&seen).await {
            warn!(%error, "media of later incidents may be incomplete");
        }
    }
}
