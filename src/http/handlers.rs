//! One handler a route: a request becomes a [`ScanRequest`], the scanner's answer becomes a
//! verdict, a media or an error. Knows no jobs and no homeserver.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    AppState,
    error::ApiError,
    logging::Outcome,
    media_answer,
    request::{self, Plain, RequestError},
};
use crate::{
    media::MediaId,
    scan::{Answer, ScanRequest, Verdict, Wants},
};

pub(super) async fn download(State(state): State<Arc<AppState>>, request: Request) -> Response {
    plain(&state, request, Plain::Download).await
}

pub(super) async fn thumbnail(State(state): State<Arc<AppState>>, request: Request) -> Response {
    plain(&state, request, Plain::Thumbnail).await
}

pub(super) async fn scan(State(state): State<Arc<AppState>>, request: Request) -> Response {
    plain(&state, request, Plain::Scan).await
}

pub(super) async fn download_encrypted(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Response {
    encrypted(&state, request, Wants::Media).await
}

pub(super) async fn scan_encrypted(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Response {
    encrypted(&state, request, Wants::Verdict).await
}

pub(super) async fn public_key(State(state): State<Arc<AppState>>) -> Response {
    #[derive(Serialize)]
    struct PublicKey {
        public_key: String,
    }
    Outcome::routine(json(&PublicKey { public_key: state.keys.public_key() }))
}

/// `OPTIONS`: the layer of [`super::routes`] adds what a preflight asks for.
pub(super) async fn preflight() -> Response {
    Outcome::routine(StatusCode::OK.into_response())
}

/// An unknown route: an ordinary Matrix error, as other servers give it.
pub(super) async fn unknown_route() -> Response {
    unrecognized(StatusCode::NOT_FOUND)
}

/// A known route with a method that it does not have.
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
    (status, json(&body)).into_response()
}

async fn plain(state: &AppState, request: Request, what: Plain) -> Response {
    let (parts, _) = request.into_parts();
    let named = match request::named(parts.uri.path()) {
        Ok(named) => named,
        Err(RequestError::MissingSegment) => return unknown_route().await,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let media = named.media.clone();
    let parsed = request::plain(state, &parts, named.media, what);
    let file_name = named.file_name.as_deref();
    match parsed {
        Ok(request) => answer(state, &parts, request, file_name).await,
        Err(error) => Outcome::of_media(media, ApiError::from(error).into_response()),
    }
}

async fn encrypted(state: &AppState, request: Request, wants: Wants) -> Response {
    let (parts, body) = request.into_parts();
    match request::encrypted(state, &parts, body, wants).await {
        Ok(request) => answer(state, &parts, request, None).await,
        Err(error) => ApiError::from(error).into_response(),
    }
}

async fn answer(
    state: &AppState,
    parts: &Parts,
    request: ScanRequest,
    file_name: Option<&str>,
) -> Response {
    let media = request.fetch.media.clone();
    let wants = request.wants;
    match state.scanner.scan(request).await {
        Ok(answer) => {
            let response = match wants {
                Wants::Verdict => verdict(&answer.verdict),
                Wants::Media => content(parts, &media, &answer, file_name),
            };
            Outcome::of_answer(media, &answer, response)
        }
        Err(error) => Outcome::of_error(media, &error, ApiError::from(&*error).into_response()),
    }
}

fn content(parts: &Parts, media: &MediaId, answer: &Answer, file_name: Option<&str>) -> Response {
    match (&answer.verdict, &answer.media) {
        (Verdict::Clean { .. }, Some(media)) => media_answer::answer(parts, media, file_name),
        (Verdict::Clean { .. }, None) => {
            tracing::error!(%media, "a clean media came without its bytes");
            ApiError::internal().into_response()
        }
        (Verdict::NotClean { output }, _) => {
            ApiError::not_clean(not_clean_info(output)).into_response()
        }
        (Verdict::TypeForbidden { detected }, _) => {
            ApiError::type_forbidden(detected).into_response()
        }
    }
}

fn verdict(verdict: &Verdict) -> Response {
    #[derive(Serialize)]
    struct Wire {
        clean: bool,
        info: String,
    }
    match verdict {
        Verdict::Clean { at } => {
            let at = humantime::format_rfc3339_seconds(*at);
            json(&Wire { clean: true, info: format!("File clean at {at}") })
        }
        Verdict::NotClean { output } => json(&Wire { clean: false, info: not_clean_info(output) }),
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

fn json(body: &impl Serialize) -> Response {
    let no_store = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    ([no_store], Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use http_body_util::BodyExt;

    use super::*;

    async fn body_of(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn verdicts_are_told_in_the_contracts_words() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_500);
        assert_eq!(
            body_of(verdict(&Verdict::Clean { at })).await,
            r#"{"clean":true,"info":"File clean at 2023-11-14T22:13:20Z"}"#,
        );
        assert_eq!(
            body_of(verdict(&Verdict::NotClean { output: "Eicar \"x\"".into() })).await,
            r#"{"clean":false,"info":"File not clean. Output: 'Eicar \"x\"'"}"#,
        );
        assert_eq!(
            body_of(verdict(&Verdict::NotClean { output: "".into() })).await,
            r#"{"clean":false,"info":"File not clean (no output)"}"#,
        );
    }
}
