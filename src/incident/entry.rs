//! An incident, and its form in the outbox: JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::step::StepState;

/// Malware in plain media.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// Name of the incident, hexadecimal digits. The same media and content have the same one.
    pub id: String,
    /// When the malware was found, milliseconds since 1970.
    pub found: u64,
    /// SHA-256 of the content, hexadecimal digits.
    pub content: String,
    /// Engine with the finding.
    pub engine: String,
    /// Single line.
    pub finding: String,
    /// Name of the file and place inside of it. User content.
    pub(super) file_name: Option<String>,
    pub(super) location: Option<String>,
    /// Media with this content, at most 64.
    pub(super) media: Vec<IncidentMedia>,
    /// Whether the other media with the content was added, and the incident was reported.
    pub(super) is_announced: bool,
    /// States of the notifications, by target.
    pub(super) targets: BTreeMap<String, StepState>,
}

/// Media of an incident.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IncidentMedia {
    pub(super) mxc: String,
    /// Configured homeserver that the media was fetched from.
    pub(super) base_url: Option<String>,
    /// State of the quarantine.
    pub(super) quarantine: StepState,
}

impl Incident {
    /// Returns the URIs of the media.
    pub fn mxcs(&self) -> impl Iterator<Item = &str> {
        self.media.iter().map(|media| &*media.mxc)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        // Fails only for types that JSON cannot represent.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// # Errors
    /// If the entry is of another version of this program.
    pub(super) fn decode(value: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(value)
    }

    /// Adds what another state of the same incident has: media, and steps that are over.
    pub(super) fn merge(&mut self, other: &Self) {
        self.is_announced |= other.is_announced;
        for media in &other.media {
            self.add_media(media.mxc.clone(), media.base_url.clone());
            let is_same =
                |own: &&mut IncidentMedia| own.mxc == media.mxc && own.base_url == media.base_url;
            if let Some(own) = self.media.iter_mut().find(is_same) {
                own.quarantine.merge(media.quarantine);
            }
        }
        for (target, state) in &other.targets {
            self.targets.entry(target.clone()).or_default().merge(*state);
        }
    }

    /// Adds media, unless it is there already.
    pub(super) fn add_media(&mut self, mxc: String, base_url: Option<String>) {
        if !self.media.iter().any(|media| media.mxc == mxc && media.base_url == base_url) {
            self.media.push(IncidentMedia { mxc, base_url, quarantine: StepState::default() });
        }
    }
}
