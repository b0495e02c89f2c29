//! Names of the routes in the log and in metric labels.

use axum::extract::{MatchedPath, Request};

use crate::metrics::ROUTES;

/// Common prefix of all routes.
pub(super) const PREFIX: &str = "/_matrix/media_proxy/unstable/";

/// Returns the name of the route that the router has selected: the first segment after the common prefix.
pub(super) fn route_name(request: &Request) -> &'static str {
    let matched = request.extensions().get().map(MatchedPath::as_str);
    let matched = matched.filter(|_| !has_empty_segment(request));
    let name = matched.and_then(|path| path.strip_prefix(PREFIX)?.split('/').next());
    let known = ROUTES.iter().find(|(known, _)| Some(*known) == name);
    known.map_or("unknown", |(known, _)| known)
}

/// Returns whether the path has an empty segment. No route has one, but the router matches one with a parameter.
pub(super) fn has_empty_segment(request: &Request) -> bool {
    request.uri().path().contains("//")
}
