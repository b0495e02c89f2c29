//! Cache entry of an mxc URI: its content at the latest download. Small, because there may be 100 000 entries.

use std::ops::Deref;

use mcs_filetype::MediaType;
use reqwest::header::HeaderValue;
use triomphe::ThinArc;

use super::request::ScanRequest;
use crate::media::Head;

/// Content of an mxc URI. One allocation, with the header values at its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CachedMedia(ThinArc<CachedMediaParts<Lengths>, u8>);

/// Content of an mxc URI. `H` represents the homeserver's headers.
#[derive(Debug)]
pub struct CachedMediaParts<H = MediaHeaders> {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Size of the body and of the plaintext, bytes.
    pub size: u64,
    /// Type of the plaintext, by content.
    pub detected: MediaType,
    /// Headers for serving the media and for asking the homeserver again.
    pub headers: H,
}

/// Header values, concatenated.
#[derive(Debug)]
pub struct MediaHeaders {
    bytes: Vec<u8>,
    lengths: Lengths,
}

/// Length of each value, or `ABSENT`.
#[derive(Debug)]
pub struct Lengths([u16; 3]);

/// Marks an absent value; larger than the length of any stored value.
const ABSENT: u16 = u16::MAX;

impl From<CachedMediaParts> for CachedMedia {
    fn from(parts: CachedMediaParts) -> Self {
        let CachedMediaParts { content, size, detected, headers } = parts;
        let MediaHeaders { bytes, lengths } = headers;
        let parts = CachedMediaParts { content, size, detected, headers: lengths };
        Self(ThinArc::from_header_and_slice(parts, &bytes))
    }
}

impl Deref for CachedMedia {
    type Target = CachedMediaParts<Lengths>;

    fn deref(&self) -> &Self::Target {
        &self.0.header.header
    }
}

impl<H> CachedMediaParts<H> {
    /// Returns the SHA-256 of the body. It is not stored: for plain media it is the content's; for encrypted media the
    /// request names it, and media with another hash is rejected.
    #[must_use]
    pub fn body_hash(&self, request: &ScanRequest) -> [u8; 32] {
        request.decryption.as_ref().map_or(self.content, |decryption| *decryption.ciphertext_hash())
    }
}

impl MediaHeaders {
    /// Copies the headers of a response. Each value has [at most 4 KiB](crate::media::homeserver).
    #[must_use]
    pub fn from_head(head: &Head) -> Self {
        let mut bytes = Vec::new();
        let lengths = [&head.content_type, &head.disposition, &head.etag].map(|value| {
            let value = value.as_ref().map(HeaderValue::as_bytes);
            let length = value.and_then(|value| u16::try_from(value.len()).ok()).unwrap_or(ABSENT);
            if length != ABSENT {
                bytes.extend_from_slice(value.unwrap_or_default());
            }
            length
        });
        Self { bytes, lengths: Lengths(lengths) }
    }
}

impl CachedMedia {
    /// Returns the homeserver's `Content-Type`.
    #[must_use]
    pub fn content_type(&self) -> Option<HeaderValue> {
        self.value(0)
    }

    /// Returns the homeserver's `Content-Disposition`.
    #[must_use]
    pub fn disposition(&self) -> Option<HeaderValue> {
        self.value(1)
    }

    /// Returns the homeserver's `ETag`.
    #[must_use]
    pub fn etag(&self) -> Option<HeaderValue> {
        self.value(2)
    }

    fn value(&self, index: usize) -> Option<HeaderValue> {
        let Lengths(lengths) = &self.headers;
        let is_present = |length: &&u16| **length != ABSENT;
        let length = lengths.get(index).filter(is_present)?;
        let start = lengths.iter().take(index).filter(is_present).copied().map(usize::from).sum();
        let bytes = self.0.slice.get(start..)?.get(..usize::from(*length))?;
        // Cannot fail: the bytes are those of a header value.
        HeaderValue::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use mcs_filetype::Detector;

    use super::*;

    #[test]
    fn keeps_header_values_and_their_absence() {
        let value = |text: &'static [u8]| Some(HeaderValue::from_bytes(text).unwrap());
        let values = [
            (value(b"image/png"), value(b"inline; filename=\"\xe4\""), value(b"\"1\"")),
            (None, value(b"inline"), None),
            (value(b""), None, value(b"1")),
            (value(b"image/png"), None, None),
            (value(b"a/b"), Some(HeaderValue::from_bytes(&[b'x'; 4096]).unwrap()), value(b"1")),
            (None, None, None),
        ];
        for (content_type, disposition, etag) in values {
            let head = Head {
                content_type: content_type.clone(),
                disposition: disposition.clone(),
                etag: etag.clone(),
                ..Head::default()
            };
            let cached_media = CachedMedia::from(CachedMediaParts {
                content: [7; 32],
                size: 9,
                detected: Detector::new().unwrap().detect_bytes(b"text"),
                headers: MediaHeaders::from_head(&head),
            });
            assert_eq!(cached_media.content_type(), content_type);
            assert_eq!(cached_media.disposition(), disposition);
            assert_eq!(cached_media.etag(), etag);
            assert_eq!((cached_media.content, cached_media.size), ([7; 32], 9));
            assert_eq!(cached_media.detected.as_str(), "text/plain");
        }
    }
}
