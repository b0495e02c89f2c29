//! Keys of cached and stored entries.

use sha2::{Digest, Sha256};

use crate::scan::{engines::EngineFingerprint, request::ScanRequest};

/// Digest of everything that distinguishes media: homeserver, mxc URI, thumbnail parameters, decryption data. A digest,
/// so that the cache stores neither decryption keys nor long names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MediaKey(pub(super) [u8; 32]);

impl MediaKey {
    /// Returns the key with this digest.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// Returns the key of the media that a request names.
    #[must_use]
    pub fn from_request(request: &ScanRequest) -> Self {
        let mut hash = Sha256::new();
        request.fetch.feed_key(|part| hash.update(part));
        if let Some(decryption) = &request.decryption {
            decryption.feed(|part| hash.update(part));
        }
        Self(hash.finalize().into())
    }
}

/// A content and the engines that scan it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ContentKey {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// The engines and their settings.
    pub engines_fingerprint: EngineFingerprint,
}
