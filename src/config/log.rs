//! `[log]`.

use tracing_subscriber::EnvFilter;

use super::{
    reader::Reader,
    settings::{Log, LogFormat},
    types,
    value::{ParseResult, RawValue},
};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn read(reader: &mut Reader<'_>) -> Log {
    let mut log = reader.section("log");
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    Log {
        level: log.read("level", level).unwrap_or_else(|| "info".into()),
        format: log.read("format", types::choice(&formats)).unwrap_or(LogFormat::Human),
    }
}

/// Parses a `tracing_subscriber` filter. A word without `=` or `[` must be a level: `EnvFilter` takes a
/// misspelled level such as `inof` for the name of a module, and would log nothing.
fn level(value: RawValue<'_>) -> ParseResult<String> {
    let is_valid = |directive: &str| {
        let directive = directive.trim();
        directive.contains(['=', '[']) || LEVELS.contains(&directive.to_lowercase().as_str())
    };
    match value.text() {
        Some(text) if text.split(',').all(is_valid) && EnvFilter::try_new(text).is_ok() => {
            Ok(text.into())
        }
        _ => value
            .invalid(format!("one of {}, or a list like \"info,hyper=warn\"", LEVELS.join(", "))),
    }
}
