//! Error type of request parsing.

use crate::keys::OpenError;

/// Reason for rejecting a request before it reaches the scanner. Each variant maps to one error response.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The body or the decrypted content is malformed. The text never quotes it.
    #[error("malformed body: {what}")]
    MalformedJson {
        /// Description of the mistake.
        what: &'static str,
    },
    /// The body exceeds `web.max_body_size`.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// Limit in bytes.
        limit: usize,
    },
    /// The body did not arrive in time.
    #[error("timed out receiving the body")]
    BodyTimedOut,
    /// The client closed the connection, or the framing of the body is invalid.
    #[error("incomplete body")]
    IncompleteBody(#[source] axum::Error),
    /// A field of the file's key is not base64 or has the wrong length.
    #[error("{field} is not base64 of the right length")]
    InvalidKeyField {
        /// Name of the field.
        field: &'static str,
    },
    /// The `encrypted_body` object lacks a field, or its plaintext is not UTF-8.
    #[error("bad encrypted body: {what}")]
    BadDecryption {
        /// Description of the mistake.
        what: &'static str,
    },
    /// The `encrypted_body` is damaged, or encrypted for another key.
    #[error("the encrypted body cannot be decrypted")]
    DecryptionFailed(#[source] OpenError),
    /// More than one `Authorization` header: the identity of the requester is ambiguous.
    #[error("several Authorization headers")]
    MultipleTokens,
    /// A proxy in front of the service may interpret the header differently.
    #[error("invalid header: {what}")]
    InvalidHeader {
        /// Description of the mistake.
        what: &'static str,
    },
    /// The body has a transfer coding other than `chunked`.
    #[error("unsupported transfer coding")]
    UnsupportedCoding,
    /// The path contains no valid media ID.
    #[error("the path contains no valid media ID")]
    InvalidMediaId,
    /// A query parameter that is passed on to the homeserver has a value outside of its range.
    #[error("the query parameter {0} has an invalid value")]
    InvalidParameter(&'static str),
    /// No homeserver is configured for the effective host.
    #[error("no homeserver is configured for the request's host")]
    NoHomeserver,
    /// The requested range contains no byte of the media.
    #[error("the range lies outside the media's {length} bytes")]
    RangeNotSatisfiable {
        /// Size of the media in bytes.
        length: u64,
    },
}
