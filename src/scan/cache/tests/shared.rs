//! Outcomes in a store that replicas share.

use mcs_store::{SharedStore, SimulatedNode, SimulatedServer, StoreEvents};
use tokio::time::{sleep, timeout};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(250);

/// A replica that takes no part in messages.
fn replica(server: &SimulatedServer, client: u32) -> ResultCache {
    replica_with(server, client, StoreSecret::derive(b"secret").into()).0
}

/// A replica with these secrets, and the messages of the others.
pub(super) fn replica_with(
    server: &SimulatedServer,
    client: u32,
    secrets: SecretRing,
) -> (ResultCache, StoreEvents) {
    let clock = server.clone();
    let now = Arc::new(move || clock.now_ms() / 1000);
    let node = SimulatedNode { client, seed: client.into(), timeout: TIMEOUT, now };
    let (store, events) = SharedStore::start_simulated(server, node, secrets).unwrap();
    let records = VerdictRecords::in_shared_store(store, RECORDS);
    (ResultCache::with_records(settings(), Some(records)), events)
}

pub(super) fn infected() -> FileOutcome {
    FileOutcome::for_test([("clamd", Ok(Outcome::Infected("name".into())))])
}

pub(super) async fn connected() {
    sleep(Duration::from_secs(1)).await;
}

/// The request gives up while the store does not answer.
#[tokio::test(start_paused = true)]
async fn infection_is_stored_although_its_request_has_ended() {
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    server.set_frozen(true);
    let policies = policies();
    let stored = cache.store_outcome(KEY, infected(), VERSIONS, &policies, cache.generation());
    timeout(TIMEOUT / 10, stored).await.unwrap_err();
    server.set_frozen(false);
    sleep(Duration::from_secs(5)).await;
    let found = other.recall(&KEY, OTHERS, &policies).await.unwrap();
    assert_eq!(found.verdict.unwrap().name(), "not_clean");
}

/// Signatures of unknown versions may be older than those of another replica.
#[tokio::test(start_paused = true)]
async fn outcome_of_unknown_versions_loses_to_an_infection() {
    const UNKNOWN: Versions = Versions::new(3, false);
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    let policies = policies();
    let stored = other.store_outcome(KEY, infected(), VERSIONS, &policies, other.generation());
    assert!(stored.await.is_none());
    let found = clean(SystemTime::now());
    let stored = cache.store_outcome(KEY, found, UNKNOWN, &policies, cache.generation());
    assert_eq!(stored.await.unwrap().verdict.unwrap().name(), "not_clean");
    assert_eq!(read(&cache, UNKNOWN).unwrap().unwrap().name(), "not_clean");
}

/// The signatures of this replica find nothing more.
#[tokio::test(start_paused = true)]
async fn infection_that_is_only_observed_counts_when_the_mode_is_turned_off() {
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    let (policies, observing) = (policies(), policies().observing(&["clamd"], &[]));
    let stored = other.store_outcome(KEY, infected(), VERSIONS, &policies, other.generation());
    assert!(stored.await.is_none());
    let found =
        FileOutcome::for_test([("clamd", Ok(Outcome::Clean)), ("icap", Ok(Outcome::Clean))]);
    let stored = cache.store_outcome(KEY, found, OTHERS, &observing, cache.generation());
    assert!(stored.await.is_none(), "the own outcome decides");
    let verdict = |policies| cache.scanned(&KEY, &OTHERS, policies).unwrap().verdict.unwrap();
    assert_eq!(verdict(&observing).name(), "clean");
    assert_eq!(verdict(&policies).name(), "not_clean");
}

/// The record of the outcome must not decide when that of the infection has expired.
#[tokio::test(start_paused = true)]
async fn outcome_beside_an_infection_is_not_stored() {
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    let policies = policies();
    let stored = other.store_outcome(KEY, infected(), VERSIONS, &policies, other.generation());
    assert!(stored.await.is_none());
    let found = clean(SystemTime::now());
    // Without an entry in memory, the answer is the infection all the same.
    let brief = cache.with_settings(Settings { ttl: Duration::ZERO, ..settings() });
    let stored = brief.store_outcome(KEY, found, OTHERS, &policies, cache.generation());
    assert_eq!(stored.await.unwrap().verdict.unwrap().name(), "not_clean");
    sleep(Duration::from_secs(1)).await;
    let keys: Vec<_> =
        server.keys().into_iter().map(|key| String::from_utf8(key).unwrap()).collect();
    assert!(keys.iter().any(|key| key.ends_with(":n")), "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains(":c:")), "{keys:?}");
}

/// The operator gets an answer, and the rest is removed afterwards.
#[tokio::test(start_paused = true)]
async fn removal_that_takes_long_states_what_was_removed() {
    const RECORDS: usize = 2000;
    let server = SimulatedServer::new(1);
    let cache = replica(&server, 1);
    connected().await;
    for number in 0..RECORDS {
        server.set_raw(format!("mcs1:m:{number:032x}").as_bytes(), b"x");
    }
    let delay = Duration::from_secs(1);
    server.set_delay(delay, delay);
    let Err(OperatorStoreError::Removing { removed }) = cache.forget_all().await else {
        panic!("removed within the time");
    };
    let remaining = server.keys().len();
    assert!(removed > 0 && remaining > 0, "{removed} removed, {remaining} remain");
    assert!(!cache.records().unwrap().is_in_use());
    server.set_delay(Duration::ZERO, Duration::ZERO);
    while !cache.records().unwrap().is_in_use() {
        sleep(Duration::from_secs(1)).await;
    }
    let is_media = |key: &Vec<u8>| key.starts_with(b"mcs1:m:");
    assert!(!server.keys().iter().any(is_media));
}

pub(super) fn observing() -> Policies {
    policies().observing(&["clamd"], &[])
}

/// Malware that the newer signatures of another replica know.
pub(super) fn known_to_others() -> FileOutcome {
    let found = Ok(Outcome::Infected("new".into()));
    FileOutcome::for_test([("clamd", Ok(Outcome::Clean)), ("icap", found)])
}

pub(super) fn only_observed() -> FileOutcome {
    let found = Ok(Outcome::Infected("observed".into()));
    FileOutcome::for_test([("clamd", found), ("icap", Ok(Outcome::Clean))])
}

/// Whether the other replica stores its infection before or after.
#[tokio::test(start_paused = true)]
async fn infection_that_is_only_observed_replaces_none_that_counts() {
    for is_first in [true, false] {
        let server = SimulatedServer::new(1);
        let (cache, other) = (replica(&server, 1), replica(&server, 2));
        connected().await;
        let policies = observing();
        let infect = async || {
            let (found, generation) = (known_to_others(), other.generation());
            assert!(other.store_outcome(KEY, found, OTHERS, &policies, generation).await.is_none());
        };
        if is_first {
            infect().await;
        }
        let (found, generation) = (only_observed(), cache.generation());
        let stored = cache.store_outcome(KEY, found, VERSIONS, &policies, generation).await;
        if is_first {
            assert_eq!(stored.unwrap().verdict.unwrap().name(), "not_clean");
        } else {
            assert!(stored.is_none());
            infect().await;
        }
        for versions in [VERSIONS, OTHERS] {
            let third = replica(&server, 3);
            connected().await;
            let found = third.recall(&KEY, versions, &policies).await.unwrap();
            assert_eq!(found.verdict.unwrap().name(), "not_clean", "{is_first} {versions:?}");
        }
    }
}

/// What the other replicas know is unknown, as after a clean outcome.
#[tokio::test(start_paused = true)]
async fn infection_that_is_only_observed_is_compared_when_the_store_answers_again() {
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    let policies = observing();
    let stored = other.store_outcome(KEY, known_to_others(), OTHERS, &policies, other.generation());
    assert!(stored.await.is_none());
    server.set_frozen(true);
    let stored = cache.store_outcome(KEY, only_observed(), VERSIONS, &policies, cache.generation());
    assert!(stored.await.is_none());
    let unconfirmed = std::mem::take(&mut *cache.tables.unconfirmed.lock());
    assert_eq!(unconfirmed.keys().unwrap(), [KEY]);
    server.set_frozen(false);
    sleep(Duration::from_secs(40)).await;
    let third = replica(&server, 3);
    connected().await;
    let found = third.recall(&KEY, VERSIONS, &policies).await.unwrap();
    assert_eq!(found.verdict.unwrap().name(), "not_clean", "not replaced by a late write");
}

/// Turned off, the mode needs no scan at a replica with the same signatures.
#[tokio::test(start_paused = true)]
async fn stored_infection_that_was_only_observed_refuses_at_other_replicas() {
    let server = SimulatedServer::new(1);
    let (cache, other) = (replica(&server, 1), replica(&server, 2));
    connected().await;
    let observing = observing();
    let stored =
        cache.store_outcome(KEY, only_observed(), VERSIONS, &observing, cache.generation());
    assert!(stored.await.is_none());
    for (policies, expected) in [(observing, "clean"), (policies(), "not_clean")] {
        let found = other.recall(&KEY, VERSIONS, &policies).await.unwrap();
        assert_eq!(found.verdict.unwrap().name(), expected);
    }
}
