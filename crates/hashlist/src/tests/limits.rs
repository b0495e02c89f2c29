//! Limits, at their edges and beyond.

use super::*;
use crate::{MAX_LISTS, MAX_NAME, MAX_NAMED_ENTRIES, MAX_NAMES};
use ListAction::{Allow, Block};

/// Returns different entries with the same name.
fn named_entries(list: u8, count: u64, name: &str) -> impl Iterator<Item = HashEntry<'_>> {
    (0..count).map(move |number| {
        let mut digest = [list; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        HashEntry { digest: FileDigest::Sha256(digest), size: None, name: name.into() }
    })
}

fn name_of_first(lists: &HashLists<Vec<u8>>, list: u8) -> Option<String> {
    let mut digest = FileDigest::Sha256([list; 32]);
    if let FileDigest::Sha256(bytes) = &mut digest {
        bytes[..8].fill(0);
    }
    lists.lookup(&digests_of(&digest, 1)).unwrap().name.map(str::to_owned)
}

#[test]
fn names_of_short_lists_are_kept() {
    for action in [Block, Allow] {
        for (count, name) in [(MAX_NAMED_ENTRIES, Some("n")), (MAX_NAMED_ENTRIES + 1, None)] {
            let mut builder = HashListBuilder::new();
            let summary = builder.add_entries(action, "a", named_entries(1, count, "n")).unwrap();
            assert_eq!((summary.used, summary.total), (count, count));
            // The limit is one of each list.
            builder.add_entries(action, "b", named_entries(2, 2, "other")).unwrap();
            let lists = prepare(builder);
            assert_eq!(name_of_first(&lists, 1).as_deref(), name);
            assert_eq!(name_of_first(&lists, 2).as_deref(), Some("other"));
        }
    }
}

#[test]
fn total_size_of_names_is_limited() {
    let name = "n".repeat(MAX_NAME);
    let last = (MAX_NAMES / (MAX_NAME + 12)) as u64 - 2 * MAX_NAMED_ENTRIES;
    for (count, is_kept) in [(last, true), (last + 1, false)] {
        let mut builder = HashListBuilder::new();
        for (list, count) in [(1, MAX_NAMED_ENTRIES), (2, MAX_NAMED_ENTRIES), (3, count)] {
            builder.add_entries(Block, "a", named_entries(list, count, &name)).unwrap();
        }
        let lists = prepare(builder);
        assert!(name_of_first(&lists, 1).is_some() && name_of_first(&lists, 2).is_some());
        assert_eq!(name_of_first(&lists, 3).is_some(), is_kept);
    }
}

#[test]
fn long_names_are_cut() {
    let mut builder = HashListBuilder::new();
    let name = "ä".repeat(100);
    builder.add_entries(Block, &"ü".repeat(200), named_entries(1, 1, &name)).unwrap();
    builder.add_entries(Block, "b", named_entries(2, 1, &format!("x{name}"))).unwrap();
    let lists = prepare(builder);
    assert_eq!(name_of_first(&lists, 1).unwrap(), "ä".repeat(64));
    assert_eq!(name_of_first(&lists, 2).unwrap(), format!("x{}", "ä".repeat(63)));
    let mut first = [1; 32];
    first[..8].fill(0);
    let found = lists.lookup(&digests_of(&FileDigest::Sha256(first), 1)).unwrap();
    assert_eq!(found.list, "ü".repeat(127));
}

#[test]
fn number_of_entries_is_limited() {
    for action in [Block, Allow] {
        let mut builder = HashListBuilder::with_max_entries(5);
        builder.add_entries(action, "a", named_entries(1, 2, "a")).unwrap();
        let error = builder.add_entries(action, "b", named_entries(2, 4, "b")).unwrap_err();
        let problem = LineProblem::TooManyEntries;
        match &error {
            HashListError::InvalidEntry { list, number: 4, problem: found } => {
                assert_eq!((&**list, *found), ("b", problem));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(error.to_string(), "b, entry 4: more than 50000000 entries in all lists");
        // The rejected list takes no place.
        builder.add_entries(action, "c", named_entries(3, 3, "c")).unwrap();
        let lists = prepare(builder);
        assert_eq!(lists.block_entries() + lists.allow_entries(), 5);
        assert_eq!(name_of_first(&lists, 3).as_deref(), Some("c"));
        let mut rejected = [2; 32];
        rejected[..8].fill(0);
        assert_eq!(lists.lookup(&digests_of(&FileDigest::Sha256(rejected), 1)), None);
    }
}

#[test]
fn number_of_lists_is_limited() {
    let mut builder = HashListBuilder::new();
    for _ in 1..MAX_LISTS {
        builder.add_entries(Allow, "", []).unwrap();
    }
    builder.add_entries(Block, "last", [entry(EICAR_SHA256, None)]).unwrap();
    let error = builder.add_entries(Block, "x", [entry(EICAR_SHA256, None)]).unwrap_err();
    assert!(matches!(error, HashListError::TooManyLists), "{error:?}");
    assert_eq!(prepare(builder).lookup(&eicar()).unwrap().list, "last");
}
