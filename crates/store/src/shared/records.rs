//! Opens sealed records that a server returned.

use std::sync::Arc;

use crate::{
    counters::count, record::RecordKey, secret::BadRecord, secret_ring::SecretRing, state::Now,
};

use super::{counters::SharedAtomics, limits::MAX_CLOCK_DIFFERENCE};

/// Result of looking up one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoredValue {
    /// Value of a valid record.
    Valid(Vec<u8>),
    /// There is no record.
    Missing,
    /// The record was altered, or belongs to another key. The original record may have had precedence over those of
    /// the following keys, so the search ends here without a result. A record restored after its expiry is
    /// [`Missing`](Self::Missing).
    Invalid,
}

/// Opens records.
#[derive(Clone)]
pub(crate) struct RecordOpener {
    pub(crate) secrets: SecretRing,
    pub(crate) now: Now,
    pub(crate) counters: Arc<SharedAtomics>,
}

impl RecordOpener {
    pub(crate) fn open(&self, key: &RecordKey, sealed: Option<&[u8]>) -> StoredValue {
        let Some(sealed) = sealed else { return StoredValue::Missing };
        let now = (self.now)();
        match self.secrets.open(key, sealed, now) {
            Ok(value) => StoredValue::Valid(value),
            Err(BadRecord::Expired(expiry)) => {
                // The server has removed it by then, by its own clock.
                if now.saturating_sub(expiry) > MAX_CLOCK_DIFFERENCE {
                    count(&self.counters.bad_records, 1);
                }
                StoredValue::Missing
            }
            Err(BadRecord::Length | BadRecord::Seal | BadRecord::Format(_)) => {
                count(&self.counters.bad_records, 1);
                StoredValue::Invalid
            }
        }
    }
}
