//! Responses with HTML. The template engine escapes what acts in HTML; what acts on the display is escaped here.

use askama::Template;
use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};
use tracing::error;

use super::sessions::PageSession;
use crate::{admin::error::AdminError, scan::OperatorError, text::escape_html};

pub(super) type PageResult = Result<Response<Body>, PageError>;

/// Reason why a page is not shown.
#[derive(Debug)]
pub(in crate::admin) enum PageError {
    /// There is no session.
    SignedOut,
    Failed(AdminError),
}

impl From<AdminError> for PageError {
    fn from(error: AdminError) -> Self {
        Self::Failed(error)
    }
}

impl From<OperatorError> for PageError {
    fn from(error: OperatorError) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::SignedOut => redirect("/sign-in"),
            Self::Failed(error) => {
                let (status, _) = error.status();
                let page =
                    ErrorPage { layout: PageLayout::public("Error"), message: error.to_string() };
                html(status, &page)
            }
        }
    }
}

/// What all pages have.
pub(super) struct PageLayout {
    pub(super) title: &'static str,
    /// Secret for the form that ends the session; empty without a session.
    pub(super) csrf: String,
}

impl PageLayout {
    /// Returns the layout of a page for everyone.
    pub(super) fn public(title: &'static str) -> Self {
        Self { title, csrf: String::new() }
    }

    pub(super) fn new(title: &'static str, session: &PageSession) -> Self {
        Self { title, csrf: session.csrf.as_str().to_owned() }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage {
    layout: PageLayout,
    message: String,
}

/// Renders a page.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Response<Body> {
    match page.render() {
        Ok(html) => {
            (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], escape_html(&html))
                .into_response()
        }
        Err(error) => {
            error!(%error, "cannot render a page for operators");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Returns a file that is the same for everyone.
pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response<Body> {
    ([(header::CONTENT_TYPE, content_type)], text).into_response()
}

/// Has the browser get another page of this listener.
pub(super) fn redirect(path: &str) -> Response<Body> {
    match HeaderValue::from_str(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
