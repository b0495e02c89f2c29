//! Texts of notifications. Findings, names of files and server names are text of others: control and bidirectional
//! characters are escaped, HTML is quoted, and no URI becomes a link.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, UNIX_EPOCH},
};

use serde::Serialize;
use serde_json::json;

use super::entry::Incident;
use crate::text::{escape_json, escape_untrusted};

/// Maximum number of URIs in a message in a room.
const MAX_SHOWN: usize = 10;

/// What is notified.
#[derive(Clone, Debug)]
pub(super) enum Notice<'a> {
    Single(&'a Incident),
    /// Several incidents at once; not empty.
    Summary(&'a [&'a Incident]),
}

#[derive(Serialize)]
struct IncidentJson<'a> {
    r#type: &'static str,
    id: &'a str,
    time: String,
    outcome: &'static str,
    engine: &'a str,
    finding: &'a str,
    mxc: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
}

impl Notice<'_> {
    /// Returns the body of a webhook.
    pub(super) fn to_json(&self, personal_data: bool) -> Vec<u8> {
        let json = match self {
            Self::Single(incident) => serde_json::to_string(&IncidentJson {
                r#type: "incident",
                id: &incident.id,
                time: time(incident.found),
                outcome: "infected",
                engine: &incident.engine,
                finding: &incident.finding,
                mxc: incident.mxcs().collect(),
                file_name: incident.file_name.as_deref().filter(|_| personal_data),
                location: incident.location.as_deref().filter(|_| personal_data),
            }),
            Self::Summary(incidents) => {
                let (first, last) = times(incidents);
                let engines = engines(incidents);
                serde_json::to_string(&json!({
                    "type": "summary",
                    "count": incidents.len(),
                    "outcome": "infected",
                    "engines": engines,
                    "first": first,
                    "last": last,
                }))
            }
        };
        // Fails only for types that JSON cannot represent.
        escape_json(&json.unwrap_or_default()).into_bytes()
    }

    /// Returns the content of a message in a room (Matrix specification, `m.room.message`).
    pub(super) fn to_message(&self, personal_data: bool) -> Vec<u8> {
        let lines = self.lines(personal_data);
        let (title, facts) = lines;
        let (mut body, mut html) = (title.clone(), format!("<strong>{}</strong>", quote(&title)));
        for (name, value) in facts {
            let value = escape_untrusted(value);
            let _infallible = write!(body, "\n{name}: {value}");
            // Clients make no links of code.
            let _infallible = write!(html, "<br>{name}: <code>{}</code>", quote(&value));
        }
        let message = json!({
            "msgtype": "m.notice",
            "body": body,
            "format": "org.matrix.custom.html",
            "formatted_body": html,
            // A finding that contains a user id or "@room" mentions no one.
            "m.mentions": {},
        });
        escape_json(&message.to_string()).into_bytes()
    }

    /// Returns the title, and facts by name.
    fn lines(&self, personal_data: bool) -> (String, Vec<(&'static str, String)>) {
        match self {
            Self::Single(incident) => {
                let mut facts = Vec::new();
                facts.extend(incident.mxcs().take(MAX_SHOWN).map(|mxc| ("media", mxc.to_owned())));
                let others = incident.media.len().saturating_sub(MAX_SHOWN);
                if others > 0 {
                    facts.push(("more media", others.to_string()));
                }
                facts.push(("engine", incident.engine.clone()));
                facts.push(("finding", incident.finding.clone()));
                facts.push(("time", time(incident.found)));
                if personal_data {
                    let optional = [("file", &incident.file_name), ("inside", &incident.location)];
                    let known = optional.into_iter().filter_map(|(name, value)| {
                        value.as_ref().map(|value| (name, value.clone()))
                    });
                    facts.extend(known);
                }
                facts.push(("incident", incident.id.clone()));
                ("Malware in media".to_owned(), facts)
            }
            Self::Summary(incidents) => {
                let (first, last) = times(incidents);
                let engines = engines(incidents).into_iter();
                let engines: Vec<_> =
                    engines.map(|(name, count)| format!("{name} {count}")).collect();
                let title = format!("Malware in media: {} more incidents", incidents.len());
                (title, vec![("engines", engines.join(", ")), ("first", first), ("last", last)])
            }
        }
    }
}

/// Returns the number of incidents by engine.
fn engines<'a>(incidents: &[&'a Incident]) -> BTreeMap<&'a str, usize> {
    let mut engines = BTreeMap::new();
    for incident in incidents {
        *engines.entry(&*incident.engine).or_default() += 1;
    }
    engines
}

/// Returns the times of the first and the last incident.
fn times(incidents: &[&Incident]) -> (String, String) {
    let found = incidents.iter().map(|incident| incident.found);
    (time(found.clone().min().unwrap_or(0)), time(found.max().unwrap_or(0)))
}

fn time(milliseconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
    humantime::format_rfc3339_millis(time.unwrap_or(UNIX_EPOCH)).to_string()
}

/// Quotes text for HTML.
fn quote(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
