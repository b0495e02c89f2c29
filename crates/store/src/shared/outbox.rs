//! The outbox that replicas share. An incident has a mark that it was created, and an entry until its steps are done; a sorted set
//! has the names of all entries. One process at a time owns the outbox and does the steps, by a lease. All keys are at one
//! node of a cluster. Times of keys in the server are longer than those in the seals, so that a server that evicts keys by
//! their time (`volatile-ttl`) evicts verdicts before.

use redis::Value;

use crate::{
    counters::count,
    limits::MAX_OUTBOX,
    outbox::{OutboxEntry, outbox_key},
    record::{RecordKey, RecordKind, RecordName},
    secret::{BadRecord, SealError},
};

use super::{
    change_queue::{SealedIncident, SharedChange, outbox_record_key},
    connection::{CallError, StoreCall, first_error},
    event_seal::NodeId,
    key_names::{OUTBOX_INDEX_KEY, OUTBOX_OWNER_KEY, parse_hex, push_hex, record_key},
    limits::{MAX_KEYS, MAX_TTL},
    link::StoreLink,
    records::{RecordOpener, StoredValue},
    replies::{
        next_reply, number, only, optional_string, optional_strings, parse_decimal, strings,
    },
    store::SharedStore,
};

/// Time until the server removes an entry that nothing else has removed, seconds: 30 days.
const ENTRY_TIME: &[u8] = b"2592000";

/// Time until the ownership ends that is not renewed, milliseconds.
const OWNER_TIME: &[u8] = b"15000";

/// Time limit of a call that reads the outbox. Longer than that of lookups, because no request waits for it.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(900);

/// What happened to a new incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncidentAddition {
    /// The mark and the entry were written.
    Added,
    /// The mark exists, so the incident was created before.
    Known,
    /// The outbox has [`MAX_OUTBOX`] entries.
    Full,
    /// The store is not available. The incident is written as soon as it is, before all other changes.
    Waiting,
    /// The store is not available, and too many changes wait for it.
    Dropped,
}

/// Entry of the outbox, as the server returned it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OutboxRecord {
    /// A valid entry.
    Valid(OutboxEntry),
    /// There is none, for example because another process has removed it.
    Missing,
    /// The entry was valid until its expiry.
    Expired,
    /// The entry was altered, or has a secret that this process does not have.
    Unreadable,
}

impl SharedStore {
    /// Creates an incident: a mark that it was created, valid until `mark_expiry`, and an entry of the outbox. Nothing changes
    /// if the mark or the entry exists, or if the outbox has [`MAX_OUTBOX`] entries, which is counted. Takes at most
    /// two calls. Two processes that create the same incident at once create one entry. `name`: of a record of kind
    /// [`RecordKind::Incident`].
    ///
    /// # Errors
    /// If the value cannot be sealed.
    pub async fn add_incident(
        &self,
        name: RecordName,
        mark_expiry: u64,
        expiry: u64,
        value: &[u8],
    ) -> Result<IncidentAddition, SealError> {
        let secret = self.secret();
        let mark = secret.seal(&mark_key(name), mark_expiry, &[])?;
        let entry = secret.seal(&outbox_key(name), expiry, value)?;
        let incident = SealedIncident { name, mark_expiry, mark, entry };
        match write_incident(self.link(), self.opener(), &incident).await {
            Ok(addition) => Ok(addition),
            Err(_logged) if self.queue(SharedChange::AddIncident(Box::new(incident))) => {
                Ok(IncidentAddition::Waiting)
            }
            Err(_logged) => Ok(IncidentAddition::Dropped),
        }
    }

    /// Replaces the value of an entry in the background, unless the entry was removed. Retried as kept records.
    ///
    /// # Errors
    /// If the value cannot be sealed.
    pub fn update_outbox(
        &self,
        name: RecordName,
        expiry: u64,
        value: &[u8],
    ) -> Result<(), SealError> {
        let sealed = self.secret().seal(&outbox_key(name), expiry, value)?;
        self.queue(SharedChange::UpdateEntry { name, sealed });
        Ok(())
    }

    /// Removes an entry in the background. Retried as kept records.
    pub fn remove_from_outbox(&self, name: RecordName) {
        self.queue(SharedChange::RemoveEntry { name });
    }

    /// Returns the names of at most [`MAX_OUTBOX`] entries and when they were added, seconds since the Unix epoch, the oldest
    /// first. Neither is sealed. `None` if the store is not available.
    pub async fn outbox_names(&self) -> Option<Vec<(RecordName, u64)>> {
        let max = MAX_OUTBOX.to_string();
        let arguments =
            [OUTBOX_INDEX_KEY, b"0", b"+inf", b"WITHSCORES", b"LIMIT", b"0", max.as_bytes()];
        let call = StoreCall::new(OUTBOX_INDEX_KEY).command("ZRANGEBYSCORE", &arguments);
        let decode = |replies| decode_names(only(replies)?);
        Some(self.link().poll(&call, READ_TIMEOUT, decode).await.ok()?.0)
    }

    /// Returns entries, in the order of at most 16 names. `None` if the store is not available.
    pub async fn outbox_records(&self, names: &[RecordName]) -> Option<Vec<OutboxRecord>> {
        let names = names.get(..MAX_KEYS).unwrap_or(names);
        if names.is_empty() {
            return Some(Vec::new());
        }
        let keys: Vec<_> = names.iter().map(|name| outbox_record_key(*name)).collect();
        let arguments: Vec<_> = keys.iter().map(|key| &key[..]).collect();
        let call = StoreCall::new(OUTBOX_INDEX_KEY).command("MGET", &arguments);
        let decode = |replies| optional_strings(only(replies)?, names.len());
        let (found, _) = self.link().poll(&call, READ_TIMEOUT, decode).await.ok()?;
        let opened = names.iter().zip(found).map(|(name, sealed)| self.open_entry(*name, sealed));
        Some(opened.collect())
    }

    fn open_entry(&self, name: RecordName, sealed: Option<Vec<u8>>) -> OutboxRecord {
        let Some(sealed) = sealed else { return OutboxRecord::Missing };
        let RecordOpener { secrets, now, counters } = self.opener();
        let (key, now) = (outbox_key(name), now());
        match secrets.open_by_any(|secret| secret.open_with_expiry(&key, &sealed, now)) {
            Ok((expiry, value)) => OutboxRecord::Valid(OutboxEntry { name, expiry, value }),
            Err(BadRecord::Expired(_)) => OutboxRecord::Expired,
            Err(_) => {
                count(&counters.bad_records, 1);
                OutboxRecord::Unreadable
            }
        }
    }

    /// Returns whether an entry exists, readable or not. `None` if the store is not available.
    pub async fn has_outbox_entry(&self, name: RecordName) -> Option<bool> {
        let key = outbox_record_key(name);
        let call = StoreCall::new(&key).command("EXISTS", &[&key]);
        self.query(&call, |replies| Ok(number(&only(replies)?)? > 0)).await.ok()
    }

    /// Acquires or renews the ownership of the outbox. Returns whether this process owns it for the next 10 s. `None` if the
    /// store is not available. Ownership saves work only: the lease is not sealed, and a process that is frozen may continue
    /// beside the next owner for a moment.
    pub async fn hold_outbox(&self) -> Option<bool> {
        let key = OUTBOX_OWNER_KEY;
        let owner = owner_name(self.node());
        let acquire = StoreCall::new(key)
            .command("SET", &[key, &owner, b"NX", b"PX", OWNER_TIME])
            .command("GET", &[key]);
        let decode = |replies: Vec<Value>| {
            let mut replies = replies.into_iter();
            let is_acquired = is_set(&next_reply(&mut replies)?)?;
            Ok((is_acquired, optional_string(next_reply(&mut replies)?)?))
        };
        let (is_acquired, current) = self.query(&acquire, decode).await.ok()?;
        if is_acquired || current.as_ref() != Some(&owner) {
            return Some(is_acquired);
        }
        let renew = StoreCall::new(key).command("SET", &[key, &owner, b"XX", b"PX", OWNER_TIME]);
        self.query(&renew, |replies| is_set(&only(replies)?)).await.ok()
    }
}

fn mark_key(name: RecordName) -> RecordKey {
    RecordKey { kind: RecordKind::Incident, name, version: None }
}

/// Returns the name of this process, which shows in the server who owns the outbox.
fn owner_name(node: NodeId) -> Vec<u8> {
    let mut owner = Vec::new();
    push_hex(&mut owner, &node);
    owner
}

/// Returns whether the condition of a SET was true.
fn is_set(reply: &Value) -> Result<bool, CallError> {
    match reply {
        Value::Okay => Ok(true),
        Value::Nil => Ok(false),
        Value::ServerError(error) => Err(CallError::from_server(error)),
        _ => Err(CallError::Reply("SET returned neither OK nor nothing")),
    }
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

/// Decodes names with their times. Leaves out what is none.
fn decode_names(reply: Value) -> Result<Vec<(RecordName, u64)>, CallError> {
    let max = usize::try_from(2 * MAX_OUTBOX).unwrap_or(usize::MAX);
    let mut strings = strings(reply, max)?.into_iter();
    let mut names = Vec::new();
    while let (Some(member), Some(time)) = (strings.next(), strings.next()) {
        if let Some(name) = parse_hex(&member) {
            names.push((RecordName(name), parse_decimal(&time)?));
        }
    }
    Ok(names)
}
