//! What happens to incidents, for the audit log.

use std::sync::Arc;

use super::entry::Incident;

/// Receives what happens to incidents. May receive the same event again after the process was killed.
pub type IncidentObserver = Arc<dyn Fn(&IncidentEvent<'_>) + Send + Sync>;

/// Something that happened to an incident.
#[derive(Clone, Copy, Debug)]
pub struct IncidentEvent<'a> {
    pub incident: &'a Incident,
    pub state: IncidentState<'a>,
}

/// What happened to an incident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncidentState<'a> {
    Created,
    /// The homeserver has quarantined this media.
    Quarantined(&'a str),
    /// The homeserver does not have this media, or refuses to quarantine it.
    NotQuarantined(&'a str),
}

impl IncidentState<'_> {
    /// Returns the name in the audit log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Quarantined(_) => "quarantined",
            Self::NotQuarantined(_) => "not_quarantined",
        }
    }

    /// Returns the media, if the event is about one.
    #[must_use]
    pub fn mxc(&self) -> Option<&str> {
        match self {
            Self::Created => None,
            Self::Quarantined(mxc) | Self::NotQuarantined(mxc) => Some(mxc),
        }
    }
}
