//! Headers of a homeserver's response.

use reqwest::header::HeaderValue;

/// Headers of a homeserver's response, values unchanged.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `Content-Type`, if there was exactly one.
    pub content_type: Option<HeaderValue>,
    /// `Content-Disposition`, if there was exactly one.
    pub disposition: Option<HeaderValue>,
    /// `ETag` as the homeserver sent it, quoted or not; sent back in `If-None-Match`.
    pub etag: Option<HeaderValue>,
    /// `Content-Length` in bytes, at most `max_size`. For a gzip encoding, the length of the encoded body.
    pub length: Option<u64>,
    /// Whether the body is gzip-encoded. It is decoded while it is received, so it usually becomes longer than
    /// `length`.
    pub gzip: bool,
}
