//! The contract's routes: from a method and a path to a handler, and what surrounds all of them: CORS, one line in
//! the log, a net for panics. Knows no request's content.
//!
//! A path is taken apart here, once, as it was sent: a router of axum's would do so for its own parameters, and each
//! of its layers would put a request's future into another box: a fifth of what an answer from memory took outside the kernel.

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
    Live,
    connection::Peer,
    error::ApiError,
    handlers,
    logging::{Observer, Outcome},
    request::{Path, Plain},
};
use crate::scan::Wants;

/// Below it are all routes.
const PREFIX: &str = "_matrix/media_proxy/unstable/";

/// On every answer, not on preflights alone: browsers hide an error without them.
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

/// What a path leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Route<'path> {
    Plain(Plain, Path<'path>),
    Encrypted(Wants),
    PublicKey,
    Unknown,
}

/// All routes, to be served.
pub struct Routes(Arc<Shared>);

struct Shared {
    live: Live,
    observer: Observer,
}

impl Routes {
    /// All routes, by what is in force when a request comes.
    #[must_use]
    pub fn new(live: Live) -> Self {
        let observer = Observer::new(Arc::clone(&live.now().metrics));
        Self(Arc::new(Shared { live, observer }))
    }

    /// For the requests of one client.
    #[must_use]
    pub fn of(
        &self,
        client: Peer,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + use<>
    {
        // Each connection counts who holds it by itself: a count that all processors change at each request is dear.
        let connection = Arc::new((Arc::clone(&self.0), client));
        service_fn(move |request| {
            let connection = Arc::clone(&connection);
            async move {
                let (shared, client) = &*connection;
                let Shared { live, observer } = &**shared;
                let handle = async |route: Route<'_>, parts: &Parts, body| {
                    handle(live, *client, route, parts, body).await
                };
                Ok(surround(observer, request, handle).await)
            }
        })
    }
}

impl<'path> Route<'path> {
    /// A slash more at either end is one too many, and ignored.
    fn of(path: &'path str) -> Self {
        let Some(below) = path.trim_matches('/').strip_prefix(PREFIX) else { return Self::Unknown };
        let (name, rest) =
            below.split_once('/').map_or((below, None), |(name, rest)| (name, Some(rest)));
        let named = rest.and_then(Path::of);
        match (name, named) {
            ("download", Some(path)) => Self::Plain(Plain::Download, path),
            ("thumbnail", Some(path)) if path.file_name.is_none() => {
                Self::Plain(Plain::Thumbnail, path)
            }
            ("scan", Some(path)) if path.file_name.is_none() => Self::Plain(Plain::Scan, path),
            ("download_encrypted", _) if rest.is_none() => Self::Encrypted(Wants::Media),
            ("scan_encrypted", _) if rest.is_none() => Self::Encrypted(Wants::Verdict),
            ("public_key", _) if rest.is_none() => Self::PublicKey,
            _ => Self::Unknown,
        }
    }

    /// As the log and the metrics name it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain(Plain::Download, _) => "download",
            Self::Plain(Plain::Thumbnail, _) => "thumbnail",
            Self::Plain(Plain::Scan, _) => "scan",
            Self::Encrypted(Wants::Media) => "download_encrypted",
            Self::Encrypted(Wants::Verdict) => "scan_encrypted",
            Self::PublicKey => "public_key",
            Self::Unknown => "unknown",
        }
    }
}

async fn handle(
    live: &Live,
    client: Peer,
    route: Route<'_>,
    parts: &Parts,
    body: Body,
) -> (Response, Outcome) {
    const READ: &str = "GET,HEAD,OPTIONS";
    let method = &parts.method;
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Unknown => handlers::unknown_route(),
        _ if method == Method::OPTIONS => handlers::preflight(),
        Route::Plain(what, path) if reads => {
            handlers::plain(&live.now(), client, parts, path, what).await
        }
        Route::PublicKey if reads => handlers::public_key(&live.now()),
        Route::Plain(..) | Route::PublicKey => handlers::unknown_method(READ),
        // Boxed: a connection would have the place for it from its start.
        Route::Encrypted(wants) if method == Method::POST => {
            Box::pin(handlers::encrypted(&live.now(), client, parts, body, wants)).await
        }
        Route::Encrypted(_) => handlers::unknown_method("POST,OPTIONS"),
    }
}

/// An answer with all that every answer has, whoever gives it; apart, so that tests can give their own.
async fn surround(
    observer: &Observer,
    request: Request,
    handle: impl AsyncFnOnce(Route<'_>, &Parts, Body) -> (Response, Outcome),
) -> Response {
    let (parts, body) = request.into_parts();
    let route = Route::of(parts.uri.path());
    // Pinned where they are made: each future around them would have the place for them twice, to be given them and to
    // wait for them.
    let answered = pin!(async {
        let handled = pin!(handle(route, &parts, body));
        let caught = AssertUnwindSafe(handled).catch_unwind().await;
        let (mut response, outcome) = caught.unwrap_or_else(panicked);
        complete(&mut response);
        if parts.method == Method::HEAD {
            *response.body_mut() = Body::empty();
        }
        (response, outcome)
    });
    observer.observe(route.name(), &parts.method, answered).await
}

fn complete(response: &mut Response) {
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

/// The panic's own message is in the log already, by the hook that all panics run through.
fn panicked(_: Box<dyn Any + Send>) -> (Response, Outcome) {
    tracing::error!("a handler panicked");
    (ApiError::internal().into_response(), Outcome::default())
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};
    use http_body_util::BodyExt;

    use super::*;
    use crate::metrics::ROUTES;

    async fn ask(method: Method, path: &str) -> (StatusCode, Response, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let handle = async |route: Route<'_>, parts: &Parts, _body| match route {
            Route::PublicKey => panic!("of a test"),
            Route::Unknown => handlers::unknown_route(),
            _ if parts.method == Method::OPTIONS => handlers::preflight(),
            _ if parts.method == Method::POST => handlers::unknown_method("GET,HEAD,OPTIONS"),
            _ => ("whole".into_response(), Outcome::default()),
        };
        let response = surround(&Observer::default(), request, handle).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, Response::from_parts(parts, Body::empty()), body)
    }

    const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;

    #[tokio::test]
    async fn every_answer_carries_each_cors_header_once() {
        let scan = |media: &str| format!("/{PREFIX}scan/{media}");
        for (method, path, expected, body) in [
            (Method::GET, scan("a/b"), 200, "whole"),
            (Method::GET, scan("a/b/?x=1"), 200, "whole"),
            (Method::GET, scan("a/%ff"), 200, "whole"),
            (Method::HEAD, scan("a/b"), 200, ""),
            (Method::OPTIONS, scan("a/b"), 200, ""),
            (Method::POST, scan("a/b"), 405, UNRECOGNIZED),
            (Method::GET, scan("a"), 404, UNRECOGNIZED),
            (Method::GET, "/".to_owned(), 404, UNRECOGNIZED),
            (Method::OPTIONS, "*".to_owned(), 404, UNRECOGNIZED),
            (
                Method::GET,
                format!("/{PREFIX}public_key"),
                500,
                r#"{"reason":"M_UNKNOWN","info":"Internal error"}"#,
            ),
        ] {
            let (status, response, found) = ask(method.clone(), &path).await;
            assert_eq!((status.as_u16(), &*found), (expected, body), "{method} {path}");
            for (name, value) in CORS {
                let values: Vec<_> = response.headers().get_all(&name).iter().collect();
                assert_eq!(values, [&value], "{method} {path} {name}");
            }
        }
    }

    #[tokio::test]
    async fn head_has_the_length_of_get() {
        let (_, response, _) = ask(Method::HEAD, &format!("/{PREFIX}scan/a/b")).await;
        assert_eq!(response.headers()["content-length"], "5");
    }

    #[test]
    fn a_path_leads_to_its_route_or_to_none() {
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
            assert_eq!(Route::of(&format!("/{PREFIX}{path}")).name(), name, "{path}");
        }
        for (name, _) in ROUTES {
            let path = [name, &format!("{name}/a/b")].map(|path| format!("/{PREFIX}{path}"));
            assert!(path.iter().any(|path| Route::of(path).name() == name), "{name}");
        }
        assert_eq!(Route::of(&format!("//{PREFIX}public_key")), Route::PublicKey);
        assert_eq!(Route::of("/other/scan/a/b"), Route::Unknown);
        assert_eq!(Route::of(""), Route::Unknown);
    }
}
