//! The shared store: lookups, changes, leases and closing.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime},
};

use redis::Value;
use tokio::{runtime::Handle, sync::watch};

use crate::{
    counters::count,
    error::NotDurable,
    record::{RecordKey, RecordKind, RecordName, VersionTag},
    secret::{SealError, StoreSecret},
    secret_ring::SecretRing,
    state::Now,
};

#[cfg(any(test, feature = "simulation"))]
use super::simulated::{SimulatedConnector, SimulatedNode, SimulatedServer};
use super::{
    change_queue::{ChangeQueue, SharedChange},
    connection::{CallError, StoreCall, StoreConnector},
    connectors::ServerConnector,
    counters::SharedCounters,
    error::{SharedStoreError, StoreUnavailable},
    event_seal::{EventSealer, NodeId},
    event_tracker::EventTracker,
    events::{EventBuffer, EventPoller, StoreEvents},
    fingerprints,
    key_names::record_key,
    lease::{self, LeaseResult},
    limits::{CLOSE_TIMEOUT, DEFAULT_TIMEOUT, MAX_KEYS, MAX_MESSAGE, MAX_TTL},
    link::StoreLink,
    listing,
    random::NodeRandom,
    records::{RecordOpener, StoredValue},
    references::{decode_references, open_references, references_call},
    replies::{next_reply, only, optional_strings},
    servers::StoreServers,
    shared_writer::SharedWriter,
};

/// Settings of a shared store.
#[derive(Clone)]
pub struct SharedSettings {
    /// Servers of the store.
    pub servers: StoreServers,
    /// Time limit of one call of the server, including the wait for a connection.
    pub timeout: Duration,
    /// Returns the current time in seconds since the Unix epoch.
    pub now: Now,
}

impl SharedSettings {
    /// Settings with a time limit of 250 ms and the time of the system.
    #[must_use]
    pub fn new(servers: StoreServers) -> Self {
        let now = || {
            let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            elapsed.unwrap_or_default().as_secs()
        };
        Self { servers, timeout: DEFAULT_TIMEOUT, now: Arc::new(now) }
    }
}

/// Store of sealed records in servers that replicas share. Clones refer to the same store. Dropping the last one ends
/// its tasks; [`close`](Self::close) writes what waits before.
#[derive(Clone)]
pub struct SharedStore {
    handle: Arc<StoreHandle>,
    /// Secret that records are written with. `None`: the current one.
    secret: Option<StoreSecret>,
}

struct StoreHandle {
    opener: RecordOpener,
    link: Arc<StoreLink>,
    queue: Arc<ChangeQueue>,
    node: NodeId,
    /// True after the writer has ended.
    is_done: watch::Receiver<bool>,
}

impl Drop for StoreHandle {
    fn drop(&mut self) {
        self.queue.close();
    }
}

impl SharedStore {
    /// Starts a store. Connects in the background, again and again if necessary; an unreachable server is no error.
    ///
    /// # Errors
    /// If this is not called in a Tokio runtime, or the system returns no random bytes.
    pub fn start(
        settings: SharedSettings,
        secrets: impl Into<SecretRing>,
    ) -> Result<(Self, StoreEvents), SharedStoreError> {
        let random = NodeRandom::from_system().map_err(SharedStoreError::Random)?;
        let connector = Box::new(ServerConnector::new(&settings.servers));
        Self::start_with(connector, settings.timeout, settings.now, random, secrets.into())
    }

    /// Starts a store whose server is in this process. Behaves as a store started by [`start`](Self::start); all
    /// waiting uses the time of Tokio, which a test may pause.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(any(test, feature = "simulation"))]
    pub fn start_simulated(
        server: &SimulatedServer,
        node: SimulatedNode,
        secrets: impl Into<SecretRing>,
    ) -> Result<(Self, StoreEvents), SharedStoreError> {
        let connector = Box::new(SimulatedConnector::new(server.clone(), node.client));
        let random = NodeRandom::from_seed(node.seed);
        Self::start_with(connector, node.timeout, node.now, random, secrets.into())
    }

    fn start_with(
        connector: Box<dyn StoreConnector>,
        timeout: Duration,
        now: Now,
        random: NodeRandom,
        secrets: SecretRing,
    ) -> Result<(Self, StoreEvents), SharedStoreError> {
        Handle::try_current().map_err(|_| SharedStoreError::NoRuntime)?;
        let node = random.next().to_le_bytes();
        let link = Arc::new(StoreLink::new(connector, timeout, Arc::new(random)));
        let counters = Arc::clone(&link.counters);
        let sealer = EventSealer { secrets: secrets.clone(), now: Arc::clone(&now), node };
        let opener = RecordOpener { secrets, now, counters: Arc::clone(&counters) };
        let queue = Arc::new(ChangeQueue::default());
        let buffer = Arc::new(EventBuffer::default());
        let (done, is_done) = watch::channel(false);
        let connecting = Arc::clone(&link);
        tokio::spawn(async move { connecting.run().await });
        let tracker = EventTracker::new(sealer.clone(), counters);
        let poller = EventPoller::new(Arc::clone(&link), tracker, Arc::clone(&buffer));
        tokio::spawn(poller.run());
        let writer =
            SharedWriter::new(Arc::clone(&link), Arc::clone(&queue), sealer, opener.clone());
        tokio::spawn(writer.run(done));
        let handle = Arc::new(StoreHandle { opener, link, queue, node, is_done });
        Ok((Self { handle, secret: None }, StoreEvents::new(buffer)))
    }

    /// Returns the secrets. Changes are in effect at once.
    #[must_use]
    pub fn secrets(&self) -> &SecretRing {
        &self.handle.opener.secrets
    }

    /// Returns the secret that names and protects the records that are written: the current one, unless this is a store
    /// [`with_secret`](Self::with_secret).
    #[must_use]
    pub fn secret(&self) -> StoreSecret {
        self.secret.clone().unwrap_or_else(|| self.secrets().current())
    }

    /// Returns the same store, which writes records and decisions with this secret in place of the current one: for replicas
    /// that do not have the current one yet.
    #[must_use]
    pub fn with_secret(&self, secret: StoreSecret) -> Self {
        Self { handle: Arc::clone(&self.handle), secret: Some(secret) }
    }

    /// Looks up at most 16 records with one name in one call. The results are in the order of the keys. Returns `None`
    /// if the store is not available, or the keys have different names or are those of references. Cancellation safe.
    pub async fn get_all(&self, keys: Vec<RecordKey>) -> Option<Vec<StoredValue>> {
        let call = lookup_call(&keys, StoreCall::new)?;
        let decode = |replies| optional_strings(only(replies)?, keys.len());
        let found = self.handle.link.query(&call, decode).await.ok();
        self.open_all(&keys, found)
    }

    /// Writes a record, and looks up others with the same name after the write, in one call. Returns `None` if the
    /// store is not available: the record may be written in this case, and is not retried. If only the write fails, for
    /// example because the memory of the server is full, the results of the lookup are returned.
    pub async fn put_and_get(
        &self,
        key: RecordKey,
        expiry: u64,
        value: &[u8],
        get: Vec<RecordKey>,
    ) -> Option<Vec<StoredValue>> {
        let handle = &self.handle;
        let sealed = self.secret().seal(&key, expiry, value).ok()?;
        let time = expiry.saturating_sub((handle.opener.now)()).min(MAX_TTL);
        let has_write = time > 0 && !key.kind.is_in_hash();
        let time = time.to_string();
        let name = record_key(&key);
        let is_one_name = get.iter().all(|other| group(other) == group(&key));
        let call = lookup_call(&get, |first| {
            let call = StoreCall::new(first);
            if has_write {
                return call.command("SET", &[&name, &sealed, b"EX", time.as_bytes()]);
            }
            call
        })
        .filter(|_| is_one_name)?;
        let decode = |replies: Vec<Value>| {
            let mut replies = replies.into_iter();
            if has_write {
                match next_reply(&mut replies)? {
                    Value::Okay | Value::ServerError(_) => {}
                    _ => return Err(CallError::Reply("SET returned something else than OK")),
                }
            }
            optional_strings(next_reply(&mut replies)?, get.len())
        };
        let found = handle.link.query(&call, decode).await.ok();
        self.open_all(&get, found)
    }

    /// Sends a call, unless the store is out of use.
    pub(super) async fn query<T>(
        &self,
        call: &StoreCall,
        decode: impl FnOnce(Vec<Value>) -> Result<T, CallError>,
    ) -> Result<T, StoreUnavailable> {
        self.handle.link.query(call, decode).await.map_err(|_logged| StoreUnavailable)
    }

    /// Opens a record.
    pub(super) fn open(&self, key: &RecordKey, sealed: Option<&[u8]>) -> StoredValue {
        self.handle.opener.open(key, sealed)
    }

    /// Opens the records of a lookup, and has altered ones removed.
    fn open_all(
        &self,
        keys: &[RecordKey],
        found: Option<Vec<Option<Vec<u8>>>>,
    ) -> Option<Vec<StoredValue>> {
        let opener = &self.handle.opener;
        let values = found.map(|found| {
            let open = |(key, sealed): (&RecordKey, Option<Vec<u8>>)| {
                let value = opener.open(key, sealed.as_deref());
                if value == StoredValue::Invalid {
                    self.handle.queue.push(SharedChange::DeleteInvalid { key: *key });
                }
                value
            };
            keys.iter().zip(found).map(open).collect::<Vec<_>>()
        });
        let is_hit = values.iter().flatten().any(|value| matches!(value, StoredValue::Valid(_)));
        let counters = &self.handle.link.counters;
        count(if is_hit { &counters.hits } else { &counters.misses }, 1);
        values
    }

    /// Writes a record in the background. Records of kept kinds ([`RecordKind::NotClean`], [`RecordKind::Forgotten`])
    /// are retried for as long as the process lives, in order with deletions of the same name, and are dropped only if
    /// 10 000 changes or 16 MiB wait. Other records are dropped and counted if 4096 or 16 MiB wait, or if the write
    /// fails.
    ///
    /// # Errors
    /// If the value cannot be sealed.
    pub fn put(&self, key: RecordKey, expiry: u64, value: &[u8]) -> Result<(), SealError> {
        let sealed = self.secret().seal(&key, expiry, value)?;
        let is_queued = self.handle.queue.push(SharedChange::Put { key, expiry, sealed });
        self.count_dropped(is_queued);
        Ok(())
    }

    /// Deletes a record in the background, or all references with the name of one. Retried as kept records.
    pub fn delete(&self, key: RecordKey) {
        self.count_dropped(self.handle.queue.push(SharedChange::Delete { key }));
    }

    /// Publishes a message to the other replicas, in the background. Retried as kept records. Other replicas receive
    /// [`StoreEvent::Lost`](super::StoreEvent::Lost) in place of a message of more than 4 KiB ([`MAX_MESSAGE`]).
    pub fn publish(&self, message: &[u8]) {
        let message = (message.len() <= MAX_MESSAGE).then(|| message.to_owned());
        self.count_dropped(self.handle.queue.push_event(message));
    }

    fn count_dropped(&self, is_queued: bool) {
        if !is_queued {
            count(&self.handle.link.counters.dropped_writes, 1);
        }
    }

    /// Returns the values of the references with a name, at most 64. `None` if the store is not available.
    pub async fn references(&self, name: RecordName) -> Option<Vec<Vec<u8>>> {
        let references = self.hash(RecordKind::Reference, name).await?;
        Some(references.into_iter().map(|(_, value)| value).collect())
    }

    /// Returns the seen media with a name, at most 64. `None` if the store is not available.
    pub async fn seen(&self, name: RecordName) -> Option<Vec<(RecordKey, Vec<u8>)>> {
        self.hash(RecordKind::Seen, name).await
    }

    async fn hash(&self, kind: RecordKind, name: RecordName) -> Option<Vec<(RecordKey, Vec<u8>)>> {
        let decode = |replies| decode_references(kind, name, only(replies)?);
        let fields = self.handle.link.query(&references_call(kind, name), decode).await.ok()?;
        Some(open_references(&self.handle.opener, fields))
    }

    pub(super) fn link(&self) -> &StoreLink {
        &self.handle.link
    }

    pub(super) fn opener(&self) -> &RecordOpener {
        &self.handle.opener
    }

    pub(super) fn node(&self) -> NodeId {
        self.handle.node
    }

    /// Queues a change. Returns `false` if the change is dropped, which is counted.
    pub(super) fn queue(&self, change: SharedChange) -> bool {
        let is_queued = self.handle.queue.push(change);
        self.count_dropped(is_queued);
        is_queued
    }

    /// Removes all records but those of [`RecordKind::Seen`], and leases, from all servers, for up to this time. Passes the number of
    /// removed ones to `removed`
    /// in parts; the references of one name count as one. Records that are written meanwhile may remain.
    /// [Drops](Self::drop_findings) findings that wait.
    ///
    /// # Errors
    /// If a command fails, or the time has passed. Some records may be removed then.
    pub async fn remove_all(
        &self,
        limit: Duration,
        removed: impl FnMut(u64),
    ) -> Result<(), NotDurable> {
        self.drop_findings();
        let removal = listing::remove_all(&self.handle.link, removed);
        let result = tokio::time::timeout(limit, removal).await;
        result.map_err(|_elapsed| NotDurable)?.map_err(|_| NotDurable)
    }

    /// Drops the incidents and the records of [`RecordKind::NotClean`] that wait in memory to be written, because they may be
    /// wrong. They do not count as dropped.
    pub fn drop_findings(&self) {
        self.handle.queue.drop_findings();
    }

    /// Passes the valid records of a kind to `each`, in no order, at most `limit`, which are remembered meanwhile.
    ///
    /// # Errors
    /// If a command fails. Some records may have been passed.
    pub async fn list(
        &self,
        kind: RecordKind,
        limit: usize,
        each: impl FnMut(RecordKey, Vec<u8>),
    ) -> Result<(), StoreUnavailable> {
        let listed = listing::list(&self.handle.link, &self.handle.opener, kind, limit, each).await;
        listed.map_err(|error| {
            tracing::warn!(%error, "the records of the shared verdict store cannot be listed");
            StoreUnavailable
        })
    }

    /// Acquires the lease of a scan by engines of one version. Cancellation may leave a lease, which expires after 15 s.
    pub async fn acquire_lease(&self, name: RecordName, version: VersionTag) -> LeaseResult {
        lease::acquire(Arc::clone(&self.handle.link), self.handle.node, &name, version).await
    }

    /// Publishes a fingerprint of this process, and returns those that processes have published in the last 60 s by
    /// the clock of the server, at most 16, including the own one. `None` if the store is not available.
    pub async fn fingerprints(&self, own: [u8; 8]) -> Option<Vec<[u8; 8]>> {
        fingerprints::exchange(&self.handle.link, Some(own)).await.ok()
    }

    /// As [`fingerprints`](Self::fingerprints), without publishing one.
    pub async fn published_fingerprints(&self) -> Option<Vec<[u8; 8]>> {
        fingerprints::exchange(&self.handle.link, None).await.ok()
    }

    /// Returns by how many seconds the clock of this process differs from that of the server. `None` if the store is not
    /// available.
    pub async fn clock_difference(&self) -> Option<u64> {
        let now = &self.handle.opener.now;
        let before = now();
        let server = fingerprints::server_time(&self.handle.link).await.ok()?;
        // The server has read its clock in between.
        Some(before.saturating_sub(server).max(server.saturating_sub(now())))
    }

    /// Returns whether the store is in use: not taken out of use because five calls failed in a row.
    #[must_use]
    pub fn is_available(&self) -> bool {
        self.handle.link.breaker().is_closed()
    }

    /// Returns why the last call that failed did so, for operators.
    #[must_use]
    pub fn last_error(&self) -> Option<String> {
        self.handle.link.last_error().map(|error| error.to_string())
    }

    /// Returns the counters since the store was started.
    #[must_use]
    pub fn counters(&self) -> SharedCounters {
        let counters = &self.handle.link.counters;
        counters.pending_writes.store(self.handle.queue.kept() as u64, Ordering::Relaxed);
        counters.pending_incidents.store(self.handle.queue.incidents() as u64, Ordering::Relaxed);
        counters.snapshot()
    }

    /// Closes the store: writes what waits for up to 2 s. Later lookups return `None`, and later changes are dropped
    /// and counted.
    pub async fn close(&self) {
        self.handle.queue.close();
        let mut is_done = self.handle.is_done.clone();
        let done = is_done.wait_for(|is_done| *is_done);
        // The writer ends by then, unless the runtime is stopping.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT * 2, done).await;
    }
}

/// Returns a call that ends with the lookup of some records, or `None` if it is not one call.
fn lookup_call(keys: &[RecordKey], start: impl FnOnce(&[u8]) -> StoreCall) -> Option<StoreCall> {
    let first = keys.first()?;
    let is_one_name = keys.iter().all(|key| group(key) == group(first));
    let is_valid = is_one_name && keys.len() <= MAX_KEYS && !first.kind.is_in_hash();
    debug_assert!(is_valid, "{keys:?}");
    if !is_valid {
        return None;
    }
    let names: Vec<_> = keys.iter().map(record_key).collect();
    let arguments: Vec<_> = names.iter().map(|name| &name[..]).collect();
    Some(start(arguments.first()?).command("MGET", &arguments))
}

/// Returns what records at one node of a cluster have in common.
fn group(key: &RecordKey) -> (u8, RecordName, Option<VersionTag>) {
    let is_content =
        matches!(key.kind, RecordKind::NotClean | RecordKind::Finished | RecordKind::Forgotten);
    // Only the names of contents are hash tags.
    if is_content { (0, key.name, None) } else { (key.kind as u8, key.name, key.version) }
}
