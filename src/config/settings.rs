//! The types of the validated configuration.

use std::time::Duration;

use crate::{http, keys, media};

/// The validated configuration. `Display` writes an equivalent TOML file with every key that has a
/// value; secrets are written as `..`.
#[derive(Clone)]
pub struct Config {
    /// `[web]`
    pub web: http::Settings,
    /// `[scan]`
    pub scan: crate::scan::Settings,
    /// `[sandbox]`
    pub sandbox: mcs_sandbox::Policy,
    /// `[download]`
    pub download: media::Settings,
    /// `[result_cache]`
    pub result_cache: crate::scan::cache::Settings,
    /// `[crypto]`
    pub crypto: keys::Settings,
    /// How long a replaced request key still decrypts request bodies.
    pub previous_key_ttl: Duration,
    /// `[log]`
    pub log: Log,
    /// `[operations]`; `None` if disabled.
    pub operations: Option<crate::telemetry::operations::Settings>,
    /// `[audit]`; `None` without `audit.path`.
    pub audit: Option<crate::audit::Settings>,
}

/// `[log]`.
#[derive(Clone, Debug)]
pub struct Log {
    /// A `tracing_subscriber` filter, e.g. `info`.
    pub level: String,
    pub format: LogFormat,
}

/// Format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Human,
    Json,
}
