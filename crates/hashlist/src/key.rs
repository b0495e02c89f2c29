//! Keys of block entries: 16 bytes for each digest, with or without the size of the file.

use sha2::{Digest as _, Sha256};

use crate::entry::{DigestKind, FileDigest};

/// Length of the key of a block entry in bytes.
pub(crate) const BLOCK_KEY: usize = 16;

/// Length of the key of an allow entry in bytes: the whole SHA-256.
pub(crate) const ALLOW_KEY: usize = 32;

/// Kind of a block entry. The value is its bit in [`BlockClasses`], and separates the keys of different kinds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum BlockClass {
    Sha256 = 1,
    Sha1Size = 2,
    Sha1 = 4,
    Md5Size = 8,
    Md5 = 16,
}

/// Set of the kinds that occur in a table.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct BlockClasses(u8);

impl BlockClasses {
    /// Returns the set with these bits, or `None` if other bits are set.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        u8::try_from(bits).ok().filter(|bits| *bits < 32).map(Self)
    }

    pub(crate) fn bits(self) -> u64 {
        self.0.into()
    }

    pub(crate) fn insert(&mut self, class: BlockClass) {
        self.0 |= class as u8;
    }

    pub(crate) fn contains(self, class: BlockClass) -> bool {
        self.0 & class as u8 != 0
    }

    /// Returns whether an entry has a digest of this kind.
    pub(crate) fn contains_kind(self, kind: DigestKind) -> bool {
        match kind {
            DigestKind::Sha256 => self.contains(BlockClass::Sha256),
            DigestKind::Sha1 => {
                self.contains(BlockClass::Sha1Size) || self.contains(BlockClass::Sha1)
            }
            DigestKind::Md5 => self.contains(BlockClass::Md5Size) || self.contains(BlockClass::Md5),
        }
    }
}

impl BlockClass {
    /// Returns the kind of an entry with a digest and the size of the file, or without the size.
    pub(crate) fn new(kind: DigestKind, has_size: bool) -> Self {
        match (kind, has_size) {
            (DigestKind::Sha256, _) => Self::Sha256,
            (DigestKind::Sha1, true) => Self::Sha1Size,
            (DigestKind::Sha1, false) => Self::Sha1,
            (DigestKind::Md5, true) => Self::Md5Size,
            (DigestKind::Md5, false) => Self::Md5,
        }
    }
}

/// Returns the key of a block entry.
///
/// The key of a SHA-256 is its first 16 bytes; its size is ignored. The key of another digest is the last 16 bytes of
/// the SHA-256 of kind, digest and size. With the first 16 bytes, a file of exactly these bytes would have the SHA-256
/// key of that entry.
pub(crate) fn block_key(digest: &FileDigest, size: Option<u64>) -> [u8; BLOCK_KEY] {
    let digest_bytes: &[u8] = match digest {
        FileDigest::Sha256(digest) => return halves(*digest).0,
        FileDigest::Sha1(digest) => digest,
        FileDigest::Md5(digest) => digest,
    };
    let class = BlockClass::new(digest.kind(), size.is_some());
    let hash = Sha256::new()
        .chain_update([class as u8])
        .chain_update(digest_bytes)
        .chain_update(size.unwrap_or_default().to_le_bytes());
    halves(hash.finalize().into()).1
}

fn halves(digest: [u8; 32]) -> ([u8; BLOCK_KEY], [u8; BLOCK_KEY]) {
    let mut halves = ([0; BLOCK_KEY], [0; BLOCK_KEY]);
    for (target, byte) in halves.0.iter_mut().chain(&mut halves.1).zip(digest) {
        *target = byte;
    }
    halves
}
