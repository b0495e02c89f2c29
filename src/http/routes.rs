//! Table of the routes, and the layers around all of them: request log, CORS, panic handling, header checks.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Router,
    extract::{FromRef, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::FutureExt;
use hyper::service::{Service, service_fn};
use hyper_util::service::TowerToHyperService;
use tower_http::normalize_path::NormalizePath;

use super::{
    CurrentState,
    connection::Peer,
    error::ApiError,
    framing::{self, Framing},
    handlers, host,
    logging::RequestLog,
    request_error::RequestError,
    route_name::{PREFIX, has_empty_segment},
};

/// Headers of every response, not only of preflights: browsers hide error responses without them. The `CorsLayer` of
/// tower-http adds most of them to preflights only.
pub(super) const CORS: [(HeaderName, HeaderValue); 5] = [
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

/// All routes as a service.
pub struct Routes(NormalizePath<Router>);

impl Routes {
    /// Creates the routes. Each request uses the state that is current when it arrives.
    #[must_use]
    pub fn new(current: CurrentState) -> Self {
        let request_log = RequestLog::new(current.clone());
        Self(with_common_layers(table().with_state(current), request_log))
    }

    /// Returns the service for the connection of one peer.
    #[must_use]
    pub fn for_peer(
        &self,
        peer: Peer,
    ) -> impl Service<Request, Response = Response, Error = Infallible, Future: Send> + Send + use<>
    {
        let routes = TowerToHyperService::new(self.0.clone());
        service_fn(move |mut request: Request| {
            request.extensions_mut().insert(peer);
            routes.call(request)
        })
    }
}

/// The route table. The router answers `HEAD` on each GET route, and sets the `Allow` header of a 405.
fn table<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    CurrentState: FromRef<S>,
{
    use handlers::preflight;
    let path = |route: &str| [PREFIX, route].concat();
    Router::new()
        .route(
            &path("download/{server_name}/{media_id}"),
            get(handlers::download).options(preflight),
        )
        .route(
            &path("download/{server_name}/{media_id}/{file_name}"),
            get(handlers::download).options(preflight),
        )
        .route(
            &path("thumbnail/{server_name}/{media_id}"),
            get(handlers::thumbnail).options(preflight),
        )
        .route(&path("scan/{server_name}/{media_id}"), get(handlers::scan).options(preflight))
        .route(&path("download_encrypted"), post(handlers::download_encrypted).options(preflight))
        .route(&path("scan_encrypted"), post(handlers::scan_encrypted).options(preflight))
        .route(&path("public_key"), get(handlers::public_key).options(preflight))
        .fallback(handlers::unknown_route)
        .method_not_allowed_fallback(handlers::unknown_method)
}

/// Adds the layer of all routes and fallbacks.
fn with_common_layers(router: Router, request_log: RequestLog) -> NormalizePath<Router> {
    let layer = from_fn_with_state(Arc::new(request_log), handle);
    // Ignores slashes at either end of the path. Outside of the router, because the layer runs after routing.
    NormalizePath::trim_trailing_slash(router.layer(layer))
}

/// Logs a request, checks it, and calls its handler. One layer, because each of axum's layers takes a twentieth of the
/// time of a response from memory.
async fn handle(State(log): State<Arc<RequestLog>>, request: Request, next: Next) -> Response {
    log.record(request, |request| async move {
        let response = if let Err(error) = check_headers(&request) {
            let mut response = ApiError::from(error).into_response();
            framing::close_after(response.headers_mut());
            response
        } else if has_empty_segment(&request) {
            handlers::unknown_route(request.method().clone()).await
        } else {
            let response = AssertUnwindSafe(next.run(request)).catch_unwind().await;
            response.unwrap_or_else(|_panic| internal_error())
        };
        add_cors_headers(response)
    })
    .await
}

/// Rejects headers that a proxy in front may interpret differently.
fn check_headers(request: &Request) -> Result<(), RequestError> {
    match request.extensions().get() {
        None | Some(Framing::Chunked) => {
            host::check(request).map_err(|what| RequestError::InvalidHeader { what })
        }
        Some(Framing::Ambiguous(what)) => Err(RequestError::InvalidHeader { what }),
        Some(Framing::UnsupportedCoding) => Err(RequestError::UnsupportedCoding),
    }
}

fn add_cors_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.reserve(CORS.len());
    for (name, value) in CORS {
        headers.insert(name, value);
    }
    response
}

/// Builds the response after a panic, whose message the panic hook has already logged.
fn internal_error() -> Response {
    tracing::error!("request handler panicked");
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, StatusCode},
        middleware::from_fn,
    };
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::{http::route_name::route_name, metrics::ROUTES};

    /// State that handlers cannot read: a handler that is called panics.
    #[derive(Clone)]
    struct NoState;

    impl FromRef<NoState> for CurrentState {
        fn from_ref(_: &NoState) -> Self {
            panic!("panic in a test")
        }
    }

    async fn call(
        routes: NormalizePath<Router>,
        method: Method,
        path: &str,
    ) -> (StatusCode, Response, String) {
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer::Local { uid: None });
        let (parts, body) = routes.oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, Response::from_parts(parts, Body::empty()), body)
    }

    const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;
    const INTERNAL: &str = r#"{"reason":"M_UNKNOWN","info":"Internal error"}"#;

    #[tokio::test]
    async fn every_response_has_each_cors_header_once() {
        let routes = with_common_layers(table().with_state(NoState), RequestLog::default());
        let path = |route: &str| format!("{PREFIX}{route}");
        for (method, path, expected, body) in [
            (Method::GET, path("public_key"), 500, INTERNAL),
            (Method::GET, path("scan/a/b/?x=1"), 500, INTERNAL),
            (Method::GET, path("scan/a/%ff"), 500, INTERNAL),
            (Method::POST, path("scan_encrypted"), 500, INTERNAL),
            (Method::HEAD, path("scan/a/b"), 500, ""),
            (Method::OPTIONS, path("scan/a/b"), 200, ""),
            (Method::OPTIONS, path("download_encrypted"), 200, ""),
            (Method::POST, path("scan/a/b"), 405, UNRECOGNIZED),
            (Method::GET, path("scan_encrypted"), 405, UNRECOGNIZED),
            (Method::HEAD, path("scan_encrypted"), 405, ""),
            (Method::GET, path("scan/a"), 404, UNRECOGNIZED),
            (Method::GET, path("scan//b"), 404, UNRECOGNIZED),
            (Method::POST, path("scan//b"), 404, UNRECOGNIZED),
            (Method::OPTIONS, path("scan//b"), 200, ""),
            (Method::GET, "/".to_owned(), 404, UNRECOGNIZED),
            (Method::DELETE, "//".to_owned(), 404, UNRECOGNIZED),
            (Method::CONNECT, "x".to_owned(), 404, UNRECOGNIZED),
            (Method::OPTIONS, "*".to_owned(), 200, ""),
            (Method::OPTIONS, "/none".to_owned(), 200, ""),
        ] {
            let (status, response, found) = call(routes.clone(), method.clone(), &path).await;
            assert_eq!((status.as_u16(), &*found), (expected, body), "{method} {path}");
            for (name, value) in CORS {
                let values: Vec<_> = response.headers().get_all(&name).iter().collect();
                assert_eq!(values, [&value], "{method} {path} {name}");
            }
        }
    }

    #[tokio::test]
    async fn head_has_content_length_of_get_and_405_names_the_methods() {
        let routes = with_common_layers(table().with_state(NoState), RequestLog::default());
        let header = async |method, route: &str, name: &str| {
            let path = format!("{PREFIX}{route}");
            let (_, response, _) = call(routes.clone(), method, &path).await;
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let length = header(Method::HEAD, "scan/a/b", "content-length").await;
        assert_eq!(length.unwrap(), INTERNAL.len().to_string());
        let length = header(Method::OPTIONS, "scan/a/b", "content-length").await;
        assert_eq!(length.as_deref(), Some("0"));
        let allow = header(Method::POST, "download/a/b/c", "allow").await;
        assert_eq!(allow.as_deref(), Some("GET,HEAD,OPTIONS"));
        let allow = header(Method::GET, "scan_encrypted", "allow").await;
        assert_eq!(allow.as_deref(), Some("POST,OPTIONS"));
        assert_eq!(header(Method::GET, "none", "allow").await, None);
    }

    #[tokio::test]
    async fn matches_paths_to_routes() {
        async fn respond_with_name(request: Request, _: Next) -> &'static str {
            route_name(&request)
        }
        let named = table().with_state(NoState).layer(from_fn(respond_with_name));
        let routes = NormalizePath::trim_trailing_slash(named);
        let name_of = async |path: &str| call(routes.clone(), Method::GET, path).await.2;
        for (path, name) in [
            ("download/a/b", "download"),
            ("download/a/b/c", "download"),
            ("download/a/b/", "download"),
            ("thumbnail/a/b", "thumbnail"),
            ("scan/a/b//", "scan"),
            ("scan/a/%2f", "scan"),
            ("scan/a%2fb/c", "scan"),
            ("download_encrypted", "download_encrypted"),
            ("scan_encrypted/", "scan_encrypted"),
            ("public_key", "public_key"),
            ("", "unknown"),
            ("download", "unknown"),
            ("download/a", "unknown"),
            ("download//b", "unknown"),
            ("download/a//c", "unknown"),
            ("download/a/b//c", "unknown"),
            ("download/a/b/c/d", "unknown"),
            ("thumbnail/a/b/c", "unknown"),
            ("scan/a/b/c", "unknown"),
            ("scan/a%2fb", "unknown"),
            ("/scan/a/b", "unknown"),
            ("Scan/a/b", "unknown"),
            ("%73can/a/b", "unknown"),
            ("scan_encrypted/a/b", "unknown"),
            ("public_key/x", "unknown"),
        ] {
            assert_eq!(name_of(&format!("{PREFIX}{path}")).await, name, "{path}");
        }
        for (name, _) in ROUTES {
            let paths = [name, &format!("{name}/a/b")].map(|path| format!("{PREFIX}{path}"));
            let matches = [name_of(&paths[0]).await, name_of(&paths[1]).await];
            assert!(matches.iter().any(|found| found == name), "{name}");
        }
        assert_eq!(name_of(&format!("/{PREFIX}public_key")).await, "public_key");
        assert_eq!(name_of("/other/scan/a/b").await, "unknown");
        assert_eq!(name_of("/").await, "unknown");
    }
}
