//! JSON of the API, which the command line reads as well. Times are RFC 3339 in UTC, digests hexadecimal digits.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Maximum time for which a decision is in force: a year.
pub const MAX_DECISION_TIME: Duration = Duration::from_secs(366 * 86_400);

/// A verdict that the service knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerdictView {
    /// SHA-256 of the content; absent for a record of an earlier version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// "clean", "`not_clean`" or "failed".
    pub verdict: String,
    /// Why the content is not clean, or why the scan failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What the engine reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// The results of all engines; absent for a failure, and for a record of an earlier version of the program.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub engines: Vec<EngineView>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scanned: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Whether requests are answered with it.
    pub valid: bool,
    /// Whether it is in the store, otherwise in memory alone.
    pub stored: bool,
    /// Media with this content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub media: Vec<MediaView>,
}

/// The result of one engine, without names of files inside the content.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EngineView {
    pub engine: String,
    /// As in the audit log.
    pub result: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    /// Absent for an engine that did not start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

impl EngineView {
    /// Returns the result in one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let finding = self.finding.as_ref().map(|finding| format!(" ({finding})"));
        let duration = self.duration_ms.map(|millis| format!(" in {millis} ms"));
        let [finding, duration] = [finding, duration].map(Option::unwrap_or_default);
        format!("{} {}{finding}{duration}", self.engine, self.result.replace('_', " "))
    }
}

/// A media entry that the service knows.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MediaView {
    /// Absent for an entry in memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mxc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homeserver: Option<String>,
    /// Parameters of the thumbnail; absent for the original.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thumbnail: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    pub content: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloaded: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    pub stored: bool,
}

/// Reply to `GET /v1/verdicts`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerdictsReply {
    pub verdicts: Vec<VerdictView>,
    /// Whether all verdicts that were asked for are listed.
    pub complete: bool,
}

/// Reply to `GET /v1/contents/SHA256`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContentReply {
    pub content: String,
    /// A decision of an operator, or a list of hashes, decides: "allowed" or "blocked".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listed: Option<String>,
    pub verdicts: Vec<VerdictView>,
    pub media: Vec<MediaView>,
    /// When the verdicts were forgotten for the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<String>,
    /// Whether all media in the store are listed.
    pub complete: bool,
}

/// Reply to `GET /v1/media`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MediaReply {
    pub mxc: String,
    pub media: Vec<MediaView>,
    pub contents: Vec<ContentReply>,
}

/// A verdict of the latest time, or a job that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecentView {
    pub time: String,
    pub mxc: String,
    pub thumbnail: bool,
    pub encrypted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// "clean", "`type_forbidden`", why the content is not clean, or "failed".
    pub outcome: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Short hash of the tenant, which differs after a restart.
    pub tenant: String,
    /// "scan", "verdict" (known for the content) or "memory".
    pub source: String,
}

/// Reply to `GET /v1/recent`: the latest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RecentReply {
    pub scans: Vec<RecentView>,
}

/// Body of `POST /v1/rescan`: one of the first two. Without `Debug`, because of the token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RescanRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mxc: Option<String>,
    /// Token for the homeserver, which this download alone uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// Name in `download.homeservers` that selects the homeserver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Reply to `POST /v1/rescan`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RescanReply {
    pub mxc: String,
    /// The verdict that was known, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// "clean", "`not_clean`", "`type_forbidden`" or "failed".
    pub verdict: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<String>,
}

/// Body of `POST /v1/forget`: one of the first three.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgetRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mxc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Reply to `POST /v1/forget`: numbers of removed entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ForgetReply {
    pub verdicts: usize,
    pub media: usize,
    /// Whether other replicas follow only when the shared store is available again.
    #[serde(default)]
    pub pending: bool,
}

/// Body of `POST /v1/decisions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecisionRequest {
    /// SHA-256 of the decrypted file.
    pub content: String,
    /// "allow", "block" or "withdraw".
    pub action: String,
    /// Why, for the audit log and the list.
    pub comment: String,
    /// Time for which the decision is in force, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// A decision in force.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DecisionView {
    pub content: String,
    /// "allow" or "block".
    pub action: String,
    pub comment: String,
    pub made: String,
    pub end: String,
}

/// Reply to `GET` and `POST /v1/decisions`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DecisionsReply {
    /// Number of the list, which rises with each change.
    pub number: u64,
    pub decisions: Vec<DecisionView>,
}

/// State of a step of an incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StepView {
    /// "waiting", "done", "`given_up`", or "dropped".
    pub state: String,
    /// Number of tries that failed.
    pub tries: u32,
    /// Time of the next try, if one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl StepView {
    /// Returns the state in words.
    #[must_use]
    pub fn text(&self) -> String {
        let mut words = vec![self.state.replace('_', " ")];
        if self.tries > 0 {
            words.push(format!("{} tries failed", self.tries));
        }
        words.extend(self.next.as_ref().map(|next| format!("next try {next}")));
        words.join(", ")
    }
}

/// Media of an incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IncidentMediaView {
    pub mxc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homeserver: Option<String>,
    /// Absent if the media is not to be quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<StepView>,
}

/// Notification about an incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NotificationView {
    /// "webhook" or "room".
    pub kind: String,
    /// Room, or scheme, host and port of the webhook.
    pub address: String,
    #[serde(flatten)]
    pub step: StepView,
}

/// An incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IncidentView {
    pub id: String,
    pub found: String,
    pub content: String,
    pub engine: String,
    pub finding: String,
    /// "waiting", "done", "dropped" or "expired".
    pub state: String,
    /// When steps that are not done are given up, if the incident waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// When the incident was finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    pub media: Vec<IncidentMediaView>,
    pub notifications: Vec<NotificationView>,
}

/// Reply to `GET /v1/incidents`: the latest first.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IncidentsReply {
    pub incidents: Vec<IncidentView>,
    /// The parameter `after` of the next page, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Body of `POST /v1/quarantine/release`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    pub mxc: String,
    /// Why, for the audit log.
    pub comment: String,
    /// Whether the infected content of the media is allowed before. An error if there are several.
    #[serde(default)]
    pub allow: bool,
    /// Time for which they are allowed, seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// Content of media that is released.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleasedContentView {
    pub content: String,
    /// Whether a decision of an operator or a list of hashes allows the content. Otherwise the next incident quarantines the
    /// media again.
    pub allowed: bool,
}

/// Reply to `POST /v1/quarantine/release`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReleaseReply {
    pub mxc: String,
    pub was_quarantined: bool,
    /// Infected contents of the media, as far as they are known.
    pub contents: Vec<ReleasedContentView>,
    /// Other media with these contents, which may be in quarantine as well.
    pub other_media: Vec<String>,
    /// Whether the store could be asked for other media.
    pub complete: bool,
}

/// Reply to a request that failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ErrorReply {
    /// Name for programs.
    pub error: String,
    /// Text for people.
    pub message: String,
}
