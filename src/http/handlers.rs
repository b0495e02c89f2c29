//! Request handlers: each converts a request to a [`ScanRequest`] and the scanner's result to a verdict, the
//! media or an error.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    AppState,
    connection::Peer,
    error::ApiError,
    logging::ResponseSummary,
    media_response,
    request::{self, MediaPath, MediaRoute},
    response,
};
use crate::{
    media::MediaId,
    scan::{ScanRequest, ScanResponse, Verdict, Wants},
};

/// Handles the GET routes that name media in the path.
pub(super) async fn unencrypted(
    state: &AppState,
    peer: Peer,
    parts: &Parts,
    path: MediaPath<'_>,
    route: MediaRoute,
) -> (Response, ResponseSummary) {
    let (media, file_name) = match path.decode() {
        Ok(decoded) => decoded,
        Err(error) => return (ApiError::from(error).into_response(), ResponseSummary::default()),
    };
    match request::parse_unencrypted(state, peer, parts, media.clone(), route) {
        Ok(request) => scan(state, parts, &request, file_name.as_deref()).await,
        Err(error) => (ApiError::from(error).into_response(), ResponseSummary::for_media(media)),
    }
}

/// Handles the POST routes.
pub(super) async fn encrypted(
    state: &AppState,
    peer: Peer,
    parts: &Parts,
    body: Body,
    wants: Wants,
) -> (Response, ResponseSummary) {
    match request::parse_encrypted(state, peer, parts, body, wants).await {
        Ok(request) => scan(state, parts, &request, None).await,
        Err(error) => (ApiError::from(error).into_response(), ResponseSummary::default()),
    }
}

pub(super) fn public_key(state: &AppState) -> (Response, ResponseSummary) {
    #[derive(Serialize)]
    struct PublicKey {
        public_key: String,
    }
    (
        response::json(StatusCode::OK, &PublicKey { public_key: state.keys.public_key() }),
        ResponseSummary::quiet(),
    )
}

/// Handles `OPTIONS`. The CORS headers are added to every response.
pub(super) fn preflight() -> (Response, ResponseSummary) {
    (StatusCode::OK.into_response(), ResponseSummary::quiet())
}

/// Handles unknown routes with the standard Matrix error.
pub(super) fn unknown_route() -> (Response, ResponseSummary) {
    (unrecognized(StatusCode::NOT_FOUND), ResponseSummary::default())
}

/// Handles a known route with an unsupported method; `allowed` is the value of the `Allow` header.
pub(super) fn unknown_method(allowed: &'static str) -> (Response, ResponseSummary) {
    let mut response = unrecognized(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    (response, ResponseSummary::default())
}

fn unrecognized(status: StatusCode) -> Response {
    #[derive(Serialize)]
    struct MatrixError {
        errcode: &'static str,
        error: &'static str,
    }
    let body = MatrixError { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" };
    response::json(status, &body)
}

async fn scan(
    state: &AppState,
    parts: &Parts,
    request: &ScanRequest,
    file_name: Option<&str>,
) -> (Response, ResponseSummary) {
    let media = &request.fetch.media;
    match state.scanner.scan(request).await {
        Ok(result) => {
            let response = match request.wants {
                Wants::Verdict => verdict_response(&result.verdict),
                Wants::Media => media_or_error(parts, media, &result, file_name),
            };
            (response, ResponseSummary::from_response(media.clone(), &result))
        }
        Err(error) => {
            let response = ApiError::from(&*error).into_response();
            (response, ResponseSummary::for_error(media.clone(), &error))
        }
    }
}

fn media_or_error(
    parts: &Parts,
    media: &MediaId,
    result: &ScanResponse,
    file_name: Option<&str>,
) -> Response {
    match (&result.verdict, &result.media) {
        (Verdict::Clean { .. }, Some(media)) => media_response::build(parts, media, file_name),
        (Verdict::Clean { .. }, None) => {
            tracing::error!(%media, "clean verdict without a media body");
            ApiError::internal().into_response()
        }
        (Verdict::NotClean { output, .. }, _) => {
            ApiError::not_clean(not_clean_info(output)).into_response()
        }
        (Verdict::TypeForbidden { detected }, _) => {
            ApiError::type_forbidden(detected).into_response()
        }
    }
}

fn verdict_response(verdict: &Verdict) -> Response {
    #[derive(Serialize)]
    struct VerdictBody<'a> {
        clean: bool,
        info: fmt::Arguments<'a>,
    }
    let json = |clean, info| response::json(StatusCode::OK, &VerdictBody { clean, info });
    match verdict {
        Verdict::Clean { at } => {
            let at = humantime::format_rfc3339_seconds(*at);
            json(true, format_args!("File clean at {at}"))
        }
        Verdict::NotClean { output, .. } => json(false, format_args!("{}", not_clean_info(output))),
        Verdict::TypeForbidden { detected } => ApiError::type_forbidden(detected).into_response(),
    }
}

fn not_clean_info(output: &str) -> String {
    if output.is_empty() {
        "File not clean (no output)".to_owned()
    } else {
        format!("File not clean. Output: '{output}'")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http_body_util::BodyExt;

    use super::*;
    use crate::scan::verdict::NotCleanKind;

    async fn body_text(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn not_clean(output: &str) -> Verdict {
        Verdict::NotClean { kind: NotCleanKind::Infected, output: output.into() }
    }

    #[tokio::test]
    async fn verdict_response_has_documented_json() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        assert_eq!(
            body_text(verdict_response(&Verdict::Clean { at })).await,
            r#"{"clean":true,"info":"File clean at 2023-11-14T22:13:20Z"}"#,
        );
        assert_eq!(
            body_text(verdict_response(&not_clean("Eicar \"x\""))).await,
            r#"{"clean":false,"info":"File not clean. Output: 'Eicar \"x\"'"}"#,
        );
        assert_eq!(
            body_text(verdict_response(&not_clean(""))).await,
            r#"{"clean":false,"info":"File not clean (no output)"}"#,
        );
    }
}
