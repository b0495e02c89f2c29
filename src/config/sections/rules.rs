//! `[rules]`.

use std::{error::Error, path::PathBuf, time::Duration};

use mcs_evaluator::RuleSet;

use super::{
    bounds::{Bounds, timeout},
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
    if let Some(unknown) = settings.ignore.iter().find(|name| !names.contains(*name)) {
        section.conflict(
            "ignore",
            format!("found \"{unknown}\", expected names of rules in rules.paths"),
        );
    }
    settings
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
