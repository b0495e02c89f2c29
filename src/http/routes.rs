//! The contract's routes and what surrounds all of them: CORS, one line in the log, a net for
//! panics. Knows no request's content.

use std::any::Any;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tower_http::{catch_panic::CatchPanicLayer, normalize_path::NormalizePath};

use super::{
    AppState,
    error::ApiError,
    handlers,
    logging::{self, RequestIds},
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

/// All routes.
pub fn router(state: AppState) -> Router {
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
    tolerant(surround(routes).with_state(state))
}

/// Fallbacks and layers, apart from the routes so that tests can give their own.
fn surround<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    routes
        .fallback(handlers::unknown_route)
        .method_not_allowed_fallback(handlers::unknown_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::map_response(with_cors))
        .layer(middleware::from_fn_with_state(RequestIds::default(), logging::line))
}

/// Takes a trailing slash away before the route is looked for.
fn tolerant(routes: Router) -> Router {
    Router::new().fallback_service(NormalizePath::trim_trailing_slash(routes))
}

async fn with_cors(mut response: Response) -> Response {
    response.headers_mut().extend(CORS);
    response
}

/// The panic's own message is in the log already, by the hook that all panics run through.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    tracing::error!("a handler panicked");
    ApiError::internal().into_response()
}
