//! `[audit]`.

use std::path::PathBuf;

use super::prelude::*;

settings! {
    /// `[audit]`, checked.
    #[derive(Clone, PartialEq, Eq, Debug)]
    pub struct Settings {
        /// Where lines are written; `None` if there is no audit log.
        pub path: Option<AuditDestination> = restart(path()),
        /// Whether each response with a verdict has a line, not only each scanned file.
        pub all_responses: bool = boolean(),
        /// Whether lines have the client's address.
        pub client_address: bool = boolean(),
        /// Whether lines have the user of the access token.
        pub user: UserRecord = choice([
            ("off", UserRecord::Off),
            ("hash", UserRecord::Hash),
            ("full", UserRecord::Full),
        ]),
    }
    check check
}

/// Destination of the lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditDestination {
    /// File to append to; created if missing.
    File(PathBuf),
    /// Standard output; the journal under systemd.
    Stdout,
}

/// How the user of a request is recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserRecord {
    Off,
    /// As a keyed hash.
    Hash,
    /// As the user ID.
    Full,
}

fn check(settings: Settings, section: &mut Section<'_, '_>) -> Settings {
    if settings.path.is_none() {
        section.warn_unused(|_| true, "audit.path is not set");
    }
    settings
}

fn path() -> Key<Option<AuditDestination>> {
    optional(Key::new(
        |value| match value.text() {
            Some("-") => Ok(AuditDestination::Stdout),
            _ => paths::file_to_write(value).map(AuditDestination::File),
        },
        |destination| match destination {
            AuditDestination::File(file) => format::path(file),
            AuditDestination::Stdout => format::quoted("-"),
        },
    ))
}
