//! What rescans need of the store: the names of all seen media, and the right to scan a content.

use std::time::Duration;

use mcs_store::{
    LeaseResult, ListPosition, ListedRecord, RecordKey, RecordKind, ScanLease, StoredValue,
    VersionTag,
};
use tokio::time::timeout;

use super::incident_store::IncidentStore;

/// Maximum number of records that are read from a shared store: more than a rescan examines in a day at the default rate.
const MAX_LISTED: usize = 200_000;

/// Maximum time for reading them.
const LISTING_TIMEOUT: Duration = Duration::from_secs(120);

/// Part of all records of seen media.
pub(super) struct SeenRecords {
    pub(super) records: Vec<ListedRecord>,
    /// Start of the next part.
    pub(super) next: Option<ListPosition>,
    /// Whether records were left out.
    pub(super) is_truncated: bool,
}

/// Right of one of several replicas to scan a content again.
pub(super) enum RescanClaim {
    /// No other process uses the store.
    Alone,
    Acquired(ScanLease),
    /// Another replica scans the content.
    Held,
    /// The store is not available.
    Unavailable,
}

impl RescanClaim {
    /// Ends the claim.
    pub(super) async fn release(self) {
        if let Self::Acquired(lease) = self {
            lease.release().await;
        }
    }
}

impl IncidentStore {
    /// Returns the record with a key, `Some(None)` if there is none, and `None` if the store cannot be read.
    pub(super) async fn get(&self, key: RecordKey) -> Option<Option<Vec<u8>>> {
        match self {
            Self::File(store) => {
                let records = store.get_all(key.kind, key.name).await?;
                Some(records.into_iter().find(|found| found.key == key).map(|found| found.value))
            }
            Self::Shared(store) => Some(match store.get_all(vec![key]).await?.pop()? {
                StoredValue::Valid(value) => Some(value),
                StoredValue::Missing | StoredValue::Invalid => None,
            }),
        }
    }

    /// Returns the next records of seen media: of a file, those that were first written last at first. `None` if the store
    /// cannot be read.
    pub(super) async fn list_seen(&self, after: Option<ListPosition>) -> Option<SeenRecords> {
        let kind = RecordKind::Seen;
        match self {
            Self::File(store) => {
                let page = store.list(&[kind], after).await?;
                Some(SeenRecords { records: page.records, next: page.next, is_truncated: false })
            }
            Self::Shared(store) => {
                let mut records = Vec::new();
                let each = |key, value| records.push(ListedRecord { key, expiry: None, value });
                let listed = timeout(LISTING_TIMEOUT, store.list(kind, MAX_LISTED, each)).await;
                let is_complete = match listed {
                    Ok(listed) => listed.is_ok().then_some(records.len() < MAX_LISTED)?,
                    // What was read is examined.
                    Err(_elapsed) => (!records.is_empty()).then_some(false)?,
                };
                let is_truncated = !is_complete;
                Some(SeenRecords { records, next: None, is_truncated })
            }
        }
    }

    /// Claims a content, so that only one replica scans it again. `key`: of a record of seen media.
    pub(super) async fn claim(&self, key: &RecordKey, tag: VersionTag) -> RescanClaim {
        match self {
            Self::File(_) => RescanClaim::Alone,
            Self::Shared(store) => match store.acquire_lease(key.name, tag).await {
                LeaseResult::Acquired(lease) => RescanClaim::Acquired(lease),
                LeaseResult::Held => RescanClaim::Held,
                LeaseResult::Unavailable => RescanClaim::Unavailable,
            },
        }
    }
}
