//! Keys in the server, by the records that they contain.

use crate::record::{NAME, RecordKey, RecordKind, RecordName, VersionTag};

/// Start of all keys of the store.
const PREFIX: &[u8] = b"mcs1:";

/// Pattern of the keys of records and leases, for SCAN.
pub(crate) const KEY_PATTERN: &[u8] = b"mcs1:*";

/// Stream of events.
pub(crate) const EVENTS_KEY: &[u8] = b"mcs1:events";

/// Sorted set of fingerprints, by the time of their publication.
pub(crate) const FINGERPRINTS_KEY: &[u8] = b"mcs1:keys";

/// Start of the keys of decisions. A cluster stores all of them at one node.
const DECISIONS: &[u8] = b"{d}:";

const REFERENCES: &[u8] = b"i:";

const SEEN: &[u8] = b"x:";

/// Start of the keys of marks of incidents, and of entries of the outbox. A cluster stores all of them at one node, so that one
/// call reads both.
const INCIDENT: &[u8] = b"{o}:j:";
const OUTBOX: &[u8] = b"{o}:o:";

/// Sorted set of the names in the outbox, by the time at which they were added.
pub(crate) const OUTBOX_INDEX_KEY: &[u8] = b"mcs1:{o}:index";

/// Name of the process that does the steps of incidents. Not removed with all records: two processes would do them.
pub(crate) const OUTBOX_OWNER_KEY: &[u8] = b"mcs1:{o}:owner";

/// Content of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StoredKey {
    /// One record.
    Record(RecordKey),
    /// Hash of the references, or of the seen media, with this name.
    Hash(RecordKind, RecordName),
    /// Names in the outbox.
    OutboxIndex,
    Lease,
}

/// Returns the key of a record. For a reference, the key of the hash of all references with the name.
pub(crate) fn record_key(key: &RecordKey) -> Vec<u8> {
    let kind = match key.kind {
        RecordKind::NotClean => b"n",
        RecordKind::Finished => b"c",
        RecordKind::Forgotten => b"g",
        RecordKind::Media => return named_key(b"m:", &key.name, key.version.as_ref()),
        RecordKind::Reference | RecordKind::Seen => return hash_key(key.kind, &key.name),
        // Without a version: the number of the newest list.
        RecordKind::Decisions => return named_key(DECISIONS, &key.name, key.version.as_ref()),
        RecordKind::Incident => return named_key(INCIDENT, &key.name, key.version.as_ref()),
        RecordKind::Outbox => return named_key(OUTBOX, &key.name, key.version.as_ref()),
        RecordKind::Rescan => return named_key(b"r:", &key.name, key.version.as_ref()),
    };
    content_key(&key.name, kind, key.version.as_ref())
}

/// Returns the key of the hash of references or seen media.
pub(crate) fn hash_key(kind: RecordKind, name: &RecordName) -> Vec<u8> {
    named_key(if kind == RecordKind::Seen { SEEN } else { REFERENCES }, name, None)
}

pub(crate) fn lease_key(name: &RecordName, version: VersionTag) -> Vec<u8> {
    content_key(name, b"f", Some(&version))
}

/// Returns the field of a reference in the hash of its name.
pub(crate) fn reference_field(key: &RecordKey) -> Vec<u8> {
    let mut field = Vec::new();
    push_hex(&mut field, key.version_bytes());
    field
}

/// Returns the key of a record in the hash of `name`, or `None` for a field that is none.
pub(crate) fn parse_reference(
    kind: RecordKind,
    name: RecordName,
    field: &[u8],
) -> Option<RecordKey> {
    let version = if field.is_empty() { None } else { Some(parse_hex(field)?) };
    Some(RecordKey { kind, name, version })
}

/// Returns the content of a key, or `None` for a key that is none of a record or a lease.
pub(crate) fn parse_key(key: &[u8]) -> Option<StoredKey> {
    if key == OUTBOX_INDEX_KEY {
        return Some(StoredKey::OutboxIndex);
    }
    let key = key.strip_prefix(PREFIX)?;
    for (start, kind) in [(INCIDENT, RecordKind::Incident), (OUTBOX, RecordKind::Outbox)] {
        if let Some(rest) = key.strip_prefix(start) {
            let (name, version) = rest.split_at_checked(2 * NAME)?;
            return parse_record(kind, name, version);
        }
    }
    if let Some(rest) = key.strip_prefix(b"{") {
        let (name, rest) = rest.split_at_checked(2 * NAME)?;
        let (&kind, version) = rest.strip_prefix(b"}:")?.split_first()?;
        let kind = match kind {
            b'n' => RecordKind::NotClean,
            b'c' => RecordKind::Finished,
            b'g' => RecordKind::Forgotten,
            b'f' => return Some(StoredKey::Lease),
            _ => return None,
        };
        return parse_record(kind, name, version);
    }
    for (start, kind) in [(REFERENCES, RecordKind::Reference), (SEEN, RecordKind::Seen)] {
        if let Some(name) = key.strip_prefix(start) {
            return Some(StoredKey::Hash(kind, RecordName(parse_hex(name)?)));
        }
    }
    let named = [(b"m:", RecordKind::Media), (b"r:", RecordKind::Rescan)];
    let mut named = named.into_iter();
    let (kind, rest) =
        named.find_map(|(start, kind)| key.strip_prefix(start).map(|rest| (kind, rest)))?;
    let (name, version) = rest.split_at_checked(2 * NAME)?;
    parse_record(kind, name, version)
}

/// `version`: empty, or after a colon.
fn parse_record(kind: RecordKind, name: &[u8], version: &[u8]) -> Option<StoredKey> {
    let name = RecordName(parse_hex(name)?);
    let version =
        if version.is_empty() { None } else { Some(parse_hex(version.strip_prefix(b":")?)?) };
    Some(StoredKey::Record(RecordKey { kind, name, version }))
}

/// Returns the key of a record about a content. A cluster stores all keys with the same name between braces at one node.
fn content_key(name: &RecordName, kind: &[u8], version: Option<&VersionTag>) -> Vec<u8> {
    let mut key = [PREFIX, b"{"].concat();
    push_hex(&mut key, &name.0);
    key.extend_from_slice(b"}:");
    key.extend_from_slice(kind);
    push_version(&mut key, version);
    key
}

fn named_key(start: &[u8], name: &RecordName, version: Option<&VersionTag>) -> Vec<u8> {
    let mut key = [PREFIX, start].concat();
    push_hex(&mut key, &name.0);
    push_version(&mut key, version);
    key
}

fn push_version(key: &mut Vec<u8>, version: Option<&VersionTag>) {
    if let Some(version) = version {
        key.push(b':');
        push_hex(key, version);
    }
}

/// Appends bytes in hexadecimal digits.
pub(crate) fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    let digit = |value: u8| if value < 10 { b'0' + value } else { b'a' + value - 10 };
    text.reserve(2 * bytes.len());
    for byte in bytes {
        text.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// Parses lower-case hexadecimal digits, of exactly `N` bytes.
pub(crate) fn parse_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let digit = |value: u8| match value {
        b'0'..=b'9' => Some(value - b'0'),
        b'a'..=b'f' => Some(value - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
