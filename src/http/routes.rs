//! The contract's routes and what surrounds all of them: CORS, one line in the log, a net for
//! panics. Knows no request's content.

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, normalize_path::NormalizePath};

use super::{
    Live,
    error::ApiError,
    handlers,
    logging::{self, Observer},
    request::PREFIX,
};

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

/// All routes, to be served.
pub type Routes = NormalizePath<Router>;

/// All routes.
pub fn routes(live: Live) -> Routes {
    let of_media = "{serverName}/{mediaId}";
    let routes = Router::new()
        .route(
            &format!("{PREFIX}/download/{of_media}"),
            get(handlers::download).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/download/{of_media}/{{fileName}}"),
            get(handlers::download).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/thumbnail/{of_media}"),
            get(handlers::thumbnail).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/scan/{of_media}"),
            get(handlers::scan).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/download_encrypted"),
            post(handlers::download_encrypted).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/scan_encrypted"),
            post(handlers::scan_encrypted).options(handlers::preflight),
        )
        .route(
            &format!("{PREFIX}/public_key"),
            get(handlers::public_key).options(handlers::preflight),
        );
    let observer = Observer::new(Arc::clone(&live.now().metrics));
    // A trailing slash is taken away before the route is looked for.
    NormalizePath::trim_trailing_slash(surround(routes, observer).with_state(live))
}

/// Fallbacks and layers, apart from the routes so that tests can give their own.
fn surround<S: Clone + Send + Sync + 'static>(routes: Router<S>, observer: Observer) -> Router<S> {
    routes
        .fallback(handlers::unknown_route)
        .method_not_allowed_fallback(handlers::unknown_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(with_cors))
        .layer(middleware::from_fn_with_state(observer, logging::line))
}

async fn with_cors(mut response: Response) -> Response {
    response.headers_mut().reserve(CORS.len());
    for (name, value) in CORS {
        response.headers_mut().insert(name, value);
    }
    response
}

/// The panic's own message is in the log already, by the hook that all panics run through.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::internal().into_response()
}

#[cfg(test)]
mod tests {
    use axum::{
        body::Body,
        http::{Method, Request, StatusCode},
    };
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn routes() -> Routes {
        async fn panics() {
            panic!("of a test")
        }
        let routes = Router::new()
            .route("/a/{b}", get(|| async { "whole" }).options(handlers::preflight))
            .route("/panics", get(panics));
        NormalizePath::trim_trailing_slash(surround(routes, Observer::default()))
    }

    async fn ask(method: Method, path: &str) -> (StatusCode, Response, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let (parts, body) = routes().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        (parts.status, Response::from_parts(parts, Body::empty()), body)
    }

    const UNRECOGNIZED: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}"#;

    #[tokio::test]
    async fn every_answer_carries_each_cors_header_once() {
        for (method, path, expected, body) in [
            (Method::GET, "/a/b", 200, "whole"),
            (Method::GET, "/a/b/?x=1", 200, "whole"),
            (Method::GET, "/a/%ff", 200, "whole"),
            (Method::HEAD, "/a/b", 200, ""),
            (Method::OPTIONS, "/a/b", 200, ""),
            (Method::POST, "/a/b", 405, UNRECOGNIZED),
            (Method::GET, "/a", 404, UNRECOGNIZED),
            (Method::GET, "/a/", 404, UNRECOGNIZED),
            (Method::GET, "/a//", 404, UNRECOGNIZED),
            (Method::GET, "/", 404, UNRECOGNIZED),
            (Method::OPTIONS, "*", 404, UNRECOGNIZED),
            (Method::GET, "/panics", 500, r#"{"reason":"M_UNKNOWN","info":"Internal error"}"#),
        ] {
            let (status, response, found) = ask(method.clone(), path).await;
            assert_eq!((status.as_u16(), &*found), (expected, body), "{method} {path}");
            for (name, value) in CORS {
                let values: Vec<_> = response.headers().get_all(&name).iter().collect();
                assert_eq!(values, [&value], "{method} {path} {name}");
            }
        }
    }

    #[tokio::test]
    async fn a_method_that_is_not_allowed_learns_which_are() {
        let (_, response, _) = ask(Method::DELETE, "/a/b").await;
        assert_eq!(response.headers()["allow"], "GET,HEAD,OPTIONS");
    }

    #[tokio::test]
    async fn head_has_the_length_of_get() {
        let (_, response, _) = ask(Method::HEAD, "/a/b").await;
        assert_eq!(response.headers()["content-length"], "5");
    }
}
