//! Builds responses from status, headers and body.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;

/// Builds a JSON response with `Cache-Control: no-store`.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // Serialization fails only for maps with non-string keys; no response body contains a map.
    let body = serde_json::to_vec(body).unwrap_or_default();
    // Capacity for the headers that every response gets later: growing would reallocate the map.
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    build(status, headers, body.into())
}

pub(super) fn build(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
