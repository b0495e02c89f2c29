//! Errors of downloads and of storing bodies.

use std::{io, time::Duration};

use super::{
    resolver::{ResolutionError, ResolutionFailure},
    spool::SpoolFull,
};
use crate::cause::Cause;

/// Reason why a body could not be stored.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Larger than `download.max_size`, or than the whole spool. Permanent.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// Maximum size, in bytes.
        limit: u64,
    },
    /// The spool's budget, or the account's share of it, is used up. Temporary.
    #[error("the spool's budget is used up")]
    SpoolFull,
    #[error("spool file I/O failed")]
    Disk(#[source] io::Error),
    /// The ciphertext does not match the hash in the client's request.
    #[error("the ciphertext does not match its SHA-256")]
    HashMismatch,
    /// The low 64 bits of the IV would wrap within the body, so clients with a 64-bit counter and clients with a
    /// 128-bit counter would decrypt it to different plaintexts. See [`max_size`](super::decrypt::Decryption::max_size).
    #[error("the low 64 bits of iv would wrap within the media: more than {limit} bytes")]
    CounterWraps {
        /// Number of bytes that can be decrypted before the counter wraps.
        limit: u64,
    },
}

impl From<SpoolFull> for IngestError {
    fn from(_: SpoolFull) -> Self {
        Self::SpoolFull
    }
}

/// Reason why media could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("the homeserver requires an access token")]
    MissingToken,
    #[error("the homeserver rejected the access token")]
    UnknownToken,
    #[error("the homeserver does not have the media")]
    NotFound,
    #[error("the homeserver rejected the request with status {status}")]
    Refused {
        /// 400 to 499, except 401 and 404.
        status: u16,
        /// Delay that a response with status 429 asks for, in whole seconds.
        retry_after: Option<Duration>,
    },
    #[error("the media is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the homeserver could not be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the homeserver's name could not be resolved")]
    Unresolved(#[source] ResolutionError),
    #[error("media is not fetched from this address: {0}")]
    ForbiddenAddress(String),
    #[error("the homeserver answered with status {status}")]
    Upstream {
        status: u16,
        /// Delay that a response with status 503 asks for, in whole seconds.
        retry_after: Option<Duration>,
    },
    #[error("the homeserver's response body is incomplete")]
    TruncatedBody(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the homeserver did not send media: {0}")]
    NotMedia(String),
    #[error("the media is not yet uploaded")]
    NotYetUploaded,
    #[error("timeout while fetching media: {0}")]
    TimedOut(&'static str),
    #[error("the media could not be stored")]
    Ingest(#[from] IngestError),
}

impl From<ResolutionError> for FetchError {
    fn from(error: ResolutionError) -> Self {
        match error.cause {
            ResolutionFailure::NotGlobal => Self::ForbiddenAddress(error.name),
            ResolutionFailure::TimedOut | ResolutionFailure::Failed(_) => Self::Unresolved(error),
        }
    }
}

impl FetchError {
    /// Returns whether the homeserver answered 429: it may limit one client's address.
    #[must_use]
    pub fn is_rate_limit(&self) -> bool {
        matches!(self, Self::Refused { status: 429, .. })
    }

    /// Returns the cause, for metrics.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::MissingToken => Cause::MissingToken,
            Self::UnknownToken => Cause::UnknownToken,
            Self::NotFound => Cause::NotFound,
            Self::Refused { .. } => Cause::Refused,
            Self::TooLarge { .. } | Self::Ingest(IngestError::TooLarge { .. }) => Cause::TooLarge,
            Self::Unresolved(error) if error.is_timeout() => Cause::TimedOut,
            Self::Unreachable(_) | Self::Unresolved(_) => Cause::Unreachable,
            Self::ForbiddenAddress(_) => Cause::ForbiddenAddress,
            Self::Upstream { .. } => Cause::Upstream,
            Self::TruncatedBody(_) => Cause::TruncatedBody,
            Self::NotMedia(_) => Cause::NotMedia,
            Self::NotYetUploaded => Cause::NotYetUploaded,
            Self::TimedOut(_) => Cause::TimedOut,
            Self::Ingest(IngestError::SpoolFull) => Cause::SpoolFull,
            Self::Ingest(IngestError::Disk(_)) => Cause::Disk,
            Self::Ingest(IngestError::HashMismatch) => Cause::HashMismatch,
            Self::Ingest(IngestError::CounterWraps { .. }) => Cause::CounterWraps,
        }
    }
}
