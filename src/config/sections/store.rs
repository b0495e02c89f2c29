//! `[store]`.

use std::{path::PathBuf, time::Duration};

use super::{prelude::*, shared_store::SharedStoreSettings};

/// Name of the file in the directory that the service manager passed.
const FILE_NAME: &str = "store.db";

/// Extension, or name, of the file of decisions.
const DECISIONS: &str = "decisions";

/// `[store]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where verdicts are stored.
    pub place: StorePlace,
    /// How long infected contents are stored.
    pub not_clean_ttl: Duration,
    /// File with the secret that protects the records. `None`: the request key protects them.
    pub secret_path: Option<PathBuf>,
    /// File of the decisions of operators: beside the file of verdicts, or in the state directory.
    pub decisions_path: Option<PathBuf>,
}

/// Where verdicts are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StorePlace {
    /// In a file.
    File(FileStoreSettings),
    /// In Valkey or Redis, which replicas share.
    Shared(SharedStoreSettings),
}

/// Settings of a store in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileStoreSettings {
    /// The file; created if missing.
    pub path: PathBuf,
    /// Maximum number of records.
    pub max_entries: u64,
    /// Whether the operator has asked for the file. Otherwise it is used if the state directory can be used.
    pub is_required: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StoreKind {
    /// A file, if there is a place for it.
    Auto,
    File,
    Shared,
    None,
}

impl Settings {
    /// Returns the file of verdicts, if they are stored in one.
    #[must_use]
    pub fn file(&self) -> Option<&FileStoreSettings> {
        match &self.place {
            StorePlace::File(file) => Some(file),
            StorePlace::Shared(_) => None,
        }
    }

    /// Returns the files with secrets.
    pub fn secret_files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let secret = self.secret_path.as_ref().map(|path| ("secret_path", path));
        let password = self.password_path().map(|path| ("password_path", path));
        password.into_iter().chain(secret)
    }

    /// Returns the file with the password of a shared store.
    #[must_use]
    pub fn password_path(&self) -> Option<&PathBuf> {
        match &self.place {
            StorePlace::File(_) => None,
            StorePlace::Shared(shared) => shared.password_path.as_ref(),
        }
    }
}

/// `None` if nothing is stored.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        let kind = kind().read(section, "kind");
        let path = path().read(section, "path");
        let max_entries = max_entries().read(section, "max_entries");
        let not_clean_ttl = not_clean_ttl().read(section, "not_clean_ttl");
        let secret_path = secret_path().read(section, "secret_path");
        let shared = SharedStoreSettings::read(section);
        let (kind, path) = (kind?, path?);
        if kind != StoreKind::Shared && section.has("urls") {
            section.conflict("urls", "found without kind = \"shared\", expected both or neither");
        }
        let place = match kind {
            StoreKind::None => return Some(None),
            StoreKind::Shared => {
                let shared = shared?;
                if shared.urls.is_empty() {
                    section.missing("urls", "the addresses of the servers");
                    return None;
                }
                StorePlace::Shared(shared)
            }
            StoreKind::Auto | StoreKind::File => {
                let is_required = kind == StoreKind::File || path.is_some();
                let path = path.or_else(|| Some(section.state_directory()?.join(FILE_NAME)));
                if path.is_none() && kind == StoreKind::File {
                    let expected =
                        "the path of a file, or a state directory of the service manager";
                    section.missing("path", expected);
                    return None;
                }
                let Some(path) = path else { return Some(None) };
                StorePlace::File(FileStoreSettings { path, max_entries: max_entries?, is_required })
            }
        };
        let decisions_path = match &place {
            StorePlace::File(file) => Some(file.path.with_added_extension(DECISIONS)),
            StorePlace::Shared(_) => {
                section.state_directory().map(|directory| directory.join(DECISIONS))
            }
        };
        let (not_clean_ttl, secret_path) = (not_clean_ttl?, secret_path?);
        Some(Some(Settings { place, not_clean_ttl, secret_path, decisions_path }))
    }

    fn write(&self, lines: &mut Lines) {
        let chosen = match self.as_ref().map(|settings| &settings.place) {
            Some(StorePlace::File(_)) => StoreKind::File,
            Some(StorePlace::Shared(_)) => StoreKind::Shared,
            None => StoreKind::None,
        };
        kind().write(&chosen, "kind", lines);
        let Some(settings) = self else { return };
        match &settings.place {
            StorePlace::File(file) => {
                path().write(&Some(file.path.clone()), "path", lines);
                max_entries().write(&file.max_entries, "max_entries", lines);
            }
            StorePlace::Shared(shared) => shared.write(lines),
        }
        not_clean_ttl().write(&settings.not_clean_ttl, "not_clean_ttl", lines);
        secret_path().write(&settings.secret_path, "secret_path", lines);
    }
}

fn kind() -> Key<StoreKind> {
    choice([
        ("auto", StoreKind::Auto),
        ("file", StoreKind::File),
        ("shared", StoreKind::Shared),
        ("none", StoreKind::None),
    ])
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

fn secret_path() -> Key<Option<PathBuf>> {
    optional(paths::key(paths::path))
}
