//! Passes with simulated engines and simulated time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    future::pending,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mcs_store::{
    FileStore, SharedStore, SimulatedNode, SimulatedServer, StoreSecret, StoreSettings,
};
use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    end::{PauseCause, RescanEnd, RescanResult},
    service::RescanService,
    source::RescanSource,
    stored_state::{self, StoredState},
};
use crate::{
    config::sections::incident::RescanSettings,
    incident::{
        incident_store::IncidentStore,
        seen::{SeenIndex, SeenMedia},
    },
    metrics::Metrics,
    scan::{ContentState, engines::EngineState},
};

mod failures;

const KEEP: Duration = Duration::from_secs(86_400);
const DELAY: Duration = Duration::from_secs(60);
const LOCAL: &str = "https://matrix.example.org/";

/// Engines and a homeserver.
struct World {
    engines: Mutex<Option<EngineState>>,
    /// Contents with a verdict, by the state of the engines.
    known: Mutex<HashSet<(u64, [u8; 32])>>,
    blocked: Mutex<HashSet<[u8; 32]>>,
    number: Mutex<u64>,
    /// How often the service has asked for the state of the engines.
    asked: AtomicUsize,
    /// Number of times that the engines fail with any content.
    outage: AtomicUsize,
    /// Ends of the next downloads, by media.
    ends: Mutex<HashMap<String, VecDeque<RescanEnd>>>,
    fetched: watch::Sender<Vec<(String, Instant)>>,
    metrics: Arc<Metrics>,
    registry: Registry,
}

impl World {
    fn new(engines: u64) -> Arc<Self> {
        let mut registry = Registry::default();
        let metrics = Arc::new(Metrics::new(&mut registry));
        let world = Self {
            engines: Mutex::default(),
            known: Mutex::default(),
            blocked: Mutex::default(),
            number: Mutex::default(),
            asked: AtomicUsize::default(),
            outage: AtomicUsize::default(),
            ends: Mutex::default(),
            fetched: watch::Sender::default(),
            metrics,
            registry,
        };
        world.set_engines(engines);
        Arc::new(world)
    }

    /// Zero: their state is not known.
    fn set_engines(&self, number: u64) {
        *self.engines.lock() = (number > 0).then(|| EngineState::for_test(number));
        *self.number.lock() = number;
    }

    fn is_known(&self, content: &[u8; 32]) -> bool {
        self.known.lock().contains(&(*self.number.lock(), *content))
    }

    fn fetch(&self, media: &SeenMedia) -> RescanEnd {
        self.fetched.send_modify(|all| all.push((media.mxc.clone(), Instant::now())));
        let end = self.ends.lock().get_mut(&media.mxc).and_then(VecDeque::pop_front);
        let end = end.unwrap_or(RescanEnd::Verdict(RescanResult::Clean, media.content.unwrap()));
        if let RescanEnd::Verdict(RescanResult::Clean, content) = end {
            self.known.lock().insert((*self.number.lock(), content));
        }
        end
    }

    fn source(self: &Arc<Self>) -> RescanSource {
        let [engines, working, content, fetch] = [(); 4].map(|()| Arc::clone(self));
        RescanSource {
            engines: Box::new(move |()| {
                engines.asked.fetch_add(1, Ordering::Relaxed);
                let state = *engines.engines.lock();
                Box::pin(async move { state })
            }),
            engines_work: Box::new(move |()| {
                let fewer = |left: usize| left.checked_sub(1);
                let order = Ordering::Relaxed;
                let has_failed = working.outage.fetch_update(order, order, fewer).is_ok();
                Box::pin(async move { !has_failed })
            }),
            content: Box::new(move |digest| {
                let state = if content.blocked.lock().contains(&digest) {
                    ContentState::Blocked
                } else if content.is_known(&digest) {
                    ContentState::Known
                } else {
                    ContentState::Unknown
                };
                Box::pin(async move { state })
            }),
            fetch: Box::new(move |media| {
                let end = fetch.fetch(&media);
                Box::pin(async move { end })
            }),
            is_local: Box::new(|media| media.base_url.as_deref() == Some(LOCAL)),
        }
    }

    /// Starts the service with a rate of 2 a second.
    fn start(self: &Arc<Self>, store: IncidentStore, has_incidents: bool) -> JoinHandle<()> {
        let settings = RescanSettings { rate: 2, delay: DELAY, token_path: PathBuf::new() };
        let seen = SeenIndex::new(store, KEEP);
        let metrics = Arc::clone(&self.metrics);
        let service =
            RescanService::with_source(self.source(), seen, &settings, metrics, has_incidents);
        tokio::spawn(service.run(pending()))
    }

    /// Waits until this number of downloads have begun. Without a time limit, because the simulated time passes while a thread
    /// of the store works.
    async fn fetched(&self, count: usize) -> Vec<String> {
        let mut fetched = self.fetched.subscribe();
        let all = fetched.wait_for(|all| all.len() >= count).await.unwrap();
        all.iter().map(|(mxc, _)| mxc.clone()).collect()
    }

    fn times(&self) -> Vec<Instant> {
        self.fetched.borrow().iter().map(|(_, time)| *time).collect()
    }

    /// Waits until no pass is running, for longer than one would need to begin.
    async fn settle(&self) {
        // The service asks every 5 s, and each pass asks as well.
        let mut start = self.asked.load(Ordering::Relaxed);
        while self.asked.load(Ordering::Relaxed) < start + 100 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            // The threads of the store need time that is not simulated.
            std::thread::yield_now();
            if self.metrics.rescans.is_running() {
                start = self.asked.load(Ordering::Relaxed);
            }
        }
    }

    /// Returns whether the metrics have this line.
    fn metric(&self, line: &str) -> bool {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let found = text.lines().any(|found| found == line);
        if !found {
            text.lines()
                .filter(|found| found.contains("rescan"))
                .for_each(|line| println!("{line}"));
        }
        found
    }
}

struct StoreDirectory(TempDir);

impl StoreDirectory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<FileStore> {
        let path = self.0.path().join("store.db");
        let secret = StoreSecret::derive(b"secret");
        Arc::new(FileStore::open(&path, secret, StoreSettings::default()).unwrap().0)
    }
}

fn media(number: u8) -> SeenMedia {
    SeenMedia {
        mxc: format!("mxc://example.org/{number}"),
        base_url: Some(LOCAL.to_owned()),
        thumbnail: None,
        content: Some([number; 32]),
    }
}

fn mxcs(numbers: impl IntoIterator<Item = u8>) -> Vec<String> {
    numbers.into_iter().map(|number| media(number).mxc).collect()
}

/// Has the store keep media, and waits until it does.
async fn keep(store: &IncidentStore, media: impl IntoIterator<Item = SeenMedia>) {
    let index = SeenIndex::new(store.clone(), KEEP);
    let mut expected = HashSet::new();
    for media in media {
        index.add(&media).await.unwrap();
        expected.insert(media.mxc);
    }
    loop {
        let page = index.page(None).await.map(|page| page.media).unwrap_or_default();
        let found: HashSet<_> = page.into_iter().map(|listed| listed.media.mxc).collect();
        if found.is_superset(&expected) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn several_changes_cause_one_pass_which_is_remembered() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = directory.open();
    keep(&IncidentStore::File(Arc::clone(&store)), (0..3).map(media)).await;
    let service = world.start(IncidentStore::File(Arc::clone(&store)), false);
    // No complete pass is known.
    let mut first = world.fetched(3).await;
    first.sort_unstable();
    assert_eq!(first, mxcs(0..3));
    world.settle().await;
    for number in [2, 3, 2, 4] {
        world.set_engines(number);
        tokio::time::sleep(DELAY / 2).await;
    }
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 6, "one pass, by the last engines");
    assert!(world.known.lock().contains(&(4, [0; 32])));
    service.abort();
    assert!(service.await.is_err());
    drop(store);

    // The same engines after a restart.
    let store = directory.open();
    let service = world.start(IncidentStore::File(Arc::clone(&store)), false);
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 6);
    service.abort();
    assert!(service.await.is_err());
    drop(store);

    // They have changed while no process ran.
    world.set_engines(5);
    let store = directory.open();
    let _service = world.start(IncidentStore::File(store), false);
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 9);
    assert!(world.metric("mcs_rescan_media_total{result=\"clean\"} 9"));
    assert!(world.metric("mcs_rescan_running 0") && world.metric("mcs_rescan_media_left 0"));
}

#[tokio::test(start_paused = true)]
async fn known_contents_and_media_of_others_are_not_fetched() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    let same_content = SeenMedia { mxc: "mxc://example.org/copy".into(), ..media(1) };
    let elsewhere = [Some("https://other.example.org/".to_owned()), None];
    let elsewhere =
        elsewhere.into_iter().zip(10..).map(|(base_url, n)| SeenMedia { base_url, ..media(n) });
    keep(&store, (0..3).map(media).chain([same_content]).chain(elsewhere)).await;
    world.known.lock().insert((1, [2; 32]));
    let _service = world.start(store, false);
    world.settle().await;
    let fetched = world.fetched(2).await;
    assert_eq!(fetched.len(), 2, "{fetched:?}");
    assert!(world.metric("mcs_rescan_media_total{result=\"known\"} 2"));
    assert!(world.metric("mcs_rescan_media_total{result=\"elsewhere\"} 2"));
}

#[tokio::test(start_paused = true)]
async fn change_during_a_pass_begins_it_again() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..4).map(media)).await;
    let _service = world.start(store, false);
    let before = world.fetched(2).await.len();
    world.set_engines(2);
    world.settle().await;
    let fetched = world.fetched(0).await;
    let after: HashSet<_> = fetched.iter().skip(before).cloned().collect();
    assert_eq!(after.len(), 4, "none is lost: {fetched:?}");
    assert!((0..4).all(|number| world.is_known(&[number; 32])));
    // The first engines again. What they have examined is known.
    world.set_engines(1);
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), fetched.len() + 4 - before);
}

#[tokio::test(start_paused = true)]
async fn interrupted_pass_continues_after_a_restart() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = directory.open();
    keep(&IncidentStore::File(Arc::clone(&store)), (0..5).map(media)).await;
    let service = world.start(IncidentStore::File(Arc::clone(&store)), false);
    world.fetched(2).await;
    service.abort();
    assert!(service.await.is_err());
    drop(store);
    let _service = world.start(IncidentStore::File(directory.open()), false);
    world.settle().await;
    let mut fetched = world.fetched(5).await;
    assert_eq!(fetched.len(), 5, "each once");
    fetched.sort_unstable();
    assert_eq!(fetched, mxcs(0..5));
}

#[tokio::test(start_paused = true)]
async fn pass_waits_while_the_engines_are_unknown() {
    let (world, directory) = (World::new(0), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..2).map(media)).await;
    let _service = world.start(store, false);
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 0);
    world.set_engines(1);
    world.fetched(1).await;
    // The canary fails.
    world.set_engines(0);
    tokio::time::sleep(10 * DELAY).await;
    assert_eq!(world.fetched(0).await.len(), 1);
    assert!(world.metrics.rescans.is_running());
    world.set_engines(1);
    world.fetched(2).await;
}

#[tokio::test(start_paused = true)]
async fn rate_is_limited() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = IncidentStore::File(directory.open());
    keep(&store, (0..20).map(media)).await;
    let _service = world.start(store, false);
    world.fetched(20).await;
    let times = world.times();
    for pair in times.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(499), "{times:?}");
    }
}

/// A list of hashes needs no scan, but the incident needs the names of the media.
#[tokio::test(start_paused = true)]
async fn contents_on_a_list_are_fetched_for_their_incident() {
    for (has_incidents, is_marked, expected) in
        [(false, false, 0), (true, true, 0), (true, false, 1)]
    {
        let (world, directory) = (World::new(1), StoreDirectory::new());
        let store = IncidentStore::File(directory.open());
        keep(&store, [media(0)]).await;
        world.blocked.lock().insert([0; 32]);
        if is_marked {
            let index = SeenIndex::new(store.clone(), KEEP);
            index.mark(&media(0)).unwrap();
            while !index.is_marked(&media(0)).await {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let not_clean = RescanEnd::Verdict(RescanResult::NotClean, [0; 32]);
        world.ends.lock().insert(media(0).mxc, [not_clean].into());
        let _service = world.start(store, has_incidents);
        world.settle().await;
        assert_eq!(world.fetched(0).await.len(), expected, "{has_incidents} {is_marked}");
    }
}

/// After the removal of all verdicts, because they may be wrong, served media is scanned again.
#[tokio::test(start_paused = true)]
async fn removal_of_all_records_causes_a_pass() {
    let (world, directory) = (World::new(1), StoreDirectory::new());
    let store = directory.open();
    keep(&IncidentStore::File(Arc::clone(&store)), (0..2).map(media)).await;
    let _service = world.start(IncidentStore::File(Arc::clone(&store)), false);
    world.fetched(2).await;
    let seen_store = IncidentStore::File(Arc::clone(&store));
    let state = EngineState::for_test(1);
    while stored_state::compare(&seen_store, state).await != Some(StoredState::Same) {
        tokio::time::sleep(DELAY).await;
    }
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 2);
    store.clear().await.unwrap();
    world.known.lock().clear();
    world.fetched(4).await;
}

fn replica(server: &SimulatedServer, client: u32) -> IncidentStore {
    let clock = server.clone();
    let now = Arc::new(move || clock.now_ms() / 1000);
    let timeout = Duration::from_millis(250);
    let node = SimulatedNode { client, seed: client.into(), timeout, now };
    let secret = StoreSecret::derive(b"secret");
    IncidentStore::Shared(SharedStore::start_simulated(server, node, secret).unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn replicas_share_the_contents() {
    let server = SimulatedServer::new(1);
    let world = World::new(1);
    let replicas: Vec<_> = (1..4).map(|client| replica(&server, client)).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    keep(&replicas[0], (0..30).map(media)).await;
    let services: Vec<_> = replicas.iter().map(|store| world.start(store.clone(), false)).collect();
    world.settle().await;
    let mut fetched = world.fetched(30).await;
    assert_eq!(fetched.len(), 30, "each once: {fetched:?}");
    fetched.sort_unstable();
    fetched.dedup();
    assert_eq!(fetched.len(), 30);
    for service in services {
        service.abort();
    }
    // A replica that starts later finds the end of the pass.
    let _late = world.start(replica(&server, 9), false);
    world.settle().await;
    assert_eq!(world.fetched(0).await.len(), 30);
}
