//! Has verdicts forgotten.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use tracing::{error, info};

use super::{
    error::{AdminError, json},
    protocol::{ForgetReply, ForgetRequest},
    query,
    state::{AdminResult, AdminState, Operator, read_change},
};
use crate::{
    media::{MediaId, hex},
    scan::{OperatorError, Scanner, cache::ForgetReport},
    telemetry::audit::{AuditChange, ChangeState, ChangeSubject},
};

/// Maximum length of a comment, bytes.
const MAX_COMMENT: usize = 1000;

/// What is to be forgotten.
pub(super) enum ForgetTarget {
    Content([u8; 32]),
    Media(MediaId),
    All,
}

pub(super) async fn handle(State(state): State<Arc<AdminState>>, request: Request) -> AdminResult {
    let (operator, request): (_, ForgetRequest) = read_change(request).await?;
    let reply = change(&state, &operator, &request).await?;
    Ok(json(StatusCode::OK, &reply))
}

/// Checks the request and makes the change, in a task, so that it is completed when the client leaves.
pub(super) async fn change(
    state: &Arc<AdminState>,
    operator: &Operator,
    request: &ForgetRequest,
) -> Result<ForgetReply, AdminError> {
    let target = parse_target(request)?;
    let comment = checked_comment(request.comment.clone())?;
    let (state, operator) = (Arc::clone(state), operator.clone());
    let change = async move { state.forget(target, &operator, comment).await };
    let report = tokio::spawn(change).await.map_err(|_| AdminError::Panicked)??;
    let ForgetReport { verdicts, media, is_pending } = report;
    Ok(ForgetReply { verdicts, media, pending: is_pending })
}

/// Returns a comment of at most [`MAX_COMMENT`] bytes.
pub(super) fn checked_comment(comment: Option<String>) -> Result<Option<String>, AdminError> {
    if comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT) {
        return Err(AdminError::Invalid(format!("comment: longer than {MAX_COMMENT} bytes")));
    }
    Ok(comment)
}

fn parse_target(request: &ForgetRequest) -> Result<ForgetTarget, AdminError> {
    match request {
        ForgetRequest { content: Some(digits), mxc: None, all: None, .. } => {
            Ok(ForgetTarget::Content(query::parse_sha256(digits)?))
        }
        ForgetRequest { content: None, mxc: Some(uri), all: None, .. } => {
            Ok(ForgetTarget::Media(query::parse_mxc(uri)?))
        }
        ForgetRequest { content: None, mxc: None, all: Some(true), .. } => Ok(ForgetTarget::All),
        _ => Err(AdminError::Invalid(
            "expected one of \"content\": SHA256, \"mxc\": URI and \"all\": true".to_owned(),
        )),
    }
}

impl ForgetTarget {
    pub(super) fn subject(&self) -> ChangeSubject {
        match self {
            Self::Content(content) => ChangeSubject::Content(hex(content)),
            Self::Media(mxc) => ChangeSubject::Mxc(mxc.to_string()),
            Self::All => ChangeSubject::All(true),
        }
    }

    /// Removes the verdicts.
    pub(super) async fn forget(&self, scanner: &Scanner) -> Result<ForgetReport, OperatorError> {
        match self {
            Self::Content(content) => scanner.forget_content(*content).await,
            Self::Media(mxc) => scanner.forget_media(mxc).await,
            Self::All => scanner.forget_all().await,
        }
    }
}

impl AdminState {
    /// Records the change, makes it, and records the result.
    async fn forget(
        &self,
        target: ForgetTarget,
        operator: &Operator,
        comment: Option<String>,
    ) -> Result<ForgetReport, AdminError> {
        let subject = &target.subject();
        let (change, comment) = ("forget", comment.as_deref());
        let Operator { token_name, peer, access } = operator;
        let line =
            |state| AuditChange { change, subject, token_name, peer, access, comment, state };
        self.audit.record_change(&line(ChangeState::Requested)).await?;
        let result = target.forget(&self.scanner()).await;
        log_result(operator, subject, &result);
        let state = match result {
            Ok(ForgetReport { verdicts, media, .. }) => ChangeState::Done { verdicts, media },
            Err(_) => ChangeState::Failed,
        };
        // The change was recorded; the writer has logged and counted the failure.
        let _ = self.audit.record_change(&line(state)).await;
        Ok(result?)
    }
}

fn log_result(
    operator: &Operator,
    subject: &ChangeSubject,
    result: &Result<ForgetReport, OperatorError>,
) {
    let Operator { token_name, peer, .. } = operator;
    match result {
        Ok(ForgetReport { verdicts, media, .. }) => {
            info!(%token_name, peer, ?subject, verdicts, media, "forgotten by an operator");
        }
        Err(error) => {
            error!(%token_name, peer, ?subject, %error, "an operator's request to forget failed");
        }
    }
}
