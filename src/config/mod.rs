//! (being written) The configuration: as written -> checked, in final types. Nothing downstream
//! checks again.

use crate::{http, keys, media, scan};

/// All that the service is told, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[web]`
    pub web: http::Settings,
    /// `[scan]`
    pub scan: scan::Settings,
    /// `[sandbox]`
    pub sandbox: mcs_sandbox::Policy,
    /// `[download]`
    pub download: media::Settings,
    /// `[result_cache]`
    pub result_cache: scan::cache::Settings,
    /// `[crypto]`
    pub crypto: keys::Settings,
    /// `[log]`
    pub log: Log,
}

/// `[log]`, checked.
#[derive(Clone, Debug)]
pub struct Log {
    /// A `tracing_subscriber` filter, e.g. `info`.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogFormat {
    Human,
    Json,
}
