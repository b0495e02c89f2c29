//! The prepared form: damaged bytes, and fingerprints.

use super::*;
use crate::PreparedListsError;
use ListAction::{Allow, Block};

/// Returns prepared lists with entries of all kinds.
fn sample() -> Vec<u8> {
    let mut builder = HashListBuilder::new();
    let content = format!(
        "{EICAR_SHA256} one\n{EICAR_SHA1}\n{EICAR_SHA1}:1\n{EICAR_MD5}:* two\n{EICAR_MD5}:68\n"
    );
    builder.add_reader(Block, "block.txt", content.as_bytes()).unwrap();
    let other = EICAR_SHA256.replace('2', "3");
    builder.add_reader(Allow, "allow.txt", format!("{other} three\n").as_bytes()).unwrap();
    builder.prepare().unwrap()
}

#[test]
fn each_changed_byte_is_detected() {
    let prepared = sample();
    for position in 0..prepared.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = prepared.clone();
            changed[position] ^= change;
            let error = HashLists::from_prepared(&changed).unwrap_err();
            assert_eq!(error == PreparedListsError::Version, position < 24, "{position}");
        }
    }
}

#[test]
fn each_truncation_is_detected() {
    let prepared = sample();
    for length in 0..prepared.len() {
        assert!(HashLists::from_prepared(&prepared[..length]).is_err(), "{length}");
    }
    let longer = [&prepared[..], b"x"].concat();
    let error = HashLists::from_prepared(&longer).unwrap_err();
    assert_eq!(error, PreparedListsError::Damaged("wrong length"));
    assert_eq!(
        HashLists::from_prepared(b"").unwrap_err().to_string(),
        "the hash lists were prepared by another version of this program; restart the service"
    );
}

#[test]
fn lists_are_used_in_place() {
    let prepared = sample();
    let lists = HashLists::from_prepared(&*prepared).unwrap();
    let found = lists.lookup(&eicar()).unwrap();
    let place = found.name.unwrap().as_bytes().as_ptr_range();
    let whole = prepared.as_ptr_range();
    assert!(whole.contains(&place.start) && whole.contains(&place.end));
}

/// Returns the fingerprints of block entries and allow entries.
fn fingerprints(lists: &[(ListAction, &str, &str)]) -> ([u8; 32], [u8; 32]) {
    let mut builder = HashListBuilder::new();
    for (action, name, content) in lists {
        builder.add_reader(*action, name, content.as_bytes()).unwrap();
    }
    let lists = prepare(builder);
    (lists.block_fingerprint(), lists.allow_fingerprint())
}

#[test]
fn fingerprints_depend_on_entries_only() {
    let other = EICAR_SHA256.replace('2', "3");
    let md5 = format!("{EICAR_MD5}:68");
    let (block, allow) =
        fingerprints(&[(Block, "a", &format!("{EICAR_SHA256}\n{md5}")), (Allow, "b", &other)]);
    let divided = fingerprints(&[
        (Allow, "other", &format!("{other} name\n{other}\n")),
        (Block, "second", &md5),
        (Block, "first", &format!("{EICAR_SHA256} name\n{md5}")),
    ]);
    assert_eq!(divided, (block, allow));
    let (fewer, same) = fingerprints(&[(Block, "a", EICAR_SHA256), (Allow, "b", &other)]);
    assert!(fewer != block && same == allow);
    let (same, more) = fingerprints(&[
        (Block, "a", &format!("{EICAR_SHA256}\n{md5}")),
        (Allow, "b", &format!("{other}\n{EICAR_SHA256}")),
    ]);
    assert!(same == block && more != allow);
    let (any_size, _) = fingerprints(&[(Block, "a", &format!("{EICAR_SHA256}\n{EICAR_MD5}:*"))]);
    assert_ne!(any_size, block);
}

/// Caches keep fingerprints across restarts and updates. Computed with Python's hashlib.
#[test]
fn fingerprint_is_stable() {
    let content = format!("{EICAR_SHA256}\n{EICAR_SHA1}\n{EICAR_MD5}:68\n");
    let (block, _) = fingerprints(&[(Block, "a", &content)]);
    let expected = "8747289f4ce41aee61c6991435cf182f96eba785011ed0d4471870754e3ff091";
    assert_eq!(FileDigest::Sha256(block), digest(expected));
}
