//! A cluster of three servers. Ignored by default, because its start takes seconds: `./test long store`.

use std::collections::BTreeSet;

use super::{
    super::{key_names::record_key, slots::key_slot},
    redis_server::{RedisServer, expiry, is_installed, store, wait_available},
    *,
};

struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts three nodes and divides the slots among them.
    async fn start() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-config-file",
            "nodes",
            "--cluster-node-timeout",
            "2000",
        ];
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(RedisServer::start(&options).await);
        }
        let addresses: Vec<_> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        let addresses: Vec<_> = addresses.iter().map(|address| &**address).collect();
        nodes[0].cli(&[&["--cluster", "create"][..], &addresses, &["--cluster-yes"]].concat());
        let cluster = Self { nodes };
        wait_until("the cluster is complete", async || cluster.is_complete()).await;
        cluster
    }

    fn is_complete(&self) -> bool {
        self.nodes.iter().all(|node| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    }

    fn id(&self, index: usize) -> String {
        self.nodes[index].cli(&["CLUSTER", "MYID"])
    }

    /// Returns the node that has a slot.
    fn owner(&self, slot: &str) -> usize {
        let has_slot =
            |node: &RedisServer| !node.cli(&["CLUSTER", "COUNTKEYSINSLOT", slot]).starts_with('0');
        self.nodes.iter().position(has_slot).unwrap()
    }
}

#[tokio::test]
#[ignore = "starts a cluster"]
async fn cluster_is_used_while_a_slot_moves() {
    if !is_installed("cluster_is_used_while_a_slot_moves") {
        return;
    }
    let cluster = Cluster::start().await;
    // One seed.
    let url = format!("redis+cluster://127.0.0.1:{}", cluster.nodes[0].port);
    let (store, _) = store(&[url], None, None);
    let urls: Vec<_> = cluster.nodes.iter().map(RedisServer::url).collect();
    let (other, mut events) = redis_server::store(&urls, None, None);
    wait_available(&store).await;
    while next_event(&mut events).await.is_some() {}
    for number in 0..100 {
        store.put(not_clean(number), expiry(), b"infected").unwrap();
        let found = store.put_and_get(finished(number), expiry(), b"clean", vec![finished(number)]);
        assert_eq!(found.await.unwrap().pop(), valid(b"clean"));
    }
    store.publish(b"event");
    written(&store).await;
    assert_eq!(next_event(&mut events).await, message(b"event"));
    let lease = acquired(store.acquire_lease(not_clean(1).name, VERSION).await);
    assert_eq!(other.fingerprints([1; 8]).await.unwrap(), [[1; 8]]);
    assert!(cluster.nodes.iter().all(|node| node.cli(&["DBSIZE"]) != "0"));
    move_slot(&cluster, &other).await;
    let mut listed = BTreeSet::new();
    let insert = |key: RecordKey, _| assert!(listed.insert(key.name.0));
    other.list(RecordKind::NotClean, 1000, insert).await.unwrap();
    assert_eq!(listed.len(), 100);
    lease.release().await;
    assert_eq!(remove_all(&other).await, 200);
    for number in 0..100 {
        assert_eq!(get(&store, finished(number)).await, Some(StoredValue::Missing));
    }
}

/// Moves the slot of a record to another node. The store is used before, during and after.
async fn move_slot(cluster: &Cluster, store: &SharedStore) {
    let record = String::from_utf8(record_key(&not_clean(1))).unwrap();
    let slot = key_slot(record.as_bytes()).to_string();
    let from = cluster.owner(&slot);
    let to = (from + 1) % 3;
    let (source, target) = (&cluster.nodes[from], &cluster.nodes[to]);
    assert_eq!(target.cli(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &cluster.id(from)]), "OK");
    assert_eq!(source.cli(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &cluster.id(to)]), "OK");
    assert_eq!(get(store, not_clean(1)).await, valid(b"infected"));
    let port = target.port.to_string();
    let moved = source.cli(&["MIGRATE", "127.0.0.1", &port, &record, "0", "5000"]);
    assert_eq!(moved, "OK");
    // Redirected to the target by ASK.
    assert_eq!(get(store, not_clean(1)).await, valid(b"infected"));
    // One key is at each node, so that neither can reply.
    assert_eq!(store.get_all(vec![not_clean(1), finished(1)]).await, None);
    assert!(store.is_available());
    let rest = source.cli(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]);
    for key in rest.lines() {
        assert_eq!(source.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]), "OK");
    }
    for node in &cluster.nodes {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", &slot, "NODE", &cluster.id(to)]), "OK");
    }
    // Redirected by MOVED, until the map of slots is read.
    for _ in 0..100 {
        let found = store.get_all(vec![not_clean(1), finished(1)]).await.unwrap();
        let expected =
            [StoredValue::Valid(b"infected".to_vec()), StoredValue::Valid(b"clean".to_vec())];
        assert_eq!(found, expected);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A node that has ended takes its slots with it, and other records are found.
#[tokio::test]
#[ignore = "starts a cluster"]
async fn records_of_other_nodes_are_found() {
    if !is_installed("records_of_other_nodes_are_found") {
        return;
    }
    let mut cluster = Cluster::start().await;
    for node in &cluster.nodes {
        assert_eq!(node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]), "OK");
    }
    let urls: Vec<_> = cluster.nodes.iter().map(RedisServer::url).collect();
    let (store, _events) = store(&urls, None, None);
    wait_available(&store).await;
    for number in 0..50 {
        store.put(not_clean(number), expiry(), b"infected").unwrap();
    }
    written(&store).await;
    cluster.nodes[2].kill();
    let mut found = 0;
    for number in 0..50 {
        found += usize::from(get(&store, not_clean(number)).await == valid(b"infected"));
        while !store.is_available() {
            let _ = get(&store, not_clean(0)).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    println!("{found} of 50 records found");
    assert!((15..50).contains(&found), "{found}");
}
