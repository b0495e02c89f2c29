//! Has media forgotten and scans it again at once.

use std::{collections::HashSet, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
};
use tracing::info;

use super::{
    error::{AdminError, json},
    forget::{ForgetTarget, checked_comment},
    protocol::{RescanReply, RescanRequest},
    query,
    state::{AdminResult, AdminState, Operator, read_change},
    views::verdict_parts,
};
use crate::{
    http::AppState,
    media::{MediaId, MediaRequest, RequestSender, Requester, Variant},
    scan::{ScanRequest, Scanner, Wants, cache::KnownMedia},
    telemetry::audit::{AuditChange, ChangeState},
};

pub(super) async fn handle(State(state): State<Arc<AdminState>>, request: Request) -> AdminResult {
    let (operator, request): (_, RescanRequest) = read_change(request).await?;
    let comment = checked_comment(request.comment.clone())?;
    let target = parse_target(&request)?;
    let app = Arc::clone(&state.current.load());
    let (mxc, contents) = find_media(&app.scanner, &target).await?;
    let scan = scan_request(&app, mxc, &request)?;
    // In a task, so that a change is completed when the client leaves.
    let rescan = async move {
        state.rescan(&app.scanner, target, &contents, scan, &operator, comment).await
    };
    let reply = tokio::spawn(rescan).await.map_err(|_| AdminError::Panicked)??;
    Ok(json(StatusCode::OK, &reply))
}

fn parse_target(request: &RescanRequest) -> Result<ForgetTarget, AdminError> {
    match (&request.content, &request.mxc) {
        (Some(digits), None) => Ok(ForgetTarget::Content(query::parse_sha256(digits)?)),
        (None, Some(uri)) => Ok(ForgetTarget::Media(query::parse_mxc(uri)?)),
        _ => Err(AdminError::Invalid(
            "expected one of \"content\": SHA256 and \"mxc\": URI".to_owned(),
        )),
    }
}

/// Returns the media to download, and the contents that are known for it. Encrypted media cannot be scanned again without
/// its key, which only requests of clients contain.
async fn find_media(
    scanner: &Scanner,
    target: &ForgetTarget,
) -> Result<(MediaId, HashSet<[u8; 32]>), AdminError> {
    let is_plain = |known: &KnownMedia| known.is_encrypted != Some(true);
    match target {
        ForgetTarget::Media(mxc) => {
            let entries = scanner.media_entries(mxc).await?;
            if !entries.is_empty() && !entries.iter().any(is_plain) {
                return Err(AdminError::EncryptedMedia);
            }
            Ok((mxc.clone(), entries.iter().map(|entry| entry.content).collect()))
        }
        ForgetTarget::Content(content) => {
            let contents = HashSet::from([*content]);
            let (media, _) = scanner.media_of_contents(&contents).await?;
            let originals = media.values().flatten().filter(|known| known.thumbnail.is_none());
            let mxc = originals
                .filter(|known| is_plain(known))
                .find_map(|known| MediaId::from_mxc(known.mxc.as_deref()?).ok());
            Ok((mxc.ok_or(AdminError::NoPlainMedia)?, contents))
        }
        ForgetTarget::All => Err(AdminError::NoPlainMedia),
    }
}

/// Returns the request for the media. The access token is sent to a configured homeserver only.
fn scan_request(
    app: &AppState,
    media: MediaId,
    request: &RescanRequest,
) -> Result<ScanRequest, AdminError> {
    let invalid = |text: &str| AdminError::Invalid(text.to_owned());
    let origin = app.homeservers.origin_for_host(request.host.as_deref());
    let origin = origin.ok_or_else(|| {
        invalid("host: expected a name of download.homeservers, because there is no base URL")
    })?;
    let authorization = request.access_token.as_ref().map(|token| {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| invalid("access_token: contains characters that no token has"))?;
        value.set_sensitive(true);
        Ok::<_, AdminError>(value)
    });
    let authorization = authorization.transpose()?;
    let tenant = app.homeservers.tenant(&origin, authorization.as_ref(), None, &media);
    let sender = RequestSender::Operator;
    let requester = Requester { authorization, tenant, sender, ..Requester::default() };
    let fetch =
        MediaRequest { media, variant: Variant::Original, timeout_ms: None, origin, requester };
    Ok(ScanRequest { fetch, decryption: None, wants: Wants::Verdict })
}

impl AdminState {
    /// Records the change, forgets, scans, and records the result.
    async fn rescan(
        &self,
        scanner: &Scanner,
        target: ForgetTarget,
        contents: &HashSet<[u8; 32]>,
        request: ScanRequest,
        operator: &Operator,
        comment: Option<String>,
    ) -> Result<RescanReply, AdminError> {
        let before = known_verdict(scanner, contents).await?;
        let (subject, comment) = (&target.subject(), comment.as_deref());
        let Operator { token_name, peer, access } = operator;
        let line = |state| AuditChange {
            change: "rescan",
            subject,
            token_name,
            peer,
            access,
            comment,
            state,
        };
        self.audit.record_change(&line(ChangeState::Requested)).await?;
        let result = match target.forget(scanner).await {
            Ok(_) => Ok(Box::pin(scanner.scan(&request)).await.map(|response| response.verdict)),
            Err(error) => Err(error),
        };
        let state = match &result {
            Ok(verdict) => {
                let (after, ..) = verdict_parts(verdict);
                info!(%token_name, peer, ?subject, before, after, "scanned again by an operator");
                ChangeState::Decided { before, after: Some(after) }
            }
            Err(_) => ChangeState::Failed,
        };
        // The change was recorded; the writer has logged and counted the failure.
        let _ = self.audit.record_change(&line(state)).await;
        let (verdict, outcome, finding) = verdict_parts(&result?);
        Ok(RescanReply {
            mxc: request.fetch.media.to_string(),
            before: before.map(str::to_owned),
            verdict: verdict.to_owned(),
            outcome,
            finding,
        })
    }
}

/// Returns the name of the verdict that requests were answered with.
async fn known_verdict(
    scanner: &Scanner,
    contents: &HashSet<[u8; 32]>,
) -> Result<Option<&'static str>, AdminError> {
    for content in contents {
        let known = scanner.known_content(*content).await?;
        if let Some(valid) = known.verdicts.iter().find(|verdict| verdict.is_valid) {
            return Ok(Some(verdict_parts(&valid.verdict).0));
        }
    }
    Ok(None)
}
