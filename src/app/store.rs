//! The verdict store.

use std::{
    fs::File,
    io::{self, Read as _},
};

use mcs_store::{FileStore, OpenReport, SetAside, StoreError, StoreSecret, StoreSettings};
use sha2::{Digest as _, Sha256};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::{error, info, warn};

use crate::{
    chain::Chain, config::sections::store::Settings, keys::RequestKey, scan::cache::VerdictRecords,
};

/// Opening of the file in a thread of its own, beside other work of the start.
pub(super) struct StoreOpening(JoinHandle<Result<Option<VerdictRecords>, StoreError>>);

impl StoreOpening {
    pub(super) fn start(settings: Settings, key: &RequestKey) -> Self {
        let secret = key.derive(StoreSecret::derive);
        Self(spawn_blocking(move || open(&settings, secret)))
    }

    /// Waits for the result, as [`open`] returns it.
    pub(super) async fn finish(self) -> Result<Option<VerdictRecords>, StoreError> {
        self.0.await.unwrap_or_else(|panicked| Err(StoreError::Thread(panicked.into())))
    }
}

/// Opens the file, or creates it. The names and seals of its records are derived from the request key. Without space on the
/// disk, and with a state directory that cannot be used, the service starts without a store.
///
/// # Errors
/// If the configured file or its directory cannot be used, for example because other users can write to it, or if another
/// process uses the file.
fn open(settings: &Settings, secret: StoreSecret) -> Result<Option<VerdictRecords>, StoreError> {
    let limits = StoreSettings { max_entries: settings.max_entries, ..StoreSettings::default() };
    let opened = match FileStore::open(&settings.path, secret, limits) {
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
    Ok(Some(VerdictRecords::new(file, settings.not_clean_ttl, program_digest())))
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

fn log(settings: &Settings, report: OpenReport) {
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

/// Returns the SHA-256 of this program, or of its version if the program cannot be read.
fn program_digest() -> [u8; 32] {
    let digest = || -> io::Result<[u8; 32]> {
        let mut file = File::open("/proc/self/exe")?;
        let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(hash.finalize().into()),
                length => hash.update(buffer.get(..length).unwrap_or_default()),
            }
        }
    };
    digest().unwrap_or_else(|error| {
        warn!(%error, "the program cannot be read; stored verdicts are valid for its version");
        Sha256::digest(env!("CARGO_PKG_VERSION")).into()
    })
}

/// Writes what is queued and closes the file.
pub(super) async fn close(records: VerdictRecords) {
    // The file bounds the time itself. A panic was logged.
    let _closed = spawn_blocking(move || records.close()).await;
}
