//! Headers of a homeserver's response.

use reqwest::header::HeaderValue;

/// Headers of a homeserver's response. Each value has at most `MAX_HEADER_VALUE` bytes.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `Content-Type`, unchanged, if there was exactly one and it is not too long.
    pub content_type: Option<HeaderValue>,
    /// `Content-Disposition`, if there was exactly one. Unchanged, or rebuilt with a shorter file name if it was too
    /// long.
    pub disposition: Option<HeaderValue>,
    /// `ETag` as the homeserver sent it, quoted or not; sent back in `If-None-Match`. Absent if it was too long.
    pub etag: Option<HeaderValue>,
    /// `Content-Length` in bytes, at most `max_size`. For a gzip encoding, the length of the encoded body.
    pub length: Option<u64>,
    /// Whether the body is gzip-encoded. It is decoded while it is received, so it usually becomes longer than
    /// `length`.
    pub gzip: bool,
}
