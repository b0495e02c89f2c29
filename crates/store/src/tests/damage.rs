//! Damaged and foreign files.

use std::{os::unix::fs::FileExt as _, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::DamageCause;

const PAGE: usize = 4096;

/// Number of records in the tests that damage a file.
const RECORDS: u64 = 200;

/// Returns the bytes of a closed file with records.
fn intact() -> Vec<u8> {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..RECORDS {
        put(&store, RecordKind::NotClean, number);
    }
    drop(store);
    fs::read(fixture.path()).unwrap()
}

/// Writes a file that looks as if it was made by the store, and opens it.
fn open_bytes(fixture: &StoreFixture, bytes: &[u8]) -> (FileStore, OpenReport) {
    // Keeps the mode of an existing file.
    drop(fixture.open());
    fs::write(fixture.path(), bytes).unwrap();
    fixture.try_open().unwrap()
}

/// Asserts that lookups return what was written, or nothing. Returns the number of found records.
fn assert_right_or_missing(store: &FileStore, context: &str) -> usize {
    let is_found = |number: &u64| {
        let found = get(store, key(RecordKind::NotClean, *number));
        assert!(found.is_none() || found == Some(value(*number)), "{context}, record {number}");
        found.is_some()
    };
    (0..RECORDS).filter(is_found).count()
}

/// Asserts that records can be written and read, if need be after a replacement of the file. Queued removals of damaged
/// rows may remove other records if the index is damaged, so some attempts may fail.
fn assert_usable(store: &FileStore, context: &str) {
    let is_usable = |_| {
        put_not_clean(store, RECORDS).unwrap_or_else(|error| panic!("{context}: {error}"));
        let found = get(store, key(RecordKind::NotClean, RECORDS));
        assert!(found.is_none() || found == Some(value(RECORDS)), "{context}");
        found.is_some()
    };
    assert!((0..10).any(is_usable), "{context}");
}

#[test]
fn each_damaged_page_costs_only_records() {
    let bytes = intact();
    assert!(bytes.len() > 15 * PAGE, "{}", bytes.len());
    let mut found = 0;
    for page in 0..bytes.len() / PAGE {
        // The whole page, and single parts of its header.
        for range in [0..PAGE, 0..1, 3..5, 5..7, 8..12, 16..17, PAGE / 2..PAGE] {
            let mut damaged = bytes.clone();
            damaged[page * PAGE..][range.clone()].iter_mut().for_each(|byte| *byte ^= 0xa5);
            let context = format!("page {page}, bytes {range:?}");
            let fixture = StoreFixture::new();
            let (store, _) = open_bytes(&fixture, &damaged);
            found += assert_right_or_missing(&store, &context);
            assert_usable(&store, &context);
        }
    }
    assert!(found > 0);
}

#[test]
fn truncated_files_cost_only_records() {
    let bytes = intact();
    let mut lengths: Vec<_> = (0..bytes.len() / PAGE).map(|page| page * PAGE).collect();
    lengths.extend([1, 15, 16, 99, 100, 512, PAGE - 1, bytes.len() - 1]);
    for length in lengths {
        let fixture = StoreFixture::new();
        let (store, _) = open_bytes(&fixture, &bytes[..length]);
        let context = format!("{length} bytes");
        assert_right_or_missing(&store, &context);
        assert_usable(&store, &context);
    }
}

/// The check runs in the background, and finds damage that no lookup meets.
#[test]
fn file_that_was_left_open_is_checked() {
    let bytes = intact();
    let mut damaged = bytes.clone();
    // Unlike the first pages, the last one is read only by lookups of its records.
    let start = bytes.len() - PAGE;
    damaged[start..].iter_mut().for_each(|byte| *byte ^= 0xa5);
    for (bytes, is_damaged) in [(&bytes, false), (&damaged, true)] {
        let fixture = StoreFixture::new();
        drop(fixture.open());
        fs::write(fixture.with_suffix("-wal"), "").unwrap();
        fs::write(fixture.path(), bytes).unwrap();
        let (store, report) = fixture.try_open().unwrap();
        assert!(report.was_left_open && report.set_aside.is_none(), "{report:?}");
        if is_damaged {
            wait_until(|| store.counters().replacements == 1);
            assert_usable(&store, "replaced");
            let damaged = fixture.with_suffix(&format!(".damaged-{START}"));
            assert!(damaged.exists());
        } else {
            assert_eq!(assert_right_or_missing(&store, "intact"), 200);
            store.close();
            assert_eq!(store.counters().replacements, 0);
        }
    }
}

#[test]
fn damaged_logs_cost_only_records() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    for number in 0..20 {
        put_not_clean(&store, number).unwrap();
    }
    let database = fs::read(fixture.path()).unwrap();
    let log = fs::read(fixture.with_suffix("-wal")).unwrap();
    drop(store);
    let open_log = |log: &[u8], context: &str| {
        let fixture = StoreFixture::new();
        drop(fixture.open());
        fs::write(fixture.path(), &database).unwrap();
        fs::write(fixture.with_suffix("-wal"), log).unwrap();
        let (store, _) = fixture.try_open().unwrap();
        let found = assert_right_or_missing(&store, context);
        assert_usable(&store, context);
        found
    };
    assert_eq!(open_log(&log, "intact"), 20);
    for length in (0..log.len()).step_by(6007) {
        open_log(&log[..length], &format!("{length} bytes of the log"));
    }
    for position in (0..log.len()).step_by(5003) {
        let mut damaged = log.clone();
        damaged[position] ^= 0xa5;
        open_log(&damaged, &format!("byte {position} of the log"));
    }
}

#[test]
fn foreign_files_are_set_aside() {
    let alterations = [
        ("PRAGMA user_version = 1", DamageCause::OtherVersion(1)),
        ("PRAGMA user_version = 0", DamageCause::OtherVersion(0)),
        ("PRAGMA application_id = 5", DamageCause::OtherApplication(5)),
        ("PRAGMA application_id = 0", DamageCause::OtherApplication(0)),
        ("CREATE TABLE more(x)", DamageCause::OtherSchema),
        ("DROP INDEX record_expiry", DamageCause::OtherSchema),
        ("CREATE TRIGGER t AFTER INSERT ON record BEGIN SELECT 1; END", DamageCause::OtherSchema),
        ("DROP TABLE state; CREATE VIEW state AS SELECT 1 AS entries", DamageCause::OtherSchema),
    ];
    for (sql, expected) in alterations {
        let fixture = StoreFixture::new();
        drop(fixture.open());
        fixture.database().execute_batch(sql).unwrap();
        let before = fs::read(fixture.path()).unwrap();
        let (store, report) = fixture.try_open().unwrap();
        let set_aside = report.set_aside.unwrap();
        assert_eq!(set_aside.cause, expected, "{sql}");
        assert_eq!(set_aside.path.file_name().unwrap(), &*format!("store.db.damaged-{START}"));
        assert!(fs::read(&set_aside.path).unwrap() == before, "{sql}");
        assert_usable(&store, sql);
        drop(store);
        let store = fixture.open();
        assert_eq!(get(&store, key(RecordKind::NotClean, RECORDS)), Some(value(RECORDS)));
    }
}

#[test]
fn files_that_are_no_databases_are_set_aside() {
    for bytes in [&b"no database"[..], &[0; 4096], &[0xff; 10_000], b"SQLite format 3\0"] {
        let fixture = StoreFixture::new();
        let (store, report) = open_bytes(&fixture, bytes);
        let set_aside = report.set_aside.unwrap();
        assert!(matches!(set_aside.cause, DamageCause::Damaged(_)), "{set_aside:?}");
        assert!(fs::read(&set_aside.path).unwrap() == bytes);
        assert_usable(&store, "replaced");
    }
}

/// A process may end after it has created the file, and before the schema is complete.
#[test]
fn empty_files_are_new() {
    let fixture = StoreFixture::new();
    let (store, report) = open_bytes(&fixture, b"");
    assert_eq!(report.set_aside, None);
    assert_usable(&store, "empty");
    let fixture = StoreFixture::new();
    drop(fixture.open());
    fs::write(fixture.path(), b"").unwrap();
    let database = fixture.database();
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    drop(database);
    assert_usable(&fixture.open(), "without schema");
}

#[test]
fn last_three_damaged_files_are_kept() {
    let fixture = StoreFixture::new();
    // Files of other programs stay.
    let other = fixture.with_suffix(".damaged-not-a-time");
    fs::write(&other, "").unwrap();
    for round in 0_u32..5 {
        let bytes = format!("damaged {round}");
        // Later rounds have the same time: a name is not used twice.
        fixture.set_time(START + u64::from(round.min(2)));
        let (store, report) = open_bytes(&fixture, bytes.as_bytes());
        let set_aside = report.set_aside.unwrap();
        assert_eq!(fs::read_to_string(&set_aside.path).unwrap(), bytes);
        drop(store);
    }
    let damaged = |time: u64| fixture.with_suffix(&format!(".damaged-{}", START + time));
    let contents = [2, 3, 4].map(|time| fs::read_to_string(damaged(time)).unwrap());
    assert_eq!(contents, ["damaged 2", "damaged 3", "damaged 4"]);
    let count = fixture.files().iter().filter(|name| name.contains("damaged-1")).count();
    assert_eq!(count, 3);
    assert!(other.exists());
}

/// Damages the file of an open store, as a failing disk does.
fn damage_in_use(fixture: &StoreFixture) {
    let length = usize::try_from(fs::metadata(fixture.path()).unwrap().len()).unwrap();
    let file = fs::File::options().write(true).open(fixture.path()).unwrap();
    // All pages but the first, which the connections have in their caches.
    file.write_all_at(&vec![0xa5; length - PAGE], PAGE as u64).unwrap();
    // Closing the file would release the locks that SQLite has on it.
    std::mem::forget(file);
}

/// Opens a store with records in the file, and not in the log or a cache.
fn open_intact(fixture: &StoreFixture) -> FileStore {
    drop(fixture.open());
    fs::write(fixture.path(), intact()).unwrap();
    fixture.open()
}

#[test]
fn file_damaged_in_use_is_replaced() {
    // Noticed by a lookup, and by a change.
    for by_lookup in [true, false] {
        let fixture = StoreFixture::new();
        let store = open_intact(&fixture);
        damage_in_use(&fixture);
        if by_lookup {
            assert_right_or_missing(&store, "damaged");
            wait_until(|| store.counters().replacements == 1);
        }
        assert_usable(&store, "replaced");
        let counters = store.counters();
        assert_eq!((counters.replacements, counters.entries), (1, 1));
        assert!(fixture.with_suffix(&format!(".damaged-{START}")).exists());
        drop(store);
        let store = fixture.open();
        assert_eq!(get(&store, key(RecordKind::NotClean, RECORDS)), Some(value(RECORDS)));
    }
}

#[test]
fn file_is_replaced_once_a_minute() {
    let fixture = StoreFixture::new();
    let store = fixture.open();
    let damage = |epoch| {
        store.report_damage(epoch);
        // The next change is written after the report is handled.
        put_not_clean(&store, epoch).unwrap();
        store.counters().replacements
    };
    assert_eq!(damage(0), 1);
    // Damage of a file that is not in use any more.
    fixture.set_time(START + 100);
    assert_eq!(damage(0), 1);
    assert_eq!(damage(1), 2);
    fixture.set_time(START + 159);
    assert_eq!(damage(2), 2);
    assert_eq!(get(&store, key(RecordKind::NotClean, 2)), Some(value(2)));
    fixture.set_time(START + 160);
    assert_eq!(damage(2), 3);
    assert_eq!(get(&store, key(RecordKind::NotClean, 2)), Some(value(2)));
    // A clock that was ahead does not delay the next replacement.
    fixture.set_time(START);
    assert_eq!(damage(3), 4);
    assert_eq!(store.counters().entries, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_damage_costs_only_records(
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), 1..=255_u8), 1..20),
    ) {
        static INTACT: LazyLock<Vec<u8>> = LazyLock::new(intact);
        let mut bytes = INTACT.clone();
        for (index, flip) in &damage {
            bytes[index.index(INTACT.len())] ^= flip;
        }
        let fixture = StoreFixture::new();
        let (store, _) = open_bytes(&fixture, &bytes);
        assert_right_or_missing(&store, "random damage");
        assert_usable(&store, "random damage");
    }
}
