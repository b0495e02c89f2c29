//! Incidents of replicas, whose outbox is in the store.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::{
    harness::client::send,
    incidents::server::{IncidentServer, ServerStep, StepReply},
};

const OWNS: &str = "this replica quarantines and notifies now";

const OUTBOX_EMPTY: &str = "mcs_incident_outbox 0";

/// Replicas that quarantine, and notify a room and a webhook.
struct IncidentGroup {
    group: ReplicaGroup,
    server: IncidentServer,
}

impl IncidentGroup {
    /// Returns `None` if the test is skipped.
    async fn start(test: &str, number: usize) -> Option<Self> {
        let server = IncidentServer::start().await;
        let url = server.url();
        let lines = format!(
            r#"{ADMIN}
            quarantine = {{ at = "synapse", base_url = "{url}", token_path = "incident-secret", rate = 100 }}
            notify = [
                {{ webhook = "{url}/hook", secret_path = "incident-secret" }},
                {{ room = "!room:example.org", homeserver = "{url}", token_path = "incident-secret" }},
            ]"#
        );
        let group = ReplicaGroup::start(test, number, &lines).await?;
        Some(Self { group, server })
    }

    async fn scan(&self, replica: usize, media: &str) {
        self.group.check(replica, media, false).await;
    }

    /// Returns the index of the replica that does the steps.
    async fn owner(&self) -> usize {
        let owns = || {
            let mut replicas = self.group.replicas.iter();
            replicas.position(|replica| replica.log().contains(OWNS))
        };
        wait_until("a replica owns the outbox", || owns().is_some()).await;
        owns().unwrap()
    }

    /// Waits until this number of media is quarantined and of messages is in the room, and nothing is left to do.
    async fn wait_until_done(&self, incidents: usize) {
        wait_until("the steps are done", || {
            self.server.quarantined().len() == incidents
                && self.server.messages().len() == incidents
                && self.webhooks() >= incidents
        })
        .await;
        for replica in &self.group.replicas {
            scrape_until(&replica.operations_client().await, OUTBOX_EMPTY).await;
        }
        let entry = |key: &String| key.starts_with("mcs1:{o}:o:");
        wait_until("the entries are removed", || !self.group.keys().iter().any(entry)).await;
    }

    fn webhooks(&self) -> usize {
        self.server.received(ServerStep::Webhook).len()
    }

    /// Number of requests of all steps.
    fn requests(&self) -> usize {
        let steps = [ServerStep::Quarantine, ServerStep::Webhook, ServerStep::Room];
        steps.iter().map(|step| self.server.received(*step).len()).sum()
    }
}

#[tokio::test]
async fn each_step_is_done_once_by_one_replica() {
    let Some(group) = IncidentGroup::start("each_step_is_done_once_by_one_replica", 3).await else {
        return;
    };
    let media: Vec<_> = (0..4).map(|number| group.group.add("infected", number)).collect();
    // Each replica downloads and finds each of them at about the same time.
    let requests = media.iter().flat_map(|media| (0..3).map(|replica| group.scan(replica, media)));
    futures_util::future::join_all(requests).await;
    group.wait_until_done(4).await;
    assert_eq!(group.requests(), 3 * 4, "each step once");

    // The same content again, and scanned again at another replica.
    let owner = group.owner().await;
    let other = (owner + 1) % 3;
    let content = sha256(b"infected 0");
    group.group.store(other, &["forget", &content]).await;
    group.scan(other, &media[0]).await;
    let copy = group.group.homeserver.add_bytes("copy", b"infected 0".to_vec());
    group.scan(other, &copy).await;
    group.wait_until_done(5).await;
    assert_eq!(group.requests(), 3 * 5, "only the other media is new");
    let owners = group.group.replicas.iter().filter(|replica| replica.log().contains(OWNS));
    assert_eq!(owners.count(), 1);
}

/// Media that other replicas have served is part of the incident.
#[tokio::test]
async fn media_of_all_replicas_with_the_content_are_one_incident() {
    let name = "media_of_all_replicas_with_the_content_are_one_incident";
    let Some(group) = IncidentGroup::start(name, 2).await else { return };
    let homeserver = &group.group.homeserver;
    let media = ["a", "b"].map(|id| homeserver.add_bytes(id, b"found later".to_vec()));
    group.group.check(0, &media[0], true).await;
    let is_seen = |key: &String| key.starts_with("mcs1:x:");
    wait_until("the media is kept", || group.group.keys().iter().any(is_seen)).await;
    group.group.add_signature();
    group.group.store(1, &["forget", &sha256(b"found later")]).await;
    group.scan(1, &media[1]).await;
    wait_until("both are quarantined", || group.server.quarantined().len() == 2).await;
    wait_until("the room is notified", || group.server.messages().len() == 1).await;
    for id in ["/a", "/b"] {
        let body = group.server.messages()[0]["body"].as_str().unwrap().to_owned();
        assert!(body.contains(id), "{body}");
    }
}

/// The other side has received a request when the owner is killed.
#[tokio::test]
async fn killed_owner_is_replaced() {
    for step in [ServerStep::Quarantine, ServerStep::Webhook] {
        let Some(mut group) = IncidentGroup::start("killed_owner_is_replaced", 2).await else {
            return;
        };
        let owner = group.owner().await;
        group.server.reply(step, [StepReply::Never]);
        let media = group.group.add("infected", 1);
        group.scan(1 - owner, &media).await;
        group.server.wait_for(step, 1).await;

        // The other replica lists what waits.
        let listed = group.group.store(1 - owner, &["incidents", "--waiting", "--json"]).await;
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let incident = &listed["incidents"][0];
        assert_eq!(incident["media"][0]["mxc"], format!("mxc://{media}"), "{listed}");
        assert_eq!(incident["state"], "waiting", "{listed}");

        drop(group.group.replicas.remove(owner).kill());
        group.server.wait_for(step, 2).await;
        group.wait_until_done(1).await;
        let ids = group.server.received(ServerStep::Webhook).into_iter().map(|received| {
            serde_json::from_slice::<Value>(&received.body).unwrap()["id"].to_string()
        });
        let mut ids: Vec<_> = ids.collect();
        ids.dedup();
        assert_eq!(ids.len(), 1, "{step:?}");
    }
}

/// Malware is found while the store is not available: the answer is not delayed by more than the store's limits.
#[tokio::test]
async fn incident_waits_for_the_store() {
    let Some(group) = IncidentGroup::start("incident_waits_for_the_store", 1).await else {
        return;
    };
    group.owner().await;
    let media = group.group.add("infected", 1);
    group.group.redis.signal(Signal::SIGSTOP);
    let start = Instant::now();
    group.scan(0, &media).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    let operations = group.group.replicas[0].operations_client().await;
    scrape_until(&operations, "mcs_incident_outbox 1").await;
    assert_eq!(group.requests(), 0);
    group.group.redis.signal(Signal::SIGCONT);
    group.wait_until_done(1).await;
    assert_eq!(group.requests(), 3);
    let request = operations.request_outside_prefix(reqwest::Method::GET, "/metrics");
    let metrics = String::from_utf8(send(request).await.body.to_vec()).unwrap();
    assert!(metrics.contains("mcs_incident_outbox_owner 1"), "{metrics}");
}

/// The server restores an entry whose steps are done, moves it to another name, and forgets that the incident was created.
#[tokio::test]
async fn restored_entry_causes_no_second_notification() {
    let name = "restored_entry_causes_no_second_notification";
    let Some(group) = IncidentGroup::start(name, 1).await else { return };
    let redis = &group.group.redis;
    group.owner().await;
    group.server.reply(ServerStep::Quarantine, [StepReply::Status(500)]);
    let media = group.group.add("infected", 1);
    group.scan(0, &media).await;
    group.server.wait_for(ServerStep::Quarantine, 1).await;
    let entry = |key: &String| key.starts_with("mcs1:{o}:o:");
    let key = group.group.keys().into_iter().find(entry).unwrap();
    redis.cli(&["COPY", &key, "{o}:saved"]);
    group.wait_until_done(1).await;
    let requests = group.requests();

    let id = key.rsplit(':').next().unwrap();
    let moved = format!("mcs1:{{o}}:o:{}", "0".repeat(32));
    redis.cli(&["COPY", "{o}:saved", &moved]);
    redis.cli(&["ZADD", "mcs1:{o}:index", "1", &"0".repeat(32)]);
    redis.cli(&["COPY", "{o}:saved", &key]);
    redis.cli(&["ZADD", "mcs1:{o}:index", "2", id]);
    wait_until("the entries are removed", || !group.group.keys().iter().any(entry)).await;
    assert_eq!(group.requests(), requests);
    assert!(group.group.replicas[0].log().contains("they have another secret, or were altered"));

    // The same incident is created again.
    redis.cli(&["DEL", &format!("mcs1:{{o}}:j:{id}")]);
    group.group.store(0, &["forget", &sha256(b"infected 1")]).await;
    group.scan(0, &media).await;
    let mark = |key: &String| key.starts_with("mcs1:{o}:j:");
    wait_until("the incident is created", || group.group.keys().iter().any(mark)).await;
    wait_until("the entry is removed", || !group.group.keys().iter().any(entry)).await;
    assert_eq!(group.requests(), requests);
}

/// All verdicts are removed, because they were wrong: nothing follows from them.
#[tokio::test]
async fn removal_of_all_verdicts_drops_waiting_incidents() {
    let name = "removal_of_all_verdicts_drops_waiting_incidents";
    let Some(group) = IncidentGroup::start(name, 2).await else { return };
    let owner = group.owner().await;
    for step in [ServerStep::Quarantine, ServerStep::Webhook, ServerStep::Room] {
        group.server.reply(step, [StepReply::Status(500)]);
    }
    let media = group.group.add("infected", 1);
    group.scan(owner, &media).await;
    for step in [ServerStep::Quarantine, ServerStep::Webhook, ServerStep::Room] {
        group.server.wait_for(step, 1).await;
    }
    group.group.store(1 - owner, &["forget", "--all"]).await;
    for replica in &group.group.replicas {
        scrape_until(&replica.operations_client().await, OUTBOX_EMPTY).await;
    }
    assert_eq!(group.server.quarantined().len(), 0);
    assert_eq!(group.requests(), 3);
}
