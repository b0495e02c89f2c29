//! Where records are stored: in a file, or in a store that replicas share.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mcs_store::{
    FileStore, LeaseResult, RecordKey, RecordKind, SecretRing, SharedStore, StoreSecret,
    StoreUnavailable, StoredValue,
};
use parking_lot::Mutex;
use tokio::time::timeout;
use tracing::warn;

/// Maximum time that a request waits for the file. After that time, the content is scanned.
const LOOKUP_TIMEOUT: Duration = Duration::from_millis(250);

/// Time for which the file is not read after a lookup timed out.
const PAUSE: Duration = Duration::from_secs(5);

/// A store. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) enum RecordStore {
    File(FileRecords),
    Shared(SharedStore),
}

/// The file, and whether it responds.
#[derive(Clone)]
pub(super) struct FileRecords {
    file: Arc<FileStore>,
    paused_until: Arc<Mutex<Option<Instant>>>,
}

/// Keys of the records about a content.
#[derive(Clone, Copy)]
pub(super) struct OutcomeKeys {
    pub(super) infected: RecordKey,
    pub(super) finished: RecordKey,
    pub(super) forgotten: RecordKey,
}

/// Which records are looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Precedence {
    /// Of an infection.
    Infected,
    /// Of an infection, then of another outcome.
    All,
}

/// The records about a content under the names of one secret.
#[derive(PartialEq, Eq, Default, Debug)]
pub(super) struct OutcomeRecords {
    /// The first outcome.
    pub(super) outcome: Option<(RecordKind, Vec<u8>)>,
    /// When an operator had earlier outcomes forgotten. `None` for a file, because a removal from it is complete at once.
    pub(super) forgotten: Option<Vec<u8>>,
    /// Whether a record was altered. It may have had precedence over all others.
    pub(super) is_altered: bool,
}

impl FileRecords {
    pub(super) fn new(file: FileStore) -> Self {
        Self { file: Arc::new(file), paused_until: Arc::default() }
    }

    pub(super) fn file(&self) -> &Arc<FileStore> {
        &self.file
    }

    fn is_paused(&self) -> bool {
        self.paused_until.lock().is_some_and(|until| Instant::now() < until)
    }

    /// Looks something up. `lookup` queues the lookup, so it is called only if the file responds.
    async fn look_up<T, F: Future<Output = Option<T>>>(
        &self,
        lookup: impl FnOnce(&FileStore) -> F,
    ) -> Result<Option<T>, StoreUnavailable> {
        if self.is_paused() {
            return Err(StoreUnavailable);
        }
        let Ok(found) = timeout(LOOKUP_TIMEOUT, lookup(&self.file)).await else {
            *self.paused_until.lock() = Some(Instant::now() + PAUSE);
            warn!("a lookup in the verdict store timed out, not reading it for some seconds");
            return Err(StoreUnavailable);
        };
        Ok(found)
    }
}

impl RecordStore {
    pub(super) fn secrets(&self) -> &SecretRing {
        match self {
            Self::File(records) => records.file.secrets(),
            Self::Shared(store) => store.secrets(),
        }
    }

    /// Returns the store for writing records under a former secret, for other replicas.
    pub(super) fn with_secret(&self, secret: &StoreSecret) -> Self {
        match self {
            Self::File(records) => Self::File(records.clone()),
            Self::Shared(store) => Self::Shared(store.with_secret(secret.clone())),
        }
    }

    /// Returns whether lookups reach the store.
    pub(super) fn is_available(&self) -> bool {
        match self {
            Self::File(records) => !records.is_paused(),
            Self::Shared(store) => store.is_available(),
        }
    }

    /// Finds the outcome for a content under the names of one secret.
    pub(super) async fn outcome(
        &self,
        keys: &OutcomeKeys,
        precedence: Precedence,
    ) -> Result<OutcomeRecords, StoreUnavailable> {
        let mut looked_up = vec![keys.infected];
        if precedence == Precedence::All {
            looked_up.push(keys.finished);
        }
        match self {
            Self::File(records) => {
                let outcome = records.look_up(|file| file.get_first(looked_up)).await?;
                Ok(OutcomeRecords { outcome, ..OutcomeRecords::default() })
            }
            Self::Shared(store) => {
                looked_up.insert(0, keys.forgotten);
                let kinds: Vec<_> = looked_up.iter().map(|key| key.kind).collect();
                let values = store.get_all(looked_up).await.ok_or(StoreUnavailable)?;
                Ok(first_outcome(kinds.into_iter().zip(values)))
            }
        }
    }

    pub(super) async fn media(&self, key: RecordKey) -> Result<Option<Vec<u8>>, StoreUnavailable> {
        match self {
            Self::File(records) => records.look_up(|file| file.get(key)).await,
            Self::Shared(store) => {
                let mut values = store.get_all(vec![key]).await.ok_or(StoreUnavailable)?;
                Ok(match values.pop() {
                    Some(StoredValue::Valid(record)) => Some(record),
                    _ => None,
                })
            }
        }
    }

    /// Writes a record in the background.
    pub(super) fn put(&self, key: RecordKey, expiry: u64, record: &[u8]) {
        let sealed = match self {
            Self::File(records) => records.file.put(key, expiry, record),
            Self::Shared(store) => store.put(key, expiry, record),
        };
        if let Err(error) = sealed {
            warn!(%error, "a record is not stored");
        }
    }

    /// Writes the record of an infection, in a shared store before the future returns, if the store is available.
    pub(super) async fn put_infected(&self, key: RecordKey, expiry: u64, record: &[u8]) {
        if let Self::Shared(store) = self {
            let written = store.put_and_get(key, expiry, record, vec![key]).await;
            if matches!(written.as_deref(), Some([StoredValue::Valid(_)])) {
                return;
            }
        }
        // Written as soon as possible.
        self.put(key, expiry, record);
    }

    /// Writes the record of any other outcome. Returns what other replicas have found.
    pub(super) async fn put_finished(
        &self,
        keys: &OutcomeKeys,
        expiry: u64,
        record: &[u8],
    ) -> Result<OutcomeRecords, StoreUnavailable> {
        let OutcomeKeys { infected, finished, forgotten } = *keys;
        match self {
            Self::File(_) => {
                self.put(finished, expiry, record);
                Ok(OutcomeRecords::default())
            }
            Self::Shared(store) => {
                let looked_up = vec![forgotten, infected];
                let values = store.put_and_get(finished, expiry, record, looked_up).await;
                let kinds = [forgotten.kind, infected.kind].into_iter();
                Ok(first_outcome(kinds.zip(values.ok_or(StoreUnavailable)?)))
            }
        }
    }

    /// Removes a record in the background; in a file, its other versions as well.
    pub(super) fn delete(&self, key: RecordKey) {
        match self {
            // The removal is queued, whether or not its result is awaited.
            Self::File(records) => drop(records.file.delete(key.kind, key.name)),
            Self::Shared(store) => store.delete(key),
        }
    }

    /// Asks for the right to scan a content, so that only one replica does.
    pub(super) async fn acquire_lease(&self, key: RecordKey) -> LeaseResult {
        match (self, key.version) {
            (Self::Shared(store), Some(version)) => store.acquire_lease(key.name, version).await,
            _ => LeaseResult::Unavailable,
        }
    }
}

/// Returns the first valid outcome. Ends at a record that was altered.
fn first_outcome(values: impl Iterator<Item = (RecordKind, StoredValue)>) -> OutcomeRecords {
    let mut found = OutcomeRecords::default();
    for (kind, value) in values {
        match (kind, value) {
            (_, StoredValue::Invalid) => {
                found.is_altered = true;
                break;
            }
            (_, StoredValue::Missing) => {}
            (RecordKind::Forgotten, StoredValue::Valid(record)) => found.forgotten = Some(record),
            (_, StoredValue::Valid(record)) => {
                found.outcome = Some((kind, record));
                break;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use mcs_store::StoreSettings;

    use super::*;

    /// As if the disk did not answer.
    #[tokio::test(start_paused = true)]
    async fn lookups_in_a_file_pause_after_one_that_timed_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("store.db");
        let secret = StoreSecret::derive(b"secret");
        let (file, _) = FileStore::open(&path, secret, StoreSettings::default()).unwrap();
        let records = FileRecords::new(file);
        let hanging = records.look_up(|_| std::future::pending::<Option<()>>()).await;
        assert_eq!(hanging, Err(StoreUnavailable));
        let mut is_queued = false;
        let found = records.look_up(|_| {
            is_queued = true;
            std::future::ready(Some(()))
        });
        assert_eq!(found.await, Err(StoreUnavailable));
        assert!(!is_queued && !RecordStore::File(records).is_available());
    }

    #[test]
    fn altered_record_hides_those_that_it_may_have_had_precedence_over() {
        use RecordKind::{Finished, Forgotten, NotClean};
        let value = |text: &str| StoredValue::Valid(text.into());
        let first = |values: [StoredValue; 3]| {
            first_outcome([Forgotten, NotClean, Finished].into_iter().zip(values))
        };
        let found = |outcome: Option<(RecordKind, &str)>, forgotten: Option<&str>| OutcomeRecords {
            outcome: outcome.map(|(kind, text)| (kind, text.into())),
            forgotten: forgotten.map(Into::into),
            is_altered: false,
        };
        let missing = || StoredValue::Missing;
        let values = [missing(), value("n"), value("c")];
        assert_eq!(first(values), found(Some((NotClean, "n")), None));
        let values = [value("g"), missing(), value("c")];
        assert_eq!(first(values), found(Some((Finished, "c")), Some("g")));
        assert_eq!(first([value("g"), missing(), missing()]), found(None, Some("g")));
        let altered = OutcomeRecords { is_altered: true, ..OutcomeRecords::default() };
        assert_eq!(first([missing(), StoredValue::Invalid, value("c")]), altered);
        assert_eq!(first([StoredValue::Invalid, value("n"), value("c")]), altered);
    }
}
