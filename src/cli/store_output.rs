//! Output of `store`. Texts of engines, and names from requests, are escaped.

use std::io::{self, Write as _};

use super::output::{BAD, GOOD, HEADING, NOTE, Painter};
use crate::{
    admin::protocol::{
        ContentReply, DecisionRequest, DecisionView, DecisionsReply, ForgetReply, MediaReply,
        MediaView, RecentReply, RescanReply, VerdictView, VerdictsReply,
    },
    text::escape_untrusted,
};

/// Text in place of an absent value.
const ABSENT: &str = "-";

/// Prints a table with a line for each verdict.
pub(super) fn print_verdicts(painter: Painter, reply: &VerdictsReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if reply.verdicts.is_empty() {
        return writeln!(out, "no such verdicts are known");
    }
    let header =
        format!("{:<20}  {:<24}  {:<64}  FINDING, MEDIA", "SCANNED (UTC)", "VERDICT", "SHA-256");
    writeln!(out, "{}", painter.paint(HEADING, header))?;
    for view in &reply.verdicts {
        let verdict = format!("{:<24}", verdict_text(view));
        let details = [finding_text(view), media_summary(&view.media)];
        let details: Vec<_> = details.into_iter().flatten().collect();
        writeln!(
            out,
            "{:<20}  {}  {:<64}  {}",
            text(view.scanned.as_deref()),
            paint(painter, view, &verdict),
            text(view.content.as_deref()),
            details.join("  ")
        )?;
    }
    if !reply.complete {
        let note = "more verdicts are known; use --limit, --since or --not-clean";
        writeln!(out, "{}", painter.paint(NOTE, note))?;
    }
    Ok(())
}

/// Prints what is known about a content.
pub(super) fn print_content(painter: Painter, reply: &ContentReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    write_content(&mut out, painter, reply)?;
    for media in &reply.media {
        writeln!(out, "  media: {}", media_text(media))?;
    }
    if !reply.complete {
        let note = "the store is large: further media may have this content";
        writeln!(out, "  {}", painter.paint(NOTE, note))?;
    }
    Ok(())
}

/// Prints what is known about a media URI.
pub(super) fn print_media(painter: Painter, reply: &MediaReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", painter.paint(HEADING, escape_untrusted(&reply.mxc)))?;
    if reply.media.is_empty() {
        return writeln!(out, "  nothing is known");
    }
    for media in &reply.media {
        writeln!(
            out,
            "  entry: {}, content {}",
            media_text(media),
            escape_untrusted(&media.content)
        )?;
    }
    reply.contents.iter().try_for_each(|content| write_content(&mut out, painter, content))
}

/// Prints how much was removed. `is_all`: everything; the numbers are those in memory then.
pub(super) fn print_forgotten(reply: ForgetReply, is_all: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let ForgetReply { verdicts, media, pending } = reply;
    if pending {
        return writeln!(
            out,
            "forgotten on this replica: verdicts {verdicts}, media entries {media}; the shared store \
             is not available, and other replicas follow as soon as it is"
        );
    }
    if is_all {
        return writeln!(
            out,
            "forgotten: all; in memory were: verdicts {verdicts}, media entries {media}"
        );
    }
    if verdicts == 0 && media == 0 {
        return writeln!(out, "nothing was known; scans in progress will not be kept");
    }
    writeln!(out, "forgotten: verdicts {verdicts}, media entries {media}")
}

/// Prints the result of another scan.
pub(super) fn print_rescanned(painter: Painter, reply: &RescanReply) -> io::Result<()> {
    let RescanReply { mxc, before, verdict, outcome, finding } = reply;
    let words = |name: &String| name.replace('_', " ");
    let details = [Some(words(verdict)), outcome.as_ref().map(words), finding.clone()];
    let details: Vec<_> = details.into_iter().flatten().map(escape_untrusted).collect();
    let style = if verdict == "clean" { GOOD } else { BAD };
    let result = painter.paint(style, details.join(", "));
    let before = escape_untrusted(before.as_deref().unwrap_or("nothing").replace('_', " "));
    writeln!(io::stdout(), "{}: {result} (before: {before})", escape_untrusted(mxc))
}

/// Prints a table with a line for each verdict of the latest time.
pub(super) fn print_recent(painter: Painter, reply: &RecentReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if reply.scans.is_empty() {
        return writeln!(out, "no verdicts since the start");
    }
    let header = format!(
        "{:<24}  {:<14}  {:<8}  {:<7}  {:>8}  {:<64}  MEDIA, FINDING",
        "TIME (UTC)", "OUTCOME", "TENANT", "SOURCE", "MS", "SHA-256"
    );
    writeln!(out, "{}", painter.paint(HEADING, header))?;
    for scan in &reply.scans {
        let style = match &*scan.outcome {
            "clean" => GOOD,
            "failed" => NOTE,
            _ => BAD,
        };
        let outcome = escape_untrusted(scan.outcome.replace('_', " "));
        let found = [scan.engine.as_deref(), scan.finding.as_deref()];
        let found: Vec<_> = found.into_iter().flatten().map(escape_untrusted).collect();
        let duration = scan.duration_ms.map_or_else(|| ABSENT.to_owned(), |ms| ms.to_string());
        writeln!(
            out,
            "{:<24}  {}  {:<8}  {:<7}  {duration:>8}  {:<64}  {}  {}",
            escape_untrusted(&scan.time),
            painter.paint(style, format!("{outcome:<14}")),
            escape_untrusted(&scan.tenant),
            escape_untrusted(&scan.source),
            text(scan.content.as_deref()),
            escape_untrusted(&scan.mxc),
            found.join(": ")
        )?;
    }
    Ok(())
}

/// Prints a table with a line for each decision.
pub(super) fn print_decisions(painter: Painter, reply: &DecisionsReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if reply.decisions.is_empty() {
        return writeln!(out, "no file is allowed or blocked");
    }
    let header = format!("{:<6}  {:<64}  {:<20}  COMMENT", "ACTION", "SHA-256", "UNTIL (UTC)");
    writeln!(out, "{}", painter.paint(HEADING, header))?;
    for DecisionView { content, action, comment, end, .. } in &reply.decisions {
        let style = if action == "allow" { GOOD } else { BAD };
        let action = painter.paint(style, format!("{:<6}", escape_untrusted(action)));
        let [content, end, comment] = [content, end, comment].map(escape_untrusted);
        writeln!(out, "{action}  {content:<64}  {end:<20}  {comment}")?;
    }
    Ok(())
}

/// Prints the decision that was made or withdrawn.
pub(super) fn print_decided(request: &DecisionRequest, reply: &DecisionsReply) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let made = reply.decisions.iter().find(|decision| decision.content == request.content);
    let content = escape_untrusted(&request.content);
    match made {
        Some(DecisionView { action, end, .. }) => {
            let [action, end] = [action, end].map(escape_untrusted);
            writeln!(out, "{content}: {action} until {end}")
        }
        None => writeln!(out, "{content}: no decision any more"),
    }
}

fn write_content(
    out: &mut impl io::Write,
    painter: Painter,
    reply: &ContentReply,
) -> io::Result<()> {
    let heading = format!("content {}", escape_untrusted(&reply.content));
    writeln!(out, "{}", painter.paint(HEADING, heading))?;
    if let Some(listed) = &reply.listed {
        let text = format!(
            "{} by a decision of an operator or a list of hashes, which has precedence",
            escape_untrusted(listed)
        );
        writeln!(out, "  {}", painter.paint(NOTE, text))?;
    }
    if reply.verdicts.is_empty() {
        writeln!(out, "  no verdict is known")?;
    }
    for view in &reply.verdicts {
        let verdict = paint(painter, view, &verdict_text(view));
        let finding = finding_text(view).map(|finding| format!(": {finding}")).unwrap_or_default();
        writeln!(out, "  {verdict}{finding}")?;
        let place = if view.stored { "in the store" } else { "in memory" };
        let validity = if view.valid { "valid" } else { "not valid for the present engines" };
        writeln!(
            out,
            "    {place}, {validity}, scanned {}, expires {}, type {}",
            text(view.scanned.as_deref()),
            text(view.expires.as_deref()),
            text(view.r#type.as_deref())
        )?;
        for engine in &view.engines {
            writeln!(out, "    {}", escape_untrusted(engine.describe()))?;
        }
    }
    if let Some(forgotten) = &reply.forgotten {
        writeln!(out, "  forgotten at {}", escape_untrusted(forgotten))?;
    }
    Ok(())
}

fn paint(painter: Painter, view: &VerdictView, text: &str) -> String {
    let style = match &*view.verdict {
        "clean" => GOOD,
        "failed" => NOTE,
        _ => BAD,
    };
    painter.paint(style, text)
}

fn verdict_text(view: &VerdictView) -> String {
    let name = view.verdict.replace('_', " ");
    let outcome = view.outcome.as_ref().map(|outcome| format!(" ({outcome})")).unwrap_or_default();
    let outdated = if view.valid { "" } else { ", old" };
    escape_untrusted(format!("{name}{outcome}{outdated}"))
}

fn finding_text(view: &VerdictView) -> Option<String> {
    let finding = escape_untrusted(view.finding.as_ref()?);
    let engine = view.engine.as_ref().map(|engine| format!("{}: ", escape_untrusted(engine)));
    Some(format!("{}{finding}", engine.unwrap_or_default()))
}

/// Returns the first media, and the number of others.
fn media_summary(media: &[MediaView]) -> Option<String> {
    let mut names: Vec<_> = media.iter().filter_map(|media| media.mxc.as_deref()).collect();
    names.dedup();
    let (first, others) = names.split_first()?;
    let first = escape_untrusted(first);
    Some(if others.is_empty() { first } else { format!("{first} and {} more", others.len()) })
}

fn media_text(media: &MediaView) -> String {
    let mut words = vec![media.mxc.clone().unwrap_or_else(|| "an entry in memory".to_owned())];
    if let Some(thumbnail) = &media.thumbnail {
        words.push(format!("thumbnail {thumbnail}"));
    }
    if media.encrypted == Some(true) {
        words.push("encrypted".to_owned());
    }
    words.push(format!("{} bytes", media.size));
    words.extend(media.homeserver.as_ref().map(|url| format!("from {url}")));
    words.extend(media.downloaded.as_ref().map(|time| format!("downloaded {time}")));
    escape_untrusted(words.join(", "))
}

fn text(value: Option<&str>) -> String {
    value.map_or_else(|| ABSENT.to_owned(), escape_untrusted)
}
