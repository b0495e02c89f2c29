//! Lines for incidents.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::{incident::IncidentEvent, text::escape_json};

/// Returns the line for an event.
pub(super) fn format_incident(event: &IncidentEvent<'_>, time: SystemTime) -> Vec<u8> {
    #[derive(Serialize)]
    struct IncidentLine<'a> {
        time: String,
        incident: &'a str,
        state: &'static str,
        mxc: Vec<&'a str>,
        sha256: &'a str,
        outcome: &'static str,
        engine: &'a str,
        finding: &'a str,
        found: String,
    }
    let incident = event.incident;
    let found = UNIX_EPOCH.checked_add(Duration::from_millis(incident.found)).unwrap_or(time);
    let line = IncidentLine {
        time: humantime::format_rfc3339_millis(time).to_string(),
        incident: &incident.id,
        state: event.state.name(),
        mxc: match event.state.mxc() {
            Some(mxc) => vec![mxc],
            None => incident.mxcs().collect(),
        },
        sha256: &incident.content,
        outcome: "infected",
        engine: &incident.engine,
        finding: &incident.finding,
        found: humantime::format_rfc3339_millis(found).to_string(),
    };
    // Cannot fail: serialization fails only for maps with non-string keys.
    let line = serde_json::to_string(&line).unwrap_or_default();
    format!("{}\n", escape_json(&line)).into_bytes()
}
