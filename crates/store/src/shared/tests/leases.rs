//! Leases in a simulated server.

use super::{super::key_names::lease_key, *};

fn content(number: u64) -> RecordName {
    name(RecordKind::Finished, number)
}

#[tokio::test(start_paused = true)]
async fn one_replica_has_the_lease() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    let lease = acquired(store.acquire_lease(content(1), VERSION).await);
    println!("{lease:?}");
    assert!(matches!(other.acquire_lease(content(1), VERSION).await, LeaseResult::Held));
    // Those of another version and of another content are other ones.
    drop(acquired(other.acquire_lease(content(1), [8; 8]).await));
    drop(acquired(other.acquire_lease(content(2), VERSION).await));
    // Renewed while it exists.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(matches!(other.acquire_lease(content(1), VERSION).await, LeaseResult::Held));
    }
    lease.release().await;
    let lease = acquired(other.acquire_lease(content(1), VERSION).await);
    drop(lease);
    assert!(matches!(store.acquire_lease(content(1), VERSION).await, LeaseResult::Held));
    tokio::time::sleep(Duration::from_millis(15_001)).await;
    acquired(store.acquire_lease(content(1), VERSION).await);
}

/// A replica that was cut off does not remove the lease of the one that followed.
#[tokio::test(start_paused = true)]
async fn expired_lease_is_neither_renewed_nor_released() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let (other, _events) = simulation.start(2);
    let lease = acquired(store.acquire_lease(content(1), VERSION).await);
    simulation.server.set_partitioned(1, true);
    tokio::time::sleep(Duration::from_secs(16)).await;
    let next = acquired(other.acquire_lease(content(1), VERSION).await);
    let key = lease_key(&content(1), VERSION);
    let owner = simulation.server.raw(&key);
    simulation.server.set_partitioned(1, false);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(simulation.server.raw(&key), owner);
    }
    lease.release().await;
    assert_eq!(simulation.server.raw(&key), owner);
    next.release().await;
    assert_eq!(simulation.server.raw(&key), None);
}

#[tokio::test(start_paused = true)]
async fn lease_survives_one_failed_renewal() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let _lease = acquired(store.acquire_lease(content(1), VERSION).await);
    tokio::time::sleep(Duration::from_secs(4)).await;
    simulation.server.set_partitioned(1, true);
    tokio::time::sleep(Duration::from_secs(2)).await;
    simulation.server.set_partitioned(1, false);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(simulation.server.raw(&lease_key(&content(1), VERSION)).is_some());
}

/// A lease that was deleted is not created again.
#[tokio::test(start_paused = true)]
async fn deleted_lease_is_not_renewed() {
    let simulation = Simulation::new();
    let (store, _events) = simulation.start(1);
    let _lease = acquired(store.acquire_lease(content(1), VERSION).await);
    let key = lease_key(&content(1), VERSION);
    assert!(simulation.server.remove(&key));
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(simulation.server.raw(&key), None);
}
