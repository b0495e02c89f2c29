//! References and seen media: several records in one hash, by the name that they have in common.

use redis::Value;

use crate::record::{RecordKey, RecordKind, RecordName};

use super::{
    connection::{CallError, StoreCall},
    key_names::{hash_key, parse_reference, reference_field},
    limits::{MAX_ELEMENTS, MAX_REFERENCES},
    link::StoreLink,
    records::{RecordOpener, StoredValue},
    replies::{only, strings},
};

/// Time in seconds after which the server removes a hash that was trimmed: 30 days.
const REFERENCES_TIME: &[u8] = b"2592000";

/// A field of the hash that is the key of a reference, and its sealed value.
type ReferenceField = (RecordKey, Vec<u8>);

/// Returns the call that reads the references with a name.
pub(crate) fn references_call(kind: RecordKind, name: RecordName) -> StoreCall {
    let key = hash_key(kind, &name);
    StoreCall::new(&key).command("HGETALL", &[&key])
}

/// Decodes the reply to HGETALL. Leaves out fields that are no references.
pub(crate) fn decode_references(
    kind: RecordKind,
    name: RecordName,
    reply: Value,
) -> Result<Vec<ReferenceField>, CallError> {
    let mut strings = strings(reply, MAX_ELEMENTS)?.into_iter();
    let mut fields = Vec::new();
    while let (Some(field), Some(sealed)) = (strings.next(), strings.next()) {
        if let Some(key) = parse_reference(kind, name, &field) {
            fields.push((key, sealed));
        }
    }
    Ok(fields)
}

/// Returns the valid references among some fields, at most 64.
pub(crate) fn open_references(
    opener: &RecordOpener,
    fields: Vec<ReferenceField>,
) -> Vec<(RecordKey, Vec<u8>)> {
    let valid =
        fields.into_iter().filter_map(|(key, sealed)| match opener.open(&key, Some(&sealed)) {
            StoredValue::Valid(value) => Some((key, value)),
            StoredValue::Missing | StoredValue::Invalid => None,
        });
    valid.take(MAX_REFERENCES).collect()
}

/// Removes references until 64 are left: invalid and expired ones first. Failure leaves too many until the next write.
pub(crate) async fn trim_references(
    link: &StoreLink,
    opener: &RecordOpener,
    kind: RecordKind,
    name: RecordName,
) {
    let decode = |replies| decode_references(kind, name, only(replies)?);
    let Ok(mut fields) = link.query(&references_call(kind, name), decode).await else { return };
    // A sort of valid ones first: which of those are removed does not matter.
    fields.sort_by_key(|(key, sealed)| {
        !matches!(opener.open(key, Some(sealed)), StoredValue::Valid(_))
    });
    let hash = hash_key(kind, &name);
    let mut call = StoreCall::new(&hash).command("DEL", &[&hash]);
    for (key, sealed) in fields.iter().take(MAX_REFERENCES) {
        call.push("HSET", &[&hash, &reference_field(key), sealed]);
    }
    // The removal has ended the time of the hash. The seals contain the times of the references.
    call.push("EXPIRE", &[&hash, REFERENCES_TIME]);
    let _ = link.query(&call, Ok).await;
}
