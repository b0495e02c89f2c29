//! Where incidents are stored: in a file, or in a store that replicas share.

use std::{pin::Pin, sync::Arc};

use mcs_store::{
    FileStore, IncidentAddition, OutboxEntry, RecordKey, RecordKind, RecordName, SealError,
    SecretRing, SharedStore, StoreSecret, StoredValue,
};
use tracing::{debug, error, warn};

/// A future that owns what it needs.
pub(super) type StoreFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A store with incidents. Cheap to clone; clones share it.
#[derive(Clone)]
pub enum IncidentStore {
    File(Arc<FileStore>),
    Shared(SharedStore),
}

/// Request to write a new incident.
pub(super) struct IncidentWrite {
    /// Whether later changes of the store are written before, unless the future is awaited.
    pub(super) must_wait: bool,
    /// Returns whether the entry may be in the store.
    pub(super) written: StoreFuture<bool>,
}

impl IncidentStore {
    pub(super) fn secrets(&self) -> &SecretRing {
        match self {
            Self::File(store) => store.secrets(),
            Self::Shared(store) => store.secrets(),
        }
    }

    /// Returns the secret that new records are written with.
    pub(super) fn secret(&self) -> StoreSecret {
        self.secrets().current()
    }

    /// Creates an incident, unless the same one was created before.
    pub(super) fn add_incident(
        &self,
        name: RecordName,
        mark_expiry: u64,
        expiry: u64,
        value: Vec<u8>,
    ) -> Result<IncidentWrite, SealError> {
        match self {
            Self::File(store) => {
                let added = store.add_incident(name, mark_expiry, expiry, &value)?;
                let written = Box::pin(async {
                    let result = added.await;
                    if let Err(error) = &result {
                        // The service stops; the next start reads the outbox.
                        debug!(%error, "an incident is not in the outbox");
                    }
                    result.is_ok()
                });
                Ok(IncidentWrite { must_wait: false, written })
            }
            Self::Shared(store) => {
                let store = store.clone();
                let written = Box::pin(async move {
                    let added = store.add_incident(name, mark_expiry, expiry, &value).await;
                    shared_result(added)
                });
                Ok(IncidentWrite { must_wait: true, written })
            }
        }
    }

    /// Replaces the value of an entry in the background, unless the entry was removed.
    pub(super) fn update(&self, name: RecordName, expiry: u64, value: &[u8]) {
        let result = match self {
            Self::File(store) => store.update_outbox(name, expiry, value).map(drop),
            Self::Shared(store) => store.update_outbox(name, expiry, value),
        };
        if let Err(error) = result {
            error!(%error, "the state of an incident is not stored");
        }
    }

    /// Removes an entry. The future of a file returns when the entry is removed; a shared store removes it in the background.
    pub(super) fn remove(&self, name: RecordName) -> StoreFuture<()> {
        match self {
            Self::File(store) => {
                let removed = store.remove_from_outbox(name);
                Box::pin(async {
                    if let Err(error) = removed.await {
                        debug!(%error, "a finished incident stays in the outbox");
                    }
                })
            }
            Self::Shared(store) => {
                store.remove_from_outbox(name);
                Box::pin(std::future::ready(()))
            }
        }
    }

    /// Returns whether the store has an entry, readable or not; `None` if it cannot be read.
    pub(super) async fn has_entry(&self, name: RecordName) -> Option<bool> {
        match self {
            Self::File(store) => {
                let page = store.outbox_entry(name).await?;
                // An unreadable entry is under a former secret until it is stored again.
                Some(!page.entries.is_empty() || page.unreadable > 0)
            }
            Self::Shared(store) => store.has_outbox_entry(name).await,
        }
    }

    /// Returns the records of seen media with a name; `None` if the store cannot be read.
    pub(super) async fn seen(&self, name: RecordName) -> Option<Vec<(RecordKey, Vec<u8>)>> {
        match self {
            Self::File(store) => {
                let records = store.get_all(RecordKind::Seen, name).await?;
                Some(records.into_iter().map(|record| (record.key, record.value)).collect())
            }
            Self::Shared(store) => store.seen(name).await,
        }
    }

    /// Writes a record in the background.
    pub(super) fn put(&self, key: RecordKey, expiry: u64, value: &[u8]) -> Result<(), SealError> {
        match self {
            Self::File(store) => store.put(key, expiry, value),
            Self::Shared(store) => store.put(key, expiry, value),
        }
    }

    /// Returns whether a record exists and is valid.
    pub(super) async fn has_record(&self, key: RecordKey) -> bool {
        match self {
            Self::File(store) => store.get(key).await.is_some(),
            Self::Shared(store) => {
                let values = store.get_all(vec![key]).await;
                matches!(values.as_deref(), Some([StoredValue::Valid(_)]))
            }
        }
    }

    /// Returns the number of incidents that were not created because the outbox was full.
    pub(super) fn overflows(&self) -> u64 {
        match self {
            Self::File(store) => store.counters().outbox_overflows,
            Self::Shared(store) => store.counters().outbox_overflows,
        }
    }

    /// Returns the store, if replicas share it.
    pub(super) fn shared(&self) -> Option<&SharedStore> {
        match self {
            Self::File(_) => None,
            Self::Shared(store) => Some(store),
        }
    }
}

fn shared_result(added: Result<IncidentAddition, SealError>) -> bool {
    match added {
        Ok(IncidentAddition::Added) => true,
        Ok(IncidentAddition::Known | IncidentAddition::Full) => false,
        Ok(IncidentAddition::Waiting) => {
            warn!("the shared store is not available, an incident waits for it in memory");
            false
        }
        Ok(IncidentAddition::Dropped) => {
            error!("an incident is lost: too many changes wait for the shared store");
            false
        }
        Err(error) => {
            error!(%error, "an incident is lost");
            false
        }
    }
}

/// Reads all entries of a shared outbox; `None` if the store cannot be read.
pub(super) async fn read_shared(store: &SharedStore) -> Option<Vec<OutboxEntry>> {
    let names: Vec<_> = store.outbox_names().await?.into_iter().map(|(name, _)| name).collect();
    let mut entries = Vec::new();
    for names in names.chunks(READ_AT_ONCE) {
        for record in store.outbox_records(names).await? {
            if let mcs_store::OutboxRecord::Valid(entry) = record {
                entries.push(entry);
            }
        }
    }
    Some(entries)
}

/// Number of entries that are read by one call.
pub(super) const READ_AT_ONCE: usize = 16;
