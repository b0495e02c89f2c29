//! Events that replicas publish for each other.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

use super::{
    connection::CallError,
    event_tracker::{EventTracker, StoreEvent},
    link::{ConnectionTag, StoreLink},
};

/// Time between two polls.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit of one call of a poll. Longer than that of lookups, because no request waits for a poll.
const POLL_TIMEOUT: Duration = Duration::from_millis(900);

/// Maximum number of calls of one poll. A process that cannot follow the stream continues at its end with the next poll.
const MAX_CALLS: usize = 16;

/// Maximum number of events that wait for the process. With more, they become one [`StoreEvent::Lost`].
const MAX_WAITING: usize = 4096;

/// Events that wait for the process.
#[derive(Default)]
pub(crate) struct EventBuffer {
    events: Mutex<VecDeque<StoreEvent>>,
    added: Notify,
}

impl EventBuffer {
    fn push(&self, event: StoreEvent) {
        let mut events = self.events.lock();
        if events.len() >= MAX_WAITING {
            events.clear();
            events.push_back(StoreEvent::Lost);
        }
        if event != StoreEvent::Lost || events.back() != Some(&StoreEvent::Lost) {
            events.push_back(event);
        }
        drop(events);
        self.added.notify_one();
    }
}

/// Events published by other replicas.
pub struct StoreEvents(Arc<EventBuffer>);

impl StoreEvents {
    pub(crate) fn new(buffer: Arc<EventBuffer>) -> Self {
        Self(buffer)
    }

    /// Waits for the next event. Cancellation safe. Never returns after the store was closed.
    pub async fn next(&mut self) -> StoreEvent {
        loop {
            let added = self.0.added.notified();
            if let Some(event) = self.0.events.lock().pop_front() {
                return event;
            }
            added.await;
        }
    }
}

/// Polls the stream each second until the link is closed.
pub(crate) struct EventPoller {
    link: Arc<StoreLink>,
    tracker: EventTracker,
    buffer: Arc<EventBuffer>,
    /// Whether the last poll failed. The next successful one reports that events may be lost.
    has_failed: bool,
    /// Connection of the last successful poll. After a fail-over, another server may have other events with lower IDs.
    connection: Option<ConnectionTag>,
}

impl EventPoller {
    pub(crate) fn new(
        link: Arc<StoreLink>,
        tracker: EventTracker,
        buffer: Arc<EventBuffer>,
    ) -> Self {
        Self { link, tracker, buffer, has_failed: false, connection: None }
    }

    pub(crate) async fn run(mut self) {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            match self.poll().await {
                Ok(()) => {}
                Err(CallError::Closed) => return,
                Err(error) => {
                    tracing::debug!(%error, "cannot read the events of the shared verdict store");
                    self.has_failed = true;
                }
            }
        }
    }

    async fn poll(&mut self) -> Result<(), CallError> {
        for _ in 0..MAX_CALLS {
            let call = self.tracker.call();
            let decode = |replies| self.tracker.decode(replies);
            let (polled, connection) = self.link.poll(&call, POLL_TIMEOUT, decode).await?;
            let applied = self.tracker.apply(polled);
            self.has_failed |= self.connection.as_ref().is_some_and(|last| *last != connection);
            self.connection = Some(connection);
            // Before the messages, because the process then forgets what they are about.
            if applied.is_lost | std::mem::take(&mut self.has_failed) {
                self.buffer.push(StoreEvent::Lost);
            }
            for message in applied.messages {
                self.buffer.push(StoreEvent::Message(message));
            }
            if !applied.has_more {
                return Ok(());
            }
        }
        self.tracker.restart();
        Ok(())
    }
}
