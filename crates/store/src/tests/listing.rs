//! All records with a name, and listings.

use super::*;
use crate::{ListPosition, ListedRecord};

fn reference(number: u64, version: u64) -> RecordKey {
    let key = key(RecordKind::Reference, number);
    RecordKey { version: Some(version.to_le_bytes()), ..key }
}

/// Returns all listed records of these kinds, and the number of pages.
fn list(store: &FileStore, kinds: &[RecordKind]) -> (Vec<ListedRecord>, usize) {
    let (mut records, mut pages) = (Vec::new(), 0);
    let mut after: Option<ListPosition> = None;
    loop {
        let page = wait(store.list(kinds, after)).unwrap();
        records.extend(page.records);
        pages += 1;
        after = page.next;
        if after.is_none() {
            return (records, pages);
        }
    }
}

#[test]
fn all_records_with_a_name_are_found() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for version in 0..3 {
        store.put(reference(1, version), EXPIRY, &[u8::try_from(version).unwrap()]).unwrap();
    }
    store.put(reference(1, 3), 10, b"expires first").unwrap();
    store.put(reference(2, 0), EXPIRY, b"other name").unwrap();
    store.put(key(RecordKind::Media, 1), EXPIRY, b"other kind").unwrap();
    flush(&store);
    fixture.set_time(11);
    let all = |number| {
        let name = reference(number, 0).name;
        let records = wait(store.get_all(RecordKind::Reference, name)).unwrap();
        assert!(
            records.iter().all(|record| record.key.name == name && record.expiry == Some(EXPIRY))
        );
        let mut values: Vec<_> = records.into_iter().map(|record| record.value).collect();
        values.sort();
        values
    };
    assert_eq!(all(1), [[0], [1], [2]]);
    assert_eq!(all(3), Vec::<Vec<u8>>::new());
    for version in 0..100 {
        store.put(reference(4, version), EXPIRY, b"one of many").unwrap();
    }
    flush(&store);
    assert_eq!(all(4).len(), 64);
    store.close();
    assert_eq!(wait(store.get_all(RecordKind::Reference, reference(1, 0).name)), None);
}

#[test]
fn listing_has_all_valid_records_once_and_latest_first() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..1000 {
        let kind = if number % 100 == 0 { RecordKind::NotClean } else { RecordKind::Finished };
        put(&store, kind, number);
    }
    flush(&store);
    let (not_clean, pages) = list(&store, &[RecordKind::NotClean]);
    let expected: Vec<_> = (0..10).rev().map(|n| key(RecordKind::NotClean, n * 100)).collect();
    let keys: Vec<_> = not_clean.iter().map(|record| record.key).collect();
    assert_eq!(keys, expected);
    assert!(not_clean.iter().all(|record| record.expiry == Some(EXPIRY)));
    assert_eq!(not_clean.last().unwrap().value, value(0));
    assert!(pages >= 4, "a page reads a bounded number of rows");
    let (all, _) = list(&store, &[RecordKind::NotClean, RecordKind::Finished]);
    assert_eq!(all.len(), 1000);
    assert_eq!(list(&store, &[RecordKind::Media]).0, []);
    store.close();
    assert_eq!(wait(store.list(&[RecordKind::Media], None)), None);
}

#[test]
fn altered_rows_are_not_listed() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..6 {
        put(&store, RecordKind::Finished, number);
    }
    store.close();
    drop(store);
    let database = fixture.database();
    for (number, change) in [
        (1, "sealed = 'text'"),
        (2, "sealed = zeroblob(100)"),
        (3, "sealed = zeroblob(1000000)"),
        (4, "kind = 'text'"),
        (5, "version = x'0102'"),
    ] {
        let sql = format!("UPDATE record SET {change} WHERE name = ?1");
        let name = key(RecordKind::Finished, number).name.0;
        assert_eq!(database.execute(&sql, [name]).unwrap(), 1, "{change}");
    }
    drop(database);
    let store = fixture.open();
    let (records, _) = list(&store, &[RecordKind::Finished]);
    assert_eq!(records.iter().map(|r| r.key).collect::<Vec<_>>(), [key(RecordKind::Finished, 0)]);
}
