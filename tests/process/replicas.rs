//! Several services with one store.

mod faults;
mod group;
mod incidents;
mod rescans;

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::admin::{page::PageClient, sha256};
use crate::{
    harness::{scanner::restart, wait_until},
    operations::scrape_until,
};
use group::{ADMIN, FOUND, ReplicaGroup};

/// Number of requests at each of four replicas, and of contents.
const REQUESTS: usize = 1000;
const CONTENTS: usize = 100;

/// A time limit that a busy machine does not exceed, for tests that count scans.
const PATIENT: &str = "store.timeout = \"10s\"";

#[tokio::test]
async fn each_content_is_scanned_once() {
    let Some(group) = ReplicaGroup::start("each_content_is_scanned_once", 4, PATIENT).await else {
        return;
    };
    group.request_all(REQUESTS, CONTENTS).await;
    assert_eq!(group.scans(), CONTENTS);
}

#[tokio::test]
async fn verdict_needs_neither_download_nor_scan_at_another_replica() {
    let name = "verdict_needs_neither_download_nor_scan_at_another_replica";
    let Some(group) = ReplicaGroup::start(name, 2, PATIENT).await else { return };
    let (clean, infected) = (group.add("clean", 1), group.add("infected", 2));
    group.check(0, &clean, true).await;
    group.check(0, &infected, false).await;
    let downloads = group.homeserver.download_count();
    group.check(1, &clean, true).await;
    group.check(1, &infected, false).await;
    assert_eq!(group.homeserver.download_count(), downloads);
    assert_eq!(group.scans(), 2);
    let readable = group.keys().join("\n");
    assert!(!readable.contains("example"), "{readable}");
}

/// Newer signatures at one replica.
#[tokio::test]
async fn infection_reaches_what_other_replicas_remember() {
    let name = "infection_reaches_what_other_replicas_remember";
    // The first replica forgets clean verdicts after a second.
    let Some(group) = ReplicaGroup::start_each(name, &["result_cache.ttl = \"1s\"", "", ""]).await
    else {
        return;
    };
    let media = group.add("clean", 1);
    group.check(1, &media, true).await;
    group.check(2, &media, true).await;
    group.add_signature();
    group.check(1, &media, true).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    group.check(0, &media, false).await;
    for replica in [1, 2] {
        group.wait_until(replica, &media, false).await;
    }
    assert_eq!(group.scans(), 2, "the others took over the finding");
}

/// The operator asks one replica, and all answer accordingly.
#[tokio::test]
async fn forgetting_and_decisions_reach_all_replicas() {
    let name = "forgetting_and_decisions_reach_all_replicas";
    let Some(group) = ReplicaGroup::start(name, 3, ADMIN).await else { return };
    let media = group.add("clean", 1);
    let content = sha256(b"clean 1");
    for replica in 0..3 {
        group.check(replica, &media, true).await;
    }
    group.store(0, &["block", &content, "--comment", "campaign"]).await;
    for replica in 0..3 {
        group.wait_until(replica, &media, false).await;
    }
    group.store(2, &["withdraw", &content, "--comment", "over"]).await;
    for replica in 0..3 {
        group.wait_until(replica, &media, true).await;
    }
    assert_eq!(group.scans(), 1);
    group.add_signature();
    group.store(1, &["forget", &content]).await;
    for replica in 0..3 {
        group.wait_until(replica, &media, false).await;
    }
    let listed = group.store(2, &["list"]).await;
    assert!(listed.contains(&content) && listed.contains("Found"), "{listed}");
}

/// As [`forgetting_and_decisions_reach_all_replicas`], while the store is not available.
#[tokio::test]
async fn forgetting_during_an_outage_reaches_all_replicas_afterwards() {
    let name = "forgetting_during_an_outage_reaches_all_replicas_afterwards";
    let Some(group) = ReplicaGroup::start(name, 2, ADMIN).await else { return };
    let media = group.add("clean", 1);
    for replica in 0..2 {
        group.check(replica, &media, true).await;
    }
    group.redis.signal(Signal::SIGSTOP);
    group.add_signature();
    group.forget_during_outage(0, &sha256(b"clean 1")).await;
    group.check(1, &media, true).await;
    group.redis.signal(Signal::SIGCONT);
    group.wait_until(1, &media, false).await;
}

/// The store is not available while one replica finds the infection.
#[tokio::test]
async fn infection_found_during_an_outage_reaches_other_replicas_afterwards() {
    let name = "infection_found_during_an_outage_reaches_other_replicas_afterwards";
    let Some(group) = ReplicaGroup::start(name, 2, "").await else { return };
    let media = group.add("clean", 1);
    group.check(1, &media, true).await;
    group.redis.signal(Signal::SIGSTOP);
    group.add_signature();
    group.check(0, &media, false).await;
    group.check(1, &media, true).await;
    group.redis.signal(Signal::SIGCONT);
    group.wait_until(1, &media, false).await;
}

#[tokio::test]
async fn known_media_needs_no_store_during_an_outage() {
    let name = "known_media_needs_no_store_during_an_outage";
    let Some(group) = ReplicaGroup::start(name, 1, "").await else { return };
    let media = group.add("clean", 1);
    group.check(0, &media, true).await;
    group.redis.signal(Signal::SIGSTOP);
    let operations = group.replicas[0].operations_client().await;
    // Other media, until the store is not used any more.
    for number in 2..12 {
        let other = group.add("clean", number);
        group.check(0, &other, true).await;
    }
    scrape_until(&operations, "mcs_store_up 0").await;
    let calls = group.store_calls(0).await;
    for _ in 0..100 {
        group.check(0, &media, true).await;
    }
    assert!(group.store_calls(0).await <= calls + 1, "one attempt to reach it again");
    group.redis.signal(Signal::SIGCONT);
    scrape_until(&operations, "mcs_store_up 1").await;
}

#[tokio::test]
async fn service_starts_and_scans_without_its_store() {
    let name = "service_starts_and_scans_without_its_store";
    let Some(mut group) = ReplicaGroup::start(name, 1, "").await else { return };
    let media = group.add("infected", 1);
    group.redis.signal(Signal::SIGSTOP);
    let replica = restart(group.replicas.remove(0).kill()).await;
    replica.client.get(&format!("/scan/{media}")).await.assert_not_clean(FOUND);
    group.redis.signal(Signal::SIGCONT);
    let operations = replica.operations_client().await;
    scrape_until(&operations, "mcs_store_up 1").await;
    // What was found meanwhile is stored.
    wait_until("the infection is stored", || group.keys().iter().any(|key| key.ends_with(":n")))
        .await;
}

#[tokio::test]
async fn different_request_keys_are_reported() {
    let name = "different_request_keys_are_reported";
    let secret = "store.secret_path = \"store_secret\"";
    let other = "store.secret_path = \"store_secret\"\ncrypto.request_secret_path = \"other_key\"";
    let Some(group) = ReplicaGroup::start_each(name, &[secret, other]).await else { return };
    let warned = "replicas have different request keys";
    wait_until(warned, || group.replicas.iter().any(|replica| replica.log().contains(warned)))
        .await;
    let media = group.add("clean", 1);
    group.check(0, &media, true).await;
    group.check(1, &media, true).await;
    assert_eq!(group.scans(), 1, "verdicts are shared by their secret");
}

#[tokio::test]
async fn page_of_one_replica_reverts_a_false_positive_on_all() {
    let test = "page_of_one_replica_reverts_a_false_positive_on_all";
    let Some(group) = ReplicaGroup::start(test, 2, ADMIN).await else { return };
    let media = group.add("infected", 1);
    for replica in 0..2 {
        group.check(replica, &media, false).await;
    }
    group.replicas[0].wait_for_log("listening for operators' changes", 1).await;
    let page = PageClient::sign_in(&group.replicas[0].dir, &"t".repeat(43)).await;
    let content = sha256(b"infected 1");
    let shown = page.get("/verdicts?show=not_clean").await.body;
    assert!(shown.contains(&content), "{shown}");
    assert_eq!(page.change("allow", &content, "false positive").await.status, 303);
    group.check(0, &media, true).await;
    group.wait_until(1, &media, true).await;
    assert_eq!(group.scans(), 1, "nothing was scanned again");
}
