//! Changes that wait for the writer of the shared store.

use std::collections::{BTreeMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::{
    limits::{MAX_QUEUED, MAX_QUEUED_BYTES, MAX_QUEUED_KEPT, MAX_QUEUED_OUTBOX},
    record::{RecordKey, RecordKind, RecordName},
};

use super::key_names::{EVENTS_KEY, record_key};

/// Size of a change besides its value in bytes, approximately.
const CHANGE_OVERHEAD: usize = 128;

/// Change of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum SharedChange {
    Put {
        key: RecordKey,
        expiry: u64,
        sealed: Vec<u8>,
    },
    Delete {
        key: RecordKey,
    },
    /// Removal of an altered record, which lookups find again if it is lost.
    DeleteInvalid {
        key: RecordKey,
    },
    /// New incident, written after other changes: none depends on it. The same one waits once.
    AddIncident(Box<SealedIncident>),
    /// Replaces an entry of the outbox, unless it was removed.
    UpdateEntry {
        name: RecordName,
        sealed: Vec<u8>,
    },
    RemoveEntry {
        name: RecordName,
    },
    /// Event with its number. `None`: the message was too long.
    Publish {
        number: u64,
        message: Option<Vec<u8>>,
    },
}

impl SharedChange {
    /// Returns whether the change is retried until it is written.
    pub(crate) fn is_kept(&self) -> bool {
        match self {
            Self::Put { key, .. } => key.kind.is_kept(),
            Self::Delete { .. }
            | Self::AddIncident(_)
            | Self::UpdateEntry { .. }
            | Self::RemoveEntry { .. }
            | Self::Publish { .. } => true,
            Self::DeleteInvalid { .. } => false,
        }
    }

    /// Returns whether the change is one of the outbox. Such changes have a limit of their own, and no event announces them,
    /// so that an outbox that cannot be written does not delay or displace verdicts.
    fn is_of_outbox(&self) -> bool {
        match self {
            Self::AddIncident(_) | Self::UpdateEntry { .. } | Self::RemoveEntry { .. } => true,
            Self::Put { .. }
            | Self::Delete { .. }
            | Self::DeleteInvalid { .. }
            | Self::Publish { .. } => false,
        }
    }

    /// Returns whether the change writes a finding that may be wrong: malware, or an incident.
    fn is_finding(&self) -> bool {
        match self {
            Self::Put { key, .. } => key.kind == RecordKind::NotClean,
            Self::AddIncident(_) => true,
            _ => false,
        }
    }

    pub(crate) fn size(&self) -> usize {
        CHANGE_OVERHEAD
            + match self {
                Self::Put { sealed, .. } | Self::UpdateEntry { sealed, .. } => sealed.len(),
                Self::AddIncident(incident) => incident.mark.len() + incident.entry.len(),
                Self::Publish { message, .. } => message.as_ref().map_or(0, Vec::len),
                Self::Delete { .. } | Self::DeleteInvalid { .. } | Self::RemoveEntry { .. } => 0,
            }
    }

    /// Returns a key that is the same for all changes whose order matters: those of one name, and all events.
    pub(crate) fn group(&self) -> Vec<u8> {
        match self {
            Self::Put { key, .. } | Self::Delete { key } | Self::DeleteInvalid { key } => {
                let kind = match key.kind {
                    RecordKind::Finished | RecordKind::Forgotten => RecordKind::NotClean,
                    kind => kind,
                };
                record_key(&RecordKey { kind, name: key.name, version: None })
            }
            Self::AddIncident(incident) => outbox_record_key(incident.name),
            Self::UpdateEntry { name, .. } | Self::RemoveEntry { name } => outbox_record_key(*name),
            Self::Publish { .. } => EVENTS_KEY.to_owned(),
        }
    }
}

/// Returns the key of an entry of the outbox in the server.
pub(crate) fn outbox_record_key(name: RecordName) -> Vec<u8> {
    record_key(&RecordKey { kind: RecordKind::Outbox, name, version: None })
}

/// New incident: a mark that it was created, and an entry of the outbox.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SealedIncident {
    pub(crate) name: RecordName,
    pub(crate) mark_expiry: u64,
    pub(crate) mark: Vec<u8>,
    pub(crate) entry: Vec<u8>,
}

/// Changes by their position in the order of requests.
pub(crate) type ChangesByPosition = BTreeMap<u64, SharedChange>;

/// Number and size of changes that wait or are being written.
#[derive(Default)]
struct ChangeUsage {
    changes: usize,
    bytes: usize,
}

#[derive(Default)]
struct ChangeQueueState {
    changes: ChangesByPosition,
    next_position: u64,
    /// Number of the last event.
    last_event: u64,
    droppable: ChangeUsage,
    kept: ChangeUsage,
    /// Kept changes of the outbox.
    outbox: ChangeUsage,
    /// Names of the incidents that wait or are being written.
    incidents: HashSet<RecordName>,
    /// Findings before this position are dropped.
    first_valid: u64,
    is_closed: bool,
}

impl ChangeQueueState {
    /// Returns the usage of changes of the same class, and their maximum number.
    fn usage(&mut self, change: &SharedChange) -> (&mut ChangeUsage, usize) {
        if change.is_of_outbox() {
            (&mut self.outbox, MAX_QUEUED_OUTBOX)
        } else if change.is_kept() {
            (&mut self.kept, MAX_QUEUED_KEPT)
        } else {
            (&mut self.droppable, MAX_QUEUED)
        }
    }

    fn push(&mut self, change: SharedChange) -> bool {
        if let SharedChange::AddIncident(incident) = &change
            && self.incidents.contains(&incident.name)
        {
            return !self.is_closed;
        }
        let is_closed = self.is_closed;
        let (usage, max) = self.usage(&change);
        let bytes = usage.bytes + change.size();
        if is_closed || usage.changes >= max || bytes > MAX_QUEUED_BYTES {
            return false;
        }
        usage.changes += 1;
        usage.bytes = bytes;
        if let SharedChange::AddIncident(incident) = &change {
            self.incidents.insert(incident.name);
        }
        self.changes.insert(self.next_position, change);
        self.next_position += 1;
        true
    }

    fn is_dropped(&self, position: u64, change: &SharedChange) -> bool {
        position < self.first_valid && change.is_finding()
    }

    fn finish(&mut self, change: &SharedChange) {
        let (usage, _) = self.usage(change);
        usage.changes = usage.changes.saturating_sub(1);
        usage.bytes = usage.bytes.saturating_sub(change.size());
        if let SharedChange::AddIncident(incident) = change {
            self.incidents.remove(&incident.name);
        }
    }
}

/// Bounded queue of changes in the order of their requests.
#[derive(Default)]
pub(crate) struct ChangeQueue {
    state: Mutex<ChangeQueueState>,
    changed: Notify,
}

impl ChangeQueue {
    /// Adds a change. Returns `false` and drops the change if the queue is full or closed.
    pub(crate) fn push(&self, change: SharedChange) -> bool {
        let is_queued = self.state.lock().push(change);
        self.changed.notify_one();
        is_queued
    }

    /// Adds an event. A dropped one leaves a gap in the numbers, which other replicas notice.
    pub(crate) fn push_event(&self, message: Option<Vec<u8>>) -> bool {
        let mut state = self.state.lock();
        state.last_event += 1;
        let number = state.last_event;
        let is_queued = state.push(SharedChange::Publish { number, message });
        drop(state);
        self.changed.notify_one();
        is_queued
    }

    /// Takes all changes. They count as waiting until [`finish`](Self::finish).
    pub(crate) fn take_all(&self) -> ChangesByPosition {
        std::mem::take(&mut self.state.lock().changes)
    }

    /// Returns changes that were taken to their positions.
    pub(crate) fn give_back(&self, changes: impl IntoIterator<Item = (u64, SharedChange)>) {
        let mut state = self.state.lock();
        for (position, change) in changes {
            if state.is_dropped(position, &change) {
                state.finish(&change);
            } else {
                state.changes.insert(position, change);
            }
        }
    }

    /// Drops the findings that wait. Those that are being written are not retried.
    pub(crate) fn drop_findings(&self) {
        let mut state = self.state.lock();
        state.first_valid = state.next_position;
        let waiting = std::mem::take(&mut state.changes);
        let (dropped, kept) = waiting
            .into_iter()
            .partition::<ChangesByPosition, _>(|(_, change)| change.is_finding());
        state.changes = kept;
        for change in dropped.values() {
            state.finish(change);
        }
        // One that is being written may wait again.
        state.incidents.clear();
    }

    /// Returns whether a change that was taken is not to be written any more.
    pub(crate) fn is_dropped(&self, position: u64, change: &SharedChange) -> bool {
        self.state.lock().is_dropped(position, change)
    }

    /// Returns the position of the first change in the queue that is retried until it is written, except those of the outbox,
    /// which no event announces.
    pub(crate) fn first_kept(&self) -> Option<u64> {
        let state = self.state.lock();
        let is_record = |change: &SharedChange| change.is_kept() && !change.is_of_outbox();
        let mut kept = state.changes.iter().filter(|(_, change)| is_record(change));
        kept.next().map(|(position, _)| *position)
    }

    /// Records that a change was written or dropped.
    pub(crate) fn finish(&self, change: &SharedChange) {
        self.state.lock().finish(change);
    }

    /// Returns the number of kept changes that wait or are being written.
    pub(crate) fn kept(&self) -> usize {
        let state = self.state.lock();
        state.kept.changes + state.outbox.changes
    }

    /// Returns the number of incidents that wait or are being written.
    pub(crate) fn incidents(&self) -> usize {
        self.state.lock().incidents.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.state.lock().changes.is_empty()
    }

    /// Rejects further changes.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Waits until a change was added, or the queue was closed. For one task. May return without a change.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}
