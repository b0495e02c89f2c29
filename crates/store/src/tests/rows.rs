//! Rows that an attacker changes in the file.

use rusqlite::params;

use super::*;

/// Puts records 1 and 2, runs SQL on the closed file, and returns the store.
fn alter(fixture: &StoreFixture, sql: &str) -> FileStore {
    let store = fixture.open();
    for number in [1, 2] {
        put(&store, RecordKind::Finished, number);
        put(&store, RecordKind::NotClean, number);
    }
    drop(store);
    let database = fixture.database();
    database.execute_batch(sql).unwrap();
    drop(database);
    fixture.open()
}

#[test]
fn altered_rows_are_misses_and_are_removed() {
    let own = format!("name = x'{:?}'", key(RecordKind::Finished, 1).name);
    let other = format!("name = x'{:?}'", key(RecordKind::Finished, 2).name);
    let of_other = format!("(SELECT sealed FROM record WHERE {other})");
    let alterations = [
        "zeroblob(100)".to_owned(),
        "x''".to_owned(),
        "'text'".to_owned(),
        "1".to_owned(),
        "zeroblob(100000000)".to_owned(),
        "substr(sealed, 1, length(sealed) - 1)".to_owned(),
        "substr(sealed, 2)".to_owned(),
        "CAST(sealed || x'00' AS BLOB)".to_owned(),
        of_other,
    ];
    for alteration in alterations {
        let fixture = StoreFixture::new();
        let store =
            alter(&fixture, &format!("UPDATE record SET sealed = {alteration} WHERE {own}"));
        let altered = key(RecordKind::Finished, 1);
        assert_eq!(get(&store, altered), None, "{alteration}");
        assert_eq!(store.counters().bad_records, 1, "{alteration}");
        assert_eq!(get(&store, key(RecordKind::Finished, 2)), Some(value(2)));
        flush(&store);
        assert_eq!(store.counters().entries, 3, "{alteration}");
        assert_eq!(get(&store, altered), None);
        assert_eq!(store.counters().bad_records, 1, "{alteration}");
        put(&store, RecordKind::Finished, 1);
        flush(&store);
        assert_eq!(get(&store, altered), Some(value(1)));
    }
}

#[test]
fn swapped_rows_are_misses() {
    for (kind, swap) in [
        (RecordKind::Finished, "UPDATE record SET name = x'00' || name"),
        (RecordKind::Finished, "UPDATE record SET kind = 3 - kind"),
        (RecordKind::Finished, "UPDATE record SET version = x'0808080808080808' WHERE kind = 2"),
    ] {
        let fixture = StoreFixture::new();
        let store = alter(&fixture, swap);
        assert_eq!(get(&store, key(kind, 1)), None, "{swap}");
    }
    // The rows of two names exchange their values.
    let swap = "CREATE TEMP TABLE old AS SELECT kind, name, sealed FROM record; \
                UPDATE record SET sealed = (SELECT sealed FROM old \
                WHERE old.kind = record.kind AND old.name <> record.name)";
    let fixture = StoreFixture::new();
    let store = alter(&fixture, swap);
    for number in [1, 2] {
        assert_eq!(get(&store, key(RecordKind::Finished, number)), None);
        assert_eq!(get(&store, key(RecordKind::NotClean, number)), None);
    }
    assert_eq!(store.counters().bad_records, 4);
}

/// A damaged not-clean record was not clean, so the finished one of other engines does not replace it.
#[test]
fn altered_not_clean_record_hides_the_finished_one() {
    let fixture = StoreFixture::new();
    let store = alter(&fixture, "UPDATE record SET sealed = zeroblob(100) WHERE kind = 1");
    let keys = vec![key(RecordKind::NotClean, 1), key(RecordKind::Finished, 1)];
    assert_eq!(wait(store.get_first(keys)), None);
}

#[test]
fn prolonged_records_stay_expired() {
    let fixture = StoreFixture::new();
    let store = alter(&fixture, "UPDATE record SET expiry = expiry + 100000000");
    fixture.set_time(EXPIRY);
    assert_eq!(get(&store, key(RecordKind::Finished, 1)), None);
    let counters = store.counters();
    assert_eq!((counters.bad_records, counters.expired), (1, 0));
    flush(&store);
    assert_eq!(store.counters().entries, 3);
}

/// A documented limit: an earlier record of the same key is valid until it expires.
#[test]
fn replayed_records_are_valid_until_they_expire() {
    let fixture = StoreFixture::new();
    let key = key(RecordKind::Finished, 1);
    let store = alter(&fixture, "");
    store.put(key, EXPIRY + 100, b"later").unwrap();
    drop(store);
    let replayed = secret().seal(&key, START + 10, b"earlier").unwrap();
    let sql = "UPDATE record SET sealed = ?1 WHERE name = ?2";
    fixture.database().execute(sql, params![replayed, key.name.0]).unwrap();
    let store = fixture.open();
    assert_eq!(get(&store, key).unwrap(), b"earlier");
    fixture.set_time(START + 10);
    assert_eq!(get(&store, key), None);
    assert_eq!(store.counters().bad_records, 1);
}

/// The removal of a bad row must not remove a record that was written since it was read.
#[test]
fn removal_of_a_bad_row_spares_a_later_record() {
    let fixture = StoreFixture::new();
    let store = alter(&fixture, "UPDATE record SET sealed = zeroblob(100) WHERE kind = 1");
    let name = key(RecordKind::NotClean, 1).name;
    // Queued before the lookup, and written before its removal.
    let written = store.put_not_clean(name, EXPIRY, b"new").unwrap();
    let found = get(&store, key(RecordKind::NotClean, 1));
    assert!(found.is_none_or(|found| found == b"new"));
    wait(written).unwrap();
    flush(&store);
    assert_eq!(get(&store, key(RecordKind::NotClean, 1)).unwrap(), b"new");
}
