//! The outbox that replicas share. An incident has a mark that it was created, and an entry until its steps are done; a sorted set
//! has the names of all entries. One process at a time owns the outbox and does the steps, by a lease. All keys are at one
//! node of a cluster. Times of keys in the server are longer than those in the seals, so that a server that evicts keys by
//! their time (`volatile-ttl`) evicts verdicts before.

use redis::Value;

use crate::{
    counters::count,
    limits::MAX_OUTBOX,
    outbox::{OutboxEntry, outbox_key},
    record::RecordName,
    secret::{BadRecord, SealError},
};

use super::{
    change_queue::{SealedIncident, SharedChange, outbox_record_key},
    connection::{CallError, StoreCall},
    event_seal::NodeId,
    incident_write::{IncidentAddition, mark_key, write_incident},
    key_names::{OUTBOX_INDEX_KEY, OUTBOX_OWNER_KEY, parse_hex, push_hex},
    limits::MAX_KEYS,
    records::RecordOpener,
    replies::{
        next_reply, number, only, optional_string, optional_strings, parse_decimal, strings,
    },
    store::SharedStore,
};

/// Time until the ownership ends that is not renewed, milliseconds.
const OWNER_TIME: &[u8] = b"15000";

/// Time limit of a call that reads the outbox. Longer than that of lookups, because no request waits for it.
const READ_TIMEOUT: std::time::Duration = std::time::Duration::from_millis(900);

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
    /// [`RecordKind::Incident`](crate::RecordKind::Incident).
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
