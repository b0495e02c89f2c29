//! Fuzz targets: the decoder of records, and replies of a shared store. `cargo test` replays the kept corpora.

use crate::{BadRecord, MAX_VALUE, RecordKey, RecordKind, RecordName, StoreSecret, secret::HEADER};

/// Opens one input as a sealed record, and as the plaintext of one.
///
/// # Panics
/// If bytes that were not sealed are accepted, or sealed ones are not.
pub fn input(bytes: &[u8]) {
    let secret = StoreSecret::derive(b"secret of the fuzz target");
    let key = RecordKey { kind: RecordKind::Media, name: RecordName([7; 16]), version: None };
    let forged = secret.open(&key, bytes, 0);
    assert!(matches!(forged, Err(BadRecord::Length | BadRecord::Seal)), "{forged:?}");
    let sealed = secret.seal_plaintext(&key, bytes);
    let opened = sealed.map(|sealed| secret.open(&key, &sealed, 100));
    let Ok(opened) = opened else { return };
    let is_right = match (bytes.split_first(), &opened) {
        (Some((1, rest)), Ok(value)) => rest.get(8..) == Some(value),
        (Some((1, _)), Err(BadRecord::Expired(expiry))) => *expiry <= 100,
        (Some((format, _)), Err(BadRecord::Format(found))) => format == found,
        (_, Err(BadRecord::Length)) => !(HEADER..=HEADER + MAX_VALUE).contains(&bytes.len()),
        _ => false,
    };
    assert!(is_right, "{opened:?}");
}

/// Checks and decodes one input as replies of a server.
///
/// # Panics
/// If the check of the limits and the decoder disagree, or a forged event is valid.
pub fn replies(bytes: &[u8]) {
    crate::shared::check_replies(bytes);
}

#[cfg(test)]
#[test]
fn kept_replies_pass() {
    mcs_testing::replay_corpus("store_replies", replies);
}

#[cfg(test)]
#[test]
fn kept_corpus_passes() {
    mcs_testing::replay_corpus("store_record", input);
}
