//! Lookups, compared with a simple model.

use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{DigestKind, model::ModelLists};
use ListAction::{Allow, Block};

#[test]
fn block_entries_have_precedence() {
    for actions in [[Block, Allow], [Allow, Block]] {
        for hex in [EICAR_SHA256, EICAR_SHA1, EICAR_MD5] {
            let mut builder = HashListBuilder::new();
            for action in actions {
                let (list, hex) = match action {
                    Block => ("block", hex),
                    Allow => ("allow", EICAR_SHA256),
                };
                builder.add_entries(action, list, [entry(hex, Some(68))]).unwrap();
            }
            let lists = prepare(builder);
            let found = lists.lookup(&eicar()).unwrap();
            assert_eq!((found.action, found.list), (Block, "block"), "{hex}");
        }
    }
}

#[test]
fn digests_are_needed_where_a_list_contains_them() {
    use DigestKind::{Md5, Sha1, Sha256};
    let needs = |lists: &HashLists<_>| [Sha256, Sha1, Md5].map(|kind| lists.needs(kind));
    assert_eq!(needs(&prepare(HashListBuilder::new())), [false; 3]);
    for (hex, size, expected) in [
        (EICAR_SHA256, None, [true, false, false]),
        (EICAR_SHA1, None, [false, true, false]),
        (EICAR_SHA1, Some(68), [false, true, false]),
        (EICAR_MD5, None, [false, false, true]),
        (EICAR_MD5, Some(68), [false, false, true]),
    ] {
        let mut builder = HashListBuilder::new();
        builder.add_entries(Block, "a", [entry(hex, size)]).unwrap();
        assert_eq!(needs(&prepare(builder)), expected, "{hex}");
    }
    let mut builder = HashListBuilder::new();
    builder.add_entries(Allow, "a", [entry(EICAR_SHA256, None)]).unwrap();
    assert_eq!(needs(&prepare(builder)), [true, false, false]);
}

#[test]
fn kinds_are_not_confused() {
    let bytes = digest(EICAR_SHA256);
    let FileDigest::Sha256(sha256) = bytes else { panic!() };
    let (sha1, md5) = (*sha256.first_chunk().unwrap(), *sha256.first_chunk().unwrap());
    let digests = [FileDigest::Sha256(sha256), FileDigest::Sha1(sha1), FileDigest::Md5(md5)];
    for listed in digests {
        for size in [None, Some(68)] {
            let listed_entry = HashEntry { digest: listed, size, name: "".into() };
            let mut builder = HashListBuilder::new();
            builder.add_entries(Block, "a", [listed_entry]).unwrap();
            let lists = prepare(builder);
            for other in digests {
                let found = lists.lookup(&digests_of(&other, 68));
                assert_eq!(found.is_some(), other == listed, "{listed:?} {other:?}");
            }
        }
    }
}

/// A file with the input of the hash for a key does not have that key.
#[test]
fn key_of_an_entry_is_not_the_digest_of_its_input() {
    use sha2::{Digest as _, Sha256};
    let FileDigest::Md5(md5) = digest(EICAR_MD5) else { panic!() };
    let mut builder = HashListBuilder::new();
    let sha256_entry = entry(EICAR_SHA256, None);
    builder.add_entries(Block, "a", [sha256_entry, entry(EICAR_MD5, Some(68))]).unwrap();
    let lists = prepare(builder);
    for class in 0..=u8::MAX {
        let content = [&[class], &md5[..], &68_u64.to_le_bytes()].concat();
        let sha256 = FileDigest::Sha256(Sha256::digest(&content).into());
        assert_eq!(lists.lookup(&digests_of(&sha256, content.len() as u64)), None);
    }
}

#[test]
fn allow_entries_are_compared_in_full() {
    let FileDigest::Sha256(sha256) = digest(EICAR_SHA256) else { panic!() };
    let mut builder = HashListBuilder::new();
    builder.add_entries(Allow, "a", [entry(EICAR_SHA256, None)]).unwrap();
    let lists = prepare(builder);
    for bit in 0..256 {
        let mut other = sha256;
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(lists.lookup(&digests_of(&FileDigest::Sha256(other), 68)), None, "{bit}");
    }
}

#[test]
fn first_list_and_first_name_remain() {
    let named = |name: &'static str| HashEntry { name: name.into(), ..entry(EICAR_MD5, Some(68)) };
    let mut builder = HashListBuilder::new();
    builder.add_entries(Block, "a", [named(""), named("second"), named("third")]).unwrap();
    builder.add_entries(Block, "b", [named("other")]).unwrap();
    let lists = prepare(builder);
    assert_eq!(lists.block_entries(), 1);
    let found = lists.lookup(&eicar()).unwrap();
    assert_eq!((found.list, found.name), ("a", Some("second")));
}

#[test]
fn size_of_sha256_is_ignored() {
    let mut builder = HashListBuilder::new();
    let sizes = [Some(1), None, Some(68)];
    builder.add_entries(Block, "a", sizes.map(|size| entry(EICAR_SHA256, size))).unwrap();
    let lists = prepare(builder);
    assert_eq!(lists.block_entries(), 1);
    assert!(lists.lookup(&eicar()).is_some());
}

/// Digests of few values, so that some are equal, have equal first bytes, or are equal in all kinds.
fn any_digest() -> impl Strategy<Value = FileDigest> {
    let bytes = (0..4_u8, any::<bool>(), any::<u8>(), any::<bool>());
    (0..3, bytes).prop_map(|(kind, (first, fills, random, is_last_set))| {
        let mut bytes = [if fills { first } else { 0 }; 32];
        bytes[0] = if first == 3 { random } else { first << 6 };
        bytes[15] = u8::from(is_last_set);
        match kind {
            0 => FileDigest::Sha256(bytes),
            1 => FileDigest::Sha1(*bytes.first_chunk().unwrap()),
            _ => FileDigest::Md5(*bytes.first_chunk().unwrap()),
        }
    })
}

fn any_entry() -> impl Strategy<Value = (ListAction, HashEntry<'static>)> {
    let size = prop::option::of(1..4_u64);
    (any::<bool>(), any_digest(), size).prop_map(|(is_allowed, digest, size)| {
        let is_allowed = is_allowed && digest.kind() == DigestKind::Sha256;
        let action = if is_allowed { Allow } else { Block };
        (action, HashEntry { digest, size, name: "".into() })
    })
}

/// Prepares entries as lists with several entries each.
fn prepare_lists(entries: &[(ListAction, HashEntry<'static>)]) -> HashLists<Vec<u8>> {
    let mut builder = HashListBuilder::new();
    for list in entries.chunk_by(|a, b| a.0 == b.0) {
        let entries = list.iter().map(|(_, entry)| entry.clone());
        builder.add_entries(list[0].0, "list", entries).unwrap();
    }
    prepare(builder)
}

proptest! {
    #[test]
    fn lookup_equals_a_search_of_all_entries(
        entries in vec(any_entry(), 0..300),
        others in vec((any_digest(), 0..5_u64), 100),
    ) {
        let lists = prepare_lists(&entries);
        let mut model = ModelLists(entries);
        model.compare(&lists);
        for (digest, size) in others {
            let digests = digests_of(&digest, size);
            let found = lists.lookup(&digests).map(|found| found.action);
            prop_assert_eq!(found, model.lookup(&digests));
        }
        // A set of the entries, with SHA-256 without sizes, has as many elements.
        for (_, entry) in &mut model.0 {
            entry.size = entry.size.filter(|_| entry.digest.kind() != DigestKind::Sha256);
        }
        let distinct = |action| {
            let entries = model.0.iter().filter(|(of, _)| *of == action);
            let keys = entries.map(|(_, entry)| format!("{:?} {:?}", entry.digest, entry.size));
            keys.collect::<BTreeSet<_>>().len() as u64
        };
        prop_assert_eq!(lists.block_entries(), distinct(Block));
        prop_assert_eq!(lists.allow_entries(), distinct(Allow));
    }

    #[test]
    fn random_digests_are_found(
        digests in vec(any::<[u8; 32]>(), 0..2000),
        others in vec(any::<[u8; 32]>(), 100),
    ) {
        let entry = |digest: &[u8; 32]| {
            HashEntry { digest: FileDigest::Sha256(*digest), size: None, name: "".into() }
        };
        for action in [Block, Allow] {
            let mut builder = HashListBuilder::new();
            builder.add_entries(action, "list", digests.iter().map(entry)).unwrap();
            let lists = prepare(builder);
            let is_found = |digest: &[u8; 32]| {
                lists.lookup(&digests_of(&FileDigest::Sha256(*digest), 1)).is_some()
            };
            prop_assert!(digests.iter().all(is_found));
            let listed: BTreeSet<_> = digests.iter().collect();
            prop_assert!(others.iter().all(|other| is_found(other) == listed.contains(other)));
        }
    }
}
