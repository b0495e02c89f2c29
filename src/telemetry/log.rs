//! Logging to standard error as text or JSON, one line per event. Initialized once; the level can be changed. In the journal of
//! systemd, each line begins with its priority, and text has no time, which the journal records.

use std::{
    env,
    ffi::OsStr,
    fmt,
    io::{self, Write},
};

use nix::sys::stat::fstat;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    field::RecordFields,
    fmt::{
        MakeWriter,
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
    let output = LineOutput { open: io::stderr, format, is_journal: is_journal() };
    let lines = lines(output);
    let result = tracing_subscriber::registry().with(filter).with(lines).try_init();
    // Fails if a subscriber is already installed, which then stays in place.
    drop(result);
    LevelHandle(handle)
}

/// Returns whether standard error is a stream of the journal: its device and inode are those in `JOURNAL_STREAM`.
/// `systemd.exec(5)`.
fn is_journal() -> bool {
    let stream = env::var_os("JOURNAL_STREAM");
    let identity = fstat(io::stderr()).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    stream.is_some_and(|stream| identity.is_ok_and(|identity| stream == *OsStr::new(&identity)))
}

/// Returns the beginning of lines with an error that are not written through the log: empty outside of the journal.
#[must_use]
pub fn error_priority() -> &'static str {
    if is_journal() { priority(Level::ERROR) } else { "" }
}

/// Returns the layer that writes events as lines.
fn lines<S, F, W>(output: LineOutput<F>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: Fn() -> W + Send + Sync + 'static,
    W: Write + 'static,
{
    let LineOutput { format, is_journal, .. } = output;
    let lines = layer().with_writer(output).with_target(false);
    match format {
        // The journal has the time.
        LineFormat::Text { .. } if is_journal => lines.without_time().with_ansi(false).boxed(),
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

/// Opens the output for each event.
struct LineOutput<F> {
    open: F,
    format: LineFormat,
    is_journal: bool,
}

impl<'a, F: Fn() -> W, W: Write> MakeWriter<'a> for LineOutput<F> {
    type Writer = LineWriter<W>;

    fn make_writer(&'a self) -> Self::Writer {
        LineWriter { output: (self.open)(), format: self.format, priority: None }
    }

    fn make_writer_for(&'a self, event: &Metadata<'_>) -> Self::Writer {
        let priority = self.is_journal.then(|| priority(*event.level()));
        LineWriter { priority, ..self.make_writer() }
    }
}

/// Returns the beginning of a line of this level. `sd-daemon(3)`; the numbers are those of `syslog(3)`.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Writes each event as a single line in which no character acts on the display. The library escapes terminal sequences
/// only, and only in some fields.
struct LineWriter<W> {
    output: W,
    format: LineFormat,
    /// Written before the line.
    priority: Option<&'static str>,
}

impl<W: Write> Write for LineWriter<W> {
    /// Writes a complete event, as the library passes it.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let (line, end) = text.strip_suffix('\n').map_or((&*text, ""), |line| (line, "\n"));
        let escaped = match self.format {
            LineFormat::Text { colour: true } => escape_beside_colours(line),
            LineFormat::Text { colour: false } => escape_untrusted(line),
            LineFormat::Json => escape_json(line),
        };
        let line = [self.priority.unwrap_or(""), &escaped, end].concat();
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
            let open = move || Arc::clone(&output);
            let lines = lines(LineOutput { open, format, is_journal: false });
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

    /// Each line begins with the priority of its level, whatever the fields contain, and text has no time.
    #[test]
    fn lines_for_the_journal_have_priorities_and_no_time() {
        for format in [LineFormat::Text { colour: true }, LineFormat::Json] {
            let mut file = tempfile::tempfile().unwrap();
            let output = Arc::new(file.try_clone().unwrap());
            let open = move || Arc::clone(&output);
            let lines = lines(LineOutput { open, format, is_journal: true });
            let subscriber: Dispatch = tracing_subscriber::registry().with(lines).into();
            dispatcher::with_default(&subscriber, || {
                tracing::error!(value = "\n<0>forged", "failed");
                warn!("<0>\n<1>forged");
                info!(shown = %"\r<2>", "\u{2028}<2>event");
                tracing::debug!("details");
                tracing::trace!("more");
            });
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            let starts: Vec<_> = text.lines().map(|line| &line[..4]).collect();
            match format {
                LineFormat::Json => assert_eq!(starts, ["<3>{", "<4>{", "<6>{", "<7>{", "<7>{"]),
                LineFormat::Text { .. } => {
                    let lines: Vec<_> = text.lines().collect();
                    assert!(lines[0].starts_with("<3>ERROR failed value="), "{text}");
                    assert_eq!(lines[3], "<7>DEBUG details");
                    assert_eq!(starts.len(), 5, "{text}");
                    assert!(!text.contains('\u{1b}'), "{text:?}");
                }
            }
        }
    }
}
