//! The contract's table of errors: what goes wrong in a request, at the homeserver and in a scan
//! becomes a status, one of ten reasons and a fixed text. Exhaustive matches without `_`: a new way
//! to fail does not compile until it has its row.
//!
//! Clients of the Rust SDK retry a 5xx for 15 minutes, drop their key on `MCS_BAD_DECRYPTION`, and
//! cannot parse an eleventh reason. A cause goes to the log, here and once; never to a client.

use std::{borrow::Cow, error::Error};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::request::RequestError;
use crate::{
    media::{FetchError, intake::IntakeError},
    scan::{Phase, ScanError, filetype::MediaType},
};

/// Seconds after which a client may try again when we are full or stopping.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("10");

/// What clients tell errors apart by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the contract's")]
pub enum Reason {
    #[serde(rename = "MCS_MALFORMED_JSON")]
    MalformedJson,
    #[serde(rename = "MCS_MEDIA_FAILED_TO_DECRYPT")]
    FailedToDecrypt,
    #[serde(rename = "M_MISSING_TOKEN")]
    MissingToken,
    #[serde(rename = "M_UNKNOWN_TOKEN")]
    UnknownToken,
    #[serde(rename = "MCS_MEDIA_NOT_CLEAN")]
    NotClean,
    #[serde(rename = "MCS_MIME_TYPE_FORBIDDEN")]
    MimeTypeForbidden,
    #[serde(rename = "MCS_BAD_DECRYPTION")]
    BadDecryption,
    #[serde(rename = "M_NOT_FOUND")]
    NotFound,
    #[serde(rename = "M_UNKNOWN")]
    Unknown,
    #[serde(rename = "MCS_MEDIA_REQUEST_FAILED")]
    RequestFailed,
}

/// An answer that is an error.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    status: StatusCode,
    reason: Reason,
    info: Cow<'static, str>,
    retry_after: Option<HeaderValue>,
    /// Bytes of the media that a range lies outside of.
    outside: Option<u64>,
}

impl ApiError {
    fn new(status: StatusCode, reason: Reason, info: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason, info: info.into(), retry_after: None, outside: None }
    }

    fn overloaded(info: &'static str) -> Self {
        let retry_after = Some(RETRY_AFTER);
        Self { retry_after, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Reason::Unknown, info) }
    }

    fn unfinished(info: &'static str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Reason::Unknown, info)
    }

    /// The script said no; `info` as in the verdict.
    pub(super) fn not_clean(info: String) -> Self {
        Self::new(StatusCode::FORBIDDEN, Reason::NotClean, info)
    }

    /// The operator's lists said no.
    pub(super) fn type_forbidden(detected: &MediaType) -> Self {
        let info = format!("File type: {} not allowed", detected.as_str());
        Self::new(StatusCode::FORBIDDEN, Reason::MimeTypeForbidden, info)
    }

    /// A bug of ours, told as a failure.
    pub(super) fn internal() -> Self {
        Self::unfinished("Internal error")
    }

    /// What a client is told when a handler's error is mapped; its cause goes to the log.
    fn logged(self, cause: &(dyn Error + 'static)) -> Self {
        if self.status.is_server_error() {
            tracing::warn!(error = cause, status = self.status.as_u16(), "failed");
        } else {
            tracing::debug!(error = cause, status = self.status.as_u16(), "refused");
        }
        self
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        of_request(&error).logged(&error)
    }
}

impl From<&ScanError> for ApiError {
    fn from(error: &ScanError) -> Self {
        of_scan(error).logged(error)
    }
}

fn of_request(error: &RequestError) -> ApiError {
    use RequestError as E;
    match error {
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
        E::BodyBroken(_) => ApiError::new(
            StatusCode::BAD_REQUEST,
            Reason::MalformedJson,
            "The request's body is not whole",
        ),
        E::Undecodable { field } => {
            let info = format!("{field} is not base64 of the right length");
            ApiError::new(StatusCode::BAD_REQUEST, Reason::FailedToDecrypt, info)
        }
        E::BadDecryption { .. } | E::Unopened(_) => ApiError::new(
            StatusCode::FORBIDDEN,
            Reason::BadDecryption,
            "The encrypted body cannot be opened with this server's key",
        ),
        E::SeveralTokens => ApiError::new(
            StatusCode::UNAUTHORIZED,
            Reason::UnknownToken,
            "More than one Authorization header",
        ),
        E::ImpossibleName | E::NoHomeserver => not_found(),
        E::RangeNotSatisfiable { length } => ApiError {
            outside: Some(*length),
            ..ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                Reason::Unknown,
                "The range lies outside the media",
            )
        },
    }
}

fn of_scan(error: &ScanError) -> ApiError {
    use ScanError as E;
    match error {
        E::Fetch(error) => of_fetch(error),
        E::HashMismatch => hash_mismatch(),
        E::Overloaded => ApiError::overloaded("The server is busy"),
        E::SpoolFull => spool_full(),
        E::Deadline(Phase::Queued) => ApiError::overloaded("The server was busy for too long"),
        E::Deadline(Phase::Downloading) => timed_out(),
        E::Deadline(Phase::Scanning) => ApiError::unfinished("The scan took too long"),
        E::Script(_) | E::Sandbox(_) | E::Panicked => {
            ApiError::unfinished("The scan could not be finished")
        }
        E::Disk(_) => disk(),
        E::Stopping => ApiError::overloaded("The server is stopping"),
    }
}

fn of_fetch(error: &FetchError) -> ApiError {
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
                retry_after: retry_after
                    .clone()
                    .filter(|_| status == StatusCode::TOO_MANY_REQUESTS),
                ..ApiError::new(status, Reason::Unknown, "The homeserver refused the request")
            },
            _ => request_failed("The homeserver's answer makes no sense"),
        },
        E::TooLarge { .. } => too_large(),
        E::Unreachable(_) | E::ForbiddenAddress(_) => {
            request_failed("The homeserver cannot be reached")
        }
        E::Upstream { .. } => request_failed("The homeserver failed"),
        E::BrokenOff(_) => request_failed("The homeserver broke off"),
        E::NotMedia(_) => request_failed("The homeserver sent what is not media"),
        E::NotYetUploaded => ApiError::new(
            StatusCode::GATEWAY_TIMEOUT,
            Reason::RequestFailed,
            "The media is not yet uploaded",
        ),
        E::TimedOut(_) => timed_out(),
        E::Intake(error) => of_intake(error),
    }
}

fn of_intake(error: &IntakeError) -> ApiError {
    use IntakeError as E;
    match error {
        E::TooLarge { .. } => too_large(),
        E::SpoolFull => spool_full(),
        E::Disk(_) => disk(),
        E::BadGzip(_) => request_failed("The homeserver sent a broken body"),
        E::HashMismatch => hash_mismatch(),
    }
}

fn not_found() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, Reason::NotFound, "Media not found")
}

fn hash_mismatch() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        Reason::FailedToDecrypt,
        "The media's hash is not the one given",
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
    ApiError::unfinished("The server cannot store the media")
}

#[derive(Serialize)]
struct Wire<'a> {
    reason: Reason,
    info: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let wire = Wire { reason: self.reason, info: &self.info };
        let mut response = (self.status, Json(wire)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(value) = self.retry_after {
            headers.insert(header::RETRY_AFTER, value);
        }
        if let Some(length) = self.outside
            && let Ok(value) = HeaderValue::try_from(format!("bytes */{length}"))
        {
            headers.insert(header::CONTENT_RANGE, value);
        }
        response.extensions_mut().insert(self.reason);
        response
    }
}
