//! The log: to standard error, for people or as JSON, a line an event. Set up once; its level may change.

use std::{
    error::Error,
    fmt::{self, Debug},
    io,
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    EnvFilter, Registry,
    field::{RecordFields, VisitOutput},
    fmt::{
        format::{DefaultVisitor, FormatFields, Writer},
        layer,
    },
    layer::SubscriberExt,
    reload,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// What is logged, to be changed.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Sends all events of these levels to standard error. For the start of the process; a second call
/// changes nothing.
pub fn set_up(log: &Log, colour: bool) -> Level {
    let (filter, handle) = reload::Layer::new(filter(log));
    let lines = layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let set = match log.format {
        LogFormat::Human if colour => registry.with(lines.with_ansi(true)).try_init(),
        LogFormat::Human => registry.with(lines.with_ansi(false).fmt_fields(Colourless)).try_init(),
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(true)).try_init()
        }
    };
    // Somebody has set one up already: it stays.
    drop(set);
    Level(handle)
}

impl Level {
    /// These levels from now on.
    pub fn change(&self, log: &Log) {
        // Fails only where the log itself is gone.
        let _ = self.0.reload(filter(log));
    }
}

/// Fields as the library writes them without colour. It asks for each part's style all the same, which for the three of a
/// request's span was a tenth of what an answer from memory took outside the kernel.
struct Colourless;

impl<'writer> FormatFields<'writer> for Colourless {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    /// What is rare, or may quote what others wrote: the library's visitor escapes that.
    fn by_library(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_ok() {
            let mut visitor = DefaultVisitor::new(self.writer.by_ref(), self.is_empty);
            record(&mut visitor);
            self.result = visitor.finish();
            self.is_empty = false;
        }
    }
}

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let name = field.name();
        if name == "message" || name.starts_with("r#") {
            return self.by_library(|visitor| visitor.record_debug(field, value));
        }
        if self.result.is_ok() {
            let before = if self.is_empty { "" } else { " " };
            self.result = write!(self.writer, "{before}{name}={value:?}");
            self.is_empty = false;
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.by_library(|visitor| visitor.record_str(field, value));
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.by_library(|visitor| visitor.record_error(field, value));
    }
}

fn filter(log: &Log) -> EnvFilter {
    // The configuration has been parsed by the same rules.
    without_contents(EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info")))
}

/// The crate that names types logs, at debug, pieces of what it looks into: people's decrypted media.
fn without_contents(filter: EnvFilter) -> EnvFilter {
    match "pure_magic=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek},
        sync::Arc,
    };

    use tracing::{Dispatch, dispatcher, info, info_span, warn};

    use super::*;

    /// What is logged of some of everything: values of each kind, an event without fields, spans within spans, and what
    /// a terminal would act on.
    fn logged(by: impl FnOnce(Arc<File>) -> Dispatch) -> String {
        let mut file = tempfile::tempfile().unwrap();
        dispatcher::with_default(&by(Arc::new(file.try_clone().unwrap())), || {
            let outer = info_span!("request", id = 17_u64, method = %"GET", route = "scan");
            let _in_outer = outer.enter();
            info!("alone");
            let late = info_span!("inner", late = tracing::field::Empty);
            late.record("late", -1_i64);
            let _in_inner = late.enter();
            let (nothing, some) = (None::<&str>, Some("a \"b\" \u{1b}[31m"));
            info!(nothing, some, yes = true, half = 0.5, debug = ?[1, 2], shown = %"a b", "answered");
            warn!("{}", "red \u{1b}[31m\u{7f} and more\n");
            info!(r#type = "x", "");
            info!(message = "text", a = 1);
            let cause = io::Error::other("its \u{1b}[31m cause");
            let failed = crate::media::FetchError::BrokenOff(cause.into());
            info!(error = &failed as &dyn Error, "failed");
        });
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn lines_without_colour_are_those_of_the_library() {
        let lines = |file| layer().with_writer(file).without_time().with_ansi(false);
        let ours = logged(|file| {
            tracing_subscriber::registry().with(lines(file).fmt_fields(Colourless)).into()
        });
        assert_eq!(ours, logged(|file| tracing_subscriber::registry().with(lines(file)).into()));
        assert!(ours.contains("request{id=17 method=GET route=\"scan\"}: "), "{ours}");
        assert!(!ours.contains('\u{1b}'), "{ours}");
    }
}
