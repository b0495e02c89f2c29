//! The list of operators' decisions in a simulated server.

use super::*;
use crate::LatestDecisions;

async fn add(store: &SharedStore, number: u64, list: &[u8]) -> bool {
    store.add_decisions(number, list).await.unwrap().unwrap()
}

async fn latest(store: &SharedStore, known: u64) -> Option<(u64, Vec<u8>)> {
    match store.latest_decisions(known).await.unwrap() {
        LatestDecisions::List { number, list } => Some((number, list)),
        LatestDecisions::None | LatestDecisions::Unreadable => None,
    }
}

fn announcement_key(server: &SimulatedServer) -> Vec<u8> {
    let keys = server.keys().into_iter().filter(|key| key.starts_with(b"mcs1:{d}:"));
    keys.min_by_key(Vec::len).unwrap()
}

fn list_key(server: &SimulatedServer, number: u64) -> Vec<u8> {
    let suffix = format!(":{number:016x}");
    let is_list = |key: &Vec<u8>| key.starts_with(b"mcs1:{d}:") && key.ends_with(suffix.as_bytes());
    server.keys().into_iter().find(is_list).unwrap()
}

#[tokio::test(start_paused = true)]
async fn each_number_is_written_once() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    assert_eq!(latest(&store, 0).await, None);
    assert!(add(&store, 1, b"one").await);
    assert!(!add(&other, 1, b"another one").await);
    assert_eq!(latest(&other, 0).await, Some((1, b"one".to_vec())));
    for number in 2..=20 {
        assert!(add(&other, number, &number.to_le_bytes()).await);
    }
    assert_eq!(latest(&store, 1).await, Some((20, 20_u64.to_le_bytes().to_vec())));
    assert_eq!(latest(&store, 20).await, None);
    let lists = simulation.server.keys().iter().filter(|key| key.starts_with(b"mcs1:{d}:")).count();
    assert_eq!(lists, 3, "the newest, the one before, and the number");
    // Neither expires, nor is removed with the records.
    remove_all(&store).await;
    simulation.server.set_clock_offset(400 * 86_400_000);
    assert_eq!(latest(&store, 1).await, Some((20, 20_u64.to_le_bytes().to_vec())));
    assert!(store.add_decisions(21, &vec![0; 70_000]).await.unwrap().is_err(), "too long");
}

/// A server can hide a list, and nothing else.
#[tokio::test(start_paused = true)]
async fn altered_lists_are_not_returned() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let server = &simulation.server;
    for number in 1..=3 {
        assert!(add(&store, number, &[u8::try_from(number).unwrap()]).await);
    }
    let [second, third] = [2, 3].map(|number| list_key(server, number));
    let (sealed_second, sealed_third) = (server.raw(&second).unwrap(), server.raw(&third).unwrap());
    // An earlier list in place of the newest one.
    server.set_raw(&third, &sealed_second);
    assert_eq!(latest(&store, 0).await, None);
    assert_eq!(latest(&store, 2).await, None);
    let unreadable = LatestDecisions::Unreadable;
    assert_eq!(store.latest_decisions(2).await, Ok(unreadable.clone()));
    // Another number of the newest list.
    let announcement = announcement_key(server);
    for hint in [&b"2"[..], b"99", b"18446744073709551615", b"-1", b"other", b""] {
        server.set_raw(&third, &sealed_third);
        server.set_raw(&announcement, hint);
        let found = latest(&store, 2).await;
        assert!(found.is_none() || found == Some((3, vec![3])), "{hint:?}: {found:?}");
    }
    assert_eq!(latest(&store, u64::MAX).await, None);
    // Without the number, lists are found one after the other.
    assert!(server.remove(&announcement));
    assert_eq!(latest(&store, 1).await, Some((3, vec![3])));
    // A node of a cluster with the number has lost it; then all is lost.
    assert_eq!(latest(&store, 0).await, None, "one and two are older than the kept ones");
    assert!(store.restore_decisions(3, &[3]).await.unwrap());
    assert_eq!(latest(&store, 0).await, Some((3, vec![3])));
    assert!(!store.restore_decisions(3, &[3]).await.unwrap());
    server.flush_all();
    assert!(store.restore_decisions(3, &[3]).await.unwrap());
    assert_eq!(latest(&store, 0).await, Some((3, vec![3])));
    server.set_partitioned(1, true);
    store.latest_decisions(1).await.unwrap_err();
    store.add_decisions(4, b"four").await.unwrap_err();
}
