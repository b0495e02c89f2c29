//! Tests with a simulated server, whose time is that of the paused Tokio runtime, with real servers, and with a hostile
//! one.

use std::{sync::Arc, time::Duration};

use crate::{
    LeaseResult, RecordKey, RecordKind, RecordName, SharedStore, SimulatedNode, SimulatedServer,
    StoreEvent, StoreEvents, StoreSecret, StoredValue, VersionTag,
};

mod decisions;
mod event_stream;
mod hostile;
mod leases;
mod lookups;
mod outages;
mod outbox;
mod parsing;
mod real;
mod redis_cluster;
mod redis_sentinel;
mod redis_server;
mod reply_limits;
mod resp_server;

const VERSION: VersionTag = [7; 8];

/// Time limit of calls.
const TIMEOUT: Duration = Duration::from_millis(250);

fn secret() -> StoreSecret {
    StoreSecret::derive(b"secret of the tests of the shared store")
}

fn name(kind: RecordKind, number: u64) -> RecordName {
    secret().name(kind, &[&number.to_le_bytes()])
}

/// Returns the key of a record by number. Records about contents have the same name if they have the same number.
fn key(kind: RecordKind, number: u64) -> RecordKey {
    let has_version = !matches!(kind, RecordKind::NotClean | RecordKind::Forgotten);
    RecordKey { kind, name: name(kind, number), version: has_version.then_some(VERSION) }
}

fn not_clean(number: u64) -> RecordKey {
    key(RecordKind::NotClean, number)
}

fn finished(number: u64) -> RecordKey {
    key(RecordKind::Finished, number)
}

/// Simulated server with replicas whose clocks are that of the server.
struct Simulation {
    server: SimulatedServer,
}

impl Simulation {
    fn new() -> Self {
        Self { server: SimulatedServer::new(1) }
    }

    /// Starts a replica.
    fn start(&self, client: u32) -> (SharedStore, StoreEvents) {
        let server = self.server.clone();
        let now = Arc::new(move || server.now_ms() / 1000);
        let node = SimulatedNode { client, seed: u64::from(client), timeout: TIMEOUT, now };
        SharedStore::start_simulated(&self.server, node, secret()).unwrap()
    }

    fn now(&self) -> u64 {
        self.server.now_ms() / 1000
    }

    /// Time of expiry of a record that is valid for an hour.
    fn expiry(&self) -> u64 {
        self.now() + 3600
    }
}

/// Waits until a condition is true.
async fn wait_until(what: &str, condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let result = tokio::time::timeout(Duration::from_secs(60), wait).await;
    result.unwrap_or_else(|_| panic!("timed out waiting until {what}"));
}

/// Removes all records. Returns their number.
async fn remove_all(store: &SharedStore) -> u64 {
    let mut number = 0;
    store.remove_all(Duration::from_secs(60), |removed| number += removed).await.unwrap();
    number
}

/// Waits until all kept changes are written.
async fn written(store: &SharedStore) {
    wait_until("changes are written", async || store.counters().pending_writes == 0).await;
}

async fn get(store: &SharedStore, key: RecordKey) -> Option<StoredValue> {
    store.get_all(vec![key]).await.map(|values| values.into_iter().next().unwrap())
}

#[expect(clippy::unnecessary_wraps, reason = "compared with the result of a lookup")]
fn valid(value: &[u8]) -> Option<StoredValue> {
    Some(StoredValue::Valid(value.to_vec()))
}

/// Returns the next event within two seconds.
async fn next_event(events: &mut StoreEvents) -> Option<StoreEvent> {
    tokio::time::timeout(Duration::from_secs(2), events.next()).await.ok()
}

#[expect(clippy::unnecessary_wraps, reason = "compared with the next event")]
fn message(text: &[u8]) -> Option<StoreEvent> {
    Some(StoreEvent::Message(text.to_vec()))
}

fn acquired(result: LeaseResult) -> crate::ScanLease {
    match result {
        LeaseResult::Acquired(lease) => lease,
        other => panic!("{other:?}"),
    }
}
