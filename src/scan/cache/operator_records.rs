//! Reading and removing of records for operators, in a file or in a shared store.

use std::time::Duration;

use mcs_store::{ListPosition, ListedRecord, RecordKey, RecordKind, StoredValue};
use tokio::time::timeout;

use super::record_store::{OutcomeKeys, RecordStore};

/// Maximum time for one lookup or change of the store.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of records of each kind that are read from a shared store for one listing.
const MAX_LISTED: usize = 10_000;

/// Records of one part of a store.
pub(super) struct RecordPage {
    pub(super) records: Vec<ListedRecord>,
    /// Start of the next part.
    pub(super) next: Option<ListPosition>,
    /// Whether records after the last part were left out.
    pub(super) is_truncated: bool,
}

/// The change was not written. A shared store writes it as soon as it can be reached.
pub(super) struct NotWritten;

impl RecordStore {
    /// Returns all records with the name of a key; from a shared store, only those of this version. `None` if the store
    /// cannot be read.
    pub(super) async fn all(&self, key: RecordKey) -> Option<Vec<ListedRecord>> {
        match self {
            Self::File(records) => {
                let found = records.file().get_all(key.kind, key.name);
                timeout(STEP_TIMEOUT, found).await.ok().flatten()
            }
            Self::Shared(store) if key.kind == RecordKind::Reference => {
                let values = store.references(key.name).await?.into_iter();
                Some(values.map(|value| listed(key, value)).collect())
            }
            Self::Shared(store) => {
                let values = store.get_all(vec![key]).await?.into_iter();
                let valid = values.filter_map(|value| match value {
                    StoredValue::Valid(value) => Some(listed(key, value)),
                    StoredValue::Missing | StoredValue::Invalid => None,
                });
                Some(valid.collect())
            }
        }
    }

    /// Returns the records of one part of the store. `None` if the store cannot be read.
    pub(super) async fn page(
        &self,
        kinds: &[RecordKind],
        after: Option<ListPosition>,
    ) -> Option<RecordPage> {
        match self {
            Self::File(records) => {
                let page = timeout(STEP_TIMEOUT, records.file().list(kinds, after)).await;
                let page = page.ok().flatten()?;
                Some(RecordPage { records: page.records, next: page.next, is_truncated: false })
            }
            Self::Shared(store) => {
                let (mut records, mut is_truncated) = (Vec::new(), false);
                for kind in kinds {
                    let mut number = 0;
                    let each = |key, value| {
                        records.push(listed(key, value));
                        number += 1;
                    };
                    match timeout(STEP_TIMEOUT, store.list(*kind, MAX_LISTED, each)).await {
                        Ok(listed) => listed.ok()?,
                        Err(_elapsed) => is_truncated = true,
                    }
                    is_truncated |= number >= MAX_LISTED;
                }
                Some(RecordPage { records, next: None, is_truncated })
            }
        }
    }

    /// Removes a record; in a file, its other versions as well. A shared store removes it in the background.
    pub(super) async fn remove(&self, key: RecordKey) -> Result<(), NotWritten> {
        match self {
            Self::File(records) => {
                let removed = timeout(STEP_TIMEOUT, records.file().delete(key.kind, key.name));
                if matches!(removed.await, Ok(Ok(()))) { Ok(()) } else { Err(NotWritten) }
            }
            Self::Shared(store) => {
                store.delete(key);
                Ok(())
            }
        }
    }

    /// Removes the outcomes for a content, and writes when that was done. A shared store does so in the background.
    pub(super) async fn forget(
        &self,
        keys: &OutcomeKeys,
        expiry: u64,
        time: &[u8],
    ) -> Result<(), NotWritten> {
        let OutcomeKeys { infected, finished, forgotten } = *keys;
        let Self::File(records) = self else {
            self.put(forgotten, expiry, time);
            self.delete(infected);
            self.delete(finished);
            return Ok(());
        };
        let written = records.file().put_durable(forgotten, expiry, time);
        let written = written.map_err(|_| NotWritten)?;
        // Queued before the first is awaited, so that one transaction writes all.
        let [infected, finished] =
            [infected, finished].map(|key| records.file().delete(key.kind, key.name));
        let changed = async { (written.await, infected.await, finished.await) };
        match timeout(STEP_TIMEOUT, changed).await {
            Ok((Ok(()), Ok(()), Ok(()))) => Ok(()),
            _ => Err(NotWritten),
        }
    }
}

/// Returns a record whose expiry is unknown.
fn listed(key: RecordKey, value: Vec<u8>) -> ListedRecord {
    ListedRecord { key, expiry: None, value }
}
