//! The API.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Router,
    extract::{Path, Request, State},
    http::{StatusCode, Uri},
    routing::{get, post},
};
use tracing::{error, info};

use super::{
    decisions,
    error::{AdminError, json},
    guard,
    protocol::{ContentReply, ForgetReply, ForgetRequest, MediaReply, VerdictsReply},
    query,
    state::{AdminResult, AdminState, read_change},
    views::{listed_view, media_view, time, verdict_view},
};
use crate::{
    http::Peer,
    media::{MediaId, hex},
    scan::{
        OperatorError, Scanner,
        cache::{ForgetReport, KnownMedia},
    },
    telemetry::audit::{AuditChange, ChangeState, ChangeSubject},
};

/// Maximum length of a comment, bytes.
const MAX_COMMENT: usize = 1000;

/// What is to be forgotten.
enum ForgetTarget {
    Content([u8; 32]),
    Media(MediaId),
    All,
}

/// Returns the routes.
pub(super) fn routes(state: AdminState) -> Router {
    Router::new()
        .route("/v1/verdicts", get(verdicts))
        .route("/v1/contents/{sha256}", get(content))
        .route("/v1/media", get(media))
        .route("/v1/forget", post(forget))
        .route("/v1/decisions", get(decisions::list).post(decisions::change))
        .fallback(async || AdminError::NotFound)
        .method_not_allowed_fallback(async || AdminError::Method)
        .with_state(Arc::new(state))
}

async fn verdicts(State(state): State<Arc<AdminState>>, uri: Uri) -> AdminResult {
    let filter = query::verdict_filter(&uri, SystemTime::now())?;
    let scanner = state.scanner();
    let list = scanner.known_verdicts(filter).await?;
    let contents = list.verdicts.iter().filter_map(|known| known.content).collect();
    let (media, _) = scanner.media_of_contents(&contents).await?;
    let of = |content| media_of(&media, content);
    let verdicts = list
        .verdicts
        .iter()
        .map(|known| verdict_view(known, known.content.map(of).unwrap_or_default()));
    let verdicts = verdicts.collect();
    Ok(json(StatusCode::OK, &VerdictsReply { verdicts, complete: list.is_complete }))
}

async fn content(State(state): State<Arc<AdminState>>, Path(sha256): Path<String>) -> AdminResult {
    let content = query::parse_sha256(&sha256)?;
    let scanner = state.scanner();
    let (media, complete) = scanner.media_of_contents(&HashSet::from([content])).await?;
    let reply = content_reply(&scanner, content, media_of(&media, content)).await?;
    Ok(json(StatusCode::OK, &ContentReply { complete, ..reply }))
}

async fn media(State(state): State<Arc<AdminState>>, uri: Uri) -> AdminResult {
    let mxc = query::mxc(&uri)?;
    let scanner = state.scanner();
    let entries = scanner.media_entries(&mxc).await?;
    let (mut seen, mut contents) = (HashSet::new(), Vec::new());
    for entry in entries.iter().filter(|entry| seen.insert(entry.content)) {
        contents.push(content_reply(&scanner, entry.content, &[]).await?);
    }
    let media = entries.iter().map(media_view).collect();
    Ok(json(StatusCode::OK, &MediaReply { mxc: mxc.to_string(), media, contents }))
}

async fn forget(State(state): State<Arc<AdminState>>, request: Request) -> AdminResult {
    let (peer, request): (_, ForgetRequest) = read_change(request).await?;
    let (target, subject) = parse_target(&request)?;
    if request.comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT) {
        return Err(AdminError::Invalid(format!("comment: longer than {MAX_COMMENT} bytes")));
    }
    // In a task, so that a change is completed when the client leaves.
    let change = async move { state.forget(target, &subject, peer, request.comment).await };
    let report = tokio::spawn(change).await.map_err(|_| AdminError::Panicked)??;
    let ForgetReport { verdicts, media, is_pending } = report;
    Ok(json(StatusCode::OK, &ForgetReply { verdicts, media, pending: is_pending }))
}

fn parse_target(request: &ForgetRequest) -> Result<(ForgetTarget, ChangeSubject), AdminError> {
    match request {
        ForgetRequest { content: Some(digits), mxc: None, all: None, .. } => {
            let content = query::parse_sha256(digits)?;
            Ok((ForgetTarget::Content(content), ChangeSubject::Content(hex(&content))))
        }
        ForgetRequest { content: None, mxc: Some(uri), all: None, .. } => {
            let mxc = query::parse_mxc(uri)?;
            let subject = ChangeSubject::Mxc(mxc.to_string());
            Ok((ForgetTarget::Media(mxc), subject))
        }
        ForgetRequest { content: None, mxc: None, all: Some(true), .. } => {
            Ok((ForgetTarget::All, ChangeSubject::All(true)))
        }
        _ => Err(AdminError::Invalid(
            "expected one of \"content\": SHA256, \"mxc\": URI and \"all\": true".to_owned(),
        )),
    }
}

impl AdminState {
    /// Records the change, makes it, and records the result.
    async fn forget(
        &self,
        target: ForgetTarget,
        subject: &ChangeSubject,
        peer: Peer,
        comment: Option<String>,
    ) -> Result<ForgetReport, AdminError> {
        let peer = guard::describe(peer);
        let (change, comment) = ("forget", comment.as_deref());
        let line = |state| AuditChange { change, subject, peer: &peer, comment, state };
        self.audit.record_change(&line(ChangeState::Requested)).await?;
        let scanner = self.scanner();
        let result = match target {
            ForgetTarget::Content(content) => scanner.forget_content(content).await,
            ForgetTarget::Media(mxc) => scanner.forget_media(&mxc).await,
            ForgetTarget::All => scanner.forget_all().await,
        };
        log_result(&peer, subject, &result);
        let state = match result {
            Ok(ForgetReport { verdicts, media, .. }) => ChangeState::Done { verdicts, media },
            Err(_) => ChangeState::Failed,
        };
        // The change was recorded; the writer has logged and counted the failure.
        let _ = self.audit.record_change(&line(state)).await;
        Ok(result?)
    }
}

fn log_result(peer: &str, subject: &ChangeSubject, result: &Result<ForgetReport, OperatorError>) {
    match result {
        Ok(ForgetReport { verdicts, media, .. }) => {
            info!(peer, ?subject, verdicts, media, "forgotten by an operator");
        }
        Err(error) => error!(peer, ?subject, %error, "an operator's request to forget failed"),
    }
}

async fn content_reply(
    scanner: &Scanner,
    content: [u8; 32],
    media: &[KnownMedia],
) -> Result<ContentReply, OperatorError> {
    let known = scanner.known_content(content).await?;
    Ok(ContentReply {
        content: hex(&content),
        listed: scanner.listed(&content).as_ref().map(listed_view),
        verdicts: known.verdicts.iter().map(|known| verdict_view(known, &[])).collect(),
        media: media.iter().map(media_view).collect(),
        forgotten: time(known.forgotten),
        complete: true,
    })
}

fn media_of(media: &HashMap<[u8; 32], Vec<KnownMedia>>, content: [u8; 32]) -> &[KnownMedia] {
    media.get(&content).map(Vec::as_slice).unwrap_or_default()
}
