//! Release of media from quarantine.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    http::StatusCode,
};
use tracing::{error, info};

use super::{
    decisions::decide,
    error::{AdminError, json},
    protocol::{DecisionRequest, ReleaseReply, ReleaseRequest, ReleasedContentView},
    query,
    state::{AdminResult, AdminState, Operator, read_change},
};
use crate::{
    incident::{ReleaseError, ReleasedMedia},
    media::{MediaId, hex},
    scan::{Verdict, decisions::MAX_COMMENT, engines::ListedFile, verdict::NotCleanKind},
    telemetry::audit::{AuditChange, ChangeState, ChangeSubject},
};

/// Infected contents of media, and whether they are allowed.
type InfectedContents = BTreeMap<[u8; 32], bool>;

pub(super) async fn handle(State(state): State<Arc<AdminState>>, request: Request) -> AdminResult {
    let (operator, request): (_, ReleaseRequest) = read_change(request).await?;
    let media = query::parse_mxc(&request.mxc)?;
    if request.comment.is_empty() || request.comment.len() > MAX_COMMENT {
        return Err(AdminError::Invalid(format!("comment: expected 1 to {MAX_COMMENT} bytes")));
    }
    // In a task, so that a change is completed when the client leaves.
    let release = async move { state.release(&media, &operator, &request).await };
    let reply = tokio::spawn(release).await.map_err(|_| AdminError::Panicked)??;
    Ok(json(StatusCode::OK, &reply))
}

impl AdminState {
    /// Allows the infected content of media, if requested, and has the media released.
    async fn release(
        self: Arc<Self>,
        media: &MediaId,
        operator: &Operator,
        request: &ReleaseRequest,
    ) -> Result<ReleaseReply, AdminError> {
        let mut contents = self.infected_contents(media).await?;
        if request.allow {
            if contents.is_empty() {
                return Err(AdminError::ContentUnknown);
            }
            // A homeserver may have sent malware under the same URI at another time.
            let refused = contents.iter().filter(|(_, allowed)| !**allowed);
            let refused: Vec<_> = refused.map(|(content, _)| hex(content)).collect();
            if refused.len() > 1 {
                return Err(AdminError::SeveralContents(refused));
            }
            // Before the release, so that no waiting incident quarantines the media again.
            for (content, allowed) in contents.iter_mut().filter(|(_, allowed)| !**allowed) {
                let decision = DecisionRequest {
                    content: hex(content),
                    action: "allow".to_owned(),
                    comment: request.comment.clone(),
                    seconds: request.seconds,
                };
                decide(&self, operator, decision).await?;
                *allowed = self.is_allowed(content);
            }
        }
        let released = self.release_recorded(media, operator, &request.comment).await?;
        let (mut other_media, mut complete) = (BTreeSet::new(), true);
        for content in contents.keys() {
            match self.incidents()?.media_of(content).await {
                Some(media) => other_media.extend(media),
                None => complete = false,
            }
        }
        other_media.remove(&media.to_string());
        let view = |(content, allowed)| ReleasedContentView { content: hex(&content), allowed };
        Ok(ReleaseReply {
            mxc: media.to_string(),
            was_quarantined: released.was_quarantined,
            contents: contents.into_iter().map(view).collect(),
            other_media: other_media.into_iter().collect(),
            complete,
        })
    }

    /// Records the release, has the media released, and records the result.
    async fn release_recorded(
        &self,
        media: &MediaId,
        operator: &Operator,
        comment: &str,
    ) -> Result<ReleasedMedia, AdminError> {
        let incidents = self.incidents()?;
        let subject = &ChangeSubject::Mxc(media.to_string());
        let Operator { token_name, peer, access } = operator;
        let (change, comment) = ("release", Some(comment));
        let line =
            |state| AuditChange { change, subject, token_name, peer, access, comment, state };
        self.audit.record_change(&line(ChangeState::Requested)).await?;
        let result: Result<_, ReleaseError> = incidents.release(media).await;
        let state = match &result {
            Ok(ReleasedMedia { was_quarantined }) => {
                info!(%token_name, peer, ?subject, was_quarantined, "released from quarantine by an operator");
                let before = if *was_quarantined { "quarantined" } else { "not_quarantined" };
                ChangeState::Decided { before: Some(before), after: Some("not_quarantined") }
            }
            Err(error) => {
                error!(%token_name, peer, ?subject, %error, "an operator's release from quarantine failed");
                ChangeState::Failed
            }
        };
        // The change was recorded; the writer has logged and counted the failure.
        let _ = self.audit.record_change(&line(state)).await;
        Ok(result?)
    }

    /// Returns the contents of plain media that have an incident, or are known to be infected.
    async fn infected_contents(&self, media: &MediaId) -> Result<InfectedContents, AdminError> {
        let scanner = self.scanner();
        let mut contents = self.incidents()?.contents_of(media).await.ok_or(AdminError::Outbox)?;
        for entry in scanner.media_entries(media).await? {
            if entry.is_encrypted == Some(true) || contents.contains(&entry.content) {
                continue;
            }
            let known = scanner.known_content(entry.content).await?;
            let kinds = known.verdicts.iter().filter_map(|known| known.verdict.as_ref().ok());
            if kinds.filter_map(Verdict::not_clean_kind).any(|kind| kind == NotCleanKind::Infected)
            {
                contents.insert(entry.content);
            }
        }
        Ok(contents.into_iter().map(|content| (content, self.is_allowed(&content))).collect())
    }

    fn is_allowed(&self, content: &[u8; 32]) -> bool {
        self.scanner().listed(content) == Some(ListedFile::Allowed)
    }
}
