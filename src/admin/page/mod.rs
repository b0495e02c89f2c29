//! The operator page: HTML for browsers, rendered here, usable without scripts. All data needs a session, which the token of
//! operators opens.

mod actions;
mod forms;
mod incidents;
mod lookup;
mod overview;
mod plots;
mod response;
mod sessions;
mod sign_in;
mod state;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};

pub(super) use response::PageError;
pub(super) use state::PageState;

use super::error::AdminError;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/script.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Returns the routes.
pub(super) fn routes(state: PageState) -> Router {
    let asset = |content_type, text: &'static str| {
        get(move || async move { response::asset(content_type, text) })
    };
    Router::new()
        .route("/", get(overview::overview))
        .route("/state", get(overview::state))
        .route("/plots/{name}", get(overview::plot))
        .route("/verdicts", get(overview::verdicts))
        .route("/incidents", get(incidents::incidents))
        .route("/lookup", get(lookup::lookup))
        .route("/confirm", get(actions::confirm))
        .route("/change", post(actions::change))
        .route("/sign-in", get(sign_in::form).post(sign_in::open))
        .route("/sign-out", post(sign_in::close))
        .route("/style.css", asset("text/css; charset=utf-8", STYLE))
        .route("/script.js", asset("text/javascript; charset=utf-8", SCRIPT))
        .route("/icon.svg", asset("image/svg+xml", ICON))
        .fallback(async || PageError::from(AdminError::NotFound))
        .method_not_allowed_fallback(async || PageError::from(AdminError::Method))
        .with_state(Arc::new(state))
}
