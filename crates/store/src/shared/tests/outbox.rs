//! The outbox that replicas share.

use super::*;
use crate::{IncidentAddition, MAX_OUTBOX, OutboxRecord};

const INDEX: &[u8] = b"mcs1:{o}:index";

fn incident(number: u64) -> RecordName {
    name(RecordKind::Incident, number)
}

async fn add(simulation: &Simulation, store: &SharedStore, number: u64) -> IncidentAddition {
    let value = number.to_string();
    let (mark, entry) = (simulation.expiry() + 100, simulation.expiry());
    store.add_incident(incident(number), mark, entry, value.as_bytes()).await.unwrap()
}

async fn names(store: &SharedStore) -> Vec<RecordName> {
    store.outbox_names().await.unwrap().into_iter().map(|(name, _)| name).collect()
}

async fn record(store: &SharedStore, number: u64) -> OutboxRecord {
    store.outbox_records(&[incident(number)]).await.unwrap().remove(0)
}

async fn value(store: &SharedStore, number: u64) -> Option<Vec<u8>> {
    match record(store, number).await {
        OutboxRecord::Valid(entry) => Some(entry.value),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn incident_is_created_once_by_all_replicas() {
    let simulation = Simulation::new();
    let ((one, _events), (two, _other)) = (simulation.start(1), simulation.start(2));
    simulation.server.set_delay(Duration::from_millis(1), Duration::from_millis(5));
    let (first, second) = tokio::join!(add(&simulation, &one, 1), add(&simulation, &two, 1));
    assert!([first, second].contains(&IncidentAddition::Added));
    assert_eq!(names(&two).await, [incident(1)]);
    assert_eq!(add(&simulation, &two, 1).await, IncidentAddition::Known);
    one.remove_from_outbox(incident(1));
    written(&one).await;
    assert_eq!(names(&two).await, []);
    assert_eq!(add(&simulation, &two, 1).await, IncidentAddition::Known, "its mark remains");
    // The oldest comes first.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for number in [3, 2] {
        add(&simulation, &one, number).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(names(&one).await, [incident(3), incident(2)]);
}

#[tokio::test(start_paused = true)]
async fn update_does_not_bring_back_a_removed_entry() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    add(&simulation, &store, 1).await;
    store.update_outbox(incident(1), simulation.expiry(), b"later").unwrap();
    written(&store).await;
    assert_eq!(value(&store, 1).await, Some(b"later".to_vec()));
    assert_eq!(store.has_outbox_entry(incident(1)).await, Some(true));
    assert!(remove_all(&store).await > 0);
    store.update_outbox(incident(1), simulation.expiry(), b"too late").unwrap();
    written(&store).await;
    assert_eq!(record(&store, 1).await, OutboxRecord::Missing);
    assert_eq!(store.has_outbox_entry(incident(1)).await, Some(false));
    assert_eq!(names(&store).await, []);
    assert_eq!(add(&simulation, &store, 1).await, IncidentAddition::Added, "nor its mark");
}

#[tokio::test(start_paused = true)]
async fn incident_waits_for_the_store_and_is_written_later() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    simulation.server.set_partitioned(1, true);
    for _ in 0..2 {
        assert_eq!(add(&simulation, &store, 1).await, IncidentAddition::Waiting);
    }
    assert_eq!(store.counters().pending_incidents, 1);
    simulation.server.set_partitioned(1, false);
    written(&store).await;
    assert_eq!(value(&store, 1).await, Some(b"1".to_vec()));
    assert_eq!(store.counters().pending_incidents, 0);
}

/// As if the node of the outbox was down, or the user of the store had no right to write there.
#[tokio::test(start_paused = true)]
async fn outbox_that_cannot_be_written_does_not_delay_verdicts() {
    let simulation = Simulation::new();
    let ((store, _events), (other, mut events)) = (simulation.start(1), simulation.start(2));
    simulation.server.set_raw(INDEX, b"no sorted set");
    assert_eq!(add(&simulation, &store, 0).await, IncidentAddition::Waiting);
    let direct = store.put_and_get(not_clean(1), simulation.expiry(), b"x", vec![not_clean(1)]);
    assert_eq!(direct.await, Some(vec![StoredValue::Valid(b"x".to_vec())]), "written at once");
    store.put(not_clean(2), simulation.expiry(), b"infected").unwrap();
    store.update_outbox(incident(0), simulation.expiry(), b"later").unwrap();
    store.publish(b"infected");
    let is_written = async || get(&other, not_clean(2)).await == valid(b"infected");
    wait_until("the verdict is written", is_written).await;
    assert_eq!(next_event(&mut events).await, message(b"infected"));
    assert_eq!(store.counters().pending_incidents, 1);
    assert!(simulation.server.remove(INDEX));
    written(&store).await;
    assert_eq!(value(&store, 0).await, Some(b"0".to_vec()));
}

/// The findings that wait may be those because of which all records are removed.
#[tokio::test(start_paused = true)]
async fn removal_of_all_records_drops_findings_that_wait() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    simulation.server.set_partitioned(1, true);
    assert_eq!(add(&simulation, &store, 1).await, IncidentAddition::Waiting);
    store.put(not_clean(1), simulation.expiry(), b"infected").unwrap();
    store.put(key(RecordKind::Forgotten, 1), simulation.expiry(), b"forgotten").unwrap();
    // The writer is trying to write them.
    tokio::time::sleep(Duration::from_millis(10)).await;
    store.remove_all(Duration::from_millis(1), |_| {}).await.unwrap_err();
    assert_eq!(add(&simulation, &store, 2).await, IncidentAddition::Waiting);
    // The writer is trying again.
    tokio::time::sleep(Duration::from_millis(1010)).await;
    store.drop_findings();
    for number in [2, 3] {
        let addition = add(&simulation, &store, number).await;
        assert_eq!(addition, IncidentAddition::Waiting, "found again");
    }
    simulation.server.set_partitioned(1, false);
    written(&store).await;
    assert_eq!(names(&store).await.len(), 2);
    assert!(value(&store, 2).await.is_some() && value(&store, 3).await.is_some());
    assert_eq!(get(&store, not_clean(1)).await, Some(StoredValue::Missing));
    assert_eq!(get(&store, key(RecordKind::Forgotten, 1)).await, valid(b"forgotten"));
    assert_eq!((store.counters().pending_incidents, store.counters().dropped_writes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn outbox_is_bounded() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    for number in 1..MAX_OUTBOX {
        let member = incident(number).to_hex();
        simulation.server.add_member(b"mcs1:{o}:index", simulation.now(), member.as_bytes());
    }
    assert_eq!(add(&simulation, &store, 0).await, IncidentAddition::Added);
    assert_eq!(add(&simulation, &store, MAX_OUTBOX).await, IncidentAddition::Full);
    assert_eq!(add(&simulation, &store, 0).await, IncidentAddition::Known, "also if full");
    assert_eq!(store.counters().outbox_overflows, 1);
    store.remove_from_outbox(incident(0));
    written(&store).await;
    assert_eq!(add(&simulation, &store, MAX_OUTBOX).await, IncidentAddition::Added);
    assert_eq!(names(&store).await.len() as u64, MAX_OUTBOX);
}

#[tokio::test(start_paused = true)]
async fn one_process_owns_the_outbox() {
    let simulation = Simulation::new();
    let ((one, _events), (two, _other)) = (simulation.start(1), simulation.start(2));
    assert_eq!(one.hold_outbox().await, Some(true));
    for _ in 0..10 {
        assert_eq!(two.hold_outbox().await, Some(false));
        assert_eq!(one.hold_outbox().await, Some(true), "renewed");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    // Removal of all records does not make a second owner.
    remove_all(&two).await;
    assert_eq!(two.hold_outbox().await, Some(false));
    simulation.server.set_partitioned(1, true);
    assert_eq!(one.hold_outbox().await, None);
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert_eq!(two.hold_outbox().await, Some(true));
    simulation.server.set_partitioned(1, false);
    wait_until("the first one sees the second", async || one.hold_outbox().await.is_some()).await;
    assert_eq!(one.hold_outbox().await, Some(false));
    // Two owners, after a server has lost the lease: at most one remains.
    simulation.server.set_raw(b"mcs1:{o}:owner", b"another process");
    assert_eq!((one.hold_outbox().await, two.hold_outbox().await), (Some(false), Some(false)));
}

/// A server cannot make entries, move them, or extend their life.
#[tokio::test(start_paused = true)]
async fn altered_entries_are_not_read() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    add(&simulation, &store, 1).await;
    let key = |number| super::super::change_queue::outbox_record_key(incident(number));
    let sealed = simulation.server.raw(&key(1)).unwrap();
    simulation.server.set_raw(&key(2), &sealed);
    assert_eq!(record(&store, 2).await, OutboxRecord::Unreadable, "moved");
    for position in [0, 30, sealed.len() - 1] {
        let mut altered = sealed.clone();
        altered[position] ^= 1;
        simulation.server.set_raw(&key(1), &altered);
        assert_eq!(record(&store, 1).await, OutboxRecord::Unreadable);
    }
    simulation.server.set_raw(&key(1), &sealed);
    assert_eq!(value(&store, 1).await, Some(b"1".to_vec()));
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert_eq!(record(&store, 1).await, OutboxRecord::Expired);
    // A mark is no entry, and an entry no mark.
    let mark = RecordKey { kind: RecordKind::Incident, name: incident(1), version: None };
    simulation.server.set_raw(&super::super::key_names::record_key(&mark), &sealed);
    assert_eq!(get(&store, mark).await, Some(StoredValue::Invalid));
}

#[tokio::test(start_paused = true)]
async fn seen_media_is_kept_by_content() {
    let simulation = Simulation::new();
    let ((one, _events), (two, _other)) = (simulation.start(1), simulation.start(2));
    let content = name(RecordKind::Seen, 1);
    for number in 0..70_u64 {
        let version = Some(number.to_le_bytes());
        let key = RecordKey { kind: RecordKind::Seen, name: content, version };
        one.put(key, simulation.expiry(), &number.to_le_bytes()).unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    wait_until("64 are kept", async || two.seen(content).await.unwrap().len() == 64).await;
    assert_eq!(two.references(content).await, Some(Vec::new()), "another kind");
    // It is no result of a scan.
    remove_all(&two).await;
    assert_eq!(one.seen(content).await.unwrap().len(), 64);
}
