//! `[hashes]`.

use std::{error::Error, path::PathBuf};

use mcs_evaluator::{HashListSet, ListSummary};

use super::{
    bounds::{Bounds, FindingPolicy, OversizePolicy, SkipPolicy, finding_policy},
    prelude::*,
};

/// The engine examines files of any size, and must not fail.
const REFUSING: Bounds = Bounds {
    max_size: None,
    on_oversize: OversizePolicy::Fail,
    on_failure: SkipPolicy::Fail,
    on_not_clean: FindingPolicy::Refuse,
};

const OBSERVING: Bounds = Bounds { on_not_clean: FindingPolicy::Observe, ..REFUSING };

settings! {
    /// `[hashes]`, validated.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Files with hashes that are blocked.
        pub block: Vec<PathBuf> = list_paths(),
        /// Files with hashes that are allowed.
        pub allow: Vec<PathBuf> = list_paths(),
        /// Effect of a blocked hash.
        pub on_not_clean: FindingPolicy = finding_policy(),
        /// The lists loaded from these files.
        pub lists: LoadedLists = ReadLists,
    }
}

impl Settings {
    /// Returns whether there is no list.
    pub(super) fn is_empty(&self) -> bool {
        self.block.is_empty() && self.allow.is_empty()
    }

    /// Returns the bounds, which have no keys except `on_not_clean`.
    pub(super) fn bounds(&self) -> &'static Bounds {
        match self.on_not_clean {
            FindingPolicy::Refuse => &REFUSING,
            FindingPolicy::Observe => &OBSERVING,
        }
    }
}

/// The hashes in the files of `[hashes]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LoadedLists {
    /// The hashes.
    pub set: HashListSet,
    /// What is used of each file.
    pub summaries: Vec<ListSummary>,
}

fn list_paths() -> Key<Vec<PathBuf>> {
    list(paths::key(paths::path))
}

/// The lists in `hashes.block` and `hashes.allow`, which have no key of their own.
struct ReadLists;

impl Field for ReadLists {
    type Value = LoadedLists;

    fn read(&self, section: &mut Section<'_, '_>, _: &'static str) -> Option<LoadedLists> {
        // `list_paths` has recorded the problems with the paths themselves.
        let block = list_paths().parse(section.raw("block")?).ok()?;
        let allow = list_paths().parse(section.raw("allow")?).ok()?;
        match HashListSet::load(&block, &allow) {
            Ok((set, summaries)) => {
                for summary in summaries.iter().filter(|summary| summary.used < summary.total) {
                    section.warn(Warning::UnusedHashes(summary.clone()));
                }
                Some(LoadedLists { set, summaries })
            }
            Err(error) => {
                let is_allowed = error.path().is_some_and(|path| allow.iter().any(|p| p == path));
                let key = if is_allowed { "allow" } else { "block" };
                let cause = error.source().map(|source| format!(": {source}"));
                let cause = cause.unwrap_or_default();
                section.conflict(key, format!("found {error}{cause}, expected lists of hashes"));
                None
            }
        }
    }

    fn write(&self, lists: &LoadedLists, _: &'static str, lines: &mut Lines) {
        // The content of the files may change while their paths do not.
        lines.add_hidden("block", format!("{:?}", lists.set));
    }
}
