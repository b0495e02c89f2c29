//! What a media held when it was last fetched, as it is remembered: small, since there may be a
//! hundred thousand of them. Knows no cache and no requester.

use std::{ops::Range, sync::Arc};

use reqwest::header::HeaderValue;

use super::{ScanRequest, filetype::MediaType};
use crate::media::Head;

/// What a media held. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Holding(Arc<HoldingParts>);

/// See [`Holding`].
#[derive(Debug)]
pub struct HoldingParts {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Bytes of the body, and of the plaintext.
    pub size: u64,
    /// The plaintext's type, by content.
    pub detected: MediaType,
    /// The homeserver's, for serving and for asking it again.
    pub headers: KeptHeaders,
}

impl From<HoldingParts> for Holding {
    fn from(parts: HoldingParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl std::ops::Deref for Holding {
    type Target = HoldingParts;

    fn deref(&self) -> &HoldingParts {
        &self.0
    }
}

impl HoldingParts {
    /// SHA-256 of the body, for a request that this is held for. It is not kept: a plain media's is its
    /// content, and an encrypted one has been taken in only because it is what the request names.
    #[must_use]
    pub fn body_hash(&self, request: &ScanRequest) -> [u8; 32] {
        request.decryption.as_ref().map_or(self.content, |it| *it.ciphertext_hash())
    }
}

/// Values of headers in one piece of memory, where each by itself would take 40 bytes and a piece of
/// its own.
#[derive(Debug)]
pub struct KeptHeaders {
    bytes: Box<[u8]>,
    /// Where each value ends, and whether there is one; an absent one ends where the one before does.
    ends: [(u16, bool); 3],
}

impl KeptHeaders {
    /// Those of an answer. Each is [at most 4 KiB long](crate::media::homeserver).
    #[must_use]
    pub fn of(head: &Head) -> Self {
        let mut bytes = Vec::new();
        let ends = [&head.content_type, &head.disposition, &head.etag].map(|value| {
            let there = value.as_ref().is_some_and(|value| {
                let fits = u16::try_from(bytes.len() + value.len()).is_ok();
                if fits {
                    bytes.extend_from_slice(value.as_bytes());
                }
                fits
            });
            (u16::try_from(bytes.len()).unwrap_or(u16::MAX), there)
        });
        Self { bytes: bytes.into(), ends }
    }

    /// `Content-Type`, as the homeserver gave it.
    #[must_use]
    pub fn content_type(&self) -> Option<HeaderValue> {
        let [(end, there), ..] = self.ends;
        self.value(0..end, there)
    }

    /// `Content-Disposition`, as the homeserver gave it.
    #[must_use]
    pub fn disposition(&self) -> Option<HeaderValue> {
        let [(start, _), (end, there), _] = self.ends;
        self.value(start..end, there)
    }

    /// `ETag`, as the homeserver gave it.
    #[must_use]
    pub fn etag(&self) -> Option<HeaderValue> {
        let [_, (start, _), (end, there)] = self.ends;
        self.value(start..end, there)
    }

    fn value(&self, place: Range<u16>, there: bool) -> Option<HeaderValue> {
        let bytes = self.bytes.get(usize::from(place.start)..usize::from(place.end))?;
        // It was one.
        HeaderValue::from_bytes(bytes).ok().filter(|_| there)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_as_they_were_and_absent_ones_stay_absent() {
        let value = |text: &'static [u8]| Some(HeaderValue::from_bytes(text).unwrap());
        let values = [
            (value(b"image/png"), value(b"inline; filename=\"\xe4\""), value(b"\"1\"")),
            (None, value(b"inline"), None),
            (value(b""), None, value(b"1")),
            (value(b"image/png"), None, None),
            (None, None, None),
        ];
        for (content_type, disposition, etag) in values {
            let head = Head {
                content_type: content_type.clone(),
                disposition: disposition.clone(),
                etag: etag.clone(),
                ..Head::default()
            };
            let kept = KeptHeaders::of(&head);
            assert_eq!(kept.content_type(), content_type);
            assert_eq!(kept.disposition(), disposition);
            assert_eq!(kept.etag(), etag);
        }
    }
}
