//! The log: to standard error, for people or as JSON, a line an event. Set up once.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat};

/// Sends all events of these levels to standard error. For the start of the process; a second call
/// changes nothing.
pub fn set_up(log: &Log) {
    // The configuration has been parsed by the same rules.
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let filter = without_contents(filter);
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let set = match log.format {
        LogFormat::Human => registry.with(lines.with_ansi(io::stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(true)).try_init()
        }
    };
    // Somebody has set one up already: it stays.
    drop(set);
}

/// The crate that names types logs, at debug, pieces of what it looks into: people's decrypted media.
fn without_contents(filter: EnvFilter) -> EnvFilter {
    match "pure_magic=off".parse() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}
