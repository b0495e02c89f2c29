//! Lookups and changes.

use super::*;
use crate::{MAX_VALUE, SealError};

#[test]
fn records_survive_closing() {
    let fixture = StoreFixture::new();
    let (store, report) = fixture.try_open().unwrap();
    assert_eq!(report, OpenReport { is_new: true, set_aside: None, was_left_open: false });
    let kinds = [RecordKind::NotClean, RecordKind::Finished, RecordKind::Media];
    for number in 0..600 {
        put(&store, kinds[usize::try_from(number % 3).unwrap()], number);
    }
    store.close();
    drop(store);
    assert_eq!(fixture.files(), ["store.db", "store.db.lock"]);
    let (store, report) = fixture.try_open().unwrap();
    assert_eq!(report, OpenReport { is_new: false, set_aside: None, was_left_open: false });
    for number in 0..600 {
        for (index, kind) in (0..).zip(kinds) {
            let expected = (number % 3 == index).then(|| value(number));
            assert_eq!(get(&store, key(kind, number)), expected);
        }
    }
    let counters = store.counters();
    assert_eq!((counters.hits, counters.misses, counters.entries), (600, 1200, 600));
    assert_eq!((counters.bad_records, counters.expired, counters.failed_reads), (0, 0, 0));
}

#[test]
fn later_records_replace_earlier_ones() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let key = key(RecordKind::Media, 1);
    for value in [&b"first"[..], b"second", b""] {
        store.put(key, EXPIRY, value).unwrap();
        flush(&store);
        assert_eq!(get(&store, key).unwrap(), value);
    }
    assert_eq!(store.counters().entries, 1);
}

#[test]
fn versions_are_separate_records() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let version = |version| RecordKey { version, ..key(RecordKind::Finished, 1) };
    store.put(version(Some([1; 8])), EXPIRY, b"1").unwrap();
    store.put(version(Some([2; 8])), EXPIRY, b"2").unwrap();
    flush(&store);
    assert_eq!(get(&store, version(Some([1; 8]))).unwrap(), b"1");
    assert_eq!(get(&store, version(Some([2; 8]))).unwrap(), b"2");
    assert_eq!(get(&store, version(Some([3; 8]))), None);
    assert_eq!(get(&store, version(None)), None);
    wait(store.delete(RecordKind::Finished, version(None).name)).unwrap();
    assert_eq!(get(&store, version(Some([1; 8]))), None);
    assert_eq!(get(&store, version(Some([2; 8]))), None);
    assert_eq!(store.counters().entries, 0);
}

#[test]
fn not_clean_has_precedence() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let keys = vec![key(RecordKind::NotClean, 1), key(RecordKind::Finished, 1)];
    assert_eq!(wait(store.get_first(keys.clone())), None);
    put(&store, RecordKind::Finished, 1);
    flush(&store);
    assert_eq!(wait(store.get_first(keys.clone())), Some((RecordKind::Finished, value(1))));
    put_not_clean(&store, 1).unwrap();
    assert_eq!(wait(store.get_first(keys.clone())), Some((RecordKind::NotClean, value(1))));
    wait(store.delete(RecordKind::NotClean, keys[0].name)).unwrap();
    assert_eq!(wait(store.get_first(keys)), Some((RecordKind::Finished, value(1))));
    assert_eq!(wait(store.get_first(Vec::new())), None);
}

#[test]
fn clearing_removes_everything_that_was_put_before() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..300 {
        put(&store, RecordKind::Media, number);
        put(&store, RecordKind::NotClean, number);
    }
    let cleared = store.clear();
    put(&store, RecordKind::Media, 1000);
    wait(cleared).unwrap();
    flush(&store);
    assert_eq!(store.counters().entries, 1);
    assert_eq!(get(&store, key(RecordKind::Media, 1)), None);
    assert_eq!(get(&store, key(RecordKind::Media, 1000)), Some(value(1000)));
}

#[test]
fn acknowledged_records_are_found_without_closing() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    // A copy of the files is what a process finds that starts after this one was killed.
    let copy = StoreFixture::new();
    for suffix in ["", "-wal"] {
        fs::copy(fixture.with_suffix(suffix), copy.with_suffix(suffix)).unwrap();
    }
    let (store, report) = copy.try_open().unwrap();
    assert_eq!(report, OpenReport { is_new: false, set_aside: None, was_left_open: true });
    assert_eq!(get(&store, key(RecordKind::NotClean, 1)), Some(value(1)));
}

#[test]
fn nothing_is_queued_after_closing() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    store.close();
    store.close();
    assert_eq!(get(&store, key(RecordKind::NotClean, 1)), None);
    assert_eq!(put_not_clean(&store, 2), Err(NotDurable));
    assert_eq!(wait(store.clear()), Err(NotDurable));
    put(&store, RecordKind::Media, 1);
    assert_eq!(store.counters().dropped_writes, 3);
    drop(store);
    let store = fixture.open();
    assert_eq!(store.counters().entries, 1);
}

#[test]
fn values_longer_than_the_limit_are_rejected() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let key = key(RecordKind::NotClean, 1);
    let too_long = SealError::TooLong(MAX_VALUE + 1);
    let value = vec![1; MAX_VALUE + 1];
    assert_eq!(store.put(key, EXPIRY, &value), Err(too_long));
    assert_eq!(store.put_not_clean(key.name, EXPIRY, &value).err(), Some(too_long));
    wait(store.put_not_clean(key.name, EXPIRY, &value[1..]).unwrap()).unwrap();
    assert_eq!(get(&store, key).unwrap(), &value[1..]);
}

#[test]
fn another_secret_finds_nothing() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let value = b"value that is in no file";
    store.put(key(RecordKind::Media, 1), EXPIRY, value).unwrap();
    drop(store);
    let bytes = fs::read(fixture.path()).unwrap();
    assert!(!bytes.windows(value.len()).any(|window| window == value));
    let other = StoreSecret::derive(b"another");
    let (store, _) = FileStore::open(&fixture.path(), other, fixture.settings()).unwrap();
    // The name is another one, too.
    let name = store.secret().name(RecordKind::Media, &[&1_u64.to_le_bytes()]);
    assert_eq!(get(&store, RecordKey { name, ..key(RecordKind::Media, 1) }), None);
    assert_eq!(store.counters().bad_records, 0);
    assert_eq!(get(&store, key(RecordKind::Media, 1)), None);
    assert_eq!(store.counters().bad_records, 1);
}

/// A log that remains would mean that the store was not closed, and cause a check of the whole file.
#[test]
fn closing_removes_the_log() {
    let fixture = StoreFixture::new();
    for number in 0..50 {
        let store = fixture.open();
        put(&store, RecordKind::Finished, number);
        // The lookup opens the reader's connection.
        get(&store, key(RecordKind::Finished, number));
        store.close();
        assert_eq!(fixture.files(), ["store.db", "store.db.lock"], "{number}");
    }
}

#[test]
fn removing_leaves_only_the_lock() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    put_not_clean(&store, 1).unwrap();
    store.close_and_remove().unwrap();
    assert_eq!(fixture.files(), ["store.db.lock"]);
    drop(store);
    assert_eq!(get(&fixture.open(), key(RecordKind::NotClean, 1)), None);
}
