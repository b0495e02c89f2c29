//! Tests with files in temporary directories, in which tests set the time.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mcs_testing::LONG_TIMEOUT;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{
    FileStore, NotDurable, OpenReport, RecordKey, RecordKind, StoreError, StoreSecret,
    StoreSettings,
};

mod access;
mod contents;
mod damage;
mod disk_full;
mod eviction;
mod inspection;
mod kills;
mod listing;
mod outbox;
mod queue;
mod rows;
mod seal;

/// Time at the start of each test.
const START: u64 = 1_700_000_000;

/// Time until which records are valid, unless a test is about expiry.
const EXPIRY: u64 = START + 86_400;

/// Directory with a store, and the time of the store.
struct StoreFixture {
    directory: TempDir,
    time: Arc<AtomicU64>,
    max_entries: u64,
}

impl StoreFixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, time: Arc::new(AtomicU64::new(START)), max_entries: 100_000 }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("store.db")
    }

    fn with_suffix(&self, suffix: &str) -> PathBuf {
        self.directory.path().join(format!("store.db{suffix}"))
    }

    fn settings(&self) -> StoreSettings {
        let time = Arc::clone(&self.time);
        let now = Arc::new(move || time.load(Ordering::Relaxed));
        StoreSettings { max_entries: self.max_entries, retry_pause: Duration::from_millis(5), now }
    }

    /// Opens the store. A process that another test has forked inherits the lock of a store that was closed, until it executes
    /// its program.
    fn try_open(&self) -> Result<(FileStore, OpenReport), StoreError> {
        for _ in 0..50 {
            match FileStore::open(&self.path(), secret(), self.settings()) {
                Err(StoreError::Locked { holder, .. }) if holder == Some(std::process::id()) => {}
                result => return result,
            }
            thread::sleep(Duration::from_millis(10));
        }
        FileStore::open(&self.path(), secret(), self.settings())
    }

    fn open(&self) -> FileStore {
        let (store, report) = self.try_open().unwrap();
        assert_eq!(report.set_aside, None);
        store
    }

    /// Opens the closed database without the store.
    fn database(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn set_time(&self, time: u64) {
        self.time.store(time, Ordering::Relaxed);
    }

    /// Returns the names of the files in the directory, sorted.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }
}

fn secret() -> StoreSecret {
    StoreSecret::derive(b"secret of the tests")
}

/// Returns the key of a record by number. Finished records depend on a version.
fn key(kind: RecordKind, number: u64) -> RecordKey {
    let name = secret().name(kind, &[&number.to_le_bytes()]);
    let version = (kind == RecordKind::Finished).then_some([7; 8]);
    RecordKey { kind, name, version }
}

/// Returns the value of a record by number, 50 to 249 bytes.
fn value(number: u64) -> Vec<u8> {
    let length = 50 + usize::try_from(number * 37 % 200).unwrap();
    number.to_le_bytes().into_iter().cycle().take(length).collect()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn get(store: &FileStore, key: RecordKey) -> Option<Vec<u8>> {
    wait(store.get(key))
}

fn put(store: &FileStore, kind: RecordKind, number: u64) {
    store.put(key(kind, number), EXPIRY, &value(number)).unwrap();
}

fn put_not_clean(store: &FileStore, number: u64) -> Result<(), NotDurable> {
    let name = key(RecordKind::NotClean, number).name;
    wait(store.put_not_clean(name, EXPIRY, &value(number)).unwrap())
}

/// Waits until earlier changes are written, by a change that has no effect.
fn flush(store: &FileStore) {
    let name = store.secret().name(RecordKind::Media, &[b"no record has this name"]);
    wait(store.delete(RecordKind::Media, name)).unwrap();
}

/// Polls until a condition is true that a thread of the store causes.
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG_TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timeout");
        thread::sleep(Duration::from_millis(1));
    }
}
