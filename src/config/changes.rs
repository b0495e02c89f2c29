//! Compares the running configuration with a newly loaded one: which keys differ, which of them a
//! reload applies, and which need a restart. Does not access the file system.

use super::lines::Lines;

/// Keys that can change an engine's verdict, in addition to those of [`Changes::affects_sandbox`] and of the engines'
/// sections.
const VERDICT_KEYS: [&str; 11] = [
    "scan.on_encrypted",
    "scan.on_limit",
    "scan.script_max_size",
    "scan.script_on_oversize",
    "scan.script_on_failure",
    "scan.script_on_not_clean",
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

impl Changes {
    /// Whether the sandbox, or a program that runs in it, changed.
    #[must_use]
    pub fn affects_sandbox(&self) -> bool {
        let programs = [
            "scan.script",
            "scan.removal_command",
            "scan.engines",
            "rules.paths",
            "hashes.block",
            "hashes.allow",
        ];
        self.applied.iter().any(|key| key.starts_with("sandbox.") || programs.contains(&&**key))
    }

    /// Whether the limits of programs, which depend on their number, changed.
    #[must_use]
    pub fn affects_limits(&self) -> bool {
        self.applied.iter().any(|key| key == "scan.max_scripts")
    }

    /// Whether the changes can alter the verdict on a file.
    #[must_use]
    pub fn affects_verdicts(&self) -> bool {
        let sections = ["rules.", "unpack.", "hashes.", "clamd.", "icap."];
        let engine = |key: &str| sections.iter().any(|section| key.starts_with(section));
        let verdict = |key: &String| engine(key) || VERDICT_KEYS.contains(&&**key);
        self.affects_sandbox() || self.applied.iter().any(verdict)
    }
}

/// A comparison in progress, at one section.
#[derive(Default)]
pub(super) struct Comparison {
    section: &'static str,
    pub(super) field: &'static str,
    /// Whether the compared keys are read only at startup.
    is_startup: bool,
    changes: Changes,
}

impl Comparison {
    /// Compares keys of another section.
    pub(super) fn within(&mut self, section: &'static str, compare: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.section, section);
        compare(self);
        self.section = outer;
    }

    /// Compares keys that are read only at startup.
    pub(super) fn at_startup(&mut self, compare: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.is_startup, true);
        compare(self);
        self.is_startup = outer;
    }

    /// Records that the value of the key with the name of the field differs.
    pub(super) fn add_field(&mut self) {
        self.add(self.section, self.field);
    }

    /// Records which keys of a value that consists of several keys differ. If no text differs, the opaque lines do.
    pub(super) fn add_lines(
        &mut self,
        write: impl FnOnce(&mut Lines),
        old: impl FnOnce(&mut Lines),
    ) {
        let (new, old) = (Lines::collect(self.section, write), Lines::collect(self.section, old));
        let mut changed: Vec<_> = new.missing_in(&old).chain(old.missing_in(&new)).collect();
        if changed.is_empty() {
            changed.extend(new.iter().filter(|line| line.is_opaque));
        }
        if changed.is_empty() {
            changed.extend(new.iter());
        }
        for line in changed {
            self.add(line.section, line.key);
        }
    }

    fn add(&mut self, section: &str, key: &str) {
        let Changes { applied, needs_restart } = &mut self.changes;
        let keys = if self.is_startup { needs_restart } else { applied };
        keys.push(format!("{section}.{key}"));
    }

    pub(super) fn finish(self) -> Changes {
        let mut changes = self.changes;
        for keys in [&mut changes.applied, &mut changes.needs_restart] {
            keys.sort_unstable();
            keys.dedup();
        }
        changes
    }
}
