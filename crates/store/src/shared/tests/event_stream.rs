//! Events in a simulated server.

use super::{
    super::{event_seal::EventSealer, key_names::EVENTS_KEY, limits::MAX_MESSAGE},
    *,
};

/// Starts two replicas, and waits until both have read the end of the stream.
async fn replicas(simulation: &Simulation) -> (SharedStore, SharedStore, StoreEvents) {
    let (store, _) = simulation.start(1);
    let (other, mut events) = simulation.start(2);
    assert_eq!(next_event(&mut events).await, None);
    (store, other, events)
}

#[tokio::test(start_paused = true)]
async fn messages_arrive_in_order_within_two_seconds() {
    let simulation = Simulation::new();
    let (store, other, mut events) = replicas(&simulation).await;
    for number in 0..1000_u32 {
        store.publish(&number.to_le_bytes());
    }
    for number in 0..1000_u32 {
        assert_eq!(next_event(&mut events).await, message(&number.to_le_bytes()));
    }
    // Own ones are not reported.
    other.publish(b"own");
    assert_eq!(next_event(&mut events).await, None);
    store.publish(&[1; MAX_MESSAGE]);
    assert_eq!(next_event(&mut events).await, message(&[1; MAX_MESSAGE]));
    store.publish(&[1; MAX_MESSAGE + 1]);
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    store.publish(b"");
    assert_eq!(next_event(&mut events).await, message(b""));
    // A replica that starts now does not report earlier events, and notices that it has missed none.
    let (_third, mut third_events) = simulation.start(3);
    assert_eq!(next_event(&mut third_events).await, None);
    store.publish(b"new");
    assert_eq!(next_event(&mut third_events).await, message(b"new"));
}

#[tokio::test(start_paused = true)]
async fn removed_events_are_lost() {
    let simulation = Simulation::new();
    let (store, _other, mut events) = replicas(&simulation).await;
    store.publish(b"first");
    assert_eq!(next_event(&mut events).await, message(b"first"));
    // An older copy of the stream returns, and the missing event is noticed.
    let before = simulation.server.snapshot();
    store.publish(b"second");
    written(&store).await;
    simulation.server.restore(&before);
    store.publish(b"third");
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    assert_eq!(next_event(&mut events).await, message(b"third"));
    // All keys are removed.
    simulation.server.flush_all();
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    assert_eq!(next_event(&mut events).await, None);
    store.publish(b"fourth");
    assert_eq!(next_event(&mut events).await, message(b"fourth"));
    // All keys are removed, and another event follows before the next poll.
    simulation.server.flush_all();
    store.publish(b"fifth");
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    assert_eq!(next_event(&mut events).await, message(b"fifth"));
    // After a fail-over, the clock of the server is behind.
    simulation.server.flush_all();
    simulation.server.set_clock_offset(-1_000_000);
    store.publish(b"sixth");
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    store.publish(b"seventh");
    assert_eq!(next_event(&mut events).await, message(b"seventh"));
}

#[tokio::test(start_paused = true)]
async fn events_during_a_partition_arrive_after_it() {
    let simulation = Simulation::new();
    let (store, _other, mut events) = replicas(&simulation).await;
    simulation.server.set_partitioned(2, true);
    store.publish(b"first");
    tokio::time::sleep(Duration::from_secs(10)).await;
    simulation.server.set_partitioned(2, false);
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    assert_eq!(next_event(&mut events).await, message(b"first"));
    assert_eq!(next_event(&mut events).await, None);
}

/// A server that is replaced between two polls may have other events.
#[tokio::test(start_paused = true)]
async fn new_connection_is_a_loss() {
    let simulation = Simulation::new();
    let (store, other, mut events) = replicas(&simulation).await;
    simulation.server.set_down(true);
    simulation.server.set_down(false);
    wait_until("the failure is noticed", async || get(&other, not_clean(1)).await.is_some()).await;
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    assert_eq!(next_event(&mut events).await, None);
    store.publish(b"first");
    assert_eq!(next_event(&mut events).await, message(b"first"));
}

/// More than the stream holds, or than one poll reads.
#[tokio::test(start_paused = true)]
async fn replica_that_cannot_follow_skips_to_the_end() {
    let simulation = Simulation::new();
    let (store, _other, mut events) = replicas(&simulation).await;
    for number in 0..9000_u32 {
        store.publish(&number.to_le_bytes());
    }
    written(&store).await;
    let mut is_lost = false;
    while let Some(event) = next_event(&mut events).await {
        is_lost |= event == StoreEvent::Lost;
    }
    assert!(is_lost);
    store.publish(b"last");
    assert_eq!(next_event(&mut events).await, message(b"last"));
}

#[tokio::test(start_paused = true)]
async fn forged_and_replayed_events_are_no_messages() {
    let simulation = Simulation::new();
    let (store, other, mut events) = replicas(&simulation).await;
    store.publish(b"first");
    store.publish(b"second");
    assert_eq!(next_event(&mut events).await, message(b"first"));
    assert_eq!(next_event(&mut events).await, message(b"second"));
    let sealer = |secret: StoreSecret, node| {
        let server = simulation.server.clone();
        EventSealer { secrets: secret.into(), now: Arc::new(move || server.now_ms() / 1000), node }
    };
    let attacker = sealer(StoreSecret::derive(b"another secret"), [9; 8]);
    let forged = attacker.seal(1, Some(b"forged")).unwrap();
    // A record is no event, and an event is no record.
    let record = secret().seal(&not_clean(1), u64::MAX, &[1; 40]).unwrap();
    for sealed in [&forged[..], &record, b"", &[0; 5000]] {
        simulation.server.append_event(EVENTS_KEY, sealed);
        assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    }
    assert_eq!(other.counters().bad_records, 4);
    let honest = sealer(secret(), [9; 8]);
    let event = honest.seal(1, Some(b"honest")).unwrap();
    assert!(secret().open(&not_clean(1), &event, 0).is_err());
    for _ in 0..3 {
        simulation.server.append_event(EVENTS_KEY, &event);
    }
    assert_eq!(next_event(&mut events).await, message(b"honest"));
    assert_eq!(next_event(&mut events).await, None);
    // After its validity.
    tokio::time::sleep(Duration::from_secs(3601)).await;
    simulation.server.append_event(EVENTS_KEY, &event);
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
}

/// Another program uses the key.
#[tokio::test(start_paused = true)]
async fn key_of_another_type_is_a_failure() {
    let simulation = Simulation::new();
    let (store, _other, mut events) = replicas(&simulation).await;
    simulation.server.set_raw(EVENTS_KEY, b"no stream");
    store.publish(b"first");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.counters().pending_writes, 1);
    assert!(simulation.server.remove(EVENTS_KEY));
    assert_eq!(next_event(&mut events).await, Some(StoreEvent::Lost));
    written(&store).await;
}

/// After an outage, with the store out of use: what an event announces is written before it.
#[tokio::test(start_paused = true)]
async fn events_follow_the_records_that_they_announce() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, mut events) = simulation.start(2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    for number in 0..20 {
        simulation.server.set_partitioned(1, true);
        for _ in 0..6 {
            let _ = get(&store, not_clean(number)).await;
        }
        assert!(!store.is_available());
        store.put(not_clean(number), simulation.expiry(), b"infected").unwrap();
        store.publish(&number.to_le_bytes());
        tokio::time::sleep(Duration::from_millis(700 + 137 * number)).await;
        simulation.server.set_partitioned(1, false);
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap();
        assert_eq!(Some(event), message(&number.to_le_bytes()));
        assert_eq!(get(&other, not_clean(number)).await, valid(b"infected"), "{number}");
    }
}
