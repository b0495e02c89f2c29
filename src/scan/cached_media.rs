//! Cache entry of an mxc URI: its content at the latest download.

use std::{sync::OnceLock, time::SystemTime};

use mcs_filetype::MediaType;
use reqwest::header::HeaderValue;

use super::request::ScanRequest;
use crate::media::Head;

/// Content of an mxc URI.
#[derive(Debug)]
pub struct CachedMedia {
    /// SHA-256 of the plaintext.
    pub content: [u8; 32],
    /// Size of the body and of the plaintext, bytes.
    pub size: u64,
    /// Type of the plaintext, by content; `None` if types were not determined.
    pub detected: Option<MediaType>,
    /// Headers for serving the media and for asking the homeserver again.
    pub headers: MediaHeaders,
    /// When a request for this entry was first answered with "clean".
    first_answer: OnceLock<SystemTime>,
}

/// Headers of the homeserver's response. Each value has [at most 512 bytes](crate::media::MAX_HEADER_VALUE).
#[derive(Debug)]
pub struct MediaHeaders {
    pub content_type: Option<HeaderValue>,
    pub disposition: Option<HeaderValue>,
    pub etag: Option<HeaderValue>,
}

/// Memory of a header value in addition to its bytes: the shared reference count, and the allocator's overhead for both.
const VALUE_OVERHEAD: usize = 64;

impl CachedMedia {
    /// Creates an entry that no request has been answered from.
    #[must_use]
    pub fn new(
        content: [u8; 32],
        size: u64,
        detected: Option<MediaType>,
        headers: MediaHeaders,
    ) -> Self {
        Self { content, size, detected, headers, first_answer: OnceLock::new() }
    }

    /// Returns the SHA-256 of the body. It is not stored: for plain media it is the content's; for encrypted media the
    /// request names it, and media with another hash is rejected.
    #[must_use]
    pub fn body_hash(&self, request: &ScanRequest) -> [u8; 32] {
        request.decryption.as_ref().map_or(self.content, |decryption| *decryption.ciphertext_hash())
    }

    /// Returns an entry that requests have been answered from since `first_answer`.
    #[must_use]
    pub fn answered_since(self, first_answer: SystemTime) -> Self {
        Self { first_answer: first_answer.into(), ..self }
    }

    /// Returns the time at which a request for this entry was first answered with "clean". The first call sets it to
    /// `now`.
    ///
    /// Verdicts show this time instead of the time of the scan, which would reveal that another user had the same
    /// content scanned before.
    pub(super) fn first_answered(&self, now: SystemTime) -> SystemTime {
        *self.first_answer.get_or_init(|| now)
    }

    /// Returns the time of the first answer, if there was one.
    pub(super) fn first_answer(&self) -> Option<SystemTime> {
        self.first_answer.get().copied()
    }

    /// Takes over the time of the first answer from the entry that this one replaces: the media was downloaded again,
    /// and has the same content. A request for the previous entry may be about to be answered, so its time is fixed
    /// now at the latest.
    pub(super) fn continue_from(&self, previous: &Self, now: SystemTime) {
        self.first_answered(previous.first_answered(now));
    }

    /// Returns the memory of the entry behind an `Arc`, bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        let MediaHeaders { content_type, disposition, etag } = &self.headers;
        let values = [content_type, disposition, etag].into_iter().flatten();
        let values: usize = values.map(|value| value.len() + VALUE_OVERHEAD).sum();
        // With two reference counts.
        2 * size_of::<usize>() + size_of::<Self>() + values
    }
}

impl MediaHeaders {
    /// Copies the headers of a response, because its values refer to the whole buffer that the header was read into.
    #[must_use]
    pub fn from_head(head: &Head) -> Self {
        let copy = |value: &Option<HeaderValue>| {
            // Cannot fail: the bytes are those of a header value.
            value.as_ref().and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
        };
        Self {
            content_type: copy(&head.content_type),
            disposition: copy(&head.disposition),
            etag: copy(&head.etag),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use bytes::Bytes;

    use super::*;

    fn entry(head: &Head) -> CachedMedia {
        CachedMedia::new([7; 32], 9, None, MediaHeaders::from_head(head))
    }

    #[test]
    fn first_answer_is_kept_by_replacements() {
        let second = |n: u64| UNIX_EPOCH + Duration::from_secs(n);
        let head = Head::default();
        let (first, other, later) = (entry(&head), entry(&head), entry(&head));
        assert_eq!(first.first_answered(second(5)), second(5));
        assert_eq!(first.first_answered(second(9)), second(5));
        later.continue_from(&first, second(9));
        assert_eq!(later.first_answered(second(10)), second(5));
        // Not answered yet when it is replaced.
        let replacement = entry(&head);
        replacement.continue_from(&other, second(7));
        assert_eq!(other.first_answered(second(8)), second(7));
        assert_eq!(replacement.first_answered(second(9)), second(7));
    }

    #[test]
    fn header_values_are_copied_out_of_the_buffer_of_the_response() {
        let buffer = Bytes::from_static(b"image/pnginline; filename=\"\xe4\"");
        let value = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let (content_type, disposition) = (value(0..9), value(9..buffer.len()));
        let head = Head {
            content_type: Some(content_type.clone()),
            disposition: Some(disposition.clone()),
            ..Head::default()
        };
        let headers = entry(&head).headers;
        assert_eq!(headers.content_type.as_ref(), Some(&content_type));
        assert_eq!(headers.disposition.as_ref(), Some(&disposition));
        assert_eq!(headers.etag, None);
        let buffer = buffer.as_ptr_range();
        for value in [&headers.content_type, &headers.disposition].into_iter().flatten() {
            assert!(!buffer.contains(&value.as_bytes().as_ptr()), "{value:?}");
        }
    }
}
