//! Commands that write incidents and entries of the outbox.

use redis::Value;

use crate::{
    counters::count,
    limits::MAX_OUTBOX,
    record::{RecordKey, RecordKind, RecordName},
};

use super::{
    change_queue::{SealedIncident, outbox_record_key},
    connection::{CallError, StoreCall, first_error},
    key_names::{OUTBOX_INDEX_KEY, push_hex, record_key},
    limits::MAX_TTL,
    link::StoreLink,
    records::{RecordOpener, StoredValue},
    replies::{next_reply, number, optional_strings},
};

/// Time until the server removes an entry that nothing else has removed, seconds: 30 days.
const ENTRY_TIME: &[u8] = b"2592000";

/// What happened to a new incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncidentAddition {
    /// The mark and the entry were written.
    Added,
    /// The mark exists, so the incident was created before.
    Known,
    /// The outbox has [`MAX_OUTBOX`] entries.
    Full,
    /// The store is not available. The incident is written as soon as it is.
    Waiting,
    /// The store is not available, and too many changes wait for it.
    Dropped,
}

/// Returns the key of the mark that an incident was created.
pub(crate) fn mark_key(name: RecordName) -> RecordKey {
    RecordKey { kind: RecordKind::Incident, name, version: None }
}

/// Writes an incident, unless it was created before or the outbox is full.
pub(crate) async fn write_incident(
    link: &StoreLink,
    opener: &RecordOpener,
    incident: &SealedIncident,
) -> Result<IncidentAddition, CallError> {
    let SealedIncident { name, mark_expiry, mark, entry } = incident;
    let (mark_name, entry_name) = (record_key(&mark_key(*name)), outbox_record_key(*name));
    let look_up = StoreCall::new(OUTBOX_INDEX_KEY)
        .command("MGET", &[&mark_name, &entry_name])
        .command("ZCARD", &[OUTBOX_INDEX_KEY]);
    let decode = |replies: Vec<Value>| {
        let mut replies = replies.into_iter();
        let found = optional_strings(next_reply(&mut replies)?, 2)?;
        Ok((found, number(&next_reply(&mut replies)?)?))
    };
    let (found, length) = link.query(&look_up, decode).await?;
    let [found_mark, found_entry] = <[Option<Vec<u8>>; 2]>::try_from(found)
        .map_err(|_| CallError::Reply("an array has another number of elements than keys"))?;
    if matches!(opener.open(&mark_key(*name), found_mark.as_deref()), StoredValue::Valid(_)) {
        return Ok(IncidentAddition::Known);
    }
    if found_entry.is_none() && length >= MAX_OUTBOX {
        count(&link.counters.outbox_overflows, 1);
        return Ok(IncidentAddition::Full);
    }
    let now = (opener.now)();
    let time = mark_expiry.saturating_sub(now).clamp(1, MAX_TTL).to_string();
    // The name first: a name without an entry is removed by the owner.
    let mut write = StoreCall::new(OUTBOX_INDEX_KEY);
    write.push("ZADD", &[OUTBOX_INDEX_KEY, now.to_string().as_bytes(), &index_member(*name)]);
    write.push("EXPIRE", &[OUTBOX_INDEX_KEY, ENTRY_TIME]);
    write.push("SET", &[&entry_name, entry, b"NX", b"EX", ENTRY_TIME]);
    write.push("SET", &[&mark_name, mark, b"EX", time.as_bytes()]);
    let decode = |replies: Vec<Value>| match first_error(&replies) {
        Some(error) => Err(CallError::from_server(error)),
        None => Ok(()),
    };
    link.query(&write, decode).await?;
    Ok(if found_entry.is_none() { IncidentAddition::Added } else { IncidentAddition::Known })
}

/// Adds the command that replaces an entry.
pub(crate) fn push_update(call: &mut StoreCall, name: RecordName, sealed: &[u8]) {
    call.push("SET", &[&outbox_record_key(name), sealed, b"XX", b"EX", ENTRY_TIME]);
}

/// Adds the commands that remove an entry.
pub(crate) fn push_removal(call: &mut StoreCall, name: RecordName) {
    call.push("DEL", &[&outbox_record_key(name)]);
    call.push("ZREM", &[OUTBOX_INDEX_KEY, &index_member(name)]);
}

fn index_member(name: RecordName) -> Vec<u8> {
    let mut member = Vec::new();
    push_hex(&mut member, &name.0);
    member
}
