//! Cache entry of an mxc URI: its content at the latest download. Small, because there may be 100 000 entries.

use std::{
    ops::Deref,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_filetype::MediaType;
use reqwest::header::HeaderValue;
use triomphe::ThinArc;

use super::request::ScanRequest;
use crate::media::Head;

/// Content of an mxc URI. One allocation, with the header values at its end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CachedMedia(ThinArc<StoredParts, u8>);

/// Parts of the allocation that have a fixed size.
#[derive(Debug)]
struct StoredParts {
    parts: CachedMediaParts,
    /// Length of each header value, or [`ABSENT`].
    lengths: [u16; 3],
    /// When a request for this entry was first answered with "clean"; 0 before that. Shared by all clones.
    first_answer: AtomicU32,
}

/// Seconds since 1970, up to the year 2106; times outside that range are clamped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnixSeconds(u32);

impl UnixSeconds {
    pub(super) fn from_time(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) fn time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.into())
    }
}

/// Parts of an entry without the homeserver's headers.
#[derive(Debug)]
pub struct CachedMediaParts {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Size of the body and of the plaintext, bytes.
    pub size: u64,
    /// Type of the plaintext, by content.
    pub detected: MediaType,
}

/// Marks an absent value; larger than the length of any stored value.
const ABSENT: u16 = u16::MAX;

impl Deref for CachedMedia {
    type Target = CachedMediaParts;

    fn deref(&self) -> &Self::Target {
        &self.0.header.header.parts
    }
}

impl CachedMedia {
    /// Creates an entry with the headers of a response, for serving the media and for asking the homeserver again. Each
    /// value has [at most 512 bytes](crate::media::MAX_HEADER_VALUE).
    #[must_use]
    pub fn new(content: [u8; 32], size: u64, detected: MediaType, head: &Head) -> Self {
        let mut bytes = Vec::new();
        let lengths = [&head.content_type, &head.disposition, &head.etag].map(|value| {
            let value = value.as_ref().map(HeaderValue::as_bytes);
            let length = value.and_then(|value| u16::try_from(value.len()).ok()).unwrap_or(ABSENT);
            if length != ABSENT {
                bytes.extend_from_slice(value.unwrap_or_default());
            }
            length
        });
        let parts = CachedMediaParts { content, size, detected };
        let stored = StoredParts { parts, lengths, first_answer: AtomicU32::new(0) };
        Self(ThinArc::from_header_and_slice(stored, &bytes))
    }

    /// Returns the SHA-256 of the body. It is not stored: for plain media it is the content's; for encrypted media the
    /// request names it, and media with another hash is rejected.
    #[must_use]
    pub fn body_hash(&self, request: &ScanRequest) -> [u8; 32] {
        request.decryption.as_ref().map_or(self.content, |decryption| *decryption.ciphertext_hash())
    }

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

    /// Returns the time at which a request for this entry was first answered with "clean". The first call sets it to
    /// `now`.
    ///
    /// Verdicts show this time instead of the time of the scan, which would reveal that another user had the same
    /// content scanned before.
    pub(super) fn first_answered(&self, now: SystemTime) -> SystemTime {
        let UnixSeconds(now) = UnixSeconds::from_time(now);
        let cell = &self.0.header.header.first_answer;
        match cell.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => UnixSeconds(now).time(),
            Err(first) => UnixSeconds(first).time(),
        }
    }

    /// Takes over the time of the first answer from the entry that this one replaces: the media was downloaded again,
    /// and has the same content. A request for the previous entry may be about to be answered, so its time is fixed
    /// now at the latest.
    pub(super) fn continue_from(&self, previous: &Self, now: SystemTime) {
        self.first_answered(previous.first_answered(now));
    }

    /// Returns the size of the allocation, bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        // The reference count and the length of the header values precede the parts.
        2 * size_of::<usize>() + size_of::<StoredParts>() + self.0.slice.len()
    }

    fn value(&self, index: usize) -> Option<HeaderValue> {
        let lengths = &self.0.header.header.lengths;
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

    fn entry() -> CachedMedia {
        let detected = Detector::new().unwrap().detect_bytes(b"text");
        CachedMedia::new([7; 32], 9, detected, &Head::default())
    }

    #[test]
    fn first_answer_is_kept_by_clones_and_replacements() {
        let second = |n: u64| UNIX_EPOCH + Duration::from_secs(n);
        let (first, clone, later) = (entry(), entry(), entry());
        assert_eq!(first.clone().first_answered(second(5)), second(5));
        assert_eq!(first.first_answered(second(9)), second(5));
        later.continue_from(&first, second(9));
        assert_eq!(later.first_answered(second(10)), second(5));
        // Not answered yet when it is replaced.
        let replacement = entry();
        replacement.continue_from(&clone, second(7));
        assert_eq!(clone.first_answered(second(8)), second(7));
        assert_eq!(replacement.first_answered(second(9)), second(7));
    }

    #[test]
    fn stored_time_is_clamped_to_unix_seconds() {
        let (long_ago, far) = (Duration::from_secs(1 << 31), Duration::from_secs(1 << 33));
        for (time, stored) in [
            (UNIX_EPOCH - long_ago, UNIX_EPOCH),
            (UNIX_EPOCH, UNIX_EPOCH),
            (UNIX_EPOCH + far, UNIX_EPOCH + Duration::from_secs(u32::MAX.into())),
            (UNIX_EPOCH + Duration::from_millis(1999), UNIX_EPOCH + Duration::from_secs(1)),
        ] {
            assert_eq!(UnixSeconds::from_time(time).time(), stored);
        }
    }

    #[test]
    fn keeps_header_values_and_their_absence() {
        let value = |text: &'static [u8]| Some(HeaderValue::from_bytes(text).unwrap());
        let values = [
            (value(b"image/png"), value(b"inline; filename=\"\xe4\""), value(b"\"1\"")),
            (None, value(b"inline"), None),
            (value(b""), None, value(b"1")),
            (value(b"image/png"), None, None),
            (value(b"a/b"), Some(HeaderValue::from_bytes(&[b'x'; 512]).unwrap()), value(b"1")),
            (None, None, None),
        ];
        for (content_type, disposition, etag) in values {
            let head = Head {
                content_type: content_type.clone(),
                disposition: disposition.clone(),
                etag: etag.clone(),
                ..Head::default()
            };
            let detected = Detector::new().unwrap().detect_bytes(b"text");
            let cached_media = CachedMedia::new([7; 32], 9, detected, &head);
            assert_eq!(cached_media.content_type(), content_type);
            assert_eq!(cached_media.disposition(), disposition);
            assert_eq!(cached_media.etag(), etag);
            assert_eq!((cached_media.content, cached_media.size), ([7; 32], 9));
            assert_eq!(cached_media.detected.as_str(), "text/plain");
        }
    }
}
