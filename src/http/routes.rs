//! Routing from method and path to a handler, and the common layers of all handlers: CORS, request log, panic
//! handling.
//!
//! The path is split here, once, before decoding. axum's router is not used: each of its layers boxes the future
//! of a request, which took a fifth of the user-space time of a response served from memory.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderName, HeaderValue, Method, header, request::Parts},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use hyper::service::{Service, service_fn};

use super::{
    CurrentState,
    connection::Peer,
    error::ApiError,
    framing::{self, Framing},
    handlers, host,
    logging::{RequestLog, ResponseSummary},
    request::{MediaPath, MediaRoute},
    request_error::RequestError,
};
use crate::scan::Wants;

/// Common prefix of all routes.
const PREFIX: &str = "_matrix/media_proxy/unstable/";

/// Headers of every response, not only of preflights: browsers hide error responses without them.
const CORS: [(HeaderName, HeaderValue); 5] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
    (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD, POST, OPTIONS")),
    (
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(
            "Origin, X-Requested-With, Content-Type, Accept, Authorization, Range",
        ),
    ),
    (
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Content-Disposition, Content-Range, ETag, Retry-After"),
    ),
    (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400")),
];

/// Route that a path matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'path> {
    Unencrypted(MediaRoute, MediaPath<'path>),
    Encrypted(Wants),
    PublicKey,
    Unknown,
}

/// All routes as a service.
pub struct Routes(Arc<RouteState>);

struct RouteState {
    current: CurrentState,
    request_log: RequestLog,
}

impl Routes {
    /// Creates the routes. Each request uses the state that is current when it arrives.
    #[must_use]
    pub fn new(current: CurrentState) -> Self {
        let request_log = RequestLog::new(Arc::clone(&current.load().metrics));
        Self(Arc::new(RouteState { current, request_log }))
    }

    /// Returns the service for the connection of one peer.
    #[must_use]
    pub fn for_peer(
        &self,
        peer: Peer,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + use<>
    {
        // One reference count for each connection: a global count, changed by all processors for each request, would
        // be contended.
        let connection = Arc::new((Arc::clone(&self.0), peer));
        service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move {
                let (state, peer) = &*connection;
                let RouteState { current, request_log } = &**state;
                let handle = async |route: Route<'_>, parts: &Parts, body| {
                    handle(current, *peer, route, parts, body).await
                };
                Ok(with_common_layers(request_log, request, handle).await)
            }
        })
    }
}

impl<'path> Route<'path> {
    /// Matches a path; additional slashes at either end are ignored.
    fn parse(path: &'path str) -> Self {
        let Some(suffix) = path.trim_matches('/').strip_prefix(PREFIX) else {
            return Self::Unknown;
        };
        let (name, rest) =
            suffix.split_once('/').map_or((suffix, None), |(name, rest)| (name, Some(rest)));
        let media_path = rest.and_then(MediaPath::parse);
        match (name, media_path) {
            ("download", Some(path)) => Self::Unencrypted(MediaRoute::Download, path),
            ("thumbnail", Some(path)) if path.file_name.is_none() => {
                Self::Unencrypted(MediaRoute::Thumbnail, path)
            }
            ("scan", Some(path)) if path.file_name.is_none() => {
                Self::Unencrypted(MediaRoute::Scan, path)
            }
            ("download_encrypted", _) if rest.is_none() => Self::Encrypted(Wants::Media),
            ("scan_encrypted", _) if rest.is_none() => Self::Encrypted(Wants::Verdict),
            ("public_key", _) if rest.is_none() => Self::PublicKey,
            _ => Self::Unknown,
        }
    }

    /// Name in the log and in metric labels.
    fn name(self) -> &'static str {
        match self {
            Self::Unencrypted(MediaRoute::Download, _) => "download",
            Self::Unencrypted(MediaRoute::Thumbnail, _) => "thumbnail",
            Self::Unencrypted(MediaRoute::Scan, _) => "scan",
            Self::Encrypted(Wants::Media) => "download_encrypted",
            Self::Encrypted(Wants::Verdict) => "scan_encrypted",
            Self::PublicKey => "public_key",
            Self::Unknown => "unknown",
        }
    }
}

async fn handle(
    current: &CurrentState,
    peer: Peer,
    route: Route<'_>,
    parts: &Parts,
    body: Body,
) -> (Response, ResponseSummary) {
    const READ_METHODS: &str = "GET,HEAD,OPTIONS";
    let method = &parts.method;
    let is_read = method == Method::GET || method == Method::HEAD;
    match route {
        // Also for unknown routes: browsers hide a 404 after a failed preflight.
        _ if method == Method::OPTIONS => handlers::preflight(),
        Route::Unknown => handlers::unknown_route(),
        Route::Unencrypted(route, path) if is_read => {
            handlers::unencrypted(&current.load(), peer, parts, path, route).await
        }
        Route::PublicKey if is_read => handlers::public_key(&current.load()),
        Route::Unencrypted(..) | Route::PublicKey => handlers::unknown_method(READ_METHODS),
        // Boxed: otherwise every connection would reserve memory for this future.
        Route::Encrypted(wants) if method == Method::POST => {
            Box::pin(handlers::encrypted(&current.load(), peer, parts, body, wants)).await
        }
        Route::Encrypted(_) => handlers::unknown_method("POST,OPTIONS"),
    }
}

/// Calls `handle` within the common layers. Generic, so that tests can supply a handler.
async fn with_common_layers(
    request_log: &RequestLog,
    request: Request,
    handle: impl AsyncFnOnce(Route<'_>, &Parts, Body) -> (Response, ResponseSummary),
) -> Response {
    let (parts, body) = request.into_parts();
    let route = Route::parse(parts.uri.path());
    // Pinned in place: passing the futures by value would reserve their memory twice in each enclosing future.
    let response = pin!(async {
        let (mut response, summary) = if let Err(error) = check_header(&parts) {
            let mut response = ApiError::from(error).into_response();
            framing::close_after(response.headers_mut());
            (response, ResponseSummary::default())
        } else {
            let handler = pin!(handle(route, &parts, body));
            let result = AssertUnwindSafe(handler).catch_unwind().await;
            result.unwrap_or_else(internal_error)
        };
        add_common_headers(&mut response);
        if parts.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        (response, summary)
    });
    request_log.record(route.name(), &parts.method, response).await
}

/// Rejects headers that a proxy in front may interpret differently.
fn check_header(parts: &Parts) -> Result<(), RequestError> {
    match parts.extensions.get() {
        None | Some(Framing::Chunked) => {}
        Some(Framing::Ambiguous(what)) => return Err(RequestError::InvalidHeader { what }),
        Some(Framing::UnsupportedCoding) => return Err(RequestError::UnsupportedCoding),
    }
    host::check(parts).map_err(|what| RequestError::InvalidHeader { what })
}

fn add_common_headers(response: &mut Response) {
    let length = response.body().size_hint().exact();
    let headers = response.headers_mut();
    if let Some(length) = length
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    headers.reserve(CORS.len());
    for (name, value) in CORS {
        headers.insert(name, value);
    }
}

/// Builds the response after a panic, whose message the panic hook has already logged.
fn internal_error(_: Box<dyn Any + Send>) -> (Response, ResponseSummary) {
    tracing::error!("request handler panicked");
    (ApiError::internal().into_response(), ResponseSummary::default())
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;

    use super::*;
    use crate::metrics::ROUTES;

    async fn call(method: Method, path: &str) -> (StatusCode, Response, String) {
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let request = request.body(Body::empty()).unwrap();
        let handle = async |route: Route<'_>, parts: &Parts, _body| match route {
            Route::PublicKey => panic!("panic in a test"),
            _ if parts.method == Method::OPTIONS => handlers::preflight(),
            Route::Unknown => handlers::unknown_route(),
            _ if parts.method == Method::POST => handlers::unknown_method("GET,HEAD,OPTIONS"),
            _ => ("body".into_response(), ResponseSummary::default()),
        };
        let response = with_common_layers(&RequestLog::default(), request, handle).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, Response::from_parts(parts, Body::empty()), body)
    }

    const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;

    #[tokio::test]
    async fn every_response_has_each_cors_header_once() {
        let scan = |media: &str| format!("/{PREFIX}scan/{media}");
        for (method, path, expected, body) in [
            (Method::GET, scan("a/b"), 200, "body"),
            (Method::GET, scan("a/b/?x=1"), 200, "body"),
            (Method::GET, scan("a/%ff"), 200, "body"),
            (Method::HEAD, scan("a/b"), 200, ""),
            (Method::OPTIONS, scan("a/b"), 200, ""),
            (Method::POST, scan("a/b"), 405, UNRECOGNIZED),
            (Method::GET, scan("a"), 404, UNRECOGNIZED),
            (Method::GET, "/".to_owned(), 404, UNRECOGNIZED),
            (Method::OPTIONS, "*".to_owned(), 200, ""),
            (
                Method::GET,
                format!("/{PREFIX}public_key"),
                500,
                r#"{"reason":"M_UNKNOWN","info":"Internal error"}"#,
            ),
        ] {
            let (status, response, found) = call(method.clone(), &path).await;
            assert_eq!((status.as_u16(), &*found), (expected, body), "{method} {path}");
            for (name, value) in CORS {
                let values: Vec<_> = response.headers().get_all(&name).iter().collect();
                assert_eq!(values, [&value], "{method} {path} {name}");
            }
        }
    }

    #[tokio::test]
    async fn head_has_content_length_of_get() {
        let (_, response, _) = call(Method::HEAD, &format!("/{PREFIX}scan/a/b")).await;
        assert_eq!(response.headers()["content-length"], "4");
    }

    #[test]
    fn matches_paths_to_routes() {
        for (path, name) in [
            ("download/a/b", "download"),
            ("download/a/b/c", "download"),
            ("download/a/b/", "download"),
            ("thumbnail/a/b", "thumbnail"),
            ("scan/a/b//", "scan"),
            ("scan/a/%2f", "scan"),
            ("download_encrypted", "download_encrypted"),
            ("scan_encrypted/", "scan_encrypted"),
            ("public_key", "public_key"),
            ("", "unknown"),
            ("download", "unknown"),
            ("download/a", "unknown"),
            ("download//b", "unknown"),
            ("download/a//c", "unknown"),
            ("download/a/b/c/d", "unknown"),
            ("thumbnail/a/b/c", "unknown"),
            ("scan/a/b/c", "unknown"),
            ("/scan/a/b", "unknown"),
            ("Scan/a/b", "unknown"),
            ("%73can/a/b", "unknown"),
            ("scan_encrypted/a/b", "unknown"),
            ("public_key/x", "unknown"),
        ] {
            assert_eq!(Route::parse(&format!("/{PREFIX}{path}")).name(), name, "{path}");
        }
        for (name, _) in ROUTES {
            let path = [name, &format!("{name}/a/b")].map(|path| format!("/{PREFIX}{path}"));
            assert!(path.iter().any(|path| Route::parse(path).name() == name), "{name}");
        }
        assert_eq!(Route::parse(&format!("//{PREFIX}public_key")), Route::PublicKey);
        assert_eq!(Route::parse("/other/scan/a/b"), Route::Unknown);
        assert_eq!(Route::parse(""), Route::Unknown);
    }
}
