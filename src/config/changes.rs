//! From the configuration in force to one that was read later: which keys differ, which of these a
//! running service takes over, and which wait for the next start. Knows no file.

use std::collections::BTreeMap;

use super::Config;
use crate::keys::{self, PickleKey};

type Keep = fn(&mut Config, &Config);

/// Keys that are read at the start alone, and how one configuration takes them from another. What hangs
/// on them (a listener, worker tasks, allocated tables, a directory in use) stays for as long as the
/// process.
pub(super) const AT_START: [(&str, Keep); 16] = [
    ("web.host", listen),
    ("web.port", listen),
    ("web.socket", listen),
    ("web.max_connections", |to, from| to.web.max_connections = from.web.max_connections),
    ("scan.workers", |to, from| to.scan.workers = from.scan.workers),
    ("scan.queue_capacity", |to, from| to.scan.queue_capacity = from.scan.queue_capacity),
    ("scan.temp_directory", |to, from| {
        to.scan.temp_directory.clone_from(&from.scan.temp_directory);
    }),
    ("result_cache.max_size", |to, from| to.result_cache.max_size = from.result_cache.max_size),
    ("result_cache.max_file_size", |to, from| {
        to.result_cache.max_file_size = from.result_cache.max_file_size;
    }),
    ("result_cache.max_total_size", |to, from| {
        to.result_cache.max_total_size = from.result_cache.max_total_size;
    }),
    ("log.format", |to, from| to.log.format = from.log.format),
    ("operations.enabled", operations),
    ("operations.host", operations),
    ("operations.port", operations),
    ("operations.socket", operations),
    ("audit.path", |to, from| to.audit.clone_from(&from.audit)),
];

fn operations(to: &mut Config, from: &Config) {
    to.operations.clone_from(&from.operations);
}

fn listen(to: &mut Config, from: &Config) {
    to.web.listen = from.web.listen.clone();
}

/// Keys by which an engine's word may become another one, beside all of the engines' own sections.
const OF_THE_JUDGE: [&str; 11] = [
    "scan.engines",
    "scan.on_encrypted",
    "scan.script",
    "scan.script_max_size",
    "scan.script_larger",
    "scan.script_on_failure",
    "scan.script_args",
    "scan.timeout",
    "scan.failure_exit_codes",
    "scan.canary",
    "download.max_size",
];

/// What differs between two configurations, by the keys' paths, in order.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Taken over.
    pub taken: Vec<String>,
    /// Left as they are until the next start.
    pub at_start: Vec<String>,
}

impl Config {
    /// What a service that runs by `running` makes of this configuration: with the keys that are read at
    /// the start alone as they are there.
    #[must_use]
    pub fn taken_over(mut self, running: &Self) -> (Self, Changes) {
        let is_at_start = |key: &String| AT_START.iter().any(|(name, _)| name == key);
        let (at_start, taken) = changed(running, &self).into_iter().partition(is_at_start);
        for (_, keep) in AT_START {
            keep(&mut self, running);
        }
        (self, Changes { taken, at_start })
    }
}

impl Changes {
    /// Whether scripts run under something else than before, themselves included.
    #[must_use]
    pub fn sandbox(&self) -> bool {
        let programs = ["scan.script", "scan.removal_command", "scan.engines", "rules.paths"];
        self.taken.iter().any(|key| key.starts_with("sandbox.") || programs.contains(&&**key))
    }

    /// Whether another word on the same file may come of it.
    #[must_use]
    pub fn judge(&self) -> bool {
        let sections = ["rules.", "clamd.", "icap."];
        let engine = |key: &str| sections.iter().any(|section| key.starts_with(section));
        let judge = |key: &String| engine(key) || OF_THE_JUDGE.contains(&&**key);
        self.sandbox() || self.taken.iter().any(judge)
    }
}

/// As they are shown, and for what is not shown, as they are.
fn changed(a: &Config, b: &Config) -> Vec<String> {
    let (shown, other) = (lines(a), lines(b));
    let mut changed: Vec<String> = shown
        .keys()
        .chain(other.keys())
        .filter(|key| shown.get(*key) != other.get(*key))
        .cloned()
        .collect();
    let hidden = [
        ("sandbox.environment", a.sandbox.environment == b.sandbox.environment),
        (
            "download.additional_headers",
            a.download.additional_headers == b.download.additional_headers,
        ),
        ("download.proxy", a.download.proxy == b.download.proxy),
        ("crypto.pickle_key", pickle_key(a) == pickle_key(b)),
        // What lies in the files.
        ("rules.paths", rules(a) == rules(b)),
    ];
    changed.extend(hidden.into_iter().filter(|(_, same)| !same).map(|(key, _)| key.to_owned()));
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn rules(config: &Config) -> Option<&mcs_rules::RuleSet> {
    config.scan.rules().map(|rules| &rules.rules)
}

fn pickle_key(config: &Config) -> Option<&PickleKey> {
    match &config.crypto {
        keys::Settings::Pickle { key, .. } => Some(key),
        keys::Settings::RequestSecret { .. } => None,
    }
}

/// What is shown of a configuration, by the keys' paths.
fn lines(config: &Config) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    let mut section = String::new();
    for line in config.to_string().lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once(" = ") {
            lines.insert(format!("{section}.{key}"), value.to_owned());
        }
    }
    lines
}
