//! Names and seals.

use proptest::prelude::*;

use super::*;
use crate::{BadRecord, MAX_VALUE, SealError};

/// Records of an earlier release must be found by the next one. The names were computed with another implementation.
#[test]
fn names_are_stable() {
    let name = |kind, parts: &[&[u8]]| format!("{:?}", secret().name(kind, parts));
    assert_eq!(name(RecordKind::NotClean, &[b"abc"]), "6ce70351f45dbe51d93b72c4ce8a8106");
    assert_eq!(name(RecordKind::Media, &[b"", b"xy", b"z"]), "63a6af66a1e9d9eaf4e1d72752072e22");
}

#[test]
fn names_depend_on_kind_parts_and_secret() {
    let kinds = [RecordKind::NotClean, RecordKind::Media, RecordKind::Reference];
    let parts: [&[&[u8]]; 6] = [&[], &[b""], &[b"ab"], &[b"a", b"b"], &[b"ab", b""], &[b"", b"ab"]];
    let secrets = [secret(), StoreSecret::derive(b"another"), StoreSecret::derive(b"")];
    let mut names = std::collections::HashSet::new();
    for secret in &secrets {
        for kind in kinds {
            for parts in parts {
                assert!(names.insert(secret.name(kind, parts)), "{kind:?} {parts:?}");
            }
        }
    }
    assert_eq!(format!("{:?}", secret()), "StoreSecret(..)");
}

/// A cluster stores records of the same name at one node.
#[test]
fn records_about_a_content_have_the_same_name() {
    let [infected, finished, forgotten] =
        [RecordKind::NotClean, RecordKind::Finished, RecordKind::Forgotten]
            .map(|kind| secret().name(kind, &[b"content"]));
    assert_eq!([infected, finished], [finished, forgotten]);
}

#[test]
fn every_bit_and_every_byte_of_a_record_counts() {
    let secret = secret();
    for kind in [RecordKind::NotClean, RecordKind::Finished] {
        let key = key(kind, 1);
        let sealed = secret.seal(&key, EXPIRY, b"value").unwrap();
        assert_eq!(secret.open(&key, &sealed, START).unwrap(), b"value");
        for bit in 0..sealed.len() * 8 {
            let mut altered = sealed.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(secret.open(&key, &altered, START), Err(BadRecord::Seal), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(secret.open(&key, &sealed[..length], START).is_err(), "{length} bytes");
            assert!(secret.open(&key, &sealed[length + 1..], START).is_err());
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(secret.open(&key, &longer, START), Err(BadRecord::Seal));
    }
}

#[test]
fn records_expire() {
    let (secret, key) = (secret(), key(RecordKind::Media, 1));
    for expiry in [0, 1, START, u64::MAX] {
        let sealed = secret.seal(&key, expiry, b"").unwrap();
        assert_eq!(secret.open(&key, &sealed, expiry), Err(BadRecord::Expired(expiry)));
        if let Some(before) = expiry.checked_sub(1) {
            assert_eq!(secret.open(&key, &sealed, before), Ok(Vec::new()));
        }
    }
}

#[test]
fn values_are_bounded_at_both_ends() {
    let (secret, key) = (secret(), key(RecordKind::Media, 1));
    let largest = vec![1; MAX_VALUE];
    let sealed = secret.seal(&key, EXPIRY, &largest).unwrap();
    assert_eq!(secret.open(&key, &sealed, START).unwrap(), largest);
    let larger = vec![1; MAX_VALUE + 1];
    assert_eq!(secret.seal(&key, EXPIRY, &larger), Err(SealError::TooLong(MAX_VALUE + 1)));
    let plaintext = [&[1][..], &EXPIRY.to_le_bytes(), &larger].concat();
    let sealed = secret.seal_plaintext(&key, &plaintext).unwrap();
    assert_eq!(secret.open(&key, &sealed, START), Err(BadRecord::Length));
}

#[test]
fn other_formats_are_rejected() {
    let (secret, key) = (secret(), key(RecordKind::Media, 1));
    for format in [0, 2, 255] {
        let plaintext = [&[format][..], &EXPIRY.to_le_bytes(), b"value"].concat();
        let sealed = secret.seal_plaintext(&key, &plaintext).unwrap();
        assert_eq!(secret.open(&key, &sealed, START), Err(BadRecord::Format(format)));
    }
    for length in 0..9 {
        let sealed = secret.seal_plaintext(&key, &vec![1; length]).unwrap();
        assert_eq!(secret.open(&key, &sealed, START), Err(BadRecord::Length), "{length}");
    }
}

#[test]
fn equal_values_have_different_seals() {
    let seal = || secret().seal(&key(RecordKind::Media, 1), EXPIRY, b"value").unwrap();
    let (first, second) = (seal(), seal());
    assert!(first[..24] != second[..24] && first[24..] != second[24..]);
}

fn any_key() -> impl Strategy<Value = RecordKey> {
    let kind = prop_oneof![
        Just(RecordKind::NotClean),
        Just(RecordKind::Finished),
        Just(RecordKind::Media)
    ];
    // Few bytes, so that keys are often equal in parts.
    let version = proptest::option::of(proptest::array::uniform8(0..2_u8));
    (kind, 0..4_u64, version).prop_map(|(kind, number, version)| {
        let name = secret().name(RecordKind::Media, &[&number.to_le_bytes()]);
        RecordKey { kind, name, version }
    })
}

proptest! {
    #[test]
    fn records_open_only_under_their_key(
        sealed_under in any_key(),
        opened_under in any_key(),
        value in proptest::collection::vec(any::<u8>(), 0..300),
        expiry in 0..100_u64,
        now in 0..100_u64,
    ) {
        let sealed = secret().seal(&sealed_under, expiry, &value).unwrap();
        let expected = if sealed_under != opened_under {
            Err(BadRecord::Seal)
        } else if expiry <= now {
            Err(BadRecord::Expired(expiry))
        } else {
            Ok(value)
        };
        prop_assert_eq!(secret().open(&opened_under, &sealed, now), expected);
        let other_secret = StoreSecret::derive(b"another");
        prop_assert_eq!(other_secret.open(&sealed_under, &sealed, now), Err(BadRecord::Seal));
    }

    #[test]
    fn no_bytes_are_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzz::input(&bytes);
    }
}
