//! Faults while replicas answer requests: no answer is wrong, and every request is answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::group::{ADMIN, ReplicaGroup, request, start_redis};
use crate::{
    admin::{sha256, store},
    harness::{NetworkNamespace, RedisServer, wait_until},
};

const REPLICAS: usize = 4;

/// Number of requests at each replica, and of contents.
const REQUESTS: usize = 100;
const CONTENTS: usize = 25;

/// During an outage, each replica scans for itself. Afterwards, all drop what they have in memory, and scan what could not be stored:
/// one of them, or two if the verdict of the first is not stored yet.
const MAX_SCANS: usize = CONTENTS * (REPLICAS + 2);

/// Time after which a replica that is killed or frozen no longer has its lease.
const LEASE: Duration = Duration::from_secs(16);

/// Sends the requests of an ordinary test. Meanwhile, `fault` is injected as soon as the first contents are scanned.
async fn request_with(group: &ReplicaGroup, fault: impl Future<Output = ()>) {
    let fault = async {
        wait_until("the first scans", || group.scans() > CONTENTS / 5).await;
        fault.await;
    };
    tokio::join!(group.request_all(REQUESTS, CONTENTS), fault);
    assert!(group.scans() >= CONTENTS);
    assert!(group.scans() <= MAX_SCANS, "{} scans", group.scans());
}

#[tokio::test]
async fn frozen_store() {
    let Some(group) = ReplicaGroup::start("frozen_store", REPLICAS, "").await else { return };
    request_with(&group, async {
        group.redis.signal(Signal::SIGSTOP);
        sleep(Duration::from_secs(2)).await;
        group.redis.signal(Signal::SIGCONT);
    })
    .await;
}

#[tokio::test]
async fn emptied_store() {
    let Some(group) = ReplicaGroup::start("emptied_store", REPLICAS, "").await else { return };
    request_with(&group, async {
        for _ in 0..5 {
            group.redis.cli(&["FLUSHALL"]);
            sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn full_store() {
    let Some(group) = ReplicaGroup::start("full_store", REPLICAS, "").await else { return };
    request_with(&group, async {
        group.redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
        sleep(Duration::from_secs(1)).await;
        group.redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    })
    .await;
}

#[tokio::test]
async fn restarted_store() {
    let Some(redis) = start_redis("restarted_store").await else { return };
    let Some(mut group) = ReplicaGroup::start_with(redis, &[""; REPLICAS]).await else {
        return;
    };
    group.request_all(REQUESTS / 2, CONTENTS / 2).await;
    group.redis.kill();
    group.redis.restart().await;
    group.request_all(REQUESTS, CONTENTS).await;
    assert!(group.scans() <= MAX_SCANS, "{} scans", group.scans());
}

/// The link to the store fails under load. An operator has a verdict forgotten meanwhile.
#[tokio::test]
async fn partitioned_store() {
    let test = "partitioned_store";
    if !RedisServer::is_installed(test) {
        return;
    }
    let Some(network) = NetworkNamespace::create(test) else { return };
    let redis = RedisServer::start_in(&network).await;
    let Some(group) = ReplicaGroup::start_with(redis, &[ADMIN; 3]).await else { return };
    let (forgotten, blocked) = (group.add("clean", 1000), group.add("clean", 1001));
    for replica in 0..3 {
        group.check(replica, &forgotten, true).await;
        group.check(replica, &blocked, true).await;
    }
    let comment = ["--comment", "campaign"];
    let block = ["block", &sha256(b"clean 1001"), comment[0], comment[1]];
    request_with(&group, async {
        network.set_connected(false);
        group.forget_during_outage(0, &sha256(b"clean 1000")).await;
        let (code, _, errors) = store(&group.replicas[0].dir, &block).await;
        assert_eq!(code, Some(2), "no decision without the others: {errors}");
        sleep(Duration::from_secs(2)).await;
    })
    .await;
    group.add_signature();
    group.check(1, &forgotten, true).await;
    network.set_connected(true);
    for replica in 0..3 {
        group.wait_until(replica, &forgotten, false).await;
    }
    // The replica of the operator has not necessarily reached the store again.
    let end = Instant::now() + Duration::from_secs(30);
    while store(&group.replicas[0].dir, &block).await.0 != Some(0) {
        assert!(Instant::now() < end, "the store is not used again");
        sleep(Duration::from_millis(100)).await;
    }
    for replica in 0..3 {
        group.wait_until(replica, &blocked, false).await;
    }
}

/// The lease of a killed replica expires, and another replica scans.
#[tokio::test]
async fn replica_killed_during_a_scan() {
    let name = "replica_killed_during_a_scan";
    let Some(mut group) = ReplicaGroup::start(name, 2, "").await else { return };
    group.block();
    let (media, is_clean) = group.add_third(3);
    let path = format!("/scan/{media}");
    let first = group.replicas[0].client.clone();
    let killed = tokio::spawn(async move {
        let request = first.request(reqwest::Method::GET, &path);
        request.bearer_auth(crate::harness::homeserver::TOKEN).send().await
    });
    wait_until("the first scan", || group.scans() == 1).await;
    drop(group.replicas.remove(0).kill());
    killed.await.unwrap().unwrap_err();
    group.unblock();
    group.check(0, &media, is_clean).await;
    assert_eq!(group.scans(), 2);
}

/// A replica that resumes after its lease has expired answers as the replica that has scanned meanwhile.
#[tokio::test]
async fn replica_frozen_past_its_lease() {
    let name = "replica_frozen_past_its_lease";
    let Some(group) = ReplicaGroup::start(name, 2, "").await else { return };
    group.block();
    let media = group.add("clean", 1);
    let path = format!("/scan/{media}");
    let first = group.replicas[0].client.clone();
    let frozen = tokio::spawn(async move { first.get(&path).await });
    wait_until("the first scan", || group.scans() == 1).await;
    group.replicas[0].signal(Signal::SIGSTOP);
    sleep(LEASE).await;
    // The script of the frozen replica has ended without a finding, since it has read its signatures before.
    group.unblock();
    sleep(Duration::from_millis(500)).await;
    group.add_signature();
    group.check(1, &media, false).await;
    group.replicas[0].signal(Signal::SIGCONT);
    frozen.await.unwrap().assert_not_clean(super::FOUND);
    assert_eq!(group.scans(), 2);
}

/// What a proxy does to the bytes of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Toxin {
    None,
    /// Bytes arrive after half a second.
    Delay,
    /// Bytes do not arrive.
    Silence,
    /// The connection ends after the request.
    HalfClose,
    /// The reply is replaced by other bytes.
    Garbage,
}

/// A proxy before the store of one replica.
struct ToxicProxy {
    url: String,
    toxin: Arc<AtomicU8>,
}

impl ToxicProxy {
    async fn start(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let toxin = Arc::new(AtomicU8::new(Toxin::None as u8));
        let (address, shared) = (("127.0.0.1", server.port), Arc::clone(&toxin));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(address).await.unwrap();
                let (mut from_client, to_client) = client.into_split();
                let (from_server, mut to_server) = server.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
                });
                tokio::spawn(poison(from_server, to_client, Arc::clone(&shared)));
            }
        });
        Self { url, toxin }
    }

    fn set(&self, toxin: Toxin) {
        self.toxin.store(toxin as u8, Ordering::SeqCst);
    }
}

async fn poison(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    toxin: Arc<AtomicU8>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let is = |other: Toxin| toxin.load(Ordering::SeqCst) == other as u8;
        if is(Toxin::Delay) {
            sleep(Duration::from_millis(500)).await;
        }
        if is(Toxin::HalfClose) {
            return;
        }
        if is(Toxin::Silence) {
            continue;
        }
        if is(Toxin::Garbage) {
            buffer[..length].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x5a);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

/// Two of four replicas have a connection that delays, hangs, ends or lies; then all of them have.
#[tokio::test]
async fn toxic_connections() {
    let Some(redis) = start_redis("toxic_connections").await else { return };
    let mut proxies = Vec::new();
    for _ in 0..REPLICAS {
        proxies.push(ToxicProxy::start(&redis).await);
    }
    let lines: Vec<_> =
        proxies.iter().map(|proxy| format!("store.urls = [{:?}]", proxy.url)).collect();
    let lines: Vec<_> = lines.iter().map(|line| &**line).collect();
    let Some(group) = ReplicaGroup::start_with(redis, &lines).await else { return };
    let toxins = [Toxin::Delay, Toxin::Silence, Toxin::HalfClose, Toxin::Garbage];
    for (round, toxin) in toxins.into_iter().enumerate() {
        let contents = CONTENTS / 2;
        let media: Vec<_> =
            (0..contents).map(|number| group.add_third(round * contents + number)).collect();
        for poisoned in [REPLICAS / 2, REPLICAS] {
            for proxy in proxies.iter().take(poisoned) {
                proxy.set(toxin);
            }
            let clients = group.replicas.iter().map(|replica| &replica.client);
            let requests = clients.enumerate();
            let requests =
                requests.map(|(seed, client)| request(client, seed, REQUESTS / 4, &media));
            join_all(requests).await;
        }
        for proxy in &proxies {
            proxy.set(Toxin::None);
        }
    }
    assert!(group.scans() <= toxins.len() * MAX_SCANS, "{} scans", group.scans());
    // After all of this, the store is used again.
    for replica in 0..REPLICAS {
        let operations = group.replicas[replica].operations_client().await;
        crate::operations::scrape_until(&operations, "mcs_store_up 1").await;
    }
}
