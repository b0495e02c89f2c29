//! Deterministic simulation of replicas and their store in one process. Time, order, delays and faults follow from a
//! seed, so that a failing one can be run again: `SIMULATION_SEED`. `SIMULATIONS` sets the number of seeds.

use std::{cell::Cell, rc::Rc};

use mcs_store::{SharedStore, SimulatedNode, SimulatedServer};
use tokio::{
    task::{JoinHandle, LocalSet, spawn_local},
    time::sleep,
};

use super::{super::turn::ScanTurn, *};
use crate::scan::{
    decisions::{DecisionAction, DecisionChange, DecisionKeeper, OperatorDecision},
    engines::EngineIdentity,
};

/// Number of seeds in an ordinary run.
const SEEDS: u64 = 100;

/// Contents. Every second one is infected, as engines of all versions find.
const CONTENTS: u8 = 6;

/// A content that only engines of the new version find infected.
const LATE: u8 = 20;

/// A content that an operator decides about.
const DECIDED: u8 = 22;

/// Time of the caches at the start, as that of the server.
const START: Duration = Duration::from_secs(1_700_000_000);

/// Duration of the faults.
const FAULTS: Duration = Duration::from_secs(60);

/// Time in which a change reaches the other replicas. The poll for changes comes once a second, and each call takes at
/// most half a second.
const REACH: Duration = Duration::from_secs(2);

const NEW: Versions = Versions::new(9, true);

/// A pseudo-random sequence (`splitmix64`). Clones share it.
#[derive(Clone)]
struct Seeded(Rc<Cell<u64>>);

impl Seeded {
    fn below(&self, limit: u64) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mut value = self.0.get();
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % limit
    }

    fn milliseconds(&self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

/// One replica. Dropping it kills the process.
struct Replica {
    cache: ResultCache,
    keeper: DecisionKeeper,
    versions: Versions,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// The replicas, and what they share.
struct SimulatedGroup {
    server: SimulatedServer,
    replicas: Vec<Rc<Replica>>,
    random: Seeded,
    /// Number of starts, so that each process has another identity.
    starts: u64,
    scans: Rc<Cell<usize>>,
}

impl SimulatedGroup {
    fn new(seed: u64) -> Self {
        let random = Seeded(Rc::new(Cell::new(seed)));
        let mut group = Self {
            server: SimulatedServer::new(seed),
            replicas: Vec::new(),
            starts: seed.wrapping_mul(1000),
            scans: Rc::default(),
            random,
        };
        for number in 0..2 + group.random.below(4) {
            let replica = group.start(u32::try_from(number).unwrap(), VERSIONS);
            group.replicas.push(replica);
        }
        group
    }

    /// Starts a process. Its clock differs from that of the server by up to a minute.
    fn start(&mut self, client: u32, versions: Versions) -> Rc<Replica> {
        self.starts += 1;
        let (server, difference) = (self.server.clone(), self.random.below(120));
        let now = Arc::new(move || server.now_ms() / 1000 + difference - 60);
        let timeout = Duration::from_millis(250);
        let node = SimulatedNode { client, seed: self.starts, timeout, now };
        let secrets = SecretRing::from(StoreSecret::derive(b"secret"));
        let (store, events) =
            SharedStore::start_simulated(&self.server, node, secrets.clone()).unwrap();
        let (wait, not_clean_ttl) = (Duration::from_secs(30), Duration::from_secs(3600));
        let settings = RecordSettings { not_clean_ttl, wait, ..RECORDS };
        let records = VerdictRecords::in_shared_store(store.clone(), settings);
        let cache = ResultCache::with_records(super::settings(), Some(records));
        let keeper = DecisionKeeper::open(secrets, None, Some(store)).unwrap();
        let (follower, decisions) = (cache.clone(), keeper.clone());
        let (keeping, following) = (decisions.clone(), decisions);
        let tasks = vec![
            spawn_local(async move { follower.follow_replicas(events, following).await }),
            spawn_local(async move { keeping.follow_store().await }),
        ];
        Rc::new(Replica { cache, keeper, versions, tasks })
    }

    fn some_replica(&self) -> Rc<Replica> {
        let index = self.random.below(self.replicas.len() as u64);
        Rc::clone(&self.replicas[usize::try_from(index).unwrap()])
    }

    /// Answers a request as the service does. Returns whether the content is clean.
    async fn request(
        replica: Rc<Replica>,
        content: u8,
        random: Seeded,
        scans: Rc<Cell<usize>>,
    ) -> bool {
        use crate::scan::engines::ListedFile;

        let key = ContentKey { content: [content; 32], ..KEY };
        match replica.keeper.decisions().find(&key.content) {
            Some(ListedFile::Allowed) => return true,
            Some(ListedFile::Blocked(_)) => return false,
            None => {}
        }
        let (versions, policies, cache) = (replica.versions, policies(), &replica.cache);
        let look_up = || async {
            match cache.scanned(&key, &versions, &policies) {
                Some(scanned) => Some(scanned),
                None => cache.recall(&key, versions, &policies).await,
            }
        };
        let is_clean = |scanned: ScannedContent| scanned.verdict.unwrap().name() == "clean";
        if let Some(scanned) = look_up().await {
            return is_clean(scanned);
        }
        let lease = match cache.turn(&key, versions, look_up).await {
            ScanTurn::Known(scanned) => return is_clean(scanned),
            ScanTurn::Scan(lease) => lease,
        };
        let (generation, started) = (cache.generation(), clock::now());
        sleep(random.milliseconds(200)).await;
        scans.set(scans.get() + 1);
        let is_infected = content % 2 == 1 || content == LATE && versions == NEW;
        let mut outcome = if is_infected {
            FileOutcome::for_test([("clamd", Ok(Outcome::Infected("name".into())))])
        } else {
            clean(started)
        };
        outcome.scanned = started;
        let stored = cache.store_outcome(key, outcome, versions, &policies, generation).await;
        if let Some(lease) = lease {
            lease.release().await;
        }
        stored.map_or(!is_infected, is_clean)
    }

    async fn answer(&self, replica: &Rc<Replica>, content: u8) -> bool {
        let (replica, random) = (Rc::clone(replica), self.random.clone());
        Self::request(replica, content, random, Rc::clone(&self.scans)).await
    }

    /// Injects one fault at random.
    async fn fault(&mut self, copies: &mut Vec<mcs_store::KeyspaceSnapshot>) {
        let client = u32::try_from(self.random.below(self.replicas.len() as u64)).unwrap();
        let pause = self.random.milliseconds(8000);
        match self.random.below(14) {
            0 => {
                self.server.set_partitioned(client, true);
                sleep(pause).await;
                self.server.set_partitioned(client, false);
            }
            1 => {
                self.server.set_frozen(true);
                sleep(pause).await;
                self.server.set_frozen(false);
            }
            2 => {
                self.server.set_down(true);
                sleep(pause).await;
                self.server.set_down(false);
            }
            3 => self.server.flush_all(),
            4 => {
                self.server.set_write_error(Some("OOM command not allowed"));
                sleep(pause).await;
                self.server.set_write_error(None);
            }
            5 => self.server.set_failures(u32::try_from(self.random.below(400)).unwrap()),
            6 => self.server.set_delay(self.random.milliseconds(50), self.random.milliseconds(400)),
            7 => {
                // The process is killed, and started again after a while.
                drop(self.replicas.remove(client as usize));
                sleep(pause).await;
                let replica = self.start(client, VERSIONS);
                self.replicas.insert(client as usize, replica);
            }
            8 => self.server.set_clock_offset(self.random.below(60_000).cast_signed() - 30_000),
            9 => copies.push(self.server.snapshot()),
            10 => {
                if let Some(copy) = copies.last() {
                    self.server.restore(copy);
                }
            }
            11 | 12 => self.substitute(),
            _ => self.tamper(),
        }
    }

    /// Puts the record of another content in place of those of an infected one.
    fn substitute(&self) {
        let keys: Vec<_> =
            self.server.keys().into_iter().map(|key| String::from_utf8(key).unwrap()).collect();
        let Some(clean) = keys.iter().find(|key| key.contains(":c:")) else { return };
        let Some((_, version)) = clean.rsplit_once(":c:") else { return };
        let record = self.server.raw(clean.as_bytes()).unwrap();
        for infected in keys.iter().filter_map(|key| key.strip_suffix(":n")) {
            let _ = self.server.remove(format!("{infected}:n").as_bytes());
            self.server.set_raw(format!("{infected}:c:{version}").as_bytes(), &record);
        }
    }

    /// Removes, exchanges or changes records.
    fn tamper(&self) {
        let keys = self.server.keys();
        let Some(limit) = u64::try_from(keys.len()).ok().filter(|number| *number > 0) else {
            return;
        };
        let some = || &keys[usize::try_from(self.random.below(limit)).unwrap()];
        let (one, other) = (some(), some());
        match (self.random.below(3), self.server.raw(one), self.server.raw(other)) {
            (0, ..) => _ = self.server.remove(one),
            (1, Some(first), Some(second)) => {
                self.server.set_raw(one, &second);
                self.server.set_raw(other, &first);
            }
            (_, Some(mut value), _) if !value.is_empty() => {
                let at = usize::try_from(self.random.below(value.len() as u64)).unwrap();
                value[at] ^= 1 << self.random.below(8);
                self.server.set_raw(one, &value);
            }
            _ => {}
        }
    }

    /// Ends all faults, and waits until the store is used by all replicas.
    async fn heal(&self) {
        for client in 0..8 {
            self.server.set_partitioned(client, false);
        }
        self.server.set_failures(0);
        self.server.set_delay(Duration::ZERO, Duration::from_millis(2));
        self.server.set_clock_offset(0);
        // What an attacker has left is not what is tested now.
        self.server.flush_all();
        sleep(Duration::from_secs(40)).await;
        for replica in &self.replicas {
            // The removal of all records may be at an attempt that a fault holds until its time limit of 60 s.
            for _ in 0..8 {
                if !replica.cache.records().unwrap().is_in_use() {
                    sleep(Duration::from_secs(10)).await;
                }
            }
            assert!(replica.cache.records().unwrap().is_in_use(), "the store is used again");
        }
    }
}

/// Whatever happens to the store, an infected content is never clean, and every request is answered.
async fn run_faults(group: &mut SimulatedGroup) {
    let end = tokio::time::Instant::now() + FAULTS;
    let mut requests = Vec::new();
    let mut copies = Vec::new();
    while tokio::time::Instant::now() < end {
        for _ in 0..group.random.below(20) {
            let content = u8::try_from(group.random.below(u64::from(CONTENTS))).unwrap();
            let (replica, delay) = (group.some_replica(), group.random.milliseconds(2000));
            let (random, scans) = (group.random.clone(), Rc::clone(&group.scans));
            requests.push(spawn_local(async move {
                sleep(delay).await;
                let is_clean = SimulatedGroup::request(replica, content, random, scans).await;
                assert_eq!(is_clean, content % 2 == 0, "content {content}");
            }));
        }
        group.fault(&mut copies).await;
        sleep(group.random.milliseconds(1000)).await;
    }
    for request in requests {
        // Longer than a request waits for the lease of a killed replica, and for calls that time out.
        tokio::time::timeout(Duration::from_secs(120), request).await.expect("answered").unwrap();
    }
}

/// Without faults, what one replica learns reaches what the others have in memory.
async fn run_changes(group: &mut SimulatedGroup) {
    group.heal().await;
    let others = group.replicas.clone();
    for replica in &others {
        assert!(group.answer(replica, LATE).await);
        assert!(group.answer(replica, DECIDED).await);
    }
    let upgraded = group.start(7, NEW);
    sleep(Duration::from_secs(2)).await;
    assert!(!group.answer(&upgraded, LATE).await, "the new signatures find it");
    sleep(REACH).await;
    for replica in &others {
        assert!(!group.answer(replica, LATE).await, "the others have learned of it");
    }
    let decision = OperatorDecision {
        content: [DECIDED; 32],
        action: DecisionAction::Block,
        comment: String::new(),
        made: 0,
        end: u64::MAX,
    };
    upgraded.keeper.change(&DecisionChange::Add(decision)).await.unwrap();
    sleep(REACH).await;
    for replica in &others {
        assert!(!group.answer(replica, DECIDED).await, "blocked");
    }
    let identity = EngineIdentity::for_test(KEY.engines_fingerprint, NEW);
    upgraded.cache.forget_content([LATE; 32], &identity).await.unwrap();
    sleep(REACH).await;
    for replica in &others {
        assert!(group.answer(replica, LATE).await, "forgotten, and scanned again");
    }
}

/// Returns the digest of what the server received.
fn run(seed: u64) -> u64 {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    let local = LocalSet::new();
    let trace = local.block_on(&runtime.unwrap(), async {
        let mut group = SimulatedGroup::new(seed);
        let started = tokio::time::Instant::now();
        clock::simulate(Some(Box::new(move || UNIX_EPOCH + START + started.elapsed())));
        run_faults(&mut group).await;
        run_changes(&mut group).await;
        assert!(group.scans.get() > 0);
        group.server.trace()
    });
    clock::simulate(None);
    trace
}

#[test]
fn seed_causes_the_same_run_again() {
    for seed in 0..10 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "parameters of a test")]
fn infected_contents_are_never_clean_whatever_happens_to_the_store() {
    let number = |name| std::env::var(name).ok().map(|number| number.parse().unwrap());
    let seeds = match number("SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIMULATIONS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let result = std::panic::catch_unwind(|| run(seed));
        assert!(result.is_ok(), "SIMULATION_SEED={seed}");
    }
}
