//! One handler a route: a request becomes a [`ScanRequest`], the scanner's answer becomes a
//! verdict, a media or an error. Knows no jobs and no homeserver.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use super::{
    AppState, answer,
    connection::Peer,
    error::ApiError,
    logging::Outcome,
    media_answer,
    request::{self, Path, Plain},
};
use crate::{
    media::MediaId,
    scan::{Answer, ScanRequest, Verdict, Wants},
};

/// A GET route of a media.
pub(super) async fn plain(
    state: &AppState,
    client: Peer,
    parts: &Parts,
    path: Path<'_>,
    what: Plain,
) -> (Response, Outcome) {
    let (media, file_name) = match path.decode() {
        Ok(named) => named,
        Err(error) => return (ApiError::from(error).into_response(), Outcome::default()),
    };
    match request::plain(state, client, parts, media.clone(), what) {
        Ok(request) => ask(state, parts, &request, file_name.as_deref()).await,
        Err(error) => (ApiError::from(error).into_response(), Outcome::of_media(media)),
    }
}

/// A POST route.
pub(super) async fn encrypted(
    state: &AppState,
    client: Peer,
    parts: &Parts,
    body: Body,
    wants: Wants,
) -> (Response, Outcome) {
    match request::encrypted(state, client, parts, body, wants).await {
        Ok(request) => ask(state, parts, &request, None).await,
        Err(error) => (ApiError::from(error).into_response(), Outcome::default()),
    }
}

pub(super) fn public_key(state: &AppState) -> (Response, Outcome) {
    #[derive(Serialize)]
    struct PublicKey {
        public_key: String,
    }
    (
        answer::json(StatusCode::OK, &PublicKey { public_key: state.keys.public_key() }),
        Outcome::routine(),
    )
}

/// `OPTIONS`: what a preflight asks for is on every answer.
pub(super) fn preflight() -> (Response, Outcome) {
    (StatusCode::OK.into_response(), Outcome::routine())
}

/// An unknown route: an ordinary Matrix error, as other servers give it.
pub(super) fn unknown_route() -> (Response, Outcome) {
    (unrecognized(StatusCode::NOT_FOUND), Outcome::default())
}

/// A known route with a method that is not among these, which it has.
pub(super) fn unknown_method(allowed: &'static str) -> (Response, Outcome) {
    let mut response = unrecognized(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    (response, Outcome::default())
}

fn unrecognized(status: StatusCode) -> Response {
    #[derive(Serialize)]
    struct MatrixError {
        errcode: &'static str,
        error: &'static str,
    }
    let body = MatrixError { errcode: "M_UNRECOGNIZED", error: "Unrecognized request" };
    answer::json(status, &body)
}

async fn ask(
    state: &AppState,
    parts: &Parts,
    request: &ScanRequest,
    file_name: Option<&str>,
) -> (Response, Outcome) {
    let media = &request.fetch.media;
    match state.scanner.scan(request).await {
        Ok(answer) => {
            let response = match request.wants {
                Wants::Verdict => verdict(&answer.verdict),
                Wants::Media => content(parts, media, &answer, file_name),
            };
            (response, Outcome::of_answer(media.clone(), &answer))
        }
        Err(error) => {
            let response = ApiError::from(&*error).into_response();
            (response, Outcome::of_error(media.clone(), &error))
        }
    }
}

fn content(parts: &Parts, media: &MediaId, answer: &Answer, file_name: Option<&str>) -> Response {
    match (&answer.verdict, &answer.media) {
        (Verdict::Clean { .. }, Some(media)) => media_answer::of(parts, media, file_name),
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
    struct Wire<'a> {
        clean: bool,
        info: fmt::Arguments<'a>,
    }
    let wire = |clean, info| answer::json(StatusCode::OK, &Wire { clean, info });
    match verdict {
        Verdict::Clean { at } => {
            let at = humantime::format_rfc3339_seconds(*at);
            wire(true, format_args!("File clean at {at}"))
        }
        Verdict::NotClean { output } => wire(false, format_args!("{}", not_clean_info(output))),
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
