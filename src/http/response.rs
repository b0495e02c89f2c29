//! An answer of these headers and no others. Knows nothing of what it says.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;

/// `body` in JSON, which nobody is to keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // It fails for maps whose keys are no text: nothing here is one.
    let body = serde_json::to_vec(body).unwrap_or_default();
    // With what every answer gets after these: a map that has to grow is made anew.
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with(status, headers, body.into())
}

pub(super) fn with(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
