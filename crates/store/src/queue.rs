//! Changes that wait for the writer thread.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::{
    changes::StoreChange,
    error::NotDurable,
    limits::{BATCH_TIME, MAX_BATCH, MAX_QUEUED, MAX_QUEUED_BYTES, MAX_QUEUED_KEPT},
};

/// Receives the result of a durable change.
pub(crate) type Acknowledgement = oneshot::Sender<Result<(), NotDurable>>;

/// How a change is treated when it cannot be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Durability {
    /// The change may be lost.
    Droppable,
    /// The change is written durably, or fails.
    Durable,
    /// The change is written durably, and retried.
    Retried,
}

/// Change in the queue.
#[derive(Debug)]
pub(crate) struct QueuedChange {
    pub(crate) change: StoreChange,
    pub(crate) durability: Durability,
    pub(crate) acknowledgement: Option<Acknowledgement>,
}

impl QueuedChange {
    /// Reports the result to the caller, who may have stopped waiting for it.
    pub(crate) fn acknowledge(self, result: Result<(), NotDurable>) {
        if let Some(acknowledgement) = self.acknowledgement {
            let _ = acknowledgement.send(result);
        }
    }
}

/// Damage found by another thread than the writer.
pub(crate) struct DamageReport {
    /// Number of the file that was read.
    pub(crate) epoch: u64,
    pub(crate) message: String,
}

/// What the writer does next.
#[derive(Default)]
pub(crate) struct WriteBatch {
    /// Changes for one transaction. Empty if damage was reported, or nothing was queued.
    pub(crate) changes: Vec<QueuedChange>,
    pub(crate) damage: Option<DamageReport>,
    /// Whether no changes are queued any more.
    pub(crate) is_closed: bool,
}

/// Number and size of queued changes.
#[derive(Default)]
struct QueueUsage {
    changes: usize,
    bytes: usize,
}

impl QueueUsage {
    fn has_room(&self, max_changes: usize, size: usize) -> bool {
        self.changes < max_changes && self.bytes + size <= MAX_QUEUED_BYTES
    }
}

#[derive(Default)]
struct PendingChanges {
    changes: VecDeque<QueuedChange>,
    droppable: QueueUsage,
    kept: QueueUsage,
    /// When the first droppable change was queued after the last batch.
    since: Option<Instant>,
    damage: Option<DamageReport>,
    is_closed: bool,
}

impl PendingChanges {
    fn usage(&mut self, durability: Durability) -> &mut QueueUsage {
        match durability {
            Durability::Droppable => &mut self.droppable,
            Durability::Durable | Durability::Retried => &mut self.kept,
        }
    }

    fn add_usage(&mut self, change: &QueuedChange) {
        let usage = self.usage(change.durability);
        usage.changes += 1;
        usage.bytes += change.change.size();
    }
}

/// Bounded queue of changes in the order of their requests.
#[derive(Default)]
pub(crate) struct WriteQueue {
    pending: Mutex<PendingChanges>,
    changed: Condvar,
}

impl WriteQueue {
    /// Adds a change. Returns `false` and drops the change if the queue is full or closed.
    pub(crate) fn push(&self, change: QueuedChange) -> bool {
        let max_changes = match change.durability {
            Durability::Droppable => MAX_QUEUED,
            Durability::Durable | Durability::Retried => MAX_QUEUED_KEPT,
        };
        let mut pending = self.pending.lock();
        let usage = pending.usage(change.durability);
        if !usage.has_room(max_changes, change.change.size()) || pending.is_closed {
            return false;
        }
        pending.add_usage(&change);
        pending.since.get_or_insert_with(Instant::now);
        pending.changes.push_back(change);
        drop(pending);
        self.changed.notify_one();
        true
    }

    /// Returns changes to the front of the queue, in their order. They may exceed the limits by one batch.
    pub(crate) fn return_failed(&self, changes: Vec<QueuedChange>) {
        let mut pending = self.pending.lock();
        for change in changes.into_iter().rev() {
            pending.add_usage(&change);
            pending.changes.push_front(change);
        }
    }

    /// Waits for changes and takes the first ones. Changes that a caller may wait for are taken at once, so that all
    /// that arrive during a transaction share the next one. Returns after `max_wait` at the latest.
    pub(crate) fn next_batch(&self, max_wait: Duration) -> WriteBatch {
        let deadline = Instant::now() + max_wait;
        let mut pending = self.pending.lock();
        loop {
            let is_due = pending.is_closed
                || pending.damage.is_some()
                || pending.kept.changes > 0
                || pending.changes.len() >= MAX_BATCH;
            let until = pending.since.map_or(deadline, |since| deadline.min(since + BATCH_TIME));
            if is_due || self.changed.wait_until(&mut pending, until).timed_out() {
                break;
            }
        }
        let is_closed = pending.is_closed;
        let damage = pending.damage.take();
        if damage.is_some() {
            return WriteBatch { changes: Vec::new(), damage, is_closed };
        }
        pending.since = None;
        let length = pending.changes.len().min(MAX_BATCH);
        let changes: Vec<_> = pending.changes.drain(..length).collect();
        if !pending.changes.is_empty() {
            pending.since = Some(Instant::now());
        }
        for change in &changes {
            let usage = pending.usage(change.durability);
            usage.changes -= 1;
            usage.bytes -= change.change.size();
        }
        WriteBatch { changes, damage: None, is_closed }
    }

    /// Waits before failed changes are retried. Returns earlier if the queue is closed.
    pub(crate) fn pause(&self, duration: Duration) {
        let deadline = Instant::now() + duration;
        let mut pending = self.pending.lock();
        while !pending.is_closed && !self.changed.wait_until(&mut pending, deadline).timed_out() {}
    }

    /// Reports to the writer that the file is damaged.
    pub(crate) fn report_damage(&self, damage: DamageReport) {
        self.pending.lock().damage = Some(damage);
        self.changed.notify_one();
    }

    /// Rejects further changes. Queued ones are still returned.
    pub(crate) fn close(&self) {
        self.pending.lock().is_closed = true;
        self.changed.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pending.lock().is_closed
    }
}
