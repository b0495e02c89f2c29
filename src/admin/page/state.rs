//! What the page uses.

use std::{sync::Arc, time::Instant};

use axum::{extract::Request, http::HeaderMap};

use super::{
    response::PageError,
    sessions::{PageSession, SessionTable, SessionUse},
};
use crate::{
    admin::{
        guard::{self, RequestGuard},
        state::{AdminState, Operator, peer_of},
    },
    scan::Scanner,
    telemetry::operations::Health,
};

/// What the page uses.
pub(in crate::admin) struct PageState {
    pub(super) admin: Arc<AdminState>,
    pub(super) guard: Arc<RequestGuard>,
    pub(super) health: Health,
    pub(super) sessions: SessionTable,
}

impl PageState {
    pub(in crate::admin) fn new(
        admin: Arc<AdminState>,
        guard: Arc<RequestGuard>,
        health: Health,
    ) -> Self {
        let sessions = SessionTable::new(guard.tokens.clone());
        Self { admin, guard, health, sessions }
    }

    pub(super) fn scanner(&self) -> Scanner {
        self.admin.scanner()
    }

    /// Returns the request's session.
    pub(super) fn session(&self, headers: &HeaderMap) -> Result<PageSession, PageError> {
        self.session_for(headers, SessionUse::Operator)
    }

    pub(super) fn session_for(
        &self,
        headers: &HeaderMap,
        session_use: SessionUse,
    ) -> Result<PageSession, PageError> {
        let session = self.sessions.find(headers, Instant::now(), session_use);
        session.ok_or(PageError::SignedOut)
    }
}

/// Returns who makes a change, for the audit log.
pub(super) fn operator(request: &Request, session: &PageSession) -> Operator {
    Operator {
        token_name: Arc::clone(&session.token_name),
        peer: guard::describe(peer_of(request)),
        access: "session",
    }
}
