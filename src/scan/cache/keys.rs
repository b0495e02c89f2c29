//! Keys of cached and stored entries.

use sha2::{Digest, Sha256};

use crate::{
    media::MediaId,
    scan::{engines::EngineFingerprint, request::ScanRequest},
};

/// Digest of everything that distinguishes media: homeserver, mxc URI, thumbnail parameters, decryption data. A digest,
/// so that the cache stores neither decryption keys nor long names.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MediaKey {
    tag: MediaTag,
    digest: [u8; 32],
}

/// Start of the digest of an mxc URI: the keys of all entries of the URI have it, thumbnails included. Short, because
/// another URI with the same tag is only forgotten as well.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MediaTag(pub(super) [u8; 8]);

impl MediaTag {
    /// Returns the tag of an mxc URI.
    #[must_use]
    pub fn from_media(media: &MediaId) -> Self {
        let digest: [u8; 32] = Sha256::digest(media.to_string()).into();
        Self(digest.first_chunk().copied().unwrap_or_default())
    }
}

impl MediaKey {
    /// Returns the key with this digest, of an unknown URI.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self { tag: MediaTag(digest.first_chunk().copied().unwrap_or_default()), digest }
    }

    /// Returns the key of the media that a request names.
    #[must_use]
    pub fn from_request(request: &ScanRequest) -> Self {
        let mut hash = Sha256::new();
        request.fetch.feed_key(|part| hash.update(part));
        if let Some(decryption) = &request.decryption {
            decryption.feed(|part| hash.update(part));
        }
        Self::new(&request.fetch.media, hash.finalize().into())
    }

    /// Returns the key with this digest, of a URI.
    pub(super) fn new(media: &MediaId, digest: [u8; 32]) -> Self {
        Self { tag: MediaTag::from_media(media), digest }
    }

    /// Returns the tag of the URI.
    #[must_use]
    pub fn tag(&self) -> MediaTag {
        self.tag
    }

    /// Returns the digest, which alone identifies the media.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
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
