//! Decisions of operators about whole media files.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use tracing::{error, info};

use super::{
    error::{AdminError, json},
    protocol::{DecisionRequest, DecisionView, DecisionsReply, MAX_DECISION_TIME},
    query,
    state::{AdminResult, AdminState, Operator, read_change},
};
use crate::{
    chain::Chain,
    media::hex,
    scan::decisions::{
        DecisionAction, DecisionChange, DecisionError, DecisionList, MAX_COMMENT, OperatorDecision,
    },
    telemetry::audit::{AuditChange, ChangeState, ChangeSubject},
};

/// Time for which a decision is in force by default.
const DEFAULT_DURATION: Duration = Duration::from_secs(30 * 86_400);

/// Lists the decisions.
pub(super) async fn list(State(state): State<Arc<AdminState>>) -> AdminResult {
    let list = state.scanner().decisions().decisions().list();
    Ok(json(StatusCode::OK, &decisions_reply(&list)))
}

/// Makes or removes a decision.
pub(super) async fn handle(State(state): State<Arc<AdminState>>, request: Request) -> AdminResult {
    let (operator, request): (_, DecisionRequest) = read_change(request).await?;
    let list = decide(&state, &operator, request).await?;
    Ok(json(StatusCode::OK, &decisions_reply(&list)))
}

/// Checks the request and makes the change, in a task, so that it is completed when the client leaves. Returns the list
/// after it.
pub(super) async fn decide(
    state: &Arc<AdminState>,
    operator: &Operator,
    request: DecisionRequest,
) -> Result<DecisionList, AdminError> {
    let (name, change) = parse_change(&request)?;
    let (state, operator) = (Arc::clone(state), operator.clone());
    let change = async move { state.decide(name, &change, &operator, &request.comment).await };
    tokio::spawn(change).await.map_err(|_| AdminError::Panicked)?
}

fn parse_change(request: &DecisionRequest) -> Result<(&'static str, DecisionChange), AdminError> {
    let invalid = |text: String| Err(AdminError::Invalid(text));
    let content = query::parse_sha256(&request.content)?;
    if request.comment.is_empty() || request.comment.len() > MAX_COMMENT {
        return invalid(format!("comment: expected 1 to {MAX_COMMENT} bytes"));
    }
    let (name, action) = match &*request.action {
        "allow" => ("allow", DecisionAction::Allow),
        "block" => ("block", DecisionAction::Block),
        "withdraw" => return Ok(("withdraw", DecisionChange::Remove(content))),
        _ => return invalid("action: expected allow, block or withdraw".to_owned()),
    };
    let duration = request.seconds.map_or(DEFAULT_DURATION, Duration::from_secs);
    if duration.is_zero() || duration > MAX_DECISION_TIME {
        return invalid("seconds: expected a time of 1 second to 366 days".to_owned());
    }
    let made = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let end = made.saturating_add(duration).as_secs();
    let (made, comment) = (made.as_secs(), request.comment.clone());
    Ok((name, DecisionChange::Add(OperatorDecision { content, action, comment, made, end })))
}

impl AdminState {
    /// Records the change, makes it, and records the result. Returns the list after it.
    async fn decide(
        &self,
        name: &'static str,
        change: &DecisionChange,
        operator: &Operator,
        comment: &str,
    ) -> Result<DecisionList, AdminError> {
        let content = change.content();
        let Operator { token_name, peer, access } = operator;
        let subject = ChangeSubject::Content(hex(content));
        let line = |state| AuditChange {
            change: name,
            subject: &subject,
            token_name,
            peer,
            access,
            comment: Some(comment),
            state,
        };
        self.audit.record_change(&line(ChangeState::Requested)).await?;
        let result = self.scanner().decisions().change(change).await;
        let state = match &result {
            Ok((before, after)) => {
                let action = |list: &DecisionList| list.action(content).map(DecisionAction::name);
                info!(%token_name, peer, ?subject, number = after.number, "{name}: decided by an operator");
                ChangeState::Decided { before: action(before), after: action(after) }
            }
            Err(error) => {
                error!(%token_name, peer, ?subject, error = %Chain(error), "an operator's decision failed");
                ChangeState::Failed
            }
        };
        // The change was recorded; the writer has logged and counted the failure.
        let _ = self.audit.record_change(&line(state)).await;
        Ok(result?.1)
    }
}

impl From<DecisionError> for AdminError {
    fn from(error: DecisionError) -> Self {
        Self::Decision(error)
    }
}

/// Returns what operators see of a list.
pub(super) fn decisions_reply(list: &DecisionList) -> DecisionsReply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let in_force = list.decisions.iter().filter(|decision| decision.end > now);
    DecisionsReply { number: list.number, decisions: in_force.map(view).collect() }
}

fn view(decision: &OperatorDecision) -> DecisionView {
    let time = |seconds| {
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
        super::views::time(time).unwrap_or_default()
    };
    DecisionView {
        content: hex(&decision.content),
        action: decision.action.name().to_owned(),
        comment: decision.comment.clone(),
        made: time(decision.made),
        end: time(decision.end),
    }
}
