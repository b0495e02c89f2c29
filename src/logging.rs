//! The log: to standard error, for people or as JSON, a line an event. Set up once; its level may change.

use std::io;

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat};

/// What is logged, to be changed.
#[derive(Clone, Debug)]
pub struct Level(reload::Handle<EnvFilter, Registry>);

/// Sends all events of these levels to standard error. For the start of the process; a second call
/// changes nothing.
pub fn set_up(log: &Log, colour: bool) -> Level {
    let (filter, handle) = reload::Layer::new(filter(log));
    let lines = fmt::layer().with_writer(io::stderr).with_target(false);
    let registry = tracing_subscriber::registry().with(filter);
    let set = match log.format {
        LogFormat::Human => registry.with(lines.with_ansi(colour)).try_init(),
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
