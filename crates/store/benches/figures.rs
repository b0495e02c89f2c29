//! Durations of a store with a million records: `cargo bench -p mcs-store`, in about a minute. In the directory for temporary
//! files, with values of 50 to 249 bytes.
#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot run must abort; it prints figures"
)]

use std::{fs, ops::Range, path::Path, time::Instant};

use mcs_store::{FileStore, RecordKey, RecordKind, StoreSecret, StoreSettings};
use rusqlite::Connection;
use tokio::runtime::{Builder, Runtime};

const RECORDS: u64 = 1_000_000;

/// After the end of any run.
const EXPIRY: u64 = 1 << 40;

fn secret() -> StoreSecret {
    StoreSecret::derive(b"a secret of the benchmark")
}

fn key(kind: RecordKind, number: u64) -> RecordKey {
    let name = secret().name(kind, &[&number.to_le_bytes()]);
    let version = (kind != RecordKind::NotClean).then_some([1; 8]);
    RecordKey { kind, name, version }
}

fn value(number: u64) -> Vec<u8> {
    let length = 50 + usize::try_from(number % 200).unwrap_or_default();
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

/// A store, and what awaits its replies.
struct FigureStore(FileStore, Runtime);

impl FigureStore {
    fn open(path: &Path) -> Self {
        let settings = StoreSettings { max_entries: 2 * RECORDS, ..StoreSettings::default() };
        let runtime = Builder::new_current_thread().build().unwrap();
        Self(FileStore::open(path, secret(), settings).unwrap().0, runtime)
    }

    /// Opens a store and looks up a record.
    fn measure_open(path: &Path, what: &str) -> Self {
        let start = Instant::now();
        let store = Self::open(path);
        print(what, start, 1);
        assert!(store.has(RecordKind::Finished, 1));
        print("  with the first lookup", start, 1);
        store
    }

    fn has(&self, kind: RecordKind, number: u64) -> bool {
        self.1.block_on(self.0.get(key(kind, number))).is_some()
    }

    /// Writes not-clean records, and waits until they and all changes before them are on disk.
    fn put_durably(&self, numbers: Range<u64>) {
        let put = |number| {
            let name = key(RecordKind::NotClean, number).name;
            self.0.put_not_clean(name, EXPIRY, &value(number)).unwrap()
        };
        for write in numbers.map(put).collect::<Vec<_>>() {
            self.1.block_on(write).unwrap();
        }
    }

    fn fill(&self) {
        let start = Instant::now();
        for number in 0..RECORDS {
            let expiry = EXPIRY + number % 10_000;
            self.0.put(key(RecordKind::Finished, number), expiry, &value(number)).unwrap();
            // Before the queue is full.
            if number % 2000 == 0 {
                self.put_durably(0..1);
            }
        }
        self.put_durably(0..1);
        print("put, each of a million", start, 1_000_000);
    }

    fn measure_changes_and_lookups(&self) {
        let start = Instant::now();
        for number in 1..101 {
            self.put_durably(number..number + 1);
        }
        print("durable put", start, 100);
        let start = Instant::now();
        self.put_durably(101..357);
        print("256 durable puts together", start, 1);
        let start = Instant::now();
        assert!((0..20_000).all(|n| self.has(RecordKind::Finished, n * 7919 % RECORDS)));
        print("hit, with the changes of threads", start, 20_000);
        let start = Instant::now();
        assert!(!(0..20_000).any(|n| self.has(RecordKind::Media, n)));
        print("miss", start, 20_000);
    }
}

fn print(what: &str, start: Instant, number: u32) {
    println!("{what}: {:?}", start.elapsed() / number);
}

fn main() {
    let (directory, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [path, left_open] =
        [&directory, &killed].map(|directory| directory.path().join("store.db"));
    let store = FigureStore::open(&path);
    store.fill();
    store.measure_changes_and_lookups();
    // As a killed process leaves the files.
    for suffix in ["", "-wal"] {
        let name = |path: &Path| format!("{}{suffix}", path.display());
        fs::copy(name(&path), name(&left_open)).unwrap();
    }
    let start = Instant::now();
    drop(store);
    print("close", start, 1);
    println!("size: {} MiB", fs::metadata(&path).unwrap().len() >> 20);
    drop(FigureStore::measure_open(&path, "open"));
    let store = FigureStore::measure_open(&left_open, "open after a kill");
    let start = Instant::now();
    drop(store);
    print("close during the check", start, 1);
    let database = Connection::open(&path).unwrap();
    let start = Instant::now();
    let result: String = database.query_one("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
    print("quick_check", start, 1);
    assert_eq!(result, "ok");
}
