//! Task that writes changes of the shared store.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::stream::{StreamExt as _, iter};
use redis::Value;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout_at},
};

use crate::{
    counters::count,
    record::{RecordKind, RecordName},
};

use super::{
    change_queue::{ChangeQueue, ChangesByPosition, SharedChange},
    connection::{CallError, StoreCall, first_error},
    event_seal::EventSealer,
    incident_write,
    key_names::{EVENTS_KEY, record_key, reference_field},
    limits::{
        CLOSE_TIMEOUT, INCIDENT_TIME, MAX_PIPELINE, MAX_PIPELINE_BYTES, MAX_REFERENCES, MAX_TTL,
        RETRY_PAUSE, WRITES_IN_FLIGHT,
    },
    link::StoreLink,
    records::RecordOpener,
    references::trim_references,
    replies::number,
};

/// Approximate number of events in the stream.
const MAX_EVENTS: &str = "10000";

/// Pause between attempts while the store is closed.
const CLOSING_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Changes with their positions in the queue.
type OrderedChanges = Vec<(u64, SharedChange)>;

/// Writes changes until the queue is closed.
pub(crate) struct SharedWriter {
    link: Arc<StoreLink>,
    queue: Arc<ChangeQueue>,
    sealer: EventSealer,
    opener: RecordOpener,
}

impl SharedWriter {
    pub(crate) fn new(
        link: Arc<StoreLink>,
        queue: Arc<ChangeQueue>,
        sealer: EventSealer,
        opener: RecordOpener,
    ) -> Self {
        Self { link, queue, sealer, opener }
    }

    /// Writes changes until the queue is closed, and then for up to 2 s. `is_done` becomes true at the end.
    pub(crate) async fn run(self, is_done: watch::Sender<bool>) {
        let mut is_failing = false;
        while !self.queue.is_closed() {
            if self.queue.is_empty() {
                self.queue.changed().await;
                continue;
            }
            let attempt = Instant::now();
            match self.write_all().await {
                Ok(()) => {
                    if std::mem::take(&mut is_failing) {
                        tracing::info!(
                            "all waiting changes of the shared verdict store are written"
                        );
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_failing, true) {
                        tracing::warn!(
                            %error,
                            "the shared verdict store cannot be written; malware found, and what was forgotten, is kept in memory and retried each second"
                        );
                    }
                    self.pause(attempt).await;
                }
            }
        }
        self.flush().await;
        self.link.close();
        is_done.send_replace(true);
    }

    /// Waits for the next attempt: for a pause, and while the store is out of use. Ends when the queue is closed.
    async fn pause(&self, attempt: Instant) {
        let next_attempt = async {
            sleep_until(attempt + RETRY_PAUSE).await;
            self.link.breaker().wait_for_use().await;
        };
        let closing = async {
            while !self.queue.is_closed() {
                self.queue.changed().await;
            }
        };
        tokio::select! {
            // In order, so that a simulation is repeatable.
            biased;
            () = closing => {}
            () = next_attempt => {}
        }
    }

    /// Writes what waits for up to 2 s, and drops the rest.
    async fn flush(&self) {
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        let writes = async {
            while !self.queue.is_empty() {
                if self.write_all().await.is_err() {
                    sleep(CLOSING_PAUSE).await;
                }
            }
        };
        // Changes in flight are dropped and counted with the rest of the queue.
        let _ = timeout_at(deadline, writes).await;
        let dropped = self.queue.take_all().len().max(self.queue.kept());
        if dropped > 0 {
            count(&self.link.counters.dropped_writes, dropped as u64);
            tracing::warn!(
                dropped,
                "the shared verdict store was closed before all changes were written"
            );
        }
    }

    /// Writes all changes of the queue. Those of one name are written in order, others at the same time, and events at the
    /// end: replicas look up what an event announces. Returns changes that are retried to the queue, and the first error.
    async fn write_all(&self) -> Result<(), CallError> {
        let mut groups: BTreeMap<Vec<u8>, OrderedChanges> = BTreeMap::new();
        let changes: ChangesByPosition = self.queue.take_all();
        let (mut events, mut incidents) = (OrderedChanges::new(), OrderedChanges::new());
        for (position, change) in changes {
            match change {
                SharedChange::Publish { .. } => events.push((position, change)),
                SharedChange::AddIncident(_) => incidents.push((position, change)),
                _ => groups.entry(change.group()).or_default().push((position, change)),
            }
        }
        let result = self.write_records(groups).await;
        // Records that were not written are announced after the next attempt. Those behind them wait as well.
        let first_kept = self.queue.first_kept().unwrap_or(u64::MAX);
        let is_ready = |(position, _): &(u64, SharedChange)| *position < first_kept;
        let (ready, waiting): (OrderedChanges, OrderedChanges) =
            events.into_iter().partition(is_ready);
        self.queue.give_back(waiting);
        let result = result.and(self.write_group(ready).await);
        // Last: an outbox that cannot be written must not delay verdicts.
        result.and(self.write_incidents(incidents).await)
    }

    /// Writes new incidents in order, up to the first that fails, for about a second.
    async fn write_incidents(&self, incidents: OrderedChanges) -> Result<(), CallError> {
        let end = Instant::now() + INCIDENT_TIME;
        let mut rest = incidents.into_iter();
        let mut result = Ok(());
        while result.is_ok()
            && Instant::now() < end
            && let Some((position, change)) = rest.next()
        {
            let SharedChange::AddIncident(incident) = &change else { continue };
            if self.queue.is_dropped(position, &change) {
                self.queue.finish(&change);
                continue;
            }
            match incident_write::write_incident(&self.link, &self.opener, incident).await {
                Ok(_) => self.queue.finish(&change),
                Err(error) => {
                    self.queue.give_back([(position, change)]);
                    result = Err(error);
                }
            }
        }
        self.queue.give_back(rest);
        result
    }

    async fn write_records(
        &self,
        groups: BTreeMap<Vec<u8>, OrderedChanges>,
    ) -> Result<(), CallError> {
        let writes = iter(groups.into_values()).map(|changes| self.write_group(changes));
        let mut writes = writes.buffer_unordered(WRITES_IN_FLIGHT);
        let mut result = Ok(());
        while let Some(written) = writes.next().await {
            result = result.and(written);
        }
        result
    }

    /// Writes changes of one name in order, up to the first that fails.
    async fn write_group(&self, changes: OrderedChanges) -> Result<(), CallError> {
        let is_dropped =
            |(position, change): &(u64, SharedChange)| self.queue.is_dropped(*position, change);
        let (dropped, changes): (OrderedChanges, OrderedChanges) =
            changes.into_iter().partition(is_dropped);
        for (_, change) in &dropped {
            self.queue.finish(change);
        }
        let mut rest = changes.into_iter().peekable();
        let mut result = Ok(());
        while result.is_ok() && rest.peek().is_some() {
            let mut batch: OrderedChanges = Vec::new();
            let mut bytes = 0;
            while let Some((position, change)) = rest.next_if(|(_, change)| {
                let is_full = bytes + change.size() > MAX_PIPELINE_BYTES;
                batch.is_empty() || (batch.len() < MAX_PIPELINE && !is_full)
            }) {
                bytes += change.size();
                batch.push((position, change));
            }
            result = self.write_batch(batch).await;
        }
        self.queue.give_back(rest);
        result
    }

    /// Writes changes in one call. Of those that fail, droppable ones are dropped, and others return to the queue.
    async fn write_batch(&self, batch: OrderedChanges) -> Result<(), CallError> {
        let mut call: Option<StoreCall> = None;
        let mut lengths = Vec::new();
        for (_, change) in &batch {
            let call = call.get_or_insert_with(|| StoreCall::new(&change.group()));
            let before = call.pipeline.len();
            self.add_commands(call, change);
            lengths.push(call.pipeline.len() - before);
        }
        let Some(call) = call else { return Ok(()) };
        let replies = if call.pipeline.is_empty() {
            Ok(Vec::new())
        } else {
            self.link.query(&call, Ok).await
        };
        let (written, oversized, result) = match replies {
            Ok(replies) => count_written(&batch, &lengths, &replies),
            Err(error) => (0, Vec::new(), Err(error)),
        };
        // A call that was not sent has not failed because of its changes.
        let is_unsent = matches!(result, Err(CallError::OutOfUse | CallError::Closed));
        let mut kept = OrderedChanges::new();
        for (index, (position, change)) in batch.into_iter().enumerate() {
            if index < written {
                self.queue.finish(&change);
            } else if change.is_kept() || is_unsent {
                kept.push((position, change));
            } else {
                self.queue.finish(&change);
                count(&self.link.counters.dropped_writes, 1);
            }
        }
        self.queue.give_back(kept);
        for (kind, name) in oversized {
            trim_references(&self.link, &self.opener, kind, name).await;
        }
        result
    }

    /// Adds the commands of a change. None, if a record has expired meanwhile.
    fn add_commands(&self, call: &mut StoreCall, change: &SharedChange) {
        match change {
            SharedChange::Put { key, expiry, sealed } => {
                let time = expiry.saturating_sub((self.opener.now)()).min(MAX_TTL);
                if time == 0 {
                    return;
                }
                let (time, name) = (time.to_string(), record_key(key));
                if key.kind.is_in_hash() {
                    call.push("HSET", &[&name, &reference_field(key), sealed]);
                    call.push("EXPIRE", &[&name, time.as_bytes()]);
                    call.push("HLEN", &[&name]);
                } else {
                    call.push("SET", &[&name, sealed, b"EX", time.as_bytes()]);
                }
            }
            SharedChange::Delete { key } | SharedChange::DeleteInvalid { key } => {
                call.push("DEL", &[&record_key(key)]);
            }
            // Written before, by another method.
            SharedChange::AddIncident(_) => {}
            SharedChange::UpdateEntry { name, sealed } => {
                incident_write::push_update(call, *name, sealed);
            }
            SharedChange::RemoveEntry { name } => incident_write::push_removal(call, *name),
            SharedChange::Publish { number, message } => {
                // Sealed at each attempt, because the validity of an event starts when it is written.
                let Ok(sealed) = self.sealer.seal(*number, message.as_deref()) else { return };
                let limit = [EVENTS_KEY, b"MAXLEN", b"~", MAX_EVENTS.as_bytes()];
                call.push("XADD", &[&limit[..], &[b"*", b"e", &sealed]].concat());
            }
        }
    }
}

/// Returns the number of changes at the start that were written, the names whose references are too many, and the first
/// error.
fn count_written(
    batch: &OrderedChanges,
    lengths: &[usize],
    replies: &[Value],
) -> (usize, Vec<(RecordKind, RecordName)>, Result<(), CallError>) {
    let mut oversized = Vec::new();
    let mut rest = replies;
    for (index, ((_, change), &length)) in batch.iter().zip(lengths).enumerate() {
        let Some((own, others)) = rest.split_at_checked(length) else {
            return (index, oversized, Err(CallError::Reply("a reply is missing")));
        };
        rest = others;
        if let Some(error) = first_error(own) {
            return (index, oversized, Err(CallError::from_server(error)));
        }
        if let SharedChange::Put { key, .. } = change
            && key.kind.is_in_hash()
            && let Some(length) = own.last().and_then(|length| number(length).ok())
            && length > MAX_REFERENCES as u64
        {
            oversized.push((key.kind, key.name));
        }
    }
    (batch.len(), oversized, Ok(()))
}
