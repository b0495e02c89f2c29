//! What a media held when it was last fetched, as it is remembered: small, since there may be a
//! hundred thousand of them. Knows no cache and no requester.

use std::ops::Deref;

use reqwest::header::HeaderValue;
use triomphe::ThinArc;

use super::{ScanRequest, filetype::MediaType};
use crate::media::Head;

/// What a media held, in one piece of memory with the values of its headers at the end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holding(ThinArc<HoldingParts<Lengths>, u8>);

/// What a media held. `H`: the homeserver's headers, for serving and for asking it again.
#[derive(Debug)]
pub struct HoldingParts<H = KeptHeaders> {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Bytes of the body, and of the plaintext.
    pub size: u64,
    /// The plaintext's type, by content.
    pub detected: MediaType,
    #[expect(missing_docs, reason = "see the struct")]
    pub headers: H,
}

/// Values of headers, one after the other.
#[derive(Debug)]
pub struct KeptHeaders {
    bytes: Vec<u8>,
    lengths: Lengths,
}

/// Of each value, or `ABSENT`.
#[derive(Debug)]
pub struct Lengths([u16; 3]);

/// No value is so long.
const ABSENT: u16 = u16::MAX;

impl From<HoldingParts> for Holding {
    fn from(parts: HoldingParts) -> Self {
        let HoldingParts { content, size, detected, headers: KeptHeaders { bytes, lengths } } =
            parts;
        let parts = HoldingParts { content, size, detected, headers: lengths };
        Self(ThinArc::from_header_and_slice(parts, &bytes))
    }
}

impl Deref for Holding {
    type Target = HoldingParts<Lengths>;

    fn deref(&self) -> &Self::Target {
        &self.0.header.header
    }
}

impl<H> HoldingParts<H> {
    /// SHA-256 of the body, for a request that this is held for. It is not kept: a plain media's is its
    /// content, and an encrypted one has been taken in only because it is what the request names.
    #[must_use]
    pub fn body_hash(&self, request: &ScanRequest) -> [u8; 32] {
        request.decryption.as_ref().map_or(self.content, |it| *it.ciphertext_hash())
    }
}

impl KeptHeaders {
    /// Those of an answer. Each is [at most 4 KiB long](crate::media::homeserver).
    #[must_use]
    pub fn of(head: &Head) -> Self {
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

impl Holding {
    /// `Content-Type`, as the homeserver gave it.
    #[must_use]
    pub fn content_type(&self) -> Option<HeaderValue> {
        self.value(0)
    }

    /// `Content-Disposition`, as the homeserver gave it.
    #[must_use]
    pub fn disposition(&self) -> Option<HeaderValue> {
        self.value(1)
    }

    /// `ETag`, as the homeserver gave it.
    #[must_use]
    pub fn etag(&self) -> Option<HeaderValue> {
        self.value(2)
    }

    fn value(&self, index: usize) -> Option<HeaderValue> {
        let Lengths(lengths) = &self.headers;
        let there = |length: &&u16| **length != ABSENT;
        let length = lengths.get(index).filter(there)?;
        let start = lengths.iter().take(index).filter(there).copied().map(usize::from).sum();
        let bytes = self.0.slice.get(start..)?.get(..usize::from(*length))?;
        // It was one.
        HeaderValue::from_bytes(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scan::filetype::Detector;

    #[test]
    fn headers_come_back_as_they_were_and_absent_ones_stay_absent() {
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
            let holding = Holding::from(HoldingParts {
                content: [7; 32],
                size: 9,
                detected: Detector::new().unwrap().detect_bytes(b"text"),
                headers: KeptHeaders::of(&head),
            });
            assert_eq!(holding.content_type(), content_type);
            assert_eq!(holding.disposition(), disposition);
            assert_eq!(holding.etag(), etag);
            assert_eq!((holding.content, holding.size), ([7; 32], 9));
            assert_eq!(holding.detected.as_str(), "text/plain");
        }
    }
}
