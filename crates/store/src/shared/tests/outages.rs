//! Failing servers.

use tokio::time::Instant;

use super::{super::key_names::record_key, *};

/// A store that has used its connection.
async fn connected(simulation: &Simulation, client: u32) -> (SharedStore, StoreEvents) {
    let (store, events) = simulation.start(client);
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
    (store, events)
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_is_out_of_use_after_five_failures() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation.server.set_partitioned(1, true);
    let start = Instant::now();
    let mut lookups = 0;
    while store.is_available() {
        assert_eq!(get(&store, not_clean(1)).await, None);
        lookups += 1;
    }
    // Polls count, too.
    assert!((3..=5).contains(&lookups), "{lookups}");
    assert!(start.elapsed() <= TIMEOUT * 5);
    let calls = store.counters().store_calls;
    let now = Instant::now();
    for _ in 0..1000 {
        assert_eq!(get(&store, not_clean(1)).await, None);
        let lease = store.acquire_lease(not_clean(1).name, VERSION).await;
        assert!(matches!(lease, LeaseResult::Unavailable));
        let put = store.put_and_get(finished(1), simulation.expiry(), b"", vec![not_clean(1)]);
        assert_eq!(put.await, None);
    }
    assert_eq!((now.elapsed(), store.counters().store_calls), (Duration::ZERO, calls));
    assert_eq!(store.counters().breaker_openings, 1);
}

/// With the pauses of 1, 2, 4, 8, 16 and 30 s, each ends with one probe.
#[tokio::test(start_paused = true)]
async fn probes_follow_each_other_after_longer_pauses() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation.server.set_partitioned(1, true);
    while store.is_available() {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
    let start = Instant::now();
    let mut probes = Vec::new();
    while start.elapsed() < Duration::from_secs(130) {
        let calls = store.counters().store_calls;
        let lookups = (0..10).map(|_| get(&store, not_clean(1)));
        let now = start.elapsed();
        assert!(futures_util::future::join_all(lookups).await.iter().all(Option::is_none));
        match store.counters().store_calls - calls {
            0 => {}
            1 => probes.push(now.as_secs()),
            more => panic!("{more} probes at once"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let expected = [1, 3, 7, 15, 31, 61, 92, 122];
    assert_eq!(probes.len(), expected.len(), "{probes:?}");
    // The probes themselves take 250 ms each.
    let is_near = |(probe, expected): (&u64, u64)| probe.abs_diff(expected) <= 2;
    assert!(probes.iter().zip(expected).all(is_near), "{probes:?}");
    simulation.server.set_partitioned(1, false);
    // The poll for events notices that the server replies.
    wait_until("the store is in use", async || store.is_available()).await;
    assert!(start.elapsed() < Duration::from_secs(135));
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
}

#[tokio::test(start_paused = true)]
async fn cancelled_probe_is_followed_by_another() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation.server.set_partitioned(1, true);
    while store.is_available() {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for _ in 0..3 {
        let calls = store.counters().store_calls;
        let probe = tokio::time::timeout(Duration::from_millis(10), get(&store, not_clean(1)));
        assert!(probe.await.is_err());
        assert_eq!(store.counters().store_calls, calls + 1);
    }
}

/// Also an outage of hours: written within a second after the end.
#[tokio::test(start_paused = true)]
async fn kept_changes_survive_outages_in_order() {
    for seconds in [3, 45, 7200] {
        let simulation = Simulation::new();
        let (store, mut events) = connected(&simulation, 1).await;
        let (other, mut other_events) = connected(&simulation, 2).await;
        simulation.server.set_down(true);
        let expiry = simulation.now() + 100_000;
        store.put(not_clean(1), expiry, b"first").unwrap();
        store.put(finished(1), expiry, b"clean").unwrap();
        store.put(not_clean(2), expiry, b"forgotten").unwrap();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        store.delete(not_clean(2));
        store.put(key(RecordKind::Forgotten, 2), expiry, b"when").unwrap();
        store.put(not_clean(1), expiry, b"second").unwrap();
        store.publish(b"forgotten");
        assert_eq!(store.counters().pending_writes, 6);
        simulation.server.set_down(false);
        let start = Instant::now();
        written(&store).await;
        assert!(start.elapsed() <= Duration::from_millis(1400), "{:?}", start.elapsed());
        assert_eq!(get(&store, not_clean(1)).await, valid(b"second"));
        assert_eq!(get(&store, not_clean(2)).await, Some(StoredValue::Missing));
        assert_eq!(get(&store, key(RecordKind::Forgotten, 2)).await, valid(b"when"));
        // The outage is reported, then the message.
        assert_eq!(next_event(&mut other_events).await, Some(StoreEvent::Lost));
        assert_eq!(next_event(&mut other_events).await, message(b"forgotten"));
        assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
        assert_eq!(next_event(&mut events).await, None);
        assert!(other.is_available());
    }
}

#[tokio::test(start_paused = true)]
async fn frozen_server_continues() {
    let simulation = Simulation::new();
    let (store, mut events) = connected(&simulation, 1).await;
    simulation.server.set_frozen(true);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    for _ in 0..8 {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
    assert!(!store.is_available());
    tokio::time::sleep(Duration::from_secs(30)).await;
    simulation.server.set_frozen(false);
    let start = Instant::now();
    written(&store).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
}

/// Polls for events, which have a longer time limit, do not take a slow server into use again.
#[tokio::test(start_paused = true)]
async fn slow_server_stays_out_of_use() {
    let simulation = Simulation::new();
    let (store, mut events) = connected(&simulation, 1).await;
    let (other, _events) = connected(&simulation, 2).await;
    simulation.server.set_delay(Duration::from_millis(200), Duration::from_millis(200));
    while store.is_available() {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
    other.publish(b"event");
    let mut received = Vec::new();
    while received.last() != Some(&StoreEvent::Message(b"event".to_vec())) {
        received.push(events.next().await);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!store.is_available());
    assert_eq!(store.counters().breaker_openings, 1);
    simulation.server.set_delay(Duration::ZERO, Duration::from_millis(1));
    wait_until("the store is in use", async || store.is_available()).await;
}

/// Lookups continue while the memory of the server is full. Changes are tried again each second.
#[tokio::test(start_paused = true)]
async fn full_server_is_written_later() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation
        .server
        .set_write_error(Some("OOM command not allowed when used memory > 'maxmemory'."));
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    store.put(finished(2), simulation.expiry(), b"clean").unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
        let lease = store.acquire_lease(not_clean(1).name, VERSION).await;
        assert!(matches!(lease, LeaseResult::Unavailable));
    }
    let counters = store.counters();
    assert_eq!((counters.pending_writes, counters.dropped_writes), (1, 1));
    assert_eq!(counters.breaker_openings, 0);
    simulation.server.set_write_error(None);
    written(&store).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
}

/// Without lookups, writes that are refused take the store out of use, and also end that state.
#[tokio::test(start_paused = true)]
async fn refused_writes_are_probes() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation
        .server
        .set_write_error(Some("READONLY You can't write against a read only replica."));
    for _ in 0..5 {
        let lease = store.acquire_lease(not_clean(1).name, VERSION).await;
        assert!(matches!(lease, LeaseResult::Unavailable));
    }
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    // The polls for events succeed meanwhile.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!store.is_available());
    assert_eq!(store.counters().breaker_openings, 1);
    simulation.server.set_write_error(None);
    written(&store).await;
    assert!(store.is_available());
}

#[tokio::test(start_paused = true)]
async fn closing_during_an_outage_ends() {
    let simulation = Simulation::new();
    let (store, _events) = connected(&simulation, 1).await;
    simulation.server.set_partitioned(1, true);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    let start = Instant::now();
    store.close().await;
    assert!(start.elapsed() <= Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(store.counters().dropped_writes, 1);
    assert_eq!(simulation.server.raw(&record_key(&not_clean(1))), None);
}

#[tokio::test(start_paused = true)]
async fn store_starts_before_its_server() {
    let simulation = Simulation::new();
    simulation.server.set_down(true);
    let (store, mut events) = simulation.start(1);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    let start = Instant::now();
    for _ in 0..10 {
        assert_eq!(get(&store, not_clean(1)).await, None);
    }
    // A refused connection is no wait.
    assert_eq!(start.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(100)).await;
    simulation.server.set_down(false);
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    written(&store).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
}

/// Random failures of a fifth of all calls, with delays: no change that must be kept is lost, and the last one wins.
#[tokio::test(start_paused = true)]
async fn kept_changes_survive_random_failures() {
    let simulation = Simulation::new();
    let stores: Vec<_> = (1..=3).map(|client| simulation.start(client)).collect();
    simulation.server.set_delay(Duration::from_micros(100), Duration::from_millis(20));
    simulation.server.set_failures(200);
    for round in 0..20_u64 {
        for (index, (store, _)) in stores.iter().enumerate() {
            for number in 0..10 {
                // Each name belongs to one replica.
                let key = not_clean(number * 10 + index as u64);
                store.delete(key);
                store.put(key, simulation.expiry(), &round.to_le_bytes()).unwrap();
            }
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    for (store, _) in &stores {
        written(store).await;
        assert_eq!(store.counters().dropped_writes, 0);
    }
    simulation.server.set_failures(0);
    tokio::time::sleep(Duration::from_secs(5)).await;
    for number in 0..10 {
        for index in 0..3 {
            let key = not_clean(number * 10 + index);
            assert_eq!(get(&stores[0].0, key).await, valid(&19_u64.to_le_bytes()));
        }
    }
}
