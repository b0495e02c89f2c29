//! Errors of the API.

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use serde::Serialize;

use super::protocol::ErrorReply;
use crate::{
    chain::Chain,
    http::request_error::RequestError,
    incident::ReleaseError,
    scan::{OperatorError, decisions::DecisionError},
    telemetry::audit::NotRecorded,
    text::escape_json,
};

/// Reason why a request is rejected, or fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    #[error("{0}")]
    Host(&'static str),
    #[error("the request needs a token of admin.token_path: Authorization: Bearer TOKEN")]
    Unauthorized,
    #[error("too many requests with a wrong token, try again in a minute")]
    TooManyFailures,
    #[error("a page of another origin must not make changes")]
    CrossOrigin,
    #[error(
        "the browser does not state which page sent the form: open this page with https, or by an SSH tunnel at a loopback \
         address"
    )]
    UnknownOrigin,
    #[error("the form belongs to another session: go back, reload the page and try again")]
    WrongForm,
    #[error("the body must have Content-Type: application/json")]
    ContentType,
    #[error("{0}")]
    Invalid(String),
    #[error("the body cannot be read: {0}")]
    Body(#[from] RequestError),
    #[error("no such path; see docs/operations.md")]
    NotFound,
    #[error("the path has another method")]
    Method,
    #[error("nothing was changed, because the change cannot be recorded: {0}")]
    Audit(#[from] NotRecorded),
    #[error("{0}")]
    Failed(#[from] OperatorError),
    #[error("{}", Chain(.0))]
    Decision(DecisionError),
    #[error(
        "no unencrypted media with this content is known: name its mxc, or have it forgotten, so that the next request \
         scans again"
    )]
    NoPlainMedia,
    #[error(
        "the media is encrypted, and only requests of clients contain its key: have it forgotten, so that the next request \
         scans again"
    )]
    EncryptedMedia,
    #[error("incidents are off: set [quarantine] or [[notify]] (see docs/incidents.md)")]
    IncidentsOff,
    #[error("the incidents in the shared store cannot be read")]
    Outbox,
    #[error(
        "no content of this media is known to be infected: allow it by its SHA-256 (`store allow`), and release the media \
         without allowing"
    )]
    ContentUnknown,
    #[error(
        "this media had several contents that are known to be infected: {}; allow those that are not, \
         by their SHA-256 (`store allow`), and release the media without allowing",
        .0.join(", ")
    )]
    SeveralContents(Vec<String>),
    #[error("{0}")]
    Release(#[from] ReleaseError),
    #[error("the change failed; see the log")]
    Panicked,
}

impl AdminError {
    /// Returns the status, and the name of the error in the API.
    pub(super) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Host(_) => (StatusCode::MISDIRECTED_REQUEST, "host"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::TooManyFailures => (StatusCode::TOO_MANY_REQUESTS, "too_many_failures"),
            Self::CrossOrigin => (StatusCode::FORBIDDEN, "cross_origin"),
            Self::UnknownOrigin => (StatusCode::FORBIDDEN, "unknown_origin"),
            Self::WrongForm => (StatusCode::FORBIDDEN, "wrong_form"),
            Self::ContentType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "content_type"),
            Self::Body(RequestError::BodyTooLarge { .. }) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large")
            }
            Self::Body(RequestError::BodyTimedOut) => (StatusCode::REQUEST_TIMEOUT, "body_timeout"),
            Self::Invalid(_) | Self::Body(_) => (StatusCode::BAD_REQUEST, "invalid"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method"),
            Self::Audit(_) => (StatusCode::SERVICE_UNAVAILABLE, "audit_unavailable"),
            Self::Outbox | Self::Failed(OperatorError::Store(_)) => {
                (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable")
            }
            Self::Failed(OperatorError::NoIdentity) => {
                (StatusCode::SERVICE_UNAVAILABLE, "engines_unavailable")
            }
            Self::Decision(DecisionError::Missing) => (StatusCode::NOT_FOUND, "no_decision"),
            Self::Decision(DecisionError::NotKept | DecisionError::TooMany) => {
                (StatusCode::CONFLICT, "decisions_not_kept")
            }
            Self::Decision(_) => (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"),
            Self::NoPlainMedia => (StatusCode::NOT_FOUND, "no_plain_media"),
            Self::EncryptedMedia => (StatusCode::CONFLICT, "encrypted_media"),
            Self::IncidentsOff => (StatusCode::CONFLICT, "incidents_off"),
            Self::ContentUnknown => (StatusCode::CONFLICT, "content_unknown"),
            Self::SeveralContents(_) => (StatusCode::CONFLICT, "several_contents"),
            Self::Release(ReleaseError::QuarantineOff) => (StatusCode::CONFLICT, "quarantine_off"),
            Self::Release(ReleaseError::NotSupported) => {
                (StatusCode::CONFLICT, "release_unsupported")
            }
            Self::Release(ReleaseError::UnknownMedia) => (StatusCode::NOT_FOUND, "media_unknown"),
            Self::Release(_) => (StatusCode::BAD_GATEWAY, "homeserver_failed"),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response<Body> {
        let (status, error) = self.status();
        let reply = ErrorReply { error: error.to_owned(), message: self.to_string() };
        let mut response = json(status, &reply);
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Returns a response with JSON, in which no character acts on a terminal.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Cannot fail: serialization fails only for maps with non-string keys.
    let mut text = escape_json(&serde_json::to_string(value).unwrap_or_default());
    text.push('\n');
    (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
}
