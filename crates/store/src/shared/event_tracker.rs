//! Finds out from the entries of the stream which events are new, and whether some were lost.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
};

use redis::Value;

use crate::counters::count;

use super::{
    connection::{CallError, StoreCall},
    counters::SharedAtomics,
    event_seal::{EventSealer, NodeId},
    key_names::EVENTS_KEY,
    replies::{next_reply, parse_decimal},
};

/// Number of entries read by one call.
pub(crate) const MAX_ENTRIES: usize = 128;

/// Maximum number of processes whose last event is remembered. With more, all are forgotten, and events count as lost.
const MAX_NODES: usize = 1024;

/// ID of an entry: milliseconds and a sequence number.
pub(crate) type EntryId = (u64, u64);

/// Event for the caches of this process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreEvent {
    /// Message that another replica has published.
    Message(Vec<u8>),
    /// Messages may have been lost. What this process remembers of the store may be outdated.
    Lost,
}

/// Entry of the stream.
#[derive(Debug)]
pub(crate) struct StreamEntry {
    id: EntryId,
    sealed: Vec<u8>,
}

/// Decoded replies to a poll.
#[derive(Debug)]
pub(crate) struct PolledEntries {
    /// Entries after the last one that was seen.
    entries: Vec<StreamEntry>,
    newest: Option<EntryId>,
    oldest: Option<EntryId>,
}

/// Position in the stream, and the last event of each process.
pub(crate) struct EventTracker {
    sealer: EventSealer,
    counters: Arc<SharedAtomics>,
    /// ID of the last entry that was seen. `None` before the first successful poll.
    position: Option<EntryId>,
    /// Whether this process followed the stream before, and continues at its end because events were lost.
    is_restarting: bool,
    nodes: HashMap<NodeId, u64>,
}

/// Result of applying polled entries.
#[derive(Debug, Default)]
pub(crate) struct AppliedEntries {
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) is_lost: bool,
    /// Whether more entries are likely to follow.
    pub(crate) has_more: bool,
}

impl EventTracker {
    pub(crate) fn new(sealer: EventSealer, counters: Arc<SharedAtomics>) -> Self {
        Self { sealer, counters, position: None, is_restarting: false, nodes: HashMap::new() }
    }

    /// Returns the call that reads the next entries, or at the start the last ones.
    pub(crate) fn call(&self) -> StoreCall {
        let call = StoreCall::new(EVENTS_KEY);
        let count = MAX_ENTRIES.to_string();
        let count = count.as_bytes();
        match self.position {
            None => call.command("XREVRANGE", &[EVENTS_KEY, b"+", b"-", b"COUNT", count]),
            Some((time, sequence)) => {
                let last = format!("{time}-{sequence}");
                let last = last.as_bytes();
                call.command("XREAD", &[b"COUNT", count, b"STREAMS", EVENTS_KEY, last])
                    .command("XREVRANGE", &[EVENTS_KEY, b"+", b"-", b"COUNT", b"1"])
                    .command("XRANGE", &[EVENTS_KEY, b"-", b"+", b"COUNT", b"1"])
            }
        }
    }

    /// Decodes the replies to [`call`](Self::call).
    pub(crate) fn decode(&self, replies: Vec<Value>) -> Result<PolledEntries, CallError> {
        let mut replies = replies.into_iter();
        let first = next_reply(&mut replies)?;
        if self.position.is_none() {
            let mut entries = parse_entries(first)?;
            entries.reverse();
            return Ok(PolledEntries { entries, newest: None, oldest: None });
        }
        let entries = match first {
            Value::Nil => Vec::new(),
            Value::Array(streams) => parse_stream(streams)?,
            Value::ServerError(error) => return Err(CallError::from_server(&error)),
            _ => return Err(CallError::Reply("XREAD returned no array")),
        };
        let mut edge = || -> Result<Option<EntryId>, CallError> {
            let entries = parse_entries(next_reply(&mut replies)?)?;
            Ok(entries.first().map(|entry| entry.id))
        };
        Ok(PolledEntries { entries, newest: edge()?, oldest: edge()? })
    }

    /// Applies polled entries.
    pub(crate) fn apply(&mut self, polled: PolledEntries) -> AppliedEntries {
        let Some(position) = self.position else {
            return self.start(&polled.entries);
        };
        let mut applied = AppliedEntries::default();
        let PolledEntries { entries, newest, oldest } = polled;
        applied.has_more = entries.len() >= MAX_ENTRIES;
        let mut last = position;
        for entry in entries {
            if entry.id <= last {
                // XREAD returns ascending entries after the position.
                applied.is_lost = true;
                continue;
            }
            last = entry.id;
            self.apply_entry(&entry, &mut applied);
        }
        // The position is the end of an entry that exists, except before the first one.
        let has_position = position != (0, 0);
        match newest {
            // The stream was removed.
            None => {
                applied.is_lost |= has_position;
                last = (0, 0);
            }
            // The stream was replaced by an older one.
            Some(newest) if newest < last => {
                self.restart();
                return AppliedEntries { has_more: true, ..AppliedEntries::default() };
            }
            Some(_) => {}
        }
        // Entries after the position were trimmed, or the stream was replaced by a newer one.
        applied.is_lost |= has_position && oldest.is_some_and(|oldest| oldest > position);
        self.position = Some(last);
        applied
    }

    /// Lets the next poll continue at the end of the stream, and report that events were lost.
    pub(crate) fn restart(&mut self) {
        self.position = None;
        self.is_restarting = true;
    }

    /// Sets the position to the end of the stream. The last events show which numbers processes have reached.
    fn start(&mut self, entries: &[StreamEntry]) -> AppliedEntries {
        for entry in entries {
            if let Ok(event) = self.sealer.open(&entry.sealed) {
                let last = self.nodes.entry(event.node).or_default();
                *last = event.number.max(*last);
            }
        }
        self.position = Some(entries.iter().map(|entry| entry.id).max().unwrap_or_default());
        // The process may remember what it looked up before, and events about that are skipped.
        let has_used_store = self.counters.store_calls.load(Ordering::Relaxed) > 0;
        let is_lost = std::mem::take(&mut self.is_restarting) || has_used_store;
        AppliedEntries { is_lost, ..AppliedEntries::default() }
    }

    fn apply_entry(&mut self, entry: &StreamEntry, applied: &mut AppliedEntries) {
        let Ok(event) = self.sealer.open(&entry.sealed) else {
            count(&self.counters.bad_records, 1);
            applied.is_lost = true;
            return;
        };
        if event.node == self.sealer.node {
            return;
        }
        if self.nodes.len() >= MAX_NODES && !self.nodes.contains_key(&event.node) {
            self.nodes.clear();
            applied.is_lost = true;
        }
        let last = self.nodes.entry(event.node).or_default();
        // Written twice because the first reply was lost, or replayed.
        if event.number <= *last {
            return;
        }
        applied.is_lost |= event.number - *last != 1;
        *last = event.number;
        match event.message {
            Some(message) => applied.messages.push(message),
            None => applied.is_lost = true,
        }
    }
}

/// Parses the reply to XREAD of one stream.
fn parse_stream(streams: Vec<Value>) -> Result<Vec<StreamEntry>, CallError> {
    let error = CallError::Reply("XREAD returned other streams than requested");
    let Ok([Value::Array(stream)]) = <[Value; 1]>::try_from(streams) else { return Err(error) };
    let Ok([_, entries]) = <[Value; 2]>::try_from(stream) else { return Err(error) };
    parse_entries(entries)
}

fn parse_entries(entries: Value) -> Result<Vec<StreamEntry>, CallError> {
    match entries {
        Value::Array(entries) if entries.len() <= MAX_ENTRIES => {
            entries.into_iter().map(parse_entry).collect()
        }
        Value::ServerError(error) => Err(CallError::from_server(&error)),
        _ => Err(CallError::Reply("the entries of a stream are invalid")),
    }
}

/// Parses an entry with its ID. Fields that are no event become an event that cannot be opened.
fn parse_entry(entry: Value) -> Result<StreamEntry, CallError> {
    let error = CallError::Reply("an entry of a stream is invalid");
    let Value::Array(parts) = entry else { return Err(error) };
    let Ok([Value::BulkString(id), fields]) = <[Value; 2]>::try_from(parts) else {
        return Err(error);
    };
    let dash = id.iter().position(|byte| *byte == b'-').ok_or(error)?;
    let (time, sequence) = id.split_at(dash);
    let sequence = sequence.get(1..).unwrap_or_default();
    let id = (parse_decimal(time)?, parse_decimal(sequence)?);
    let sealed = match fields {
        Value::Array(fields) => fields.into_iter().nth(1),
        _ => None,
    };
    let sealed = match sealed {
        Some(Value::BulkString(sealed)) => sealed,
        _ => Vec::new(),
    };
    Ok(StreamEntry { id, sealed })
}
