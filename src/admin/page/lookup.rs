//! What is known about a media URI or a content.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};

use super::{
    response::{PageLayout, PageResult, html},
    state::PageState,
};
use crate::{
    admin::{
        decisions::decisions_reply,
        error::AdminError,
        handlers::{find_content, find_media},
        protocol::{ContentReply, DecisionView, EngineView, MediaView, VerdictView},
        query,
    },
    media::{MediaId, hex},
    scan::Scanner,
};

/// What is looked up or changed.
pub(super) enum LookupSubject {
    Content([u8; 32]),
    Media(MediaId),
}

impl LookupSubject {
    pub(super) fn parse(text: &str) -> Result<Self, AdminError> {
        let text = text.trim();
        if text.starts_with("mxc:") {
            return query::parse_mxc(text).map(Self::Media);
        }
        let content = query::parse_sha256(&text.to_ascii_lowercase()).map_err(|_| {
            AdminError::Invalid(
                "expected mxc://SERVER/ID, or a SHA-256 of 64 hexadecimal digits".to_owned(),
            )
        });
        content.map(Self::Content)
    }
}

impl std::fmt::Display for LookupSubject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Content(content) => f.write_str(&hex(content)),
            Self::Media(mxc) => mxc.fmt(f),
        }
    }
}

#[derive(Template)]
#[template(path = "lookup.html")]
struct LookupPage {
    layout: PageLayout,
    subject: String,
    done: Option<&'static str>,
    /// Entries of a media URI; `None` if a content was looked up.
    entries: Option<Vec<String>>,
    contents: Vec<ContentSection>,
}

/// What is known about a content.
pub(super) struct ContentSection {
    pub(super) content: String,
    pub(super) listed: Option<String>,
    pub(super) decision: Option<DecisionView>,
    pub(super) verdicts: Vec<VerdictCard>,
    pub(super) media: Vec<String>,
    pub(super) is_complete: bool,
    pub(super) forgotten: Option<String>,
}

/// A verdict.
pub(super) struct VerdictCard {
    pub(super) class: &'static str,
    pub(super) verdict: String,
    pub(super) found: String,
    pub(super) details: String,
    /// Results of the engines.
    pub(super) engines: Vec<String>,
}

pub(super) async fn lookup(
    State(state): State<Arc<PageState>>,
    headers: HeaderMap,
    uri: Uri,
) -> PageResult {
    let session = state.session(&headers)?;
    let (mut subject, mut done) = (None, None);
    for (name, value) in query::parameters(&uri, &["subject", "done"])? {
        match &*name {
            "subject" => subject = Some(LookupSubject::parse(&value)?),
            _ => done = done_text(&value),
        }
    }
    let subject = subject.ok_or_else(|| AdminError::Invalid("subject: missing".to_owned()))?;
    let scanner = state.scanner();
    let (entries, contents) = match &subject {
        LookupSubject::Content(content) => (None, vec![section(&scanner, *content).await?]),
        LookupSubject::Media(mxc) => {
            let reply = find_media(&scanner, mxc).await?;
            let contents =
                reply.contents.iter().map(|content| ContentSection::new(&scanner, content));
            (Some(reply.media.iter().map(media_text).collect()), contents.collect())
        }
    };
    let (layout, subject) = (PageLayout::new("Look up", &session), subject.to_string());
    Ok(html(StatusCode::OK, &LookupPage { layout, subject, done, entries, contents }))
}

/// Returns what is known about a content.
pub(super) async fn section(
    scanner: &Scanner,
    content: [u8; 32],
) -> Result<ContentSection, AdminError> {
    Ok(ContentSection::new(scanner, &find_content(scanner, content).await?))
}

/// Returns the text about a change that was made.
fn done_text(action: &str) -> Option<&'static str> {
    match action {
        "allow" => Some("The file is allowed."),
        "block" => Some("The file is blocked."),
        "withdraw" => Some("The decision is withdrawn."),
        "forget" => Some("The verdicts are forgotten. The next request scans again."),
        _ => None,
    }
}

impl ContentSection {
    fn new(scanner: &Scanner, reply: &ContentReply) -> Self {
        let decisions = decisions_reply(&scanner.decisions().decisions().list()).decisions;
        Self {
            content: reply.content.clone(),
            listed: reply.listed.clone(),
            decision: decisions.into_iter().find(|decision| decision.content == reply.content),
            verdicts: reply.verdicts.iter().map(VerdictCard::new).collect(),
            media: reply.media.iter().map(media_text).collect(),
            is_complete: reply.complete,
            forgotten: reply.forgotten.clone(),
        }
    }
}

impl VerdictCard {
    fn new(view: &VerdictView) -> Self {
        let outcome = view.outcome.as_ref().map(|outcome| format!(" ({outcome})"));
        let found = [view.engine.as_deref(), view.finding.as_deref()];
        let found: Vec<_> = found.into_iter().flatten().collect();
        let mut details = vec![
            if view.stored { "in the store" } else { "in memory" }.to_owned(),
            if view.valid { "valid" } else { "not valid for the present engines" }.to_owned(),
        ];
        details.extend(view.scanned.as_ref().map(|time| format!("scanned {time}")));
        details.extend(view.expires.as_ref().map(|time| format!("expires {time}")));
        details.extend(view.r#type.as_ref().map(|name| format!("type {name}")));
        Self {
            class: match &*view.verdict {
                "clean" => "good",
                "failed" => "note",
                _ => "bad",
            },
            verdict: format!("{}{}", view.verdict.replace('_', " "), outcome.unwrap_or_default()),
            found: found.join(": "),
            details: details.join(", "),
            engines: view.engines.iter().map(EngineView::describe).collect(),
        }
    }
}

fn media_text(media: &MediaView) -> String {
    let mut words = vec![media.mxc.clone().unwrap_or_else(|| "an entry in memory".to_owned())];
    words.extend(media.thumbnail.as_ref().map(|thumbnail| format!("thumbnail {thumbnail}")));
    words.extend((media.encrypted == Some(true)).then(|| "encrypted".to_owned()));
    words.push(format!("{} bytes", media.size));
    words.extend(media.homeserver.as_ref().map(|url| format!("from {url}")));
    words.extend(media.downloaded.as_ref().map(|time| format!("downloaded {time}")));
    words.join(", ")
}
