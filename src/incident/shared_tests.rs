//! The outbox in a simulated store that replicas share.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mcs_store::{
    OutboxEntry, OutboxRecord, RecordKind, RecordName, SharedStore, SimulatedNode, SimulatedServer,
    StoreSecret,
};
use prometheus_client::registry::Registry;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    entry::Incident,
    incident_store::IncidentStore,
    outbox::{DueStep, NextStep, Outbox, StepEnd},
    outbox_follower::OutboxFollower,
    outbox_reader::OutboxReader,
    outbox_status::SharedStatus,
    seen::SeenIndex,
    step::StepState,
    step_plan::{StepKind, StepPlan, StepTarget},
    tests::incident,
};
use crate::metrics::Metrics;

const TARGET: StepKind = StepKind::Notify(0);
const KEEP: Duration = Duration::from_secs(3600);

/// A replica with its outbox.
struct OutboxReplica {
    store: SharedStore,
    outbox: Outbox,
}

impl OutboxReplica {
    fn new(server: &SimulatedServer, client: u32) -> Self {
        let clock = server.clone();
        let now = Arc::new(move || clock.now_ms() / 1000);
        let timeout = Duration::from_millis(900);
        let node = SimulatedNode { client, seed: client.into(), timeout, now };
        let secret = StoreSecret::derive(b"secret");
        let (store, _events) = SharedStore::start_simulated(server, node, secret).unwrap();
        let address = "https://hook.example".to_owned();
        let target = StepTarget { name: "target".to_owned(), kind: "webhook", address };
        let plan = StepPlan { quarantined_at: None, targets: vec![target] };
        let outbox = Outbox::new(IncidentStore::Shared(store.clone()), plan, KEEP);
        Self { store, outbox }
    }

    fn follow(&self) {
        let reader = OutboxReader {
            outbox: self.outbox.clone(),
            seen: SeenIndex::new(IncidentStore::Shared(self.store.clone()), KEEP),
            metrics: Arc::new(Metrics::new(&mut Registry::default())),
            observer: Arc::new(|_| {}),
        };
        let follower = OutboxFollower::new(reader, self.store.clone(), SharedStatus::default());
        let (sender, written) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let _sender = sender;
            follower.run(written).await;
        });
    }

    fn name(&self, number: u32) -> RecordName {
        self.store.secret().name(RecordKind::Incident, &[&number.to_le_bytes()])
    }

    async fn add(&self, number: u32, value: &[u8]) {
        let expiry = u64::MAX / 1000;
        self.store.add_incident(self.name(number), expiry, expiry, value).await.unwrap();
    }

    async fn stored(&self, number: u32) -> Option<OutboxEntry> {
        match self.store.outbox_records(&[self.name(number)]).await?.pop()? {
            OutboxRecord::Valid(entry) => Some(entry),
            _ => None,
        }
    }

    fn own(&self) {
        self.outbox.set_owned(Some(Instant::now() + Duration::from_secs(10)));
    }

    fn due(&self) -> DueStep {
        match self.outbox.next(TARGET) {
            NextStep::Due(due) => due,
            other => panic!("{other:?}"),
        }
    }
}

fn announced() -> Vec<u8> {
    Incident { is_announced: true, ..incident() }.encode()
}

#[tokio::test(start_paused = true)]
async fn former_owner_does_not_overwrite_entries() {
    let server = SimulatedServer::new(1);
    let replica = OutboxReplica::new(&server, 1);
    replica.add(1, &announced()).await;
    replica.own();
    assert!(replica.outbox.insert(&replica.stored(1).await.unwrap()).is_none());
    let due = replica.due();
    sleep(Duration::from_secs(11)).await;
    // The next owner has done the step.
    let is_over = StepState { is_over: true, ..StepState::default() };
    let targets: BTreeMap<_, _> = [("target".to_owned(), is_over)].into();
    let later = Incident { is_announced: true, targets, ..incident() }.encode();
    replica.store.update_outbox(replica.name(1), u64::MAX / 1000, &later).unwrap();
    sleep(Duration::from_secs(1)).await;
    // A key is reloaded, and a step ends that began before.
    replica.outbox.save_all();
    replica.outbox.record(due.number, due.step, StepEnd::Failed);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(replica.stored(1).await.unwrap().value, later);
    // The owner does save.
    replica.own();
    replica.outbox.insert(&replica.stored(1).await.unwrap());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(replica.stored(1).await, None, "no step is left");
}

#[tokio::test(start_paused = true)]
async fn owner_remains_owner_while_many_entries_are_read() {
    let server = SimulatedServer::new(1);
    let replica = OutboxReplica::new(&server, 1);
    for number in 0..100 {
        replica.add(number, &incident().encode()).await;
    }
    let delay = Duration::from_millis(200);
    server.set_delay(delay, delay);
    let mut changes = replica.outbox.subscribe();
    replica.follow();
    let mut owned = false;
    let reading = async {
        while replica.outbox.all(TARGET).len() < 100 {
            changes.changed().await.unwrap();
            assert!(!owned || replica.outbox.is_owned(), "a pause in the ownership");
            owned = replica.outbox.is_owned();
        }
    };
    let start = Instant::now();
    timeout(Duration::from_secs(300), reading).await.unwrap();
    assert!(start.elapsed() > Duration::from_secs(30), "{:?}", start.elapsed());
}

/// During an upgrade, replicas of several versions share the store.
#[tokio::test(start_paused = true)]
async fn entry_of_another_version_remains_in_a_shared_store() {
    let server = SimulatedServer::new(1);
    let replica = OutboxReplica::new(&server, 1);
    replica.add(1, b"{}").await;
    replica.own();
    assert!(replica.outbox.insert(&replica.stored(1).await.unwrap()).is_none());
    assert!(!replica.outbox.has(replica.name(1)));
    sleep(Duration::from_secs(1)).await;
    assert!(replica.stored(1).await.is_some());
}
