//! Fail-over by sentinels.

use super::{
    redis_server::{RedisServer, expiry, is_installed, store, wait_available, write},
    *,
};

/// Starts a sentinel that watches a primary.
async fn start_sentinel(primary: u16) -> RedisServer {
    let directory = tempfile::tempdir().unwrap();
    let content = format!(
        "sentinel monitor main 127.0.0.1 {primary} 1\n\
         sentinel down-after-milliseconds main 500\n\
         sentinel failover-timeout main 2000\n"
    );
    let file = write(directory.path(), "sentinel.conf", &content);
    let sentinel = RedisServer::start(&[file.to_str().unwrap(), "--sentinel"]).await;
    // The sentinel rewrites its file.
    std::mem::forget(directory);
    sentinel
}

#[tokio::test]
async fn store_follows_a_failover() {
    if !is_installed("store_follows_a_failover") {
        return;
    }
    let mut primary = RedisServer::start(&[]).await;
    let primary_port = primary.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &primary_port]).await;
    let sentinel = start_sentinel(primary.port).await;
    wait_until("the sentinel knows the replica", async || {
        sentinel
            .cli(&["SENTINEL", "replicas", "main"])
            .contains(&format!("127.0.0.1:{}", replica.port))
    })
    .await;
    // The first sentinel does not exist.
    let url = format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port);
    let (store, _events) = store(&[url], None, None);
    wait_available(&store).await;
    store.put(not_clean(1), expiry(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(primary.cli(&["DBSIZE"]), "1");
    wait_until("it is replicated", async || replica.cli(&["DBSIZE"]) == "1").await;
    primary.kill();
    store.put(not_clean(2), expiry(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    assert_eq!(get(&store, not_clean(2)).await, valid(b"infected"));
    assert_eq!(replica.cli(&["DBSIZE"]), "2");
    // The old primary becomes a replica, which no store uses.
    primary.restart().await;
    store.put(not_clean(3), expiry(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(replica.cli(&["DBSIZE"]), "3");
}

/// A planned fail-over, by which the old primary refuses writes while it is still connected.
#[tokio::test]
async fn replica_is_left_after_a_refused_write() {
    if !is_installed("replica_is_left_after_a_refused_write") {
        return;
    }
    let primary = RedisServer::start(&[]).await;
    let primary_port = primary.port.to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &primary_port]).await;
    let sentinel = start_sentinel(primary.port).await;
    let url = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    let (store, _events) = store(&[url], None, None);
    wait_available(&store).await;
    wait_until("the fail-over starts", async || {
        sentinel.cli(&["SENTINEL", "failover", "main"]) == "OK"
    })
    .await;
    wait_until("the roles are exchanged", async || {
        primary.cli(&["ROLE"]).starts_with("slave") && replica.cli(&["ROLE"]).starts_with("master")
    })
    .await;
    store.put(not_clean(1), expiry(), b"infected").unwrap();
    written(&store).await;
    assert_eq!(get(&store, not_clean(1)).await, valid(b"infected"));
    assert_eq!(replica.cli(&["DBSIZE"]), "1");
    let unknown = format!("redis+sentinel://127.0.0.1:{}/unknown", sentinel.port);
    let (unknown, _events) = redis_server::store(&[unknown], None, None);
    assert_eq!(get(&unknown, not_clean(1)).await, None);
}
