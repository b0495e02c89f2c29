//! The API.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::SystemTime,
};

use axum::{
    Router,
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, Uri},
    routing::{get, post},
};

use super::{
    decisions,
    error::{AdminError, json},
    forget, incidents,
    protocol::{ContentReply, MediaReply, RecentReply, VerdictsReply},
    query, release, rescan,
    state::{AdminResult, AdminState},
    views::{listed_view, media_view, recent_view, time, verdict_view},
};
use crate::{
    media::{MediaId, hex},
    scan::{OperatorError, Scanner, cache::KnownMedia},
};

/// Returns the routes.
pub(super) fn routes(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/v1/verdicts", get(verdicts))
        .route("/v1/contents/{sha256}", get(content))
        .route("/v1/media", get(media))
        .route("/v1/recent", get(recent))
        .route("/v1/forget", post(forget::handle))
        .route("/v1/rescan", post(rescan::handle))
        .route("/v1/incidents", get(incidents::handle))
        .route("/v1/quarantine/release", post(release::handle))
        .route("/v1/decisions", get(decisions::list).post(decisions::handle))
        .fallback(async || AdminError::NotFound)
        .method_not_allowed_fallback(async || AdminError::Method)
        .with_state(state)
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

async fn content(
    State(state): State<Arc<AdminState>>,
    sha256: Result<Path<String>, PathRejection>,
) -> AdminResult {
    // Rejected if it is not UTF-8.
    let content = query::parse_sha256(&sha256.map(|Path(digits)| digits).unwrap_or_default())?;
    Ok(json(StatusCode::OK, &find_content(&state.scanner(), content).await?))
}

async fn media(State(state): State<Arc<AdminState>>, uri: Uri) -> AdminResult {
    let mxc = query::mxc(&uri)?;
    Ok(json(StatusCode::OK, &find_media(&state.scanner(), &mxc).await?))
}

async fn recent(State(state): State<Arc<AdminState>>, uri: Uri) -> AdminResult {
    let (not_clean, limit) = query::recent_filter(&uri)?;
    let scanner = state.scanner();
    let scans = scanner.recent().latest(limit, |scan| !not_clean || scan.outcome != "clean");
    let scans = scans.iter().map(recent_view).collect();
    Ok(json(StatusCode::OK, &RecentReply { scans }))
}

/// Returns what is known about a content.
pub(super) async fn find_content(
    scanner: &Scanner,
    content: [u8; 32],
) -> Result<ContentReply, OperatorError> {
    let (media, complete) = scanner.media_of_contents(&HashSet::from([content])).await?;
    let reply = content_reply(scanner, content, media_of(&media, content)).await?;
    Ok(ContentReply { complete, ..reply })
}

/// Returns what is known about a media URI.
pub(super) async fn find_media(
    scanner: &Scanner,
    mxc: &MediaId,
) -> Result<MediaReply, OperatorError> {
    let entries = scanner.media_entries(mxc).await?;
    let (mut seen, mut contents) = (HashSet::new(), Vec::new());
    for entry in entries.iter().filter(|entry| seen.insert(entry.content)) {
        contents.push(content_reply(scanner, entry.content, &[]).await?);
    }
    let media = entries.iter().map(media_view).collect();
    Ok(MediaReply { mxc: mxc.to_string(), media, contents })
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
