//! Bounds of the queue of changes.

use super::*;
use crate::{
    changes::StoreChange,
    limits::{MAX_BATCH, MAX_QUEUED, MAX_QUEUED_BYTES, MAX_QUEUED_KEPT},
    queue::{Durability, QueuedChange, WriteQueue},
};

fn change(number: u64, length: usize, durability: Durability) -> QueuedChange {
    let key = key(RecordKind::Media, number);
    let change = StoreChange::Put { key, expiry: number, sealed: vec![0; length] };
    QueuedChange { change, durability, acknowledgement: None }
}

fn numbers(changes: &[QueuedChange]) -> Vec<u64> {
    let number = |change: &QueuedChange| match change.change {
        StoreChange::Put { expiry, .. } => expiry,
        _ => panic!("{change:?}"),
    };
    changes.iter().map(number).collect()
}

#[test]
fn number_of_changes_is_bounded() {
    let limits = [(Durability::Droppable, MAX_QUEUED), (Durability::Retried, MAX_QUEUED_KEPT)];
    let queue = WriteQueue::default();
    for (durability, limit) in limits {
        for _ in 0..limit {
            assert!(queue.push(change(0, 10, durability)));
        }
        assert!(!queue.push(change(0, 10, durability)));
    }
    assert_eq!(queue.next_batch(Duration::ZERO).changes.len(), MAX_BATCH);
    // The first ones are droppable.
    assert!(queue.push(change(0, 10, Durability::Droppable)));
    assert!(!queue.push(change(0, 10, Durability::Durable)));
}

#[test]
fn size_of_changes_is_bounded() {
    for durability in [Durability::Droppable, Durability::Retried] {
        let queue = WriteQueue::default();
        assert!(queue.push(change(0, MAX_QUEUED_BYTES - 10, durability)));
        assert!(!queue.push(change(0, 11, durability)));
        assert!(queue.push(change(0, 10, durability)));
        assert!(!queue.push(change(0, 1, durability)));
        assert_eq!(queue.next_batch(Duration::ZERO).changes.len(), 2);
        assert!(queue.push(change(0, 11, durability)));
    }
}

#[test]
fn failed_changes_precede_later_ones() {
    let queue = WriteQueue::default();
    for number in 0..4 {
        queue.push(change(number, 1, Durability::Retried));
    }
    let batch = queue.next_batch(Duration::ZERO).changes;
    assert_eq!(numbers(&batch), [0, 1, 2, 3]);
    queue.push(change(4, 1, Durability::Retried));
    queue.return_failed(batch);
    assert_eq!(numbers(&queue.next_batch(Duration::ZERO).changes), [0, 1, 2, 3, 4]);
}

#[test]
fn queued_changes_are_returned_after_closing() {
    let queue = WriteQueue::default();
    queue.push(change(1, 1, Durability::Droppable));
    queue.close();
    assert!(!queue.push(change(2, 1, Durability::Droppable)));
    let batch = queue.next_batch(LONG_TIMEOUT);
    assert!(batch.is_closed);
    assert_eq!(numbers(&batch.changes), [1]);
    assert!(queue.next_batch(LONG_TIMEOUT).changes.is_empty());
    queue.pause(LONG_TIMEOUT);
}
