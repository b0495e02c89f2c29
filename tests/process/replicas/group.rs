//! Replicas with one store, one homeserver and one script.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tempfile::TempDir;

use crate::{
    admin::{store, store_succeeds},
    harness::{
        MockHomeserver, RedisServer, ScannerBuilder, ScannerProcess, TestClient, client::send,
    },
};

pub(super) const FOUND: &str = "File not clean. Output: 'Found'";

/// Lines for replicas that operators can ask.
pub(super) const ADMIN: &str = r#"
    admin.enabled = true
    admin.socket = "admin.sock"
    admin.token_path = "admin-token"
    audit.path = "audit.jsonl"
    "#;

/// Time in which changes reach all replicas: two seconds, and some for a busy machine.
const REACH: Duration = Duration::from_secs(10);

/// Concurrent requests at each replica.
const CONCURRENCY: usize = 8;

pub(super) struct ReplicaGroup {
    pub(super) homeserver: MockHomeserver,
    pub(super) redis: RedisServer,
    pub(super) replicas: Vec<ScannerProcess>,
    /// What the scripts of all replicas write and read.
    marks: TempDir,
}

impl ReplicaGroup {
    /// Starts replicas with these lines of configuration. Returns `None` if the test is skipped.
    pub(super) async fn start(test: &str, number: usize, lines: &str) -> Option<Self> {
        Self::start_each(test, &vec![lines; number]).await
    }

    /// Starts replicas with lines of configuration for each.
    pub(super) async fn start_each(test: &str, lines: &[&str]) -> Option<Self> {
        Self::start_with(start_redis(test).await?, lines).await
    }

    /// Starts replicas for a server, which they may reach at another address.
    pub(super) async fn start_with(redis: RedisServer, lines: &[&str]) -> Option<Self> {
        let marks = TempDir::new().unwrap();
        fs::set_permissions(&marks, fs::Permissions::from_mode(0o777)).unwrap();
        let homeserver = MockHomeserver::start().await;
        let url = redis.url();
        let mut replicas = Vec::new();
        for lines in lines {
            replicas.push(builder(&homeserver, &marks, &url, lines).start().await);
        }
        Some(Self { homeserver, redis, replicas, marks })
    }

    /// Returns the keys of the store.
    pub(super) fn keys(&self) -> Vec<String> {
        self.redis.cli(&["KEYS", "mcs1:*"]).lines().map(str::to_owned).collect()
    }

    /// Adds media with contents of their own. Returns the path of its URI.
    pub(super) fn add(&self, text: &str, number: usize) -> String {
        self.homeserver.add_bytes(&format!("m{number}"), format!("{text} {number}").into_bytes())
    }

    /// Number of scans by all replicas.
    pub(super) fn scans(&self) -> usize {
        let runs = fs::read_to_string(self.marks.path().join("runs")).unwrap_or_default();
        runs.lines().count()
    }

    /// From now on, the engines of all replicas find all files infected.
    pub(super) fn add_signature(&self) {
        fs::write(self.marks.path().join("signature"), "").unwrap();
    }

    /// Scans block from now on, until [`Self::unblock`].
    pub(super) fn block(&self) {
        fs::write(self.marks.path().join("blocked"), "").unwrap();
    }

    pub(super) fn unblock(&self) {
        fs::remove_file(self.marks.path().join("blocked")).unwrap();
    }

    pub(super) async fn check(&self, replica: usize, media: &str, is_clean: bool) {
        check(&self.replicas[replica].client, media, is_clean).await;
    }

    /// Waits until a replica answers otherwise than before.
    pub(super) async fn wait_until(&self, replica: usize, media: &str, is_clean: bool) {
        let end = Instant::now() + REACH;
        let path = format!("/scan/{media}");
        loop {
            let response = self.replicas[replica].client.get(&path).await;
            if response.json()["clean"] == is_clean {
                return;
            }
            assert!(Instant::now() < end, "{}", self.replicas[replica].log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs `store`, which asks a replica. Returns its output.
    pub(super) async fn store(&self, replica: usize, arguments: &[&str]) -> String {
        let replica = &self.replicas[replica];
        replica.wait_for_log("listening for operators' changes", 1).await;
        store_succeeds(&replica.dir, arguments).await
    }

    /// Asks a replica to forget a content. It cannot tell what the store contains.
    pub(super) async fn forget_during_outage(&self, replica: usize, content: &str) {
        let replica = &self.replicas[replica];
        replica.wait_for_log("listening for operators' changes", 1).await;
        let _ = store(&replica.dir, &["forget", content]).await;
    }

    /// Returns how often a replica has called the store.
    pub(super) async fn store_calls(&self, replica: usize) -> u64 {
        let operations = self.replicas[replica].operations_client().await;
        let request = operations.request_outside_prefix(reqwest::Method::GET, "/metrics");
        let metrics = send(request).await.body;
        let metrics = std::str::from_utf8(&metrics).unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix("mcs_store_calls_total "));
        line.unwrap().parse().unwrap()
    }

    /// Sends requests for contents, each third one infected, to all replicas, and checks each response.
    pub(super) async fn request_all(&self, requests: usize, contents: usize) {
        let media: Vec<_> = (0..contents).map(|number| self.add_third(number)).collect();
        let clients = self.replicas.iter().map(|replica| &replica.client);
        join_all(clients.enumerate().map(|(seed, client)| request(client, seed, requests, &media)))
            .await;
    }

    /// Adds media, each third one infected. Returns its path, and whether it is clean.
    pub(super) fn add_third(&self, number: usize) -> (String, bool) {
        let is_clean = !number.is_multiple_of(3);
        (self.add(if is_clean { "clean" } else { "infected" }, number), is_clean)
    }
}

/// Starts a server. Returns `None` if the test is skipped.
pub(super) async fn start_redis(test: &str) -> Option<RedisServer> {
    if RedisServer::is_installed(test) { Some(RedisServer::start(&[]).await) } else { None }
}

/// Sends requests for media in an order of their own, some at a time.
pub(super) async fn request(
    client: &TestClient,
    seed: usize,
    requests: usize,
    media: &[(String, bool)],
) {
    let next = Arc::new(AtomicUsize::new(0));
    let worker = |_| async {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= requests {
                return;
            }
            let (media, is_clean) = &media[(number * 7 + seed * 3) % media.len()];
            check(client, media, *is_clean).await;
        }
    };
    join_all((0..CONCURRENCY).map(worker)).await;
}

async fn check(client: &TestClient, media: &str, is_clean: bool) {
    let response = client.get(&format!("/scan/{media}")).await;
    if is_clean {
        response.assert_clean();
    } else {
        response.assert_not_clean(FOUND);
    }
}

fn builder(homeserver: &MockHomeserver, marks: &TempDir, url: &str, lines: &str) -> ScannerBuilder {
    let marks = marks.path().display();
    let builder = ScannerBuilder::new("").homeserver(homeserver);
    let script = format!(
        "#!/bin/sh
        echo run >> {marks}/runs
        while [ -e {marks}/blocked ]; do sleep 0.05; done
        if [ -e {marks}/signature ] || grep -q infected \"$1\"; then echo Found; exit 1; fi"
    );
    builder.dir().write_executable("script.sh", &script);
    for (name, character) in [
        ("request_secret", "A"),
        ("store_secret", "b"),
        ("other_key", "Q"),
        ("admin-token", "t"),
        ("incident-secret", "s"),
    ] {
        let path = builder.dir().path(name);
        fs::write(&path, character.repeat(43)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let urls = if lines.contains("store.urls") {
        String::new()
    } else {
        format!("store.urls = [{url:?}]")
    };
    builder
        .config(&format!("store.kind = \"shared\"\n{urls}"))
        .config(&format!("sandbox.writable_paths = [\"{marks}\"]"))
        .config(lines)
}
