//! Logging to standard error as text or JSON, one line per event. Initialized once; the level can be changed.

use std::{
    fmt,
    io::{self, Write},
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    fmt::{
        format::{DefaultFields, FormatFields, Writer},
        layer,
    },
    layer::SubscriberExt,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    text::{escape_json, escape_untrusted},
};

/// Handle for changing the log level.
#[derive(Clone, Debug)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

/// Installs the global subscriber. A second call in the same process has no effect on the log.
#[must_use]
pub fn init(log: &Log, colour: bool) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(filter(log));
    let format = match log.format {
        LogFormat::Human => LineFormat::Text { colour },
        LogFormat::Json => LineFormat::Json,
    };
    let lines = lines(format, io::stderr);
    let result = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // Fails if a subscriber is already installed, which then stays in place.
    drop(result);
    LevelHandle(handle)
}

/// Returns the layer that writes events as lines.
fn lines<S, W>(
    format: LineFormat,
    output: impl Fn() -> W + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
{
    let lines = layer().with_writer(move || LineWriter::new(output(), format)).with_target(false);
    match format {
        LineFormat::Text { colour: true } => {
            lines.with_ansi(true).fmt_fields(EscapedFields).boxed()
        }
        LineFormat::Text { colour: false } => lines.with_ansi(false).boxed(),
        LineFormat::Json => lines.json().flatten_event(true).with_current_span(true).boxed(),
    }
}

impl LevelHandle {
    /// Replaces the level filter.
    pub fn set_level(&self, log: &Log) {
        // Fails only if the subscriber no longer exists.
        let _ = self.0.reload(filter(log));
    }
}

/// Format of the log's lines.
#[derive(Clone, Copy, Debug)]
enum LineFormat {
    Text { colour: bool },
    Json,
}

/// Writes each event as a single line in which no character acts on the display. The library escapes terminal sequences
/// only, and only in some fields.
struct LineWriter<W> {
    output: W,
    format: LineFormat,
}

impl<W: Write> LineWriter<W> {
    fn new(output: W, format: LineFormat) -> Self {
        Self { output, format }
    }
}

impl<W: Write> Write for LineWriter<W> {
    /// Writes a complete event, as the library passes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let mut line = match self.format {
            LineFormat::Text { colour: true } => escape_beside_colours(line),
            LineFormat::Text { colour: false } => escape_untrusted(line),
            LineFormat::Json => escape_json(line),
        };
        line.push_str(end);
        self.output.write_all(line.as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// Escapes all but the sequences for colours, which [`EscapedFields`] escapes in values. `console_codes(4)`.
fn escape_beside_colours(line: &str) -> String {
    let mut parts = line.split("\u{1b}[");
    let mut escaped = escape_untrusted(parts.next().unwrap_or_default());
    for part in parts {
        let parameters = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        let start = if parameters.starts_with('m') { "\u{1b}[" } else { "\\u{1b}[" };
        escaped.push_str(start);
        escaped.push_str(&escape_untrusted(part));
    }
    escaped
}

/// Formats fields without colour and escapes them, since the library does not escape all values.
struct EscapedFields;

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut text = String::new();
        DefaultFields::new().format_fields(Writer::new(&mut text), fields)?;
        writer.write_str(&escape_untrusted(text))
    }
}

fn filter(log: &Log) -> EnvFilter {
    // Cannot fail: the configuration has validated the filter.
    without_file_contents(EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info")))
}

/// Disables the log of the type detection crate, which at `debug` contains parts of decrypted media.
fn without_file_contents(filter: EnvFilter) -> EnvFilter {
    match "pure_magic=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        error::Error,
        io::{Read, Seek},
        sync::Arc,
    };

    use tracing::{Dispatch, dispatcher, info, info_span, warn};

    use super::*;
    use crate::chain::Chain;

    /// Untrusted text in each kind of field, in the log's three formats.
    #[test]
    fn no_untrusted_character_acts_on_the_display() {
        let untrusted =
            "a\u{202e}\u{2066}\u{2028}\u{feff}\u{e0041}\u{9b}31m\u{1b}[8m\u{1b}[2J\r\nlevel=INFO b";
        for format in [
            LineFormat::Text { colour: false },
            LineFormat::Text { colour: true },
            LineFormat::Json,
        ] {
            let mut file = tempfile::tempfile().unwrap();
            let output = Arc::new(file.try_clone().unwrap());
            let lines = lines(format, move || Arc::clone(&output));
            let subscriber: Dispatch = tracing_subscriber::registry().with(lines).into();
            dispatcher::with_default(&subscriber, || {
                let span = info_span!("request", in_span = %untrusted);
                let _in_span = span.enter();
                let failed = io::Error::other(untrusted);
                info!(shown = %untrusted, debug = ?untrusted, text = untrusted, "event");
                warn!(error = &failed as &dyn Error, cause = %Chain(&failed), "{untrusted}");
            });
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text.matches('\n').count(), 2, "{format:?}: one line an event: {text:?}");
            let colours = text.matches("\u{1b}[").count();
            assert_eq!(
                colours > 0,
                matches!(format, LineFormat::Text { colour: true }),
                "{text:?}"
            );
            assert!(!text.contains("\u{1b}[8m") && !text.contains("\u{1b}[2J"), "{text:?}");
            let plain = text.replace(['\u{1b}', '\n'], "");
            assert!(!plain.contains(crate::text::is_control_or_bidi), "{format:?}: {text:?}");
            if let LineFormat::Json = format {
                let first: serde_json::Value =
                    serde_json::from_str(text.lines().next().unwrap()).unwrap();
                assert_eq!(first["shown"], untrusted, "the value is unchanged");
            }
        }
    }
}
