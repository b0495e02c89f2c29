//! Opens a store in a file.

use std::io;

use mcs_store::{FileStore, OpenReport, SecretRing, SetAside, StoreError, StoreSettings};
use tracing::{error, info, warn};

use crate::{chain::Chain, config::sections::store::FileStoreSettings};

/// Opens the file, or creates it. Returns `None` without space on the disk, and with a state directory that cannot be
/// used.
pub(super) fn open(
    settings: &FileStoreSettings,
    secrets: SecretRing,
) -> Result<Option<FileStore>, StoreError> {
    let limits = StoreSettings { max_entries: settings.max_entries, ..StoreSettings::default() };
    let opened = match FileStore::open(&settings.path, secrets, limits) {
        Err(error) if is_outage(&error) => {
            error!(error = %Chain(&error), "the verdict store cannot be opened, running without it until the next start");
            return Ok(None);
        }
        Err(error) if !settings.is_required && !matches!(error, StoreError::Locked { .. }) => {
            warn!(error = %Chain(&error), "the state directory cannot be used, running without a verdict store");
            return Ok(None);
        }
        opened => opened,
    };
    let (file, report) = opened?;
    log(settings, report);
    Ok(Some(file))
}

/// Returns whether the disk is the reason, rather than the configuration.
fn is_outage(error: &StoreError) -> bool {
    match error {
        StoreError::Database { .. } => true,
        StoreError::File { source, .. } => {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        _ => false,
    }
}

fn log(settings: &FileStoreSettings, report: OpenReport) {
    let path = settings.path.display();
    let OpenReport { is_new, set_aside, was_left_open } = report;
    if let Some(SetAside { path: renamed, cause }) = set_aside {
        let renamed = renamed.display();
        warn!(%path, %cause, %renamed, "the store cannot be used and was replaced by an empty one");
    } else if is_new {
        info!(%path, "created the store of verdicts");
    } else if was_left_open {
        info!(%path, "the store was not closed; it is checked in the background");
    }
}
