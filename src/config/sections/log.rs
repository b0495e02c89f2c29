//! `[log]`.

use tracing_subscriber::EnvFilter;

use super::prelude::*;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

settings! {
    /// `[log]`.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Log {
        /// A `tracing_subscriber` filter, e.g. `info`.
        pub level: String = level(),
        /// Format of log lines.
        pub format: LogFormat =
            restart(choice([("human", LogFormat::Human), ("json", LogFormat::Json)])),
    }
}

/// Format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Human,
    Json,
}

/// A `tracing_subscriber` filter. A word without `=` or `[` must be a level: `EnvFilter` takes a misspelled level such as
/// `inof` for the name of a module, and would log nothing.
fn level() -> Key<String> {
    let is_valid = |directive: &str| {
        let directive = directive.trim();
        directive.contains(['=', '[']) || LEVELS.contains(&directive.to_lowercase().as_str())
    };
    Key::new(
        move |value| match value.text() {
            Some(text) if text.split(',').all(is_valid) && EnvFilter::try_new(text).is_ok() => {
                Ok(text.into())
            }
            _ => value.invalid(format!(
                "one of {}, or a list like \"info,hyper=warn\"",
                LEVELS.join(", ")
            )),
        },
        |level: &String| format::quoted(level),
    )
}
