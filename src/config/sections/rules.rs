//! `[rules]`.

use std::{error::Error, path::PathBuf, time::Duration};

use mcs_evaluator::RuleSet;

use super::{
    bounds::{Bounds, FindingPolicy, timeout},
    prelude::*,
};

settings! {
    /// `[rules]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Files and directories with rules.
        pub paths: Vec<PathBuf> = rule_paths(),
        /// Names of rules whose matches are ignored.
        pub ignore: Vec<String> = list(text()),
        /// Names of rules whose matches are recorded, and do not refuse a file.
        pub observe: Vec<String> = list(text()),
        /// The rules loaded from `paths`.
        pub rules: RuleSet = CompiledRules,
        /// Time limit for one file.
        pub timeout: Duration = timeout(),
        /// Size bound, and effect of failures.
        pub bounds: Bounds = group(),
    }
    check check
}

fn check(settings: Settings, section: &mut Section<'_, '_>) -> Settings {
    let names = settings.rules.names();
    for (key, listed) in [("ignore", &settings.ignore), ("observe", &settings.observe)] {
        if let Some(unknown) = listed.iter().find(|name| !names.contains(*name)) {
            let message = format!("found \"{unknown}\", expected names of rules in rules.paths");
            section.conflict(key, message);
        }
    }
    if let Some(both) = settings.observe.iter().find(|name| settings.ignore.contains(name)) {
        let message = format!("found \"{both}\", which rules.ignore lists as well");
        section.conflict("observe", format!("{message}; expected it in one of the lists"));
    }
    settings
}

impl Settings {
    /// Returns whether matches only are observed. Rules that are all ignored find nothing, which is the operator's choice.
    pub(super) fn observes_all(&self) -> bool {
        let is_without_effect =
            |name: &String| self.observe.contains(name) || self.ignore.contains(name);
        self.bounds.on_not_clean == FindingPolicy::Observe
            || (!self.observe.is_empty() && self.rules.names().iter().all(is_without_effect))
    }
}

fn rule_paths() -> Key<Vec<PathBuf>> {
    list(paths::key(paths::path)).filter(|paths| !paths.is_empty(), "at least one")
}

/// The rules in `rules.paths`, which have no key of their own.
struct CompiledRules;

impl Field for CompiledRules {
    type Value = RuleSet;

    fn read(&self, section: &mut Section<'_, '_>, _: &'static str) -> Option<RuleSet> {
        // `rule_paths` has recorded the problems with the paths themselves.
        let paths = rule_paths().parse(section.raw("paths")?).ok()?;
        match RuleSet::load(&paths) {
            Ok(rules) => Some(rules),
            Err(error) => {
                let cause = error.source().map(|source| format!(": {source}"));
                let cause = cause.unwrap_or_default();
                section.conflict("paths", format!("found {error}{cause}, expected YARA rules"));
                None
            }
        }
    }

    fn write(&self, rules: &RuleSet, _: &'static str, lines: &mut Lines) {
        // The content of the files may change while their paths do not.
        lines.add_hidden("paths", format!("{rules:?}"));
    }
}
