//! Lines for scanned files and for responses.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::Serialize;

use crate::{
    media::{self, MediaId, Origin},
    scan::engines::EngineReport,
    text::escape_json,
};

/// Verdict on one file, or a response with one.
#[derive(Clone, Debug)]
pub struct AuditRecord<'a> {
    /// Time of the verdict, or of the response.
    pub time: SystemTime,
    /// Media ID.
    pub media: &'a MediaId,
    /// Homeserver that the file was fetched from.
    pub origin: &'a Origin,
    /// Whether the file is a thumbnail of the media.
    pub thumbnail: bool,
    /// Whether the file was end-to-end encrypted.
    pub encrypted: bool,
    /// Whether no client asked for the file: it was scanned again after a change of the engines.
    pub rescan: bool,
    /// SHA-256 of the plaintext.
    pub sha256: &'a [u8; 32],
    /// Size of the plaintext in bytes.
    pub size: u64,
    /// Type detected from the content; `None` if it was not determined.
    pub detected: Option<&'a str>,
    /// [`crate::scan::Verdict::name`]
    pub verdict: &'static str,
    /// [`crate::scan::verdict::NotCleanKind::name`], if the file is not clean.
    pub not_clean: Option<&'static str>,
    /// Where the verdict comes from.
    pub source: &'static str,
    /// Exit code of the script, if it ran.
    pub exit_code: Option<i32>,
    /// First line of the engine's output, if an engine ran, or if the file is not clean.
    pub first_line: Option<&'a str>,
    /// Run time of the script, if it ran.
    pub took: Option<Duration>,
    /// The results of the engines, if they ran.
    pub engines: &'a [EngineReport],
}

/// User of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RecordedUser {
    /// The user ID.
    Full(Option<Arc<str>>),
    /// Keyed hash of the user ID.
    Hash(Option<String>),
}

/// A line of the log.
#[derive(Clone, Debug, Serialize)]
pub struct AuditLine {
    time: String,
    mxc: String,
    homeserver: String,
    thumbnail: bool,
    encrypted: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    rescan: bool,
    sha256: String,
    size: u64,
    r#type: Option<String>,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_address: Option<OrNull<IpAddr>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<OrNull<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_hash: Option<OrNull<String>>,
    exit_code: Option<i32>,
    output: Option<String>,
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    engines: Vec<EngineLine>,
}

/// A value that is recorded, and written as `null` if it is unknown.
#[derive(Clone, Debug, Serialize)]
struct OrNull<T>(Option<T>);

/// The result of one engine in a line.
#[derive(Clone, Debug, Serialize)]
struct EngineLine {
    engine: &'static str,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    finding: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    observed: bool,
    duration_ms: Option<u64>,
}

impl AuditLine {
    #[must_use]
    pub fn new(record: &AuditRecord<'_>) -> Self {
        Self {
            time: humantime::format_rfc3339_millis(record.time).to_string(),
            mxc: record.media.to_string(),
            homeserver: match record.origin {
                Origin::Configured(url) => url.to_string(),
                Origin::Discovered => record.media.server_name().to_owned(),
            },
            thumbnail: record.thumbnail,
            encrypted: record.encrypted,
            rescan: record.rescan,
            sha256: media::hex(record.sha256),
            size: record.size,
            r#type: record.detected.map(str::to_owned),
            verdict: record.verdict,
            outcome: record.not_clean,
            source: record.source,
            client_address: None,
            user: None,
            user_hash: None,
            exit_code: record.exit_code,
            output: record.first_line.map(str::to_owned),
            duration_ms: record.took.map(millis),
            engines: record.engines.iter().map(EngineLine::new).collect(),
        }
    }

    /// Adds the client's address; `None` if it is unknown.
    #[must_use]
    pub fn with_client_address(self, address: Option<IpAddr>) -> Self {
        Self { client_address: Some(OrNull(address)), ..self }
    }

    /// Adds the user.
    #[must_use]
    pub fn with_user(self, user: RecordedUser) -> Self {
        match user {
            RecordedUser::Full(user) => {
                Self { user: Some(OrNull(user.map(|user| user.to_string()))), ..self }
            }
            RecordedUser::Hash(hash) => Self { user_hash: Some(OrNull(hash)), ..self },
        }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // Cannot fail: serialization fails only for maps with non-string keys.
        let line = serde_json::to_string(self).unwrap_or_default();
        format!("{}\n", escape_json(&line)).into_bytes()
    }
}

impl EngineLine {
    fn new(EngineReport { summary, is_observed }: &EngineReport) -> Self {
        Self {
            engine: summary.engine,
            result: summary.result,
            finding: summary.finding.as_deref().map(str::to_owned),
            observed: *is_observed,
            duration_ms: summary.duration.map(millis),
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
