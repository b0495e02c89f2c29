//! Opens and closes sessions.

use std::{sync::Arc, time::Instant};

use askama::Template;
use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, header},
};
use tracing::info;

use super::{
    forms::PostedForm,
    response::{PageError, PageLayout, PageResult, html, redirect},
    state::{PageState, operator},
};
use crate::admin::{error::AdminError, state::peer_of};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    layout: PageLayout,
    /// Why the previous attempt failed.
    message: Option<String>,
}

pub(super) async fn form() -> Response<Body> {
    page(StatusCode::OK, None)
}

fn page(status: StatusCode, message: Option<String>) -> Response<Body> {
    html(status, &SignInPage { layout: PageLayout::public("Sign in"), message })
}

/// Opens a session if the form has the token. Wrong tokens count like those of the API.
pub(super) async fn open(State(state): State<Arc<PageState>>, request: Request) -> PageResult {
    let (peer, operator) = (peer_of(&request), operator(&request));
    let form = PostedForm::read(request).await?;
    let token = form.field("token").map(str::as_bytes);
    match state.guard.verify(token, peer) {
        Ok(()) => {}
        Err(error @ (AdminError::Unauthorized | AdminError::TooManyFailures)) => {
            let message = match error {
                AdminError::Unauthorized => "This is not the token.".to_owned(),
                _ => "Too many wrong tokens. Try again in a minute.".to_owned(),
            };
            return Ok(page(error.status().0, Some(message)));
        }
        Err(error) => return Err(error.into()),
    }
    let cookie = state.sessions.open(Instant::now()).ok_or(AdminError::Panicked)?;
    info!(peer = operator.peer, "operator signed in");
    let mut response = redirect("/");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session.
pub(super) async fn close(State(state): State<Arc<PageState>>, request: Request) -> PageResult {
    let session = state.session(request.headers())?;
    let (headers, operator) = (request.headers().clone(), operator(&request));
    let form = PostedForm::read(request).await?;
    if !form.field("csrf").is_some_and(|csrf| session.is(csrf)) {
        return Err(PageError::from(AdminError::WrongForm));
    }
    let cookie = state.sessions.close(&headers);
    info!(peer = operator.peer, "operator signed out");
    let mut response = redirect("/sign-in");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
