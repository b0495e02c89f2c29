//! Compares the running configuration with a newly loaded one: which keys differ, which of them a
//! reload applies, and which need a restart. Does not access the file system.

use std::{collections::BTreeMap, fmt};

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
const VERDICT_KEYS: [&str; 12] = [
    "scan.engines",
    "scan.on_encrypted",
    "scan.on_limit",
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
    /// Whether the sandbox, or a program that runs in it, changed. A change that no key explains may affect both.
    #[must_use]
    pub fn affects_sandbox(&self) -> bool {
        let programs = ["scan.script", "scan.removal_command", "scan.engines", "rules.paths"];
        let is_sandbox = |key: &str| key.starts_with("sandbox.") || !key.contains('.');
        self.applied.iter().any(|key| is_sandbox(key) || programs.contains(&&**key))
    }

    /// Whether the limits of programs, which depend on their number, changed.
    #[must_use]
    pub fn affects_limits(&self) -> bool {
        self.applied.iter().any(|key| key == "scan.max_scripts")
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
    changed.extend(unexplained_changes(&compare(a, b), &changed));
    changed.sort_unstable();
    changed.dedup();
    changed
}

/// Settings of one or more sections of the file: the prefixes of their keys, and whether all values are equal.
pub(super) type ComparedSettings = (&'static [&'static str], bool);

/// Compares all settings, independent of `Display`: a key that `Display` lacks makes a difference here.
pub(super) fn compare(a: &Config, b: &Config) -> [ComparedSettings; 9] {
    fn text(settings: &impl fmt::Debug) -> String {
        format!("{settings:?}")
    }
    // Without `..`, so that a new section cannot be forgotten.
    let Config {
        web,
        scan,
        sandbox,
        download,
        result_cache,
        crypto,
        previous_key_ttl,
        log,
        operations,
        audit,
    } = a;
    let is_same_key = text(crypto) == text(&b.crypto) && *previous_key_ttl == b.previous_key_ttl;
    [
        (&["web.", "download.trusted_proxies"], text(web) == text(&b.web)),
        (&["scan.", "rules.", "clamd.", "icap."], text(scan) == text(&b.scan)),
        (&["sandbox."], text(sandbox) == text(&b.sandbox)),
        (&["download."], *download == b.download),
        (&["result_cache."], text(result_cache) == text(&b.result_cache)),
        (&["crypto."], is_same_key),
        (&["log."], text(log) == text(&b.log)),
        (&["operations."], *operations == b.operations),
        (&["audit."], *audit == b.audit),
    ]
}

/// Returns the sections whose values differ although none of their keys is in `changed`: `Display` lacks a key. Such a
/// change must not count as none.
fn unexplained_changes(compared: &[ComparedSettings], changed: &[String]) -> Vec<String> {
    let is_explained = |prefixes: &[&str]| {
        changed.iter().any(|key| prefixes.iter().any(|prefix| key.starts_with(prefix)))
    };
    let unexplained = compared.iter().filter(|(prefixes, same)| !same && !is_explained(prefixes));
    unexplained
        .filter_map(|(prefixes, _)| prefixes.first())
        .map(|prefix| prefix.trim_end_matches('.').to_owned())
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_of_a_key_that_is_not_displayed_counts_as_a_change_of_its_section() {
        let compared: [ComparedSettings; 2] = [(&["scan.", "rules."], false), (&["log."], true)];
        assert_eq!(unexplained_changes(&compared, &[]), ["scan"]);
        assert_eq!(unexplained_changes(&compared, &["log.level".to_owned()]), ["scan"]);
        assert!(unexplained_changes(&compared, &["rules.paths".to_owned()]).is_empty());
        let applied = unexplained_changes(&compared, &[]);
        let changes = Changes { applied, needs_restart: Vec::new() };
        assert!(changes.affects_sandbox() && changes.affects_verdicts());
    }
}
