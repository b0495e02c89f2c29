//! The file with verdicts.

use std::sync::Arc;

use mcs_store::{FileStore, OpenReport, SetAside, StoreError, StoreSecret, StoreSettings};
use tokio::task::spawn_blocking;
use tracing::{error, info, warn};

use crate::{
    chain::Chain, config::sections::store::Settings, keys::RequestKey, scan::cache::VerdictRecords,
};

/// An open file, and the verdicts in it.
pub(super) struct OpenStore {
    pub(super) records: VerdictRecords,
    file: Arc<FileStore>,
}

/// Opens the file, or creates it. The names and seals of its records follow from the request key. Without space on the
/// disk, the service starts without a store.
///
/// # Errors
/// If the place is unsafe, or another process uses the file.
pub(super) fn open(settings: &Settings, key: &RequestKey) -> Result<Option<OpenStore>, StoreError> {
    let secret = key.derive(StoreSecret::derive);
    let limits = StoreSettings { max_entries: settings.max_entries, ..StoreSettings::default() };
    let (file, report) = match FileStore::open(&settings.path, secret, limits) {
        Ok(opened) => opened,
        Err(error @ StoreError::Database { .. }) => {
            error!(error = %Chain(&error), "verdicts are not stored until the next start");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let path = settings.path.display();
    let OpenReport { is_new, set_aside, was_left_open } = report;
    if let Some(set_aside) = set_aside {
        let SetAside { path: renamed, cause } = set_aside;
        let renamed = renamed.display();
        warn!(%path, %cause, %renamed, "the store cannot be used and was replaced by an empty one");
    } else if is_new {
        info!(%path, "created the store of verdicts");
    } else if was_left_open {
        info!(%path, "the store was not closed; it is checked in the background");
    }
    let file = Arc::new(file);
    let records = VerdictRecords::new(Arc::clone(&file), settings.not_clean_ttl);
    Ok(Some(OpenStore { records, file }))
}

impl OpenStore {
    /// Writes what is queued and closes the file.
    pub(super) async fn close(self) {
        // The file bounds the time itself. A panic was logged.
        let _closed = spawn_blocking(move || self.file.close()).await;
    }
}
