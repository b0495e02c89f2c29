//! Forms of what the service knows for the API.

use std::time::SystemTime;

use mcs_filetype::MediaType;

use super::protocol::{MediaView, VerdictView};
use crate::{
    chain::Chain,
    media::hex,
    scan::{
        Verdict,
        cache::{KnownMedia, KnownVerdict},
        engines::ListedFile,
        verdict::NotCleanKind,
    },
};

pub(super) fn verdict_view(known: &KnownVerdict, media: &[KnownMedia]) -> VerdictView {
    let (verdict, outcome, finding) = match &known.verdict {
        Ok(Verdict::NotClean { kind, output }) => {
            ("not_clean", Some(NotCleanKind::name(*kind).to_owned()), Some(output.to_string()))
        }
        Ok(other) => (other.name(), None, None),
        Err(error) => {
            ("failed", Some(error.cause().as_str().to_owned()), Some(Chain(error).to_string()))
        }
    };
    VerdictView {
        content: known.content.as_ref().map(hex),
        verdict: verdict.to_owned(),
        outcome,
        finding,
        engine: known.engine.map(str::to_owned),
        r#type: type_name(known.detected.as_ref()),
        scanned: time(known.scanned),
        expires: time(known.expires),
        valid: known.is_valid,
        stored: known.is_stored,
        media: media.iter().map(media_view).collect(),
    }
}

pub(super) fn media_view(known: &KnownMedia) -> MediaView {
    MediaView {
        mxc: known.mxc.clone(),
        homeserver: known.base_url.clone(),
        thumbnail: known.thumbnail.clone(),
        encrypted: known.is_encrypted,
        content: hex(&known.content),
        size: known.size,
        r#type: type_name(known.detected.as_ref()),
        downloaded: time(known.downloaded),
        expires: time(known.expires),
        stored: known.is_stored,
    }
}

pub(super) fn listed_view(listed: &ListedFile) -> String {
    match listed {
        ListedFile::Allowed => "allowed".to_owned(),
        ListedFile::Blocked(name) => format!("blocked ({name})"),
    }
}

pub(super) fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(|time| humantime::format_rfc3339_seconds(time).to_string())
}

fn type_name(detected: Option<&MediaType>) -> Option<String> {
    detected.map(ToString::to_string)
}
