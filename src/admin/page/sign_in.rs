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
use crate::{
    admin::{error::AdminError, guard, state::peer_of},
    telemetry::audit::AuditSession,
};

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

/// Opens a session if the form has a token. Wrong tokens count like those of the API.
pub(super) async fn open(State(state): State<Arc<PageState>>, request: Request) -> PageResult {
    let peer = peer_of(&request);
    let form = PostedForm::read(request).await?;
    let token = form.field("token").map(str::as_bytes);
    let token = match state.guard.verify(token, peer) {
        Ok(token) => token,
        Err(error @ (AdminError::Unauthorized | AdminError::TooManyFailures)) => {
            let message = match error {
                AdminError::Unauthorized => "This is not a token of this service.".to_owned(),
                _ => "Too many wrong tokens. Try again in a minute.".to_owned(),
            };
            return Ok(page(error.status().0, Some(message)));
        }
        Err(error) => return Err(error.into()),
    };
    let cookie = state.sessions.open(&token, Instant::now()).ok_or(AdminError::Panicked)?;
    let (token_name, peer) = (&*token.name, &*guard::describe(peer));
    info!(token_name, peer, "operator signed in");
    state.admin.audit.record_session(&AuditSession { event: "sign_in", token_name, peer });
    let mut response = redirect("/");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// Ends the session.
pub(super) async fn close(State(state): State<Arc<PageState>>, request: Request) -> PageResult {
    let session = state.session(request.headers())?;
    let (headers, operator) = (request.headers().clone(), operator(&request, &session));
    let form = PostedForm::read(request).await?;
    if !form.field("csrf").is_some_and(|csrf| session.csrf.is(csrf)) {
        return Err(PageError::from(AdminError::WrongForm));
    }
    let cookie = state.sessions.close(&headers);
    let (token_name, peer) = (&*operator.token_name, &*operator.peer);
    info!(token_name, peer, "operator signed out");
    state.admin.audit.record_session(&AuditSession { event: "sign_out", token_name, peer });
    let mut response = redirect("/sign-in");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}
