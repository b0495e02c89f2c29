//! The state of the engines that served media was scanned again with, in the store.

use std::{iter::once, time::Duration};

use mcs_store::{RecordKey, RecordKind, StoreSecret};
use tracing::warn;

use crate::{
    incident::{incident_store::IncidentStore, seen::expiry},
    scan::engines::EngineState,
};

/// How long the record is valid. Without it, the contents of all seen media are looked up once more.
const KEEP: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What the record has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StoredState {
    /// No pass is complete, or all records were removed since.
    Missing,
    /// The last complete pass was with these engines.
    Same,
    /// With others.
    Other,
}

/// Compares the record with the state of the engines. `None` if the store cannot be read.
pub(super) async fn compare(store: &IncidentStore, state: EngineState) -> Option<StoredState> {
    let secrets = store.secrets();
    let mut found = StoredState::Missing;
    for secret in once(secrets.current()).chain(secrets.former()) {
        match store.get(key(&secret)).await? {
            Some(value) if value == state.to_bytes() => return Some(StoredState::Same),
            Some(_) => found = StoredState::Other,
            None => {}
        }
    }
    Some(found)
}

/// Stores the state after a complete pass.
pub(super) fn store(store: &IncidentStore, state: EngineState) {
    let key = key(&store.secrets().current());
    if let Err(error) = store.put(key, expiry(KEEP), &state.to_bytes()) {
        warn!(%error, "the end of a rescan is not stored");
    }
}

fn key(secret: &StoreSecret) -> RecordKey {
    let name = secret.name(RecordKind::Rescan, &[b"complete"]);
    RecordKey { kind: RecordKind::Rescan, name, version: None }
}
