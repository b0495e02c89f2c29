//! Keys and values of a simulated server.

use std::collections::BTreeMap;

/// ID of an entry of a stream.
pub(super) type StreamId = (u64, u64);

/// Value of a key.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum SimulatedValue {
    Text(Vec<u8>),
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Entries with the fields and values of each.
    Stream(BTreeMap<StreamId, Vec<Vec<u8>>>),
    SortedSet(BTreeMap<Vec<u8>, u64>),
}

/// Value with its time.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SimulatedEntry {
    pub(super) value: SimulatedValue,
    /// Milliseconds since the epoch, by the clock of the server.
    pub(super) expires: Option<u64>,
}

/// Keys of a server at one moment.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct KeyspaceSnapshot(pub(super) BTreeMap<Vec<u8>, SimulatedEntry>);

impl KeyspaceSnapshot {
    /// Removes keys whose time has passed.
    pub(super) fn expire(&mut self, now: u64) {
        self.0.retain(|_, entry| entry.expires.is_none_or(|expires| expires > now));
    }

    pub(super) fn text(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match &self.0.get(key)?.value {
            SimulatedValue::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn set(&mut self, key: &[u8], value: SimulatedValue, expires: Option<u64>) {
        self.0.insert(key.to_owned(), SimulatedEntry { value, expires });
    }

    /// Returns the value of a key, or a new one if there is none.
    pub(super) fn value(
        &mut self,
        key: &[u8],
        new: impl FnOnce() -> SimulatedValue,
    ) -> &mut SimulatedValue {
        let new = || SimulatedEntry { value: new(), expires: None };
        &mut self.0.entry(key.to_owned()).or_insert_with(new).value
    }
}
