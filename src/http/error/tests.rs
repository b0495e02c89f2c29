use std::{fmt::Write, io, time::Duration};

use http_body_util::BodyExt;

use super::*;
use crate::{keys::OpenError, scan::engines::error::ScriptFailure};

fn secret() -> io::Error {
    io::Error::other("/tmp/mcs-secret: syt_token")
}

fn no_descriptor() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EMFILE)
}

fn fetch(error: FetchError) -> ApiError {
    from_scan_error(&ScanError::Fetch(error))
}

fn refused(status: u16) -> ApiError {
    let retry_after = (status == 429).then_some(Duration::from_secs(7));
    fetch(FetchError::Refused { status, retry_after })
}

/// The name of an error, and its response.
type NamedError = (&'static str, ApiError);

fn all_errors() -> Vec<NamedError> {
    let mut errors = request_errors();
    errors.extend(scan_errors());
    errors.extend(fetch_errors());
    errors.push(("not clean", ApiError::not_clean("File not clean (no output)".to_owned())));
    errors.push(("internal", ApiError::internal()));
    errors
}

fn request_errors() -> Vec<NamedError> {
    use RequestError as R;
    vec![
        ("MalformedJson", from_request_error(&R::MalformedJson { what: "it is not JSON" })),
        ("BodyTooLarge", from_request_error(&R::BodyTooLarge { limit: 1 })),
        ("BodyTimedOut", from_request_error(&R::BodyTimedOut)),
        ("IncompleteBody", from_request_error(&R::IncompleteBody(axum::Error::new(secret())))),
        ("InvalidKeyField", from_request_error(&R::InvalidKeyField { field: "iv" })),
        ("BadDecryption", from_request_error(&R::BadDecryption { what: "x" })),
        ("DecryptionFailed", from_request_error(&R::DecryptionFailed(OpenError::Mac))),
        ("InvalidHeader", from_request_error(&R::InvalidHeader { what: "no Host header" })),
        ("UnsupportedCoding", from_request_error(&R::UnsupportedCoding)),
        ("MultipleTokens", from_request_error(&R::MultipleTokens)),
        ("InvalidMediaId", from_request_error(&R::InvalidMediaId)),
        ("InvalidParameter", from_request_error(&R::InvalidParameter("width"))),
        ("NoHomeserver", from_request_error(&R::NoHomeserver)),
        ("RangeNotSatisfiable", from_request_error(&R::RangeNotSatisfiable { length: 9 })),
    ]
}

fn scan_errors() -> Vec<NamedError> {
    use ScanError as S;
    let no_descriptor_left = FetchError::Unreachable(Box::new(no_descriptor()));
    vec![
        ("HashMismatch", from_scan_error(&S::HashMismatch)),
        ("CounterWraps", from_scan_error(&S::CounterWraps { limit: 16 })),
        ("NotReady", from_scan_error(&S::NotReady)),
        ("Overloaded", from_scan_error(&S::Overloaded)),
        ("SpoolFull", from_scan_error(&S::SpoolFull)),
        ("Deadline Queued", from_scan_error(&S::Deadline(Phase::Queued))),
        ("Deadline Downloading", from_scan_error(&S::Deadline(Phase::Downloading))),
        ("Deadline Scanning", from_scan_error(&S::Deadline(Phase::Scanning))),
        ("Script", from_scan_error(&S::Script(ScriptFailure::Signaled(9)))),
        ("Sandbox", from_scan_error(&S::Sandbox(mcs_sandbox::Error::HelperNotFound))),
        ("Encrypted", from_scan_error(&S::Encrypted("zip: syt_token".to_owned()))),
        ("Limit", from_scan_error(&S::Limit("MaxFiles: syt_token".to_owned()))),
        ("Unreadable", from_scan_error(&S::Unreadable("x.zip: syt_token".to_owned()))),
        ("Inconsistent", from_scan_error(&S::Inconsistent("x.zip: syt_token".to_owned()))),
        ("Oversize", from_scan_error(&S::Oversize("clamd"))),
        ("Engine", from_scan_error(&S::Engine("clamd", EngineFailure::TimedOut))),
        ("Engine busy", from_scan_error(&S::Engine("clamd", EngineFailure::Busy))),
        ("Disk", from_scan_error(&S::Disk(secret()))),
        ("Disk EMFILE", from_scan_error(&S::Disk(no_descriptor()))),
        ("Unreachable EMFILE", fetch(no_descriptor_left)),
        ("Panicked", from_scan_error(&S::Panicked)),
        ("Stopping", from_scan_error(&S::Stopping)),
    ]
}

fn fetch_errors() -> Vec<NamedError> {
    use FetchError as F;
    use IngestError as I;
    let ingest = |error| fetch(F::Ingest(error));
    let boxed = || Box::new(secret());
    vec![
        ("MissingToken", fetch(F::MissingToken)),
        ("UnknownToken", fetch(F::UnknownToken)),
        ("NotFound", fetch(F::NotFound)),
        ("Refused 403", refused(403)),
        ("Refused 429", refused(429)),
        ("Refused 302", refused(302)),
        ("TooLarge", fetch(F::TooLarge { limit: 1 })),
        ("Unreachable", fetch(F::Unreachable(boxed()))),
        ("ForbiddenAddress", fetch(F::ForbiddenAddress("10.0.0.1".to_owned()))),
        ("Upstream 500", fetch(F::Upstream { status: 500, retry_after: None })),
        (
            "Upstream 503",
            fetch(F::Upstream { status: 503, retry_after: Some(Duration::from_secs(7)) }),
        ),
        ("TruncatedBody", fetch(F::TruncatedBody(boxed()))),
        ("NotMedia", fetch(F::NotMedia("syt_token".to_owned()))),
        ("NotYetUploaded", fetch(F::NotYetUploaded)),
        ("TimedOut", fetch(F::TimedOut("connect"))),
        ("Ingest TooLarge", ingest(I::TooLarge { limit: 1 })),
        ("Ingest SpoolFull", ingest(I::SpoolFull)),
        ("Ingest Disk", ingest(I::Disk(secret()))),
        ("Ingest HashMismatch", ingest(I::HashMismatch)),
        ("Ingest CounterWraps", ingest(I::CounterWraps { limit: 16 })),
    ]
}

/// Returns all responses: the error's name, status, reason and info.
pub(crate) async fn all_responses() -> Vec<(&'static str, String, String, String)> {
    let mut responses = Vec::new();
    for (name, error) in all_errors() {
        let response = error.into_response();
        let status = response.status().as_u16().to_string();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let text = |key: &str| body[key].as_str().unwrap().to_owned();
        responses.push((name, status, text("reason"), text("info")));
    }
    responses
}

const TABLE: &str = r#"
MalformedJson: 400 {"reason":"MCS_MALFORMED_JSON","info":"Malformed body: it is not JSON"}
BodyTooLarge: 413 {"reason":"MCS_MALFORMED_JSON","info":"The request's body is too large"}
BodyTimedOut: 408 {"reason":"M_UNKNOWN","info":"The request's body took too long"}
IncompleteBody: 400 {"reason":"MCS_MALFORMED_JSON","info":"The request's body is incomplete"}
InvalidKeyField: 400 {"reason":"MCS_MEDIA_FAILED_TO_DECRYPT","info":"iv is not base64 of the right length"}
BadDecryption: 403 {"reason":"MCS_BAD_DECRYPTION","info":"The encrypted body cannot be opened with this server's key"}
DecryptionFailed: 403 {"reason":"MCS_BAD_DECRYPTION","info":"The encrypted body cannot be opened with this server's key"}
InvalidHeader: 400 {"reason":"M_UNKNOWN","info":"Invalid request: no Host header"}
UnsupportedCoding: 501 {"reason":"M_UNKNOWN","info":"Only the transfer coding chunked is supported"}
MultipleTokens: 401 {"reason":"M_UNKNOWN_TOKEN","info":"More than one Authorization header"}
InvalidMediaId: 404 {"reason":"M_NOT_FOUND","info":"Media not found"}
InvalidParameter: 400 {"reason":"M_UNKNOWN","info":"The query parameter width has an invalid value"}
NoHomeserver: 404 {"reason":"M_NOT_FOUND","info":"Media not found"}
RangeNotSatisfiable: 416 {"reason":"M_UNKNOWN","info":"The range lies outside the media"} [content-range: bytes */9]
HashMismatch: 400 {"reason":"MCS_MEDIA_FAILED_TO_DECRYPT","info":"The media does not match the given hash"}
CounterWraps: 400 {"reason":"MCS_MEDIA_FAILED_TO_DECRYPT","info":"The low 64 bits of iv would wrap within the media"}
NotReady: 503 {"reason":"M_UNKNOWN","info":"The scanner is not ready"} [retry-after: 10]
Overloaded: 503 {"reason":"M_UNKNOWN","info":"The server is busy"} [retry-after: 10]
SpoolFull: 503 {"reason":"M_UNKNOWN","info":"The server has no room at the moment"} [retry-after: 10]
Deadline Queued: 503 {"reason":"M_UNKNOWN","info":"The server was busy for too long"} [retry-after: 10]
Deadline Downloading: 504 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver took too long"}
Deadline Scanning: 500 {"reason":"M_UNKNOWN","info":"The scan took too long"}
Script: 500 {"reason":"M_UNKNOWN","info":"The scan could not be finished"}
Sandbox: 500 {"reason":"M_UNKNOWN","info":"The scan could not be finished"}
Encrypted: 422 {"reason":"M_UNKNOWN","info":"The contents need a password and could not be examined"}
Limit: 413 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The contents exceed a limit and could not be examined"}
Unreadable: 422 {"reason":"M_UNKNOWN","info":"The contents are damaged or of an unknown kind and could not be examined"}
Inconsistent: 422 {"reason":"M_UNKNOWN","info":"The contents are inconsistent and could not be examined"}
Oversize: 413 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The media is too large"}
Engine: 500 {"reason":"M_UNKNOWN","info":"The scan could not be finished"}
Engine busy: 503 {"reason":"M_UNKNOWN","info":"A scan engine is busy"} [retry-after: 10]
Disk: 500 {"reason":"M_UNKNOWN","info":"The server cannot store the media"}
Disk EMFILE: 503 {"reason":"M_UNKNOWN","info":"The server lacks resources at the moment"} [retry-after: 10]
Unreachable EMFILE: 503 {"reason":"M_UNKNOWN","info":"The server lacks resources at the moment"} [retry-after: 10]
Panicked: 500 {"reason":"M_UNKNOWN","info":"The scan could not be finished"}
Stopping: 503 {"reason":"M_UNKNOWN","info":"The server is stopping"} [retry-after: 10]
MissingToken: 401 {"reason":"M_MISSING_TOKEN","info":"The homeserver asks for an access token"}
UnknownToken: 401 {"reason":"M_UNKNOWN_TOKEN","info":"The homeserver refused the access token"}
NotFound: 404 {"reason":"M_NOT_FOUND","info":"Media not found"}
Refused 403: 403 {"reason":"M_UNKNOWN","info":"The homeserver refused the request"}
Refused 429: 429 {"reason":"M_UNKNOWN","info":"The homeserver refused the request"} [retry-after: 7]
Refused 302: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"Invalid response from homeserver"}
TooLarge: 413 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The media is too large"}
Unreachable: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver cannot be reached"}
ForbiddenAddress: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver cannot be reached"}
Upstream 500: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver failed"}
Upstream 503: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver failed"} [retry-after: 7]
TruncatedBody: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver broke off"}
NotMedia: 502 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver did not send media"}
NotYetUploaded: 504 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The media is not yet uploaded"}
TimedOut: 504 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The homeserver took too long"}
Ingest TooLarge: 413 {"reason":"MCS_MEDIA_REQUEST_FAILED","info":"The media is too large"}
Ingest SpoolFull: 503 {"reason":"M_UNKNOWN","info":"The server has no room at the moment"} [retry-after: 10]
Ingest Disk: 500 {"reason":"M_UNKNOWN","info":"The server cannot store the media"}
Ingest HashMismatch: 400 {"reason":"MCS_MEDIA_FAILED_TO_DECRYPT","info":"The media does not match the given hash"}
Ingest CounterWraps: 400 {"reason":"MCS_MEDIA_FAILED_TO_DECRYPT","info":"The low 64 bits of iv would wrap within the media"}
not clean: 403 {"reason":"MCS_MEDIA_NOT_CLEAN","info":"File not clean (no output)"}
internal: 500 {"reason":"M_UNKNOWN","info":"Internal error"}
"#;

#[test]
fn overload_of_an_engine_is_logged_with_its_name() {
    let error = ScanError::Engine("clamd", EngineFailure::Busy);
    assert_eq!(
        Chain(&error).to_string(),
        "the engine clamd failed: too many connections wait for the engine to accept them"
    );
    assert_eq!(error.cause().as_str(), "engine_busy");
}

#[test]
fn error_chain_contains_all_causes() {
    let error = ScanError::Fetch(FetchError::Unreachable(Box::new(io::Error::other("reset"))));
    assert_eq!(
        Chain(&error).to_string(),
        "the media could not be fetched: the homeserver could not be reached: reset"
    );
}

#[tokio::test]
async fn every_error_has_its_response() {
    let mut table = "\n".to_owned();
    for (name, error) in all_errors() {
        let response = error.into_response();
        let status = response.status().as_u16();
        let header = |name| {
            let value = response.headers().get(name)?;
            Some(format!(" [{name}: {}]", value.to_str().ok()?))
        };
        let headers = [header("retry-after"), header("content-range")];
        let headers: String = headers.into_iter().flatten().collect();
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["content-type"], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = str::from_utf8(&body).unwrap();
        assert!(!body.contains("secret") && !body.contains("syt_"), "{body}");
        writeln!(table, "{name}: {status} {body}{headers}").unwrap();
    }
    assert_eq!(table, TABLE);
}
