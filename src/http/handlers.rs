//! Request handlers: each converts a request to a [`ScanRequest`] and the scanner's result to a verdict, the
//! media or an error. A summary for the request log is passed on as an extension of the response.

use std::fmt;

use axum::{
    Extension,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    AppState, CurrentState,
    connection::Peer,
    error::ApiError,
    logging::ResponseSummary,
    media_response,
    request::{self, MediaPath, MediaRoute},
    request_error::RequestError,
    response,
};
use crate::{
    media::MediaId,
    scan::{ScanRequest, ScanResponse, Verdict, Wants},
};

/// A response, and its summary for the request log.
type HandlerResponse = (Extension<ResponseSummary>, Response);

/// Segments of the path; an error if one of them is not UTF-8.
type DecodedPath = Result<Path<MediaPath>, PathRejection>;

pub(super) async fn download(
    State(current): State<CurrentState>,
    Extension(peer): Extension<Peer>,
    path: DecodedPath,
    request: Request,
) -> HandlerResponse {
    unencrypted(&current.load(), peer, path, request, MediaRoute::Download).await
}

pub(super) async fn thumbnail(
    State(current): State<CurrentState>,
    Extension(peer): Extension<Peer>,
    path: DecodedPath,
    request: Request,
) -> HandlerResponse {
    unencrypted(&current.load(), peer, path, request, MediaRoute::Thumbnail).await
}

pub(super) async fn scan(
    State(current): State<CurrentState>,
    Extension(peer): Extension<Peer>,
    path: DecodedPath,
    request: Request,
) -> HandlerResponse {
    unencrypted(&current.load(), peer, path, request, MediaRoute::Scan).await
}

pub(super) async fn download_encrypted(
    State(current): State<CurrentState>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> HandlerResponse {
    encrypted(&current.load(), peer, request, Wants::Media).await
}

pub(super) async fn scan_encrypted(
    State(current): State<CurrentState>,
    Extension(peer): Extension<Peer>,
    request: Request,
) -> HandlerResponse {
    encrypted(&current.load(), peer, request, Wants::Verdict).await
}

pub(super) async fn public_key(State(current): State<CurrentState>) -> HandlerResponse {
    #[derive(Serialize)]
    struct PublicKey {
        public_key: String,
    }
    let body = PublicKey { public_key: current.load().keys.public_key() };
    (Extension(ResponseSummary::quiet()), response::json(StatusCode::OK, &body))
}

/// Handles `OPTIONS`. The CORS headers are added to every response.
pub(super) async fn preflight() -> HandlerResponse {
    (Extension(ResponseSummary::quiet()), StatusCode::OK.into_response())
}

/// Handles unknown routes with the standard Matrix error. A preflight succeeds, because browsers hide the 404 after a
/// failed one.
pub(super) async fn unknown_route(method: Method) -> Response {
    if method == Method::OPTIONS {
        return preflight().await.into_response();
    }
    unrecognized(StatusCode::NOT_FOUND)
}

/// Handles a known route with an unsupported method. The router adds the `Allow` header.
pub(super) async fn unknown_method() -> Response {
    unrecognized(StatusCode::METHOD_NOT_ALLOWED)
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

/// Handles the GET routes that name media in the path.
async fn unencrypted(
    state: &AppState,
    peer: Peer,
    path: DecodedPath,
    request: Request,
    route: MediaRoute,
) -> HandlerResponse {
    let path = path.map_err(|_not_utf8| RequestError::InvalidMediaId);
    let (media, file_name) = match path.and_then(|Path(path)| path.validate()) {
        Ok(validated) => validated,
        Err(error) => return error_answer(error, ResponseSummary::default()),
    };
    let (parts, _) = request.into_parts();
    match request::parse_unencrypted(state, peer, &parts, media.clone(), route) {
        Ok(request) => respond(state, &parts, &request, file_name.as_deref()).await,
        Err(error) => error_answer(error, ResponseSummary::for_media(media)),
    }
}

/// Handles the POST routes.
async fn encrypted(
    state: &AppState,
    peer: Peer,
    request: Request,
    wants: Wants,
) -> HandlerResponse {
    let (parts, body) = request.into_parts();
    match request::parse_encrypted(state, peer, &parts, body, wants).await {
        Ok(request) => respond(state, &parts, &request, None).await,
        Err(error) => error_answer(error, ResponseSummary::default()),
    }
}

fn error_answer(error: RequestError, summary: ResponseSummary) -> HandlerResponse {
    (Extension(summary), ApiError::from(error).into_response())
}

async fn respond(
    state: &AppState,
    parts: &Parts,
    request: &ScanRequest,
    file_name: Option<&str>,
) -> HandlerResponse {
    let media = &request.fetch.media;
    match state.scanner.scan(request).await {
        Ok(result) => {
            let response = match request.wants {
                Wants::Verdict | Wants::Rescan => verdict_response(&result.verdict),
                Wants::Media => media_or_error(parts, media, &result, file_name),
            };
            (Extension(ResponseSummary::from_response(media.clone(), &result)), response)
        }
        Err(error) => {
            let response = ApiError::from(&*error).into_response();
            (Extension(ResponseSummary::for_error(media.clone(), &error)), response)
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
