//! `[log]`.

use tracing_subscriber::EnvFilter;

use super::{
    Log, LogFormat, kinds,
    reader::{Parsed, Reader, Value},
};

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub(super) fn read(reader: &mut Reader<'_>) -> Log {
    let mut log = reader.section("log");
    let formats = [("human", LogFormat::Human), ("json", LogFormat::Json)];
    Log {
        level: log.read("level", level).unwrap_or_else(|| "info".into()),
        format: log.read("format", kinds::choice(&formats)).unwrap_or(LogFormat::Human),
    }
}

/// A filter of tracing-subscriber. It reads a lone `inof` as the name of a module, and would then
/// print nothing: a lone word has to be a level.
fn level(value: Value<'_>) -> Parsed<String> {
    let is_sound = |directive: &str| {
        let directive = directive.trim();
        directive.contains(['=', '[']) || LEVELS.contains(&directive.to_lowercase().as_str())
    };
    match value.text() {
        Some(text) if text.split(',').all(is_sound) && EnvFilter::try_new(text).is_ok() => {
            Ok(text.into())
        }
        _ => {
            value.wrong(format!("one of {}, or a list like \"info,hyper=warn\"", LEVELS.join(", ")))
        }
    }
}
