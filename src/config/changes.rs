//! Compares the running configuration with a newly loaded one: which keys differ, which of them a
//! reload applies, and which need a restart. Does not access the file system.

use std::collections::BTreeMap;

use super::settings::Config;
use crate::keys::{self, PickleKey};

type CopyKey = fn(&mut Config, &Config);

/// Keys that only a start reads, each with a function that copies its value from another configuration.
/// The resources that depend on them (listeners, worker tasks, allocated tables, the directory in use)
/// exist for the lifetime of the process.
pub(super) const STARTUP_KEYS: [(&str, CopyKey); 16] = [
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

/// Keys that can change an engine's verdict, in addition to all keys in the engines' sections.
const VERDICT_KEYS: [&str; 11] = [
    "scan.engines",
    "scan.on_encrypted",
    "scan.script",
    "scan.script_max_size",
    "scan.script_on_oversize",
    "scan.script_on_failure",
    "scan.script_args",
    "scan.timeout",
    "scan.failure_exit_codes",
    "scan.canary",
    "download.max_size",
];

/// Paths of the keys that differ between two configurations, sorted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Changes {
    /// Changed keys that the reload applies.
    pub applied: Vec<String>,
    /// Changed keys that keep their running value until the next start.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Returns this configuration with the values of `running` for the keys that only a start reads, and
    /// the keys that changed.
    #[must_use]
    pub fn keep_startup_keys(mut self, running: &Self) -> (Self, Changes) {
        let is_startup_key = |key: &String| STARTUP_KEYS.iter().any(|(name, _)| name == key);
        let (needs_restart, applied) =
            changed_keys(running, &self).into_iter().partition(is_startup_key);
        for (_, copy) in STARTUP_KEYS {
            copy(&mut self, running);
        }
        (self, Changes { applied, needs_restart })
    }
}

impl Changes {
    /// Whether the sandbox, or a program that runs in it, changed.
    #[must_use]
    pub fn affects_sandbox(&self) -> bool {
        let programs = ["scan.script", "scan.removal_command", "scan.engines", "rules.paths"];
        self.applied.iter().any(|key| key.starts_with("sandbox.") || programs.contains(&&**key))
    }

    /// Whether the changes can alter the verdict on a file.
    #[must_use]
    pub fn affects_verdicts(&self) -> bool {
        let sections = ["rules.", "clamd.", "icap."];
        let engine = |key: &str| sections.iter().any(|section| key.starts_with(section));
        let verdict = |key: &String| engine(key) || VERDICT_KEYS.contains(&&**key);
        self.affects_sandbox() || self.applied.iter().any(verdict)
    }
}

/// Compares the displayed keys, and the values that are not displayed.
fn changed_keys(a: &Config, b: &Config) -> Vec<String> {
    let (lines_a, lines_b) = (displayed_keys(a), displayed_keys(b));
    let mut changed: Vec<String> = lines_a
        .keys()
        .chain(lines_b.keys())
        .filter(|key| lines_a.get(*key) != lines_b.get(*key))
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
        // The content of the files.
        ("rules.paths", rules(a) == rules(b)),
    ];
    changed.extend(hidden.into_iter().filter(|(_, same)| !same).map(|(key, _)| key.to_owned()));
    changed.sort_unstable();
    changed.dedup();
    changed
}

fn rules(config: &Config) -> Option<&mcs_evaluator::RuleSet> {
    config.scan.rules().map(|rules| &rules.rules)
}

fn pickle_key(config: &Config) -> Option<&PickleKey> {
    match &config.crypto {
        keys::Settings::Pickle { key, .. } => Some(key),
        keys::Settings::RequestSecret { .. } => None,
    }
}

/// Returns the displayed values by key path.
fn displayed_keys(config: &Config) -> BTreeMap<String, String> {
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
