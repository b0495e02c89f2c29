//! The outbox.

use super::*;
use crate::{MAX_OUTBOX, OutboxEntry, OutboxPage, RecordName};

/// Time until which marks are valid.
const MARK_EXPIRY: u64 = START + 1_000_000;

fn name(number: u64) -> RecordName {
    key(RecordKind::Incident, number).name
}

fn add(store: &FileStore, number: u64) {
    wait(store.add_incident(name(number), MARK_EXPIRY, EXPIRY, &value(number)).unwrap()).unwrap();
}

fn page(store: &FileStore) -> OutboxPage {
    let page = wait(store.outbox(None)).unwrap();
    assert_eq!(page.next, None);
    page
}

fn names(store: &FileStore) -> Vec<RecordName> {
    page(store).entries.into_iter().map(|entry| entry.name).collect()
}

#[test]
fn entries_survive_in_their_order_until_they_are_removed() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in [2, 1, 3] {
        add(&store, number);
    }
    wait(store.update_outbox(name(1), EXPIRY, b"changed").unwrap()).unwrap();
    wait(store.remove_from_outbox(name(2))).unwrap();
    // An entry that has been removed does not return.
    wait(store.update_outbox(name(2), EXPIRY, b"late").unwrap()).unwrap();
    drop(store);
    let store = fixture.open();
    let expected = [(1, b"changed".to_vec()), (3, value(3))].map(|(number, value)| OutboxEntry {
        name: name(number),
        expiry: EXPIRY,
        value,
    });
    assert_eq!(page(&store).entries, expected);
    let found = wait(store.outbox_entry(name(3))).unwrap().entries;
    assert_eq!(found, expected[1..]);
    assert_eq!(wait(store.outbox_entry(name(2))).unwrap().entries, []);
}

#[test]
fn incident_is_created_once_while_its_mark_is_valid() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    add(&store, 1);
    wait(store.remove_from_outbox(name(1))).unwrap();
    add(&store, 1);
    assert_eq!(names(&store), []);
    assert_eq!(store.counters().entries, 1);
    fixture.set_time(MARK_EXPIRY + 1);
    // Removes the expired mark.
    flush(&store);
    wait(store.add_incident(name(1), u64::MAX, u64::MAX, b"again").unwrap()).unwrap();
    assert_eq!(names(&store), [name(1)]);
}

#[test]
fn full_outbox_keeps_the_oldest_entries() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let added: Vec<_> = (0..MAX_OUTBOX - 1)
        .map(|number| store.add_incident(name(number), MARK_EXPIRY, EXPIRY, b"").unwrap())
        .collect();
    for added in added {
        wait(added).unwrap();
    }
    for number in [MAX_OUTBOX, MAX_OUTBOX + 1, MAX_OUTBOX] {
        add(&store, number);
    }
    assert_eq!(store.counters().outbox_overflows, 1);
    let found = names(&store);
    assert_eq!(found.len() as u64, MAX_OUTBOX);
    assert_eq!(found.first(), Some(&name(0)));
    assert_eq!(found.last(), Some(&name(MAX_OUTBOX)));
    // An incident without room has no mark, so that it can be created later.
    wait(store.remove_from_outbox(name(0))).unwrap();
    add(&store, MAX_OUTBOX + 1);
    assert_eq!(names(&store).last(), Some(&name(MAX_OUTBOX + 1)));
}

#[test]
fn pages_have_all_entries() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let large = vec![7; 60_000];
    for number in 0..40 {
        wait(store.add_incident(name(number), MARK_EXPIRY, EXPIRY, &large).unwrap()).unwrap();
    }
    let (mut found, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let page = wait(store.outbox(after)).unwrap();
        found.extend(page.entries.into_iter().map(|entry| entry.name));
        pages += 1;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, (0..40).map(name).collect::<Vec<_>>());
    assert_eq!(pages, 3);
}

#[test]
fn expired_and_altered_entries_are_removed() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 1..=3 {
        add(&store, number);
    }
    wait(store.add_incident(name(4), MARK_EXPIRY, START + 10, b"old").unwrap()).unwrap();
    drop(store);
    let database = fixture.database();
    // The value of another entry, one that is no sealed value, and a name of another length.
    let sql = "UPDATE outbox SET sealed = (SELECT sealed FROM outbox WHERE id = 2) WHERE id = 1; \
               UPDATE outbox SET sealed = 'text' WHERE id = 2; \
               INSERT INTO outbox VALUES(9, x'01', 5, x'02')";
    database.execute_batch(sql).unwrap();
    drop(database);
    fixture.set_time(START + 11);
    let store = fixture.open();
    let found = page(&store);
    assert_eq!(found.entries.len(), 1);
    assert_eq!((found.entries[0].name, found.expired, found.unreadable), (name(3), 1, 3));
    assert_eq!(store.counters().bad_records, 3);
    flush(&store);
    assert_eq!(page(&store).expired, 0);
}

/// The entry stays, so that its owner can store it again under the new secret.
#[test]
fn entry_under_a_former_secret_is_stored_again() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    add(&store, 1);
    store.secrets().replace(StoreSecret::derive(b"new"), Vec::new());
    for _ in 0..2 {
        let found = wait(store.outbox_entry(name(1))).unwrap();
        assert_eq!((found.entries.len(), found.unreadable), (0, 1));
        flush(&store);
    }
    wait(store.update_outbox(name(1), EXPIRY, b"again").unwrap()).unwrap();
    let found = wait(store.outbox_entry(name(1))).unwrap();
    assert_eq!((&found.entries[0].value[..], found.unreadable), (&b"again"[..], 0));
}

#[test]
fn clearing_removes_the_outbox_and_the_marks() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    add(&store, 1);
    wait(store.clear()).unwrap();
    assert_eq!(names(&store), []);
    add(&store, 1);
    assert_eq!(names(&store), [name(1)]);
}

#[test]
fn clearing_keeps_which_media_was_seen() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..3 {
        put(&store, RecordKind::Seen, number);
        put(&store, RecordKind::NotClean, number);
    }
    put(&store, RecordKind::Rescan, 1);
    wait(store.clear()).unwrap();
    flush(&store);
    assert_eq!(store.counters().entries, 3);
    assert_eq!(get(&store, key(RecordKind::Seen, 2)), Some(value(2)));
    for kind in [RecordKind::NotClean, RecordKind::Rescan] {
        assert_eq!(get(&store, key(kind, 1)), None);
    }
}

/// An incident must be on disk before the verdict that it is about, since a known verdict creates no incident.
#[test]
fn incident_is_written_before_later_records() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let added = store.add_incident(name(1), MARK_EXPIRY, EXPIRY, b"").unwrap();
    put_not_clean(&store, 1).unwrap();
    // The future of the incident has not been polled before.
    assert_eq!(names(&store), [name(1)]);
    wait(added).unwrap();
}
