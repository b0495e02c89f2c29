//! Forms of what the service knows for the API.

use std::time::{Duration, SystemTime};

use mcs_filetype::MediaType;

use super::protocol::{EngineView, MediaView, RecentView, VerdictView};
use crate::{
    chain::Chain,
    media::hex,
    scan::{
        Verdict,
        cache::{CachedVerdict, KnownMedia, KnownVerdict},
        engines::{EngineSummary, ListedFile},
        recent::{FAILED, RecentScan},
    },
};

/// Returns the name of a verdict, why the content is not clean or the scan failed, and the finding.
pub(super) fn verdict_parts(
    verdict: &CachedVerdict,
) -> (&'static str, Option<String>, Option<String>) {
    match verdict {
        Ok(verdict @ Verdict::NotClean { kind, output }) => {
            (verdict.name(), Some(kind.name().to_owned()), Some(output.to_string()))
        }
        Ok(other) => (other.name(), None, None),
        Err(error) => {
            (FAILED, Some(error.cause().as_str().to_owned()), Some(Chain(error).to_string()))
        }
    }
}

pub(super) fn verdict_view(known: &KnownVerdict, media: &[KnownMedia]) -> VerdictView {
    let (verdict, outcome, finding) = verdict_parts(&known.verdict);
    VerdictView {
        content: known.content.as_ref().map(hex),
        verdict: verdict.to_owned(),
        outcome,
        finding,
        engine: known.engine.map(str::to_owned),
        engines: known.engines.iter().map(engine_view).collect(),
        r#type: type_name(known.detected.as_ref()),
        scanned: time(known.scanned),
        expires: time(known.expires),
        valid: known.is_valid,
        stored: known.is_stored,
        media: media.iter().map(media_view).collect(),
    }
}

fn engine_view(summary: &EngineSummary) -> EngineView {
    EngineView {
        engine: summary.engine.to_owned(),
        result: summary.result.to_owned(),
        finding: summary.finding.as_ref().map(ToString::to_string),
        duration_ms: summary.duration.map(millis),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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

pub(super) fn recent_view(scan: &RecentScan) -> RecentView {
    RecentView {
        time: humantime::format_rfc3339_millis(scan.time).to_string(),
        mxc: scan.media.to_string(),
        thumbnail: scan.is_thumbnail,
        encrypted: scan.is_encrypted,
        content: scan.content.as_ref().map(hex),
        size: scan.size,
        outcome: scan.outcome.to_owned(),
        finding: scan.finding.clone(),
        engine: scan.engine.map(str::to_owned),
        duration_ms: scan.duration.map(millis),
        tenant: scan.tenant.to_string(),
        source: scan.source.name().to_owned(),
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
