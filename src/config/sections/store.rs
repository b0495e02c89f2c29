//! `[store]`.

use std::{path::PathBuf, time::Duration};

use super::prelude::*;

/// Name of the file in the directory that the service manager passed.
const FILE_NAME: &str = "store.db";

/// `[store]`, checked: a file with verdicts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// The file; created if missing.
    pub path: PathBuf,
    /// Maximum number of records.
    pub max_entries: u64,
    /// How long infected contents are stored.
    pub not_clean_ttl: Duration,
    /// Whether the operator has asked for the file. Otherwise it is used if the state directory can be used.
    pub is_required: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StoreKind {
    /// A file, if there is a place for it.
    Auto,
    File,
    None,
}

/// `None` if nothing is stored.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let kind = kind().read(section, "kind");
        let path = path().read(section, "path");
        let max_entries = max_entries().read(section, "max_entries");
        let not_clean_ttl = not_clean_ttl().read(section, "not_clean_ttl");
        let (kind, path) = (kind?, path?);
        let is_required = kind == StoreKind::File || path.is_some();
        let in_state_directory = || Some(section.state_directory()?.join(FILE_NAME));
        let path = match kind {
            StoreKind::None => return Some(None),
            StoreKind::Auto | StoreKind::File => path.or_else(in_state_directory),
        };
        if path.is_none() && kind == StoreKind::File {
            section
                .missing("path", "the path of a file, or a state directory of the service manager");
            return None;
        }
        let (max_entries, not_clean_ttl) = (max_entries?, not_clean_ttl?);
        Some(path.map(|path| Settings { path, max_entries, not_clean_ttl, is_required }))
    }

    fn write(&self, lines: &mut Lines) {
        let chosen = if self.is_some() { StoreKind::File } else { StoreKind::None };
        kind().write(&chosen, "kind", lines);
        if let Some(settings) = self {
            path().write(&Some(settings.path.clone()), "path", lines);
            max_entries().write(&settings.max_entries, "max_entries", lines);
            not_clean_ttl().write(&settings.not_clean_ttl, "not_clean_ttl", lines);
        }
    }
}

fn kind() -> Key<StoreKind> {
    choice([("auto", StoreKind::Auto), ("file", StoreKind::File), ("none", StoreKind::None)])
}

fn path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::file_to_write))
}

fn max_entries() -> Key<u64> {
    integer(1000..=100_000_000)
}

fn not_clean_ttl() -> Key<Duration> {
    duration(SECOND..=MAX_DURATION)
}
