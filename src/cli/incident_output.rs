//! Output about incidents. Texts of engines, and names from requests, are escaped.

use std::io::{self, Write as _};

use super::output::{BAD, GOOD, HEADING, NOTE, Painter};
use crate::{
    admin::protocol::{IncidentView, IncidentsReply, ReleaseReply, StepView},
    text::escape_untrusted,
};

/// Prints incidents with their steps.
pub(super) fn print_incidents(painter: Painter, reply: &IncidentsReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if reply.incidents.is_empty() {
        writeln!(out, "no incidents")?;
    }
    for incident in &reply.incidents {
        write_incident(&mut out, painter, incident)?;
    }
    if let Some(next) = &reply.next {
        let note = format!("more incidents: use --after {}", escape_untrusted(next));
        writeln!(out, "{}", painter.paint(NOTE, note))?;
    }
    Ok(())
}

fn write_incident(
    out: &mut impl io::Write,
    painter: Painter,
    incident: &IncidentView,
) -> io::Result<()> {
    let IncidentView { id, found, content, engine, finding, state, .. } = incident;
    let [id, found, engine, finding, content] =
        [id, found, engine, finding, content].map(escape_untrusted);
    let style = match &**state {
        "done" => GOOD,
        "waiting" => NOTE,
        _ => BAD,
    };
    let state = painter.paint(style, escape_untrusted(state));
    let heading = painter.paint(HEADING, format!("{found}  incident {id}"));
    writeln!(out, "{heading}: {state}")?;
    writeln!(out, "  {engine}: {finding}")?;
    writeln!(out, "  content {content}")?;
    for media in &incident.media {
        let quarantine = media.quarantine.as_ref().map_or_else(
            || "not quarantined here".to_owned(),
            |step| format!("quarantine {}", step_text(step)),
        );
        writeln!(out, "  {}: {quarantine}", escape_untrusted(&media.mxc))?;
    }
    for target in &incident.notifications {
        let [kind, address] = [&target.kind, &target.address].map(escape_untrusted);
        writeln!(out, "  {kind} {address}: {}", step_text(&target.step))?;
    }
    if let Some(expires) = &incident.expires {
        writeln!(out, "  given up at {}", escape_untrusted(expires))?;
    }
    if let Some(ended) = &incident.ended {
        writeln!(out, "  ended at {}", escape_untrusted(ended))?;
    }
    Ok(())
}

fn step_text(step: &StepView) -> String {
    escape_untrusted(step.text())
}

/// Prints what was released, and what else is to be done.
pub(super) fn print_released(painter: Painter, reply: &ReleaseReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let was = if reply.was_quarantined { "" } else { " (it was not in quarantine)" };
    writeln!(out, "{}: released{was}", escape_untrusted(&reply.mxc))?;
    for content in &reply.contents {
        let digits = escape_untrusted(&content.content);
        if content.allowed {
            writeln!(out, "content {digits}: allowed")?;
            continue;
        }
        let note = format!(
            "content {digits}: not allowed, so the next incident quarantines the media again; run: store allow {digits} \
             --comment TEXT"
        );
        writeln!(out, "{}", painter.paint(NOTE, note))?;
    }
    if reply.contents.is_empty() {
        let note = "no infected content of the media is known; if it is scanned and found again, it is quarantined again";
        writeln!(out, "{}", painter.paint(NOTE, note))?;
    }
    for mxc in &reply.other_media {
        writeln!(
            out,
            "the same content, released separately if it is in quarantine: {}",
            escape_untrusted(mxc)
        )?;
    }
    if !reply.complete {
        let note = "the store cannot be read: other media may have the same content";
        writeln!(out, "{}", painter.paint(NOTE, note))?;
    }
    Ok(())
}
