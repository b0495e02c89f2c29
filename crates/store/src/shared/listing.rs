//! Commands about all records: listing and removal, on each server that has keys. For operators; not limited by the
//! circuit breaker.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::Value;
use tokio::time::timeout;

use crate::record::{RecordKey, RecordKind};

use super::{
    connection::{CallError, StoreCall, StoreConnection},
    key_names::{KEY_PATTERN, StoredKey, hash_key, parse_key, record_key},
    limits::MAX_ELEMENTS,
    link::StoreLink,
    records::{RecordOpener, StoredValue},
    references::{decode_references, open_references},
    replies::{number, only, optional_string, parse_decimal, strings},
};

/// Number of keys that a server examines for one SCAN, approximately.
const SCAN_COUNT: &[u8] = b"512";

/// Maximum number of SCAN calls for one server, enough for 500 million keys.
const MAX_SCANS: usize = 1_000_000;

/// Time limit of one call. Longer than that of lookups, because no request waits for it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of values read by one call.
const MAX_VALUES: usize = 16;

/// Keys of one server that records and leases have.
struct KeyScan {
    connection: Arc<dyn StoreConnection>,
    cursor: Vec<u8>,
    scans: usize,
}

impl KeyScan {
    fn new(connection: Arc<dyn StoreConnection>) -> Self {
        Self { connection, cursor: b"0".to_vec(), scans: 0 }
    }

    /// Returns the next keys. Keys may occur again. `None`: there are no more.
    async fn next(&mut self) -> Result<Option<Vec<(Vec<u8>, StoredKey)>>, CallError> {
        if self.scans > 0 && self.cursor == b"0" {
            return Ok(None);
        }
        if self.scans >= MAX_SCANS {
            return Err(CallError::Reply("the server returns keys without end"));
        }
        self.scans += 1;
        let arguments = [&self.cursor[..], b"MATCH", KEY_PATTERN, b"COUNT", SCAN_COUNT];
        let call = StoreCall::new(b"").command("SCAN", &arguments);
        let Value::Array(parts) = only(send(&*self.connection, &call).await?)? else {
            return Err(CallError::Reply("SCAN returned no array"));
        };
        let Ok([Value::BulkString(cursor), keys]) = <[Value; 2]>::try_from(parts) else {
            return Err(CallError::Reply("SCAN returned no cursor"));
        };
        parse_decimal(&cursor)?;
        self.cursor = cursor;
        let keys = strings(keys, MAX_ELEMENTS)?.into_iter();
        Ok(Some(keys.filter_map(|key| parse_key(&key).map(|parsed| (key, parsed))).collect()))
    }
}

async fn send(connection: &dyn StoreConnection, call: &StoreCall) -> Result<Vec<Value>, CallError> {
    timeout(CALL_TIMEOUT, connection.call(call)).await.unwrap_or(Err(CallError::Timeout))
}

/// Removes all records but those of [`RecordKind::Seen`], and leases. Passes their number to `removed` in parts; a hash of
/// references counts as one.
/// Cancellation safe.
pub(crate) async fn remove_all(
    link: &StoreLink,
    mut removed: impl FnMut(u64),
) -> Result<(), CallError> {
    for connection in link.primaries().await? {
        let mut scan = KeyScan::new(connection);
        while let Some(keys) = scan.next().await? {
            let mut call = StoreCall::new(b"");
            let removed_keys: Vec<_> = keys.iter().filter(|(_, parsed)| !is_seen(parsed)).collect();
            for (key, _) in &removed_keys {
                call.push("DEL", &[key]);
            }
            if removed_keys.is_empty() {
                continue;
            }
            for reply in send(&*scan.connection, &call).await? {
                removed(number(&reply)?);
            }
        }
    }
    Ok(())
}

/// Returns whether a key is that of a record that outlives the removal of all.
fn is_seen(parsed: &StoredKey) -> bool {
    matches!(parsed, StoredKey::Hash(RecordKind::Seen, _))
}

/// Passes the valid records of a kind to `each`, at most `limit`, each once.
pub(crate) async fn list(
    link: &StoreLink,
    opener: &RecordOpener,
    kind: RecordKind,
    limit: usize,
    mut each: impl FnMut(RecordKey, Vec<u8>),
) -> Result<(), CallError> {
    let mut seen = HashSet::new();
    for connection in link.primaries().await? {
        let mut scan = KeyScan::new(connection);
        while seen.len() < limit
            && let Some(keys) = scan.next().await?
        {
            for keys in keys.chunks(MAX_VALUES) {
                for (key, value) in read_values(&*scan.connection, opener, kind, keys).await? {
                    if seen.len() < limit && seen.insert(key) {
                        each(key, value);
                    }
                }
            }
        }
    }
    Ok(())
}

/// Reads the valid records of a kind among these keys.
async fn read_values(
    connection: &dyn StoreConnection,
    opener: &RecordOpener,
    kind: RecordKind,
    keys: &[(Vec<u8>, StoredKey)],
) -> Result<Vec<(RecordKey, Vec<u8>)>, CallError> {
    let mut call = StoreCall::new(b"");
    let mut wanted = Vec::new();
    for (_, parsed) in keys {
        match parsed {
            StoredKey::Record(key) if key.kind == kind => call.push("GET", &[&record_key(key)]),
            StoredKey::Hash(hash, name) if *hash == kind => {
                call.push("HGETALL", &[&hash_key(kind, name)]);
            }
            StoredKey::Record(_)
            | StoredKey::Hash(..)
            | StoredKey::OutboxIndex
            | StoredKey::Lease => continue,
        }
        wanted.push(parsed);
    }
    let mut found = Vec::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    for (parsed, reply) in wanted.iter().zip(send(connection, &call).await?) {
        match parsed {
            StoredKey::Record(key) => {
                let sealed = optional_string(reply)?;
                if let StoredValue::Valid(value) = opener.open(key, sealed.as_deref()) {
                    found.push((*key, value));
                }
            }
            StoredKey::Hash(_, name) => {
                found.extend(open_references(opener, decode_references(kind, *name, reply)?));
            }
            StoredKey::OutboxIndex | StoredKey::Lease => {}
        }
    }
    Ok(found)
}
