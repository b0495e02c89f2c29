//! Maps errors of requests, homeservers and scans to responses: status, one of ten reasons and a fixed text. The
//! matches are exhaustive, so that every new error variant needs an explicit response.
//!
//! Clients based on the Rust SDK retry 5xx for 15 minutes, discard the public key on `MCS_BAD_DECRYPTION`, and cannot
//! parse other reasons. The cause is logged here, once, and never sent to clients.

use std::{borrow::Cow, error::Error};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use mcs_filetype::MediaType;
use serde::Serialize;

use super::{request_error::RequestError, response};
use crate::{
    chain::Chain,
    exhaustion::is_exhaustion,
    media::{FetchError, ingest::IngestError},
    scan::{Phase, ScanError, engines::error::EngineFailure},
};

/// Seconds after which a client may retry when the service is overloaded or stopping.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// Machine-readable reason in an error response.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    MalformedJson,
    FailedToDecrypt,
    MissingToken,
    UnknownToken,
    NotClean,
    MimeTypeForbidden,
    BadDecryption,
    NotFound,
    Unknown,
    RequestFailed,
}

impl Reason {
    /// Returns the reason as sent to clients.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "MCS_MALFORMED_JSON",
            Self::FailedToDecrypt => "MCS_MEDIA_FAILED_TO_DECRYPT",
            Self::MissingToken => "M_MISSING_TOKEN",
            Self::UnknownToken => "M_UNKNOWN_TOKEN",
            Self::NotClean => "MCS_MEDIA_NOT_CLEAN",
            Self::MimeTypeForbidden => "MCS_MIME_TYPE_FORBIDDEN",
            Self::BadDecryption => "MCS_BAD_DECRYPTION",
            Self::NotFound => "M_NOT_FOUND",
            Self::Unknown => "M_UNKNOWN",
            Self::RequestFailed => "MCS_MEDIA_REQUEST_FAILED",
        }
    }
}

/// Error response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    status: StatusCode,
    reason: Reason,
    info: Cow<'static, str>,
    retry_after: Option<HeaderValue>,
    /// Size of the media in bytes, if the requested range is not satisfiable.
    unsatisfiable_length: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, reason: Reason, info: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason, info: info.into(), retry_after: None, unsatisfiable_length: None }
    }

    fn overloaded(info: &'static str) -> Self {
        let retry_after = Some(RETRY_AFTER);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Unknown, info) }
    }

    fn internal_error(info: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Unknown, info)
    }

    /// Returns the error for media that is not clean; `info` is the same as in the verdict response.
    pub(super) fn not_clean(info: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, Reason::NotClean, info)
    }

    /// Returns the error for a file type that the configuration does not allow.
    pub(super) fn type_forbidden(detected: &MediaType) -> Self {
        let info = format!("File type {} is not allowed", detected.as_str());
        Self::new(StatusCode::FORBIDDEN, Reason::MimeTypeForbidden, info)
    }

    /// Returns the error for a bug in the service.
    pub(super) fn internal() -> Self {
        Self::internal_error("Internal error")
    }

    /// Logs the cause, which is not sent to the client.
    fn logged(self, cause: &(dyn Error + 'static)) -> Self {
        let status = self.status.as_u16();
        // A 501 is the mistake of a client.
        if self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED {
            tracing::warn!(status, cause = %Chain(cause), "failed");
        } else {
            tracing::debug!(status, cause = %Chain(cause), "refused");
        }
        self
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        from_request_error(&error).logged(&error)
    }
}

impl From<&ScanError> for ApiError {
    fn from(error: &ScanError) -> Self {
        from_scan_error(error).logged(error)
    }
}

fn from_request_error(error: &RequestError) -> ApiError {
    use RequestError as E;
    match error {
        E::InvalidHeader { what } => {
            let info = format!("Invalid request: {what}");
            ApiError::new(StatusCode::BAD_REQUEST, Reason::Unknown, info)
        }
        E::UnsupportedCoding => ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            Reason::Unknown,
            "Only the transfer coding chunked is supported",
        ),
        E::MalformedJson { what } => {
            let info = format!("Malformed body: {what}");
            ApiError::new(StatusCode::BAD_REQUEST, Reason::MalformedJson, info)
        }
        E::BodyTooLarge { .. } => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Reason::MalformedJson,
            "The request's body is too large",
        ),
        E::BodyTimedOut => ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            Reason::Unknown,
            "The request's body took too long",
        ),
        E::IncompleteBody(_) => ApiError::new(
            StatusCode::BAD_REQUEST,
            Reason::MalformedJson,
            "The request's body is incomplete",
        ),
        E::InvalidKeyField { field } => {
            let info = format!("{field} is not base64 of the right length");
            ApiError::new(StatusCode::BAD_REQUEST, Reason::FailedToDecrypt, info)
        }
        E::BadDecryption { .. } | E::DecryptionFailed(_) => ApiError::new(
            StatusCode::FORBIDDEN,
            Reason::BadDecryption,
            "The encrypted body cannot be opened with this server's key",
        ),
        E::MultipleTokens => ApiError::new(
            StatusCode::UNAUTHORIZED,
            Reason::UnknownToken,
            "More than one Authorization header",
        ),
        E::InvalidMediaId | E::NoHomeserver => not_found(),
        E::InvalidParameter(name) => {
            let info = format!("The query parameter {name} has an invalid value");
            ApiError::new(StatusCode::BAD_REQUEST, Reason::Unknown, info)
        }
        E::RangeNotSatisfiable { length } => ApiError {
            unsatisfiable_length: Some(*length),
            ..ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Reason::Unknown,
                "The range lies outside the media",
            )
        },
    }
}

fn from_scan_error(error: &ScanError) -> ApiError {
    use ScanError as E;
    if is_exhaustion(error) {
        return ApiError::overloaded("The server lacks resources at the moment");
    }
    match error {
        E::Fetch(error) => from_fetch_error(error),
        E::Authorisation(error) => from_fetch_error(error),
        E::HashMismatch => hash_mismatch(),
        E::CounterWraps { .. } => counter_wraps(),
        E::NotReady => ApiError::overloaded("The scanner is not ready"),
        E::Overloaded => ApiError::overloaded("The server is busy"),
        E::SpoolFull => spool_full(),
        E::Deadline(Phase::Queued) => ApiError::overloaded("The server was busy for too long"),
        E::Deadline(Phase::Downloading) => timed_out(),
        E::Deadline(Phase::Scanning) => ApiError::internal_error("The scan took too long"),
        // Final outcomes must not be a 5xx, since clients retry those.
        E::Oversize(_) => too_large(),
        E::Limit(_) => ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Reason::RequestFailed,
            "The contents exceed a limit and could not be examined",
        ),
        E::Encrypted(_) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Reason::Unknown,
            "The contents need a password and could not be examined",
        ),
        E::Unreadable(_) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Reason::Unknown,
            "The contents are damaged or of an unknown kind and could not be examined",
        ),
        E::Inconsistent(_) => ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            Reason::Unknown,
            "The contents are inconsistent and could not be examined",
        ),
        E::Engine(_, EngineFailure::Busy) | E::Inspection(EngineFailure::Busy) => {
            ApiError::overloaded("A scan engine is busy")
        }
        E::Engine(..)
        | E::Inspection(_)
        | E::NoEngine
        | E::Script(_)
        | E::Sandbox(_)
        | E::Panicked => ApiError::internal_error("The scan could not be finished"),
        E::Disk(_) => disk(),
        E::Stopping => ApiError::overloaded("The server is stopping"),
    }
}

fn from_fetch_error(error: &FetchError) -> ApiError {
    use FetchError as E;
    match error {
        E::MissingToken => ApiError::new(
            StatusCode::UNAUTHORIZED,
            Reason::MissingToken,
            "The homeserver asks for an access token",
        ),
        E::UnknownToken => ApiError::new(
            StatusCode::UNAUTHORIZED,
            Reason::UnknownToken,
            "The homeserver refused the access token",
        ),
        E::NotFound => not_found(),
        E::Refused { status, retry_after } => match StatusCode::from_u16(*status) {
            Ok(status) if status.is_client_error() => ApiError {
                retry_after: retry_after.map(|delay| delay.as_secs().into()),
                ..ApiError::new(status, Reason::Unknown, "The homeserver refused the request")
            },
            _ => request_failed("Invalid response from homeserver"),
        },
        E::TooLarge { .. } => too_large(),
        E::Unreachable(_) | E::ForbiddenAddress(_) => {
            request_failed("The homeserver cannot be reached")
        }
        E::Unresolved(error) if error.is_timeout() => timed_out(),
        E::Unresolved(_) => request_failed("The homeserver cannot be reached"),
        E::Upstream { retry_after, .. } => ApiError {
            retry_after: retry_after.map(|delay| delay.as_secs().into()),
            ..request_failed("The homeserver failed")
        },
        E::TruncatedBody(_) => request_failed("The homeserver broke off"),
        E::NotMedia(_) => request_failed("The homeserver did not send media"),
        E::NotYetUploaded => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            Reason::RequestFailed,
            "The media is not yet uploaded",
        ),
        E::TimedOut(_) => timed_out(),
        E::Ingest(error) => from_ingest_error(error),
    }
}

fn from_ingest_error(error: &IngestError) -> ApiError {
    use IngestError as E;
    match error {
        E::TooLarge { .. } => too_large(),
        E::SpoolFull => spool_full(),
        E::Disk(_) => disk(),
        E::HashMismatch => hash_mismatch(),
        E::CounterWraps { .. } => counter_wraps(),
    }
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, Reason::NotFound, "Media not found")
}

fn hash_mismatch() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Reason::FailedToDecrypt,
        "The media does not match the given hash",
    )
}

fn counter_wraps() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Reason::FailedToDecrypt,
        "The low 64 bits of iv would wrap within the media",
    )
}

fn too_large() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, Reason::RequestFailed, "The media is too large")
}

fn request_failed(info: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_GATEWAY, Reason::RequestFailed, info)
}

fn timed_out() -> ApiError {
    ApiError::new(
        StatusCode::GATEWAY_TIMEOUT,
        Reason::RequestFailed,
        "The homeserver took too long",
    )
}

fn spool_full() -> ApiError {
    ApiError::overloaded("The server has no room at the moment")
}

fn disk() -> ApiError {
    ApiError::internal_error("The server cannot store the media")
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    reason: &'static str,
    info: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = ErrorBody { reason: self.reason.as_str(), info: &self.info };
        let mut response = response::json(self.status, &body);
        let headers = response.headers_mut();
        if let Some(value) = self.retry_after {
            headers.insert(header::RETRY_AFTER, value);
        }
        if let Some(length) = self.unsatisfiable_length
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        response.extensions_mut().insert(self.reason);
        response
    }
}

#[cfg(test)]
pub(super) mod tests;
