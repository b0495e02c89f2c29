//! A simple model of lists, for tests and fuzzing.

use crate::{Digests, FileDigest, HashEntry, HashLists, ListAction};

/// Lists that are searched entry by entry.
#[derive(Clone, Default, Debug)]
pub(crate) struct ModelLists(pub(crate) Vec<(ListAction, HashEntry<'static>)>);

impl ModelLists {
    /// Returns the expected result of a lookup.
    pub(crate) fn lookup(&self, digests: &Digests) -> Option<ListAction> {
        let matches = |action, entry: &HashEntry<'_>| match entry.digest {
            // The key of a block entry is its first half.
            FileDigest::Sha256(digest) if action == ListAction::Block => {
                digest.first_chunk::<16>() == digests.sha256.first_chunk()
            }
            FileDigest::Sha256(digest) => digest == digests.sha256,
            FileDigest::Sha1(digest) => {
                Some(digest) == digests.sha1 && entry.size.is_none_or(|size| size == digests.size)
            }
            FileDigest::Md5(digest) => {
                Some(digest) == digests.md5 && entry.size.is_none_or(|size| size == digests.size)
            }
        };
        let has = |action| self.0.iter().any(|(of, entry)| *of == action && matches(action, entry));
        [ListAction::Block, ListAction::Allow].into_iter().find(|action| has(*action))
    }

    /// Compares the results for each entry, for its digest with other sizes, and for other digests.
    ///
    /// # Panics
    /// If a result differs.
    pub(crate) fn compare<B: AsRef<[u8]>>(&self, lists: &HashLists<B>) {
        for (_, entry) in &self.0 {
            let size = entry.size.unwrap_or(7);
            for size in [size, size.wrapping_add(1), 0] {
                self.compare_one(lists, &digests_of(&entry.digest, size));
                self.compare_one(lists, &digests_of(&flip_first_bit(entry.digest), size));
            }
        }
    }

    fn compare_one<B: AsRef<[u8]>>(&self, lists: &HashLists<B>, digests: &Digests) {
        let found = lists.lookup(digests).map(|found| found.action);
        assert_eq!(found, self.lookup(digests), "{digests:?}");
    }
}

/// Returns digests of which one has this value.
pub(crate) fn digests_of(digest: &FileDigest, size: u64) -> Digests {
    let mut digests = Digests { sha256: [0; 32], sha1: None, md5: None, size };
    match *digest {
        FileDigest::Sha256(digest) => digests.sha256 = digest,
        FileDigest::Sha1(digest) => digests.sha1 = Some(digest),
        FileDigest::Md5(digest) => digests.md5 = Some(digest),
    }
    digests
}

/// The first byte is part of each key.
fn flip_first_bit(mut digest: FileDigest) -> FileDigest {
    match &mut digest {
        FileDigest::Sha256(digest) => digest[0] ^= 1,
        FileDigest::Sha1(digest) => digest[0] ^= 1,
        FileDigest::Md5(digest) => digest[0] ^= 1,
    }
    digest
}
