//! Expiry, and the limit of the number of records.

use super::*;

/// Writes a record that expires this many seconds after the start.
fn put_expiring(store: &FileStore, seconds: u64) {
    store.put(key(RecordKind::Media, seconds), START + seconds, &value(seconds)).unwrap();
}

fn is_found(store: &FileStore, seconds: u64) -> bool {
    let found = get(store, key(RecordKind::Media, seconds));
    assert!(found.is_none() || found == Some(value(seconds)));
    found.is_some()
}

#[test]
fn records_that_expire_first_are_evicted_beyond_the_limit() {
    let fixture = StoreFixture { max_entries: 10, ..StoreFixture::new() };
    let store = fixture.open();
    for seconds in (10..20).rev() {
        put_expiring(&store, seconds);
    }
    flush(&store);
    assert_eq!((store.counters().entries, store.counters().evicted), (10, 0));
    assert!((10..20).all(|seconds| is_found(&store, seconds)));
    // Replaced, so there is no further record.
    put_expiring(&store, 19);
    flush(&store);
    assert_eq!((store.counters().entries, store.counters().evicted), (10, 0));
    put_expiring(&store, 20);
    flush(&store);
    assert_eq!((store.counters().entries, store.counters().evicted), (10, 1));
    assert!(!is_found(&store, 10));
    assert!((11..=20).all(|seconds| is_found(&store, seconds)));
}

/// They expire last, and would otherwise leave no room for verdicts.
#[test]
fn records_of_seen_media_are_evicted_first() {
    let fixture = StoreFixture { max_entries: 10, ..StoreFixture::new() };
    let store = fixture.open();
    for number in 0..10 {
        store.put(key(RecordKind::Seen, number), START + 1000, &value(number)).unwrap();
    }
    flush(&store);
    for seconds in 10..18 {
        put_expiring(&store, seconds);
    }
    flush(&store);
    assert_eq!((store.counters().entries, store.counters().evicted), (10, 8));
    assert!((10..18).all(|seconds| is_found(&store, seconds)));
    let seen = (0..10).filter(|number| get(&store, key(RecordKind::Seen, *number)).is_some());
    assert_eq!(seen.count(), 2);
}

#[test]
fn lower_limit_is_reached_in_steps() {
    let mut fixture = StoreFixture::new();
    let store = fixture.open();
    for seconds in 1..=2500 {
        put_expiring(&store, seconds);
    }
    drop(store);
    fixture.max_entries = 10;
    let store = fixture.open();
    wait_until(|| store.counters().entries == 10);
    assert_eq!(store.counters().evicted, 2490);
    assert!(!is_found(&store, 2490));
    assert!((2491..=2500).all(|seconds| is_found(&store, seconds)));
}

#[test]
fn expired_records_are_not_found_and_are_evicted() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for seconds in 1..=1500 {
        put_expiring(&store, seconds);
    }
    flush(&store);
    fixture.set_time(START + 1400);
    // Found before the next write evicts it.
    assert!(!is_found(&store, 1400));
    assert!(is_found(&store, 1401));
    flush(&store);
    wait_until(|| store.counters().entries == 100);
    let counters = store.counters();
    assert_eq!((counters.bad_records, counters.failed_reads), (0, 0));
    assert!(counters.evicted + counters.expired >= 1400, "{counters:?}");
    assert!((1401..=1500).all(|seconds| is_found(&store, seconds)));
    drop(store);
    let count = "SELECT count(*) FROM record";
    assert_eq!(fixture.database().query_one(count, [], |row| row.get(0)), Ok(100));
}

/// The file contains the number of records, which an attacker may change.
#[test]
fn wrong_number_of_records_is_corrected() {
    let fixture = StoreFixture::new();
    for (number, is_set_aside) in [("1000000000000", false), ("-1", true), ("'x'", true)] {
        let store = fixture.open();
        put(&store, RecordKind::Media, 1);
        drop(store);
        fixture.database().execute(&format!("UPDATE state SET entries = {number}"), []).unwrap();
        let (store, report) = fixture.try_open().unwrap();
        assert_eq!(report.set_aside.is_some(), is_set_aside, "{number}");
        wait_until(|| store.counters().entries == 0);
        put(&store, RecordKind::Media, 2);
        flush(&store);
        assert_eq!(get(&store, key(RecordKind::Media, 2)), Some(value(2)));
    }
}
