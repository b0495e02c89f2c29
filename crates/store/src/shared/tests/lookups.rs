//! Records in a simulated server.

use super::{
    super::{
        change_queue::{ChangeQueue, SealedIncident, SharedChange},
        key_names::{hash_key, record_key},
        limits::MAX_REFERENCES,
    },
    *,
};

#[tokio::test(start_paused = true)]
async fn records_return_in_the_order_of_keys() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    let forgotten = key(RecordKind::Forgotten, 1);
    store.put(finished(1), simulation.expiry(), b"clean").unwrap();
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    written(&store).await;
    wait_until("the record exists", async || get(&other, finished(1)).await == valid(b"clean"))
        .await;
    let found = other.get_all(vec![forgotten, not_clean(1), finished(1)]).await.unwrap();
    let expected = [
        StoredValue::Missing,
        StoredValue::Valid(b"infected".to_vec()),
        StoredValue::Valid(b"clean".to_vec()),
    ];
    assert_eq!(found, expected);
    assert_eq!(get(&other, not_clean(2)).await, Some(StoredValue::Missing));
    let counters = other.counters();
    assert!(counters.hits >= 2 && counters.misses >= 1, "{counters:?}");
    assert_eq!((counters.bad_records, counters.failed_commands), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn write_of_a_clean_outcome_returns_that_of_another_replica() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    let keys = vec![key(RecordKind::Forgotten, 1), not_clean(1)];
    let found = store.put_and_get(finished(1), simulation.expiry(), b"clean", keys.clone()).await;
    assert_eq!(found.unwrap(), [StoredValue::Missing, StoredValue::Missing]);
    assert_eq!(get(&other, finished(1)).await, valid(b"clean"));
    other.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    written(&other).await;
    let found = store.put_and_get(finished(1), simulation.expiry(), b"clean", keys.clone()).await;
    assert_eq!(found.unwrap().pop(), valid(b"infected"));
    // The result counts also if the memory of the server is full.
    simulation.server.set_write_error(Some("OOM command not allowed"));
    let found = store.put_and_get(finished(1), simulation.expiry(), b"clean", keys).await;
    assert_eq!(found.unwrap().pop(), valid(b"infected"));
    assert_eq!(store.counters().failed_commands, 1);
}

#[tokio::test(start_paused = true)]
async fn records_expire_and_are_not_restored() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let expiry = simulation.now() + 100;
    store.put(not_clean(1), expiry, b"infected").unwrap();
    written(&store).await;
    let raw = record_key(&not_clean(1));
    let sealed = simulation.server.raw(&raw).unwrap();
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(simulation.server.raw(&raw), None);
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
    // Within the difference of clocks, and after it.
    simulation.server.set_raw(&raw, &sealed);
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
    assert_eq!(store.counters().bad_records, 0);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
    assert_eq!(store.counters().bad_records, 1);
    // A record that has expired while it waited is not written.
    store.put(not_clean(2), simulation.now(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(simulation.server.raw(&record_key(&not_clean(2))), None);
}

#[tokio::test(start_paused = true)]
async fn altered_and_moved_records_are_invalid_and_removed() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    written(&store).await;
    let found = store.put_and_get(finished(1), simulation.expiry(), b"clean", vec![not_clean(1)]);
    assert!(found.await.is_some());
    let (first, second) = (record_key(&not_clean(1)), record_key(&not_clean(2)));
    let sealed = simulation.server.raw(&first).unwrap();
    let keys = || vec![not_clean(1), finished(1)];
    let mut flipped = sealed.clone();
    flipped[30] ^= 1;
    let clean = simulation.server.raw(&record_key(&finished(1))).unwrap();
    for altered in [&flipped[..], &sealed[..20], b"", &clean] {
        simulation.server.set_raw(&first, altered);
        let found = store.get_all(keys()).await.unwrap();
        assert_eq!(found, [StoredValue::Invalid, StoredValue::Valid(b"clean".to_vec())]);
        wait_until("it is removed", async || simulation.server.raw(&first).is_none()).await;
    }
    assert_eq!(store.counters().bad_records, 4);
    simulation.server.set_raw(&second, &sealed);
    assert_eq!(get(&store, not_clean(2)).await, Some(StoredValue::Invalid));
}

#[tokio::test(start_paused = true)]
async fn references_are_limited() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let reference = |number: u64| {
        let name = name(RecordKind::Reference, 1);
        RecordKey { kind: RecordKind::Reference, name, version: Some(number.to_be_bytes()) }
    };
    for number in 0..3_u64 {
        store.put(reference(number), simulation.expiry(), &number.to_le_bytes()).unwrap();
    }
    let name = name(RecordKind::Reference, 1);
    let count = async || store.references(name).await.unwrap().len();
    wait_until("there are three", async || count().await == 3).await;
    let mut listed = Vec::new();
    let each = |key: RecordKey, value| listed.push((key, value));
    store.list(RecordKind::Reference, 10, each).await.unwrap();
    listed.sort_by_key(|(key, _)| key.version);
    assert_eq!(listed[2], (reference(2), 2_u64.to_le_bytes().to_vec()));
    for number in 3..200_u64 {
        store.put(reference(number), simulation.expiry(), &number.to_le_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = async || {
        let values = store.references(name).await.unwrap();
        assert!(values.len() <= MAX_REFERENCES);
        values.len()
    };
    wait_until("there are 64", async || all().await == MAX_REFERENCES).await;
    store.delete(reference(5));
    written(&store).await;
    assert!(!simulation.server.keys().contains(&hash_key(RecordKind::Reference, &name)));
    assert_eq!(store.references(name).await, Some(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn all_records_are_listed_and_removed() {
    let simulation = Simulation::new();
    let (store, mut events) = simulation.start(1);
    assert_eq!(next_event(&mut events).await, None);
    for number in 0..1000 {
        store.put(finished(number), simulation.expiry(), &number.to_le_bytes()).unwrap();
        store.put(not_clean(number), simulation.expiry(), &number.to_le_bytes()).unwrap();
        store.put(key(RecordKind::Media, number), simulation.expiry(), b"media").unwrap();
    }
    store.publish(b"event");
    written(&store).await;
    let lease = acquired(store.acquire_lease(name(RecordKind::Finished, 1), VERSION).await);
    assert!(store.fingerprints([1; 8]).await.is_some());
    simulation.server.set_raw(b"of another program", b"x");
    simulation.server.set_raw(b"mcs1:unknown", b"x");
    let mut listed = std::collections::BTreeMap::new();
    let insert = |key: RecordKey, value: Vec<u8>| assert_eq!(listed.insert(value, key), None);
    store.list(RecordKind::NotClean, 10_000, insert).await.unwrap();
    assert_eq!(listed.len(), 1000);
    let mut count = 0;
    store.list(RecordKind::Media, 10, |_, _| count += 1).await.unwrap();
    assert_eq!(count, 10);
    assert_eq!(remove_all(&store).await, 3001);
    let rest: [&[u8]; 4] = [b"mcs1:events", b"mcs1:keys", b"mcs1:unknown", b"of another program"];
    assert_eq!(simulation.server.keys(), rest);
    assert_eq!(get(&store, finished(1)).await, Some(StoredValue::Missing));
    assert_eq!(next_event(&mut events).await, None);
    lease.release().await;
}

/// Which media was seen is no result of a scan.
#[tokio::test(start_paused = true)]
async fn seen_media_is_listed_and_outlives_the_removal_of_all() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    for number in 0..100 {
        let seen = RecordKey { version: Some([1; 8]), ..key(RecordKind::Seen, number) };
        store.put(seen, simulation.expiry(), &number.to_le_bytes()).unwrap();
    }
    store.put(key(RecordKind::Rescan, 1), simulation.expiry(), b"engines").unwrap();
    written(&store).await;
    wait_until("all are written", async || {
        let mut count = 0;
        store.list(RecordKind::Seen, 1000, |_, _| count += 1).await.unwrap();
        count == 100
    })
    .await;
    let (calls, mut count) = (simulation.server.calls(), 0);
    store.list(RecordKind::Seen, 1000, |_, _| count += 1).await.unwrap();
    assert!(simulation.server.calls() - calls < 20, "several hashes are read by one call");
    let rescan = key(RecordKind::Rescan, 1);
    assert_eq!(get(&store, rescan).await, valid(b"engines"));
    assert_eq!(remove_all(&store).await, 1);
    assert_eq!(get(&store, rescan).await, Some(StoredValue::Missing));
    let mut count = 0;
    store.list(RecordKind::Seen, 1000, |_, _| count += 1).await.unwrap();
    assert_eq!(count, 100);
}

#[tokio::test(start_paused = true)]
async fn fingerprints_are_those_of_the_last_minute() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    assert_eq!(store.fingerprints([1; 8]).await.unwrap(), [[1; 8]]);
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(other.fingerprints([2; 8]).await.unwrap(), [[1; 8], [2; 8]]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(other.fingerprints([2; 8]).await.unwrap(), [[2; 8]]);
    for number in 10..40 {
        assert!(store.fingerprints([number; 8]).await.unwrap().len() <= 16);
    }
}

#[tokio::test(start_paused = true)]
async fn clock_is_compared_with_that_of_the_server() {
    let server = SimulatedServer::new(1);
    for (client, (late, early)) in (1..).zip([(0, 0), (90, 0), (0, 90)]) {
        let clock = server.clone();
        let now = Arc::new(move || clock.now_ms() / 1000 + early - late);
        let node = SimulatedNode { client, seed: client.into(), timeout: TIMEOUT, now };
        let (store, _events) = SharedStore::start_simulated(&server, node, secret()).unwrap();
        assert_eq!(store.clock_difference().await, Some(late + early));
        server.set_partitioned(client, true);
        assert_eq!(store.clock_difference().await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn closed_store_has_written_what_waited() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    for number in 0..100 {
        store.put(finished(number), simulation.expiry(), b"clean").unwrap();
        store.put(not_clean(number), simulation.expiry(), b"infected").unwrap();
    }
    store.close().await;
    assert_eq!(simulation.server.keys().len(), 200);
    assert_eq!(store.counters().dropped_writes, 0);
    assert_eq!(get(&store, not_clean(1)).await, None);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    store.delete(not_clean(1));
    store.publish(b"event");
    assert_eq!(store.counters().dropped_writes, 3);
    // Again, and after the last clone is dropped.
    store.close().await;
    drop(store);
    let (store, _events) = simulation.start(2);
    store.put(not_clean(1000), simulation.expiry(), b"infected").unwrap();
    drop(store);
    wait_until("it is written", async || simulation.server.keys().len() == 201).await;
}

#[test]
fn queue_is_bounded() {
    let queue = ChangeQueue::default();
    let put = |kind, number, length| SharedChange::Put {
        key: key(kind, number),
        expiry: 0,
        sealed: vec![0; length],
    };
    let add = |number| {
        let (mark, entry) = (Vec::new(), vec![0; 1000]);
        let name = name(RecordKind::Incident, number);
        SharedChange::AddIncident(Box::new(SealedIncident { name, mark_expiry: 0, mark, entry }))
    };
    assert_eq!((0..11_000).filter(|n| queue.push(add(*n))).count(), 10_000);
    assert!(queue.push(add(0)), "it waits once");
    let update = SharedChange::UpdateEntry { name: name(RecordKind::Incident, 1), sealed: vec![] };
    assert!(!queue.push(update));
    let incidents = queue.take_all();
    assert_eq!((0..5000).filter(|n| queue.push(put(RecordKind::Finished, *n, 1))).count(), 4096);
    assert_eq!(
        (0..11_000).filter(|n| queue.push(put(RecordKind::NotClean, *n, 1))).count(),
        10_000
    );
    assert!(!queue.push_event(Some(Vec::new())));
    let taken = queue.take_all();
    assert_eq!((taken.len(), queue.kept()), (14_096, 20_000));
    assert!(!queue.push(SharedChange::Delete { key: not_clean(1) }));
    for change in taken.values().chain(incidents.values()) {
        queue.finish(change);
    }
    assert_eq!(queue.kept(), 0);
    let large = (0..300).filter(|n| queue.push(put(RecordKind::NotClean, *n, 64 << 10))).count();
    assert_eq!(large, 255);
    // The numbers of events that were dropped are missing.
    assert!(queue.push_event(Some(b"second".to_vec())));
    let last = queue.take_all().pop_last().unwrap().1;
    assert!(matches!(last, SharedChange::Publish { number: 2, .. }));
}
