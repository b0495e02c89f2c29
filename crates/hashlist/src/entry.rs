//! Entries of lists, and the digests of a file to look up.

use std::borrow::Cow;

/// Effect of the entries of a list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ListAction {
    /// Files are refused. Has precedence over [`Allow`](Self::Allow).
    Block,
    /// Files are clean, whatever any engine finds.
    Allow,
}

/// Algorithm of a digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum DigestKind {
    Sha256,
    Sha1,
    Md5,
}

/// Digest of a whole file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[expect(missing_docs, reason = "names of algorithms")]
pub enum FileDigest {
    Sha256([u8; 32]),
    Sha1([u8; 20]),
    Md5([u8; 16]),
}

const EMPTY_FILE: [FileDigest; 3] = [
    FileDigest::Sha256(*b"\xe3\xb0\xc4\x42\x98\xfc\x1c\x14\x9a\xfb\xf4\xc8\x99\x6f\xb9\x24\x27\xae\x41\xe4\x64\x9b\x93\x4c\xa4\x95\x99\x1b\x78\x52\xb8\x55"),
    FileDigest::Sha1(*b"\xda\x39\xa3\xee\x5e\x6b\x4b\x0d\x32\x55\xbf\xef\x95\x60\x18\x90\xaf\xd8\x07\x09"),
    FileDigest::Md5(*b"\xd4\x1d\x8c\xd9\x8f\x00\xb2\x04\xe9\x80\x09\x98\xec\xf8\x42\x7e"),
];

impl FileDigest {
    /// Parses hexadecimal digits in any case. Their number determines the kind.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        match digits.len() {
            64 => decode_hex(digits).map(Self::Sha256),
            40 => decode_hex(digits).map(Self::Sha1),
            32 => decode_hex(digits).map(Self::Md5),
            _ => None,
        }
    }

    /// Returns the algorithm.
    #[must_use]
    pub fn kind(&self) -> DigestKind {
        match self {
            Self::Sha256(_) => DigestKind::Sha256,
            Self::Sha1(_) => DigestKind::Sha1,
            Self::Md5(_) => DigestKind::Md5,
        }
    }

    /// Returns whether this is the digest of the empty file.
    pub(crate) fn is_of_empty_file(&self) -> bool {
        EMPTY_FILE.contains(self)
    }
}

fn decode_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = hex_value(*high)? << 4 | hex_value(*low)?;
    }
    Some(bytes)
}

/// Without a branch for letters, which would be mispredicted for every second digit.
fn hex_value(digit: u8) -> Option<u8> {
    digit.is_ascii_hexdigit().then_some((digit & 0xf) + 9 * (digit >> 6))
}

/// Entry of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HashEntry<'a> {
    /// Digest of the file.
    pub digest: FileDigest,
    /// Size of the file in bytes. `None`: any size. Ignored for SHA-256, which identifies the content.
    pub size: Option<u64>,
    /// Readable name, or "". Untrusted text: lists are downloaded.
    pub name: Cow<'a, str>,
}

/// Digests and size of a file to look up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Digests {
    #[expect(missing_docs, reason = "name of the algorithm")]
    pub sha256: [u8; 32],
    /// SHA-1. Entries with SHA-1 do not match without it: required if
    /// [`HashLists::needs`](crate::HashLists::needs) returns true for it.
    pub sha1: Option<[u8; 20]>,
    /// MD5. Entries with MD5 do not match without it: required if [`HashLists::needs`](crate::HashLists::needs) returns
    /// true for it.
    pub md5: Option<[u8; 16]>,
    /// Size of the file in bytes.
    pub size: u64,
}
