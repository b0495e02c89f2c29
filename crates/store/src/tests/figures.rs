//! Figures of a store with a million records: `cargo test --release -p mcs-store --lib -- --ignored --nocapture
//! figures`.

use super::*;

const RECORDS: u64 = 1_000_000;

fn print(what: &str, start: Instant, number: u32) {
    println!("{what}: {:?}", start.elapsed() / number);
}

/// Copies the files of an open store, as a killed process leaves them.
fn copy(fixture: &StoreFixture) -> StoreFixture {
    let copy = StoreFixture { max_entries: fixture.max_entries, ..StoreFixture::new() };
    for suffix in ["", "-wal"] {
        fs::copy(fixture.with_suffix(suffix), copy.with_suffix(suffix)).unwrap();
    }
    copy
}

fn measure_open(fixture: &StoreFixture, what: &str) -> FileStore {
    let start = Instant::now();
    let (store, report) = fixture.try_open().unwrap();
    print(what, start, 1);
    println!("  {report:?}");
    assert_eq!(get(&store, key(RecordKind::Finished, 1)), Some(value(1)));
    print("  with the first lookup", start, 1);
    store
}

#[test]
#[ignore = "takes a minute, and prints figures only"]
fn figures() {
    let fixture = StoreFixture { max_entries: 2 * RECORDS, ..StoreFixture::new() };
    let store = fixture.open();
    let start = Instant::now();
    for number in 0..RECORDS {
        let kind = RecordKind::Finished;
        store.put(key(kind, number), EXPIRY + number % 10_000, &value(number)).unwrap();
        if number % 2000 == 0 {
            flush(&store);
        }
    }
    flush(&store);
    print("put, each of a million", start, 1_000_000);
    let start = Instant::now();
    for number in 0..100 {
        put_not_clean(&store, number).unwrap();
    }
    print("durable put", start, 100);
    let start = Instant::now();
    let writes: Vec<_> = (100..356)
        .map(|number| {
            let name = key(RecordKind::NotClean, number).name;
            store.put_not_clean(name, EXPIRY, &value(number)).unwrap()
        })
        .collect();
    for write in writes {
        wait(write).unwrap();
    }
    print("256 durable puts together", start, 1);
    let start = Instant::now();
    for number in 0..20_000 {
        let number = number * 7919 % RECORDS;
        assert!(get(&store, key(RecordKind::Finished, number)).is_some());
    }
    print("hit, with the change of threads", start, 20_000);
    let start = Instant::now();
    for number in 0..20_000 {
        assert!(get(&store, key(RecordKind::Media, number)).is_none());
    }
    print("miss", start, 20_000);
    println!("entries: {}", store.counters().entries);
    let left_open = copy(&fixture);
    let start = Instant::now();
    drop(store);
    print("close", start, 1);
    println!("size: {} MiB", fs::metadata(fixture.path()).unwrap().len() >> 20);
    drop(measure_open(&fixture, "open"));
    let store = measure_open(&left_open, "open after a kill");
    let start = Instant::now();
    drop(store);
    print("close during the check", start, 1);
    let database = fixture.database();
    let start = Instant::now();
    let result: String = database.query_one("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    print("quick_check", start, 1);
    assert_eq!(result, "ok");
}
