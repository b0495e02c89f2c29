//! The store: opening, lookups, changes and closing.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    changes::StoreChange,
    check::{self, CheckInterrupt},
    counters::{AtomicCounters, StoreCounters, count},
    database::{OpenDatabase, OpenFailure, open_writer},
    error::{NotDurable, StoreError},
    limits::{CLOSE_TIMEOUT, DEFAULT_MAX_ENTRIES, MAX_LOOKUPS},
    listing::{ListPage, ListPosition, ListedRecord},
    queue::{Durability, QueuedChange, WriteQueue},
    reader::{self, AllLookup, PageLookup, ReadRequest, RecordLookup},
    record::{RecordKey, RecordKind, RecordName},
    secret::{SealError, StoreSecret},
    secret_ring::SecretRing,
    state::{Now, StoreState},
    store_path::{SetAside, StorePath},
    writer::StoreWriter,
};

/// Settings of a store.
#[derive(Clone)]
pub struct StoreSettings {
    /// Maximum number of records. With more, those that expire first are removed.
    pub max_entries: u64,
    /// Time until a not-clean record that could not be written is tried again.
    pub retry_pause: Duration,
    /// Returns the current time in seconds since the Unix epoch.
    pub now: Now,
}

impl Default for StoreSettings {
    fn default() -> Self {
        let now = || {
            let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            elapsed.unwrap_or_default().as_secs()
        };
        let retry_pause = Duration::from_secs(1);
        Self { max_entries: DEFAULT_MAX_ENTRIES, retry_pause, now: Arc::new(now) }
    }
}

/// What opening a store has done, for the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenReport {
    /// Whether the file did not exist.
    pub is_new: bool,
    /// Existing file that cannot be used. A new one was created in its place.
    pub set_aside: Option<SetAside>,
    /// Whether the last process has not closed the file. The file is then checked in the background, and set aside if
    /// it is damaged.
    pub was_left_open: bool,
}

/// Persistent store of sealed records in a file. Dropping closes the store, as [`close`](Self::close).
pub struct FileStore {
    state: Arc<StoreState>,
    threads: Mutex<Option<StoreThreads>>,
}

struct StoreThreads {
    lookups: SyncSender<ReadRequest>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
    check: Option<(JoinHandle<()>, Arc<CheckInterrupt>)>,
}

impl FileStore {
    /// Opens a store, and creates the file if it does not exist. Blocks for some milliseconds. Files beside it have
    /// suffixes: `.lock`, `-wal` and `-shm`, and up to three `.damaged-TIME`.
    ///
    /// A file that is damaged, or that another version of this program made, is renamed and replaced.
    ///
    /// # Errors
    /// If another process uses the file, other users can write or read it, or it cannot be opened or created.
    pub fn open(
        path: &Path,
        secrets: impl Into<SecretRing>,
        settings: StoreSettings,
    ) -> Result<(Self, OpenReport), StoreError> {
        let path = StorePath::new(path)?;
        let lock = path.lock()?;
        let is_new = path.create()?;
        let was_left_open = !is_new && path.was_left_open();
        let (database, set_aside) = open_or_replace(&path, (settings.now)())?;
        let state = Arc::new(StoreState {
            path,
            secrets: secrets.into(),
            max_entries: settings.max_entries,
            retry_pause: settings.retry_pause,
            now: settings.now,
            queue: WriteQueue::default(),
            counters: AtomicCounters::default(),
            epoch: Mutex::new(0),
            lock,
        });
        let needs_check = was_left_open && set_aside.is_none();
        let threads = StoreThreads::start(&state, database, needs_check);
        let store = Self { threads: Mutex::new(Some(threads.map_err(StoreError::Thread)?)), state };
        Ok((store, OpenReport { is_new, set_aside, was_left_open }))
    }

    /// Returns the secrets, for the names of records. Changes are in effect at once; records are written with the current
    /// secret.
    #[must_use]
    pub fn secrets(&self) -> &SecretRing {
        &self.state.secrets
    }

    /// Returns the current secret.
    #[must_use]
    pub fn secret(&self) -> StoreSecret {
        self.state.secrets.current()
    }

    /// Looks up a record. Returns `None` if there is no valid one, the file cannot be read, or 1024 lookups are queued.
    /// The lookup is queued by the call; dropping the future only discards the result.
    pub fn get(&self, key: RecordKey) -> impl Future<Output = Option<Vec<u8>>> + use<> {
        let found = self.get_first(vec![key]);
        async { Some(found.await?.1) }
    }

    /// Looks up several records, and returns the first valid one with its kind: `keys` are in descending precedence,
    /// for example not clean before finished. If a record was altered, the following ones are not returned either.
    /// Otherwise as [`get`](Self::get).
    pub fn get_first(
        &self,
        keys: Vec<RecordKey>,
    ) -> impl Future<Output = Option<(RecordKind, Vec<u8>)>> + use<> {
        let (reply, result) = oneshot::channel();
        if !self.request(ReadRequest::First(RecordLookup { keys, reply })) {
            count(&self.state.counters.misses, 1);
        }
        async { result.await.ok().flatten() }
    }

    /// Returns all valid records with a name, of all versions: at most 64. Returns `None` if the file cannot
    /// be read, or 1024 lookups are queued.
    pub fn get_all(
        &self,
        kind: RecordKind,
        name: RecordName,
    ) -> impl Future<Output = Option<Vec<ListedRecord>>> + use<> {
        let (reply, result) = oneshot::channel();
        self.request(ReadRequest::All(AllLookup { kind, name, reply }));
        async { result.await.ok().flatten() }
    }

    /// Returns the next records of these kinds, those that were first written last at first. `after`:
    /// [`ListPage::next`] of the page before, or `None` for the first page. Each page reads a bounded part of the file, so
    /// that lookups are served between two pages; it may have no records although further pages have some.
    ///
    /// Returns `None` if the file cannot be read, or 1024 lookups are queued.
    pub fn list(
        &self,
        kinds: &[RecordKind],
        after: Option<ListPosition>,
    ) -> impl Future<Output = Option<ListPage>> + use<> {
        let (reply, result) = oneshot::channel();
        self.request(ReadRequest::Page(PageLookup { kinds: kinds.to_vec(), after, reply }));
        async { result.await.ok().flatten() }
    }

    /// Queues a request to the reader. Returns `false` if too many are queued, or the store is closed.
    pub(crate) fn request(&self, request: ReadRequest) -> bool {
        let threads = self.threads.lock();
        threads.as_ref().is_some_and(|threads| threads.lookups.try_send(request).is_ok())
    }

    /// Writes a record in the background. The record is dropped and counted if too many are queued (4096, or 16 MiB),
    /// or if the write fails. Not-clean records, and those of what was forgotten, are written as by
    /// [`put_not_clean`](Self::put_not_clean).
    ///
    /// # Errors
    /// If the value cannot be sealed.
    pub fn put(&self, key: RecordKey, expiry: u64, value: &[u8]) -> Result<(), SealError> {
        let is_kept = key.kind.is_kept();
        let durability = if is_kept { Durability::Retried } else { Durability::Droppable };
        let sealed = self.state.secrets.seal(&key, expiry, value)?;
        self.queue(QueuedChange {
            change: StoreChange::Put { key, expiry, sealed },
            durability,
            acknowledgement: None,
        });
        Ok(())
    }

    /// Writes a not-clean record. A write that fails is retried until the store is closed, also if the future is
    /// dropped. The future returns after the record is on disk.
    ///
    /// # Errors
    /// If the value cannot be sealed. The future fails if 10 000 changes or 16 MiB are queued already, or the store is
    /// closed before the record could be written.
    pub fn put_not_clean(
        &self,
        name: RecordName,
        expiry: u64,
        value: &[u8],
    ) -> Result<impl Future<Output = Result<(), NotDurable>> + use<>, SealError> {
        self.put_durable(
            RecordKey { kind: RecordKind::NotClean, name, version: None },
            expiry,
            value,
        )
    }

    /// Writes a record of any kind as [`put_not_clean`](Self::put_not_clean).
    ///
    /// # Errors
    /// As [`put_not_clean`](Self::put_not_clean).
    pub fn put_durable(
        &self,
        key: RecordKey,
        expiry: u64,
        value: &[u8],
    ) -> Result<impl Future<Output = Result<(), NotDurable>> + use<>, SealError> {
        let sealed = self.state.secrets.seal(&key, expiry, value)?;
        Ok(self.queue_durable(StoreChange::Put { key, expiry, sealed }, Durability::Retried))
    }

    /// Removes the records with a name, of all versions, including those whose writing was requested before. The future
    /// returns after the change is on disk.
    ///
    /// # Errors
    /// If the write fails, too many changes are queued, or the store is closed.
    pub fn delete(
        &self,
        kind: RecordKind,
        name: RecordName,
    ) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        self.queue_durable(StoreChange::Remove { kind, name }, Durability::Durable)
    }

    /// Removes all records but those of [`RecordKind::Seen`]; otherwise as [`delete`](Self::delete). The file keeps its size
    /// for later records.
    pub fn clear(&self) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        self.queue_durable(StoreChange::Clear, Durability::Durable)
    }

    /// Returns the counters since the store was opened.
    #[must_use]
    pub fn counters(&self) -> StoreCounters {
        self.state.counters.snapshot()
    }

    /// Closes the store: writes what is queued for up to 5 seconds, then closes the file. Blocks for at most about 10
    /// seconds, even if the disk does not respond. Later lookups find nothing, and later changes fail.
    pub fn close(&self) {
        let Some(threads) = self.threads.lock().take() else { return };
        threads.stop(&self.state);
    }

    /// Reports damage of the file with this number, as the reader does.
    #[cfg(test)]
    pub(crate) fn report_damage(&self, epoch: u64) {
        let message = "reported by a test".to_owned();
        self.state.queue.report_damage(crate::queue::DamageReport { epoch, message });
    }

    /// Closes the store and removes its file, with all records.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn close_and_remove(&self) -> Result<(), StoreError> {
        self.close();
        self.state.path.remove()
    }

    pub(crate) fn queue_durable(
        &self,
        change: StoreChange,
        durability: Durability,
    ) -> impl Future<Output = Result<(), NotDurable>> + use<> {
        let (sender, result) = oneshot::channel();
        self.queue(QueuedChange { change, durability, acknowledgement: Some(sender) });
        async { result.await.unwrap_or(Err(NotDurable)) }
    }

    fn queue(&self, change: QueuedChange) {
        if !self.state.queue.push(change) {
            count(&self.state.counters.dropped_writes, 1);
        }
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.close();
    }
}

/// Opens the file, or sets it aside and creates a new one.
fn open_or_replace(
    path: &StorePath,
    now: u64,
) -> Result<(OpenDatabase, Option<SetAside>), StoreError> {
    let database_error = |source| StoreError::Database { path: path.database(), source };
    match open_writer(path) {
        Ok(database) => Ok((database, None)),
        Err(OpenFailure::Failed(error)) => Err(database_error(error)),
        Err(OpenFailure::Damaged(cause)) => {
            let set_aside = path.set_aside(now, cause)?;
            path.create()?;
            let database = open_writer(path).map_err(|failure| match failure {
                OpenFailure::Failed(error) => database_error(error),
                OpenFailure::Damaged(cause) => {
                    StoreError::NewFileDamaged { path: path.database(), cause }
                }
            })?;
            Ok((database, Some(set_aside)))
        }
    }
}

impl StoreThreads {
    fn start(
        state: &Arc<StoreState>,
        database: OpenDatabase,
        needs_check: bool,
    ) -> std::io::Result<Self> {
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let (lookups, receiver) = sync_channel(MAX_LOOKUPS);
        // Without the other threads, this one ends when the sender is dropped.
        let reader_state = Arc::clone(state);
        let reader = spawn("store-reader").spawn(move || reader::run(&reader_state, &receiver))?;
        let check = if needs_check {
            let interrupt = Arc::new(CheckInterrupt::default());
            let (state, handle) = (Arc::clone(state), Arc::clone(&interrupt));
            let check = spawn("store-check").spawn(move || check::run(&state, &handle))?;
            Some((check, interrupt))
        } else {
            None
        };
        let writer = StoreWriter::new(Arc::clone(state), database);
        let writer = spawn("store-writer").spawn(move || writer.run())?;
        Ok(Self { lookups, reader, writer, check })
    }

    /// Ends the threads. The writer closes its connection after the others: only a connection that may write, and is the
    /// last one, removes the log.
    fn stop(self, state: &StoreState) {
        let start = Instant::now();
        drop(self.lookups);
        let deadline = start + CLOSE_TIMEOUT / 2;
        if let Some((check, interrupt)) = self.check {
            join(check, deadline, || interrupt.interrupt());
        }
        join(self.reader, deadline, || {});
        state.queue.close();
        join(self.writer, start + CLOSE_TIMEOUT, || {});
    }
}

/// Waits for the end of a thread. After the deadline, the thread is left to itself.
fn join(thread: JoinHandle<()>, deadline: Instant, repeat: impl Fn()) {
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            tracing::warn!(
                "a thread of the verdict store did not end in time; the disk may not respond"
            );
            return;
        }
        repeat();
        thread::sleep(Duration::from_millis(1));
    }
    // A panic of the thread is on standard error.
    let _ = thread.join();
}
