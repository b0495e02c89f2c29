//! The validated configuration.

use std::{fmt, time::Duration};

use super::{
    changes::{Changes, Comparison},
    key::Key,
    keys::{Field, group, restart, within, write_and_reload},
    lines::Lines,
    sections::{
        admin, audit, crypto, download, incident, log::Log, notify, operations, quarantine,
        result_cache, scan, store, web,
    },
    types::{MAX_DURATION, duration},
};

/// The validated configuration. `Display` writes an equivalent TOML file with every key that has a
/// value; secrets are written as `..`.
#[derive(Clone)]
pub struct Config {
    /// `[web]`
    pub web: web::Settings,
    /// `[scan]`
    pub scan: scan::Settings,
    /// `[sandbox]`
    pub sandbox: mcs_sandbox::Policy,
    /// `[download]`
    pub download: download::Settings,
    /// `[result_cache]`
    pub result_cache: result_cache::Settings,
    /// `[store]`; `None` if nothing is stored.
    pub store: Option<store::Settings>,
    /// `[incident]`
    pub incident: incident::Settings,
    /// `[quarantine]`; `None` if nothing is quarantined.
    pub quarantine: Option<quarantine::Settings>,
    /// `[[notify]]`
    pub notify: notify::Settings,
    /// `[crypto]`
    pub crypto: crypto::Settings,
    /// How long a replaced request key still decrypts request bodies.
    pub previous_key_ttl: Duration,
    /// `[log]`
    pub log: Log,
    /// `[operations]`; `None` if disabled.
    pub operations: Option<operations::Settings>,
    /// `[admin]`; `None` if disabled.
    pub admin: Option<admin::Settings>,
    /// `[audit]`
    pub audit: audit::Settings,
}

impl Config {
    write_and_reload! {
        web = within("web", group()),
        scan = within("scan", group()),
        sandbox = within("sandbox", group()),
        download = within("download", group()),
        result_cache = within("result_cache", group()),
        store = store_section(),
        incident = incident_section(),
        quarantine = quarantine_section(),
        notify = notify_section(),
        crypto = within("crypto", group()),
        previous_key_ttl = within("crypto", previous_key_ttl()),
        log = within("log", group()),
        operations = operations_section(),
        admin = admin_section(),
        audit = within("audit", group()),
    }

    /// Returns whether incidents are created.
    #[must_use]
    pub fn has_incidents(&self) -> bool {
        self.quarantine.is_some() || !self.notify.targets.is_empty()
    }

    /// Returns this configuration with the values of `running` for the keys that are read only at startup, and the keys
    /// that changed.
    #[must_use]
    pub fn keep_startup_keys(mut self, running: &Self) -> (Self, Changes) {
        let mut comparison = Comparison::default();
        self.reload(running, &mut comparison);
        (self, comparison.finish())
    }
}

pub(super) fn previous_key_ttl() -> Key<Duration> {
    duration(Duration::ZERO..=MAX_DURATION)
}

pub(super) fn store_section() -> impl Field<Value = Option<store::Settings>> {
    restart(within("store", group()))
}

pub(super) fn incident_section() -> impl Field<Value = incident::Settings> {
    restart(within("incident", group()))
}

pub(super) fn quarantine_section() -> impl Field<Value = Option<quarantine::Settings>> {
    restart(within("quarantine", group()))
}

pub(super) fn notify_section() -> impl Field<Value = notify::Settings> {
    restart(within("notify", group()))
}

pub(super) fn operations_section() -> impl Field<Value = Option<operations::Settings>> {
    restart(within("operations", group()))
}

pub(super) fn admin_section() -> impl Field<Value = Option<admin::Settings>> {
    restart(within("admin", group()))
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Lines::collect("", |lines| self.write(lines)).fmt(f)
    }
}

/// Like `Display`; a derived implementation would print secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
