//! Reasons why the verdict store cannot be used.

use std::{io, path::PathBuf};

use mcs_store::{SharedStoreError, StoreError, StoreServersError};
use tokio::task::JoinError;

use crate::{identity::denied_user, scan::decisions::ListFileError};

/// Reason why the verdict store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreSetupError {
    #[error(transparent)]
    File(#[from] StoreError),
    #[error("store.urls cannot be used")]
    Servers(#[from] StoreServersError),
    #[error(transparent)]
    Shared(#[from] SharedStoreError),
    #[error("{} (store.ca_certificates) cannot be read{}", path.display(), denied_user(source))]
    Certificates { path: PathBuf, source: io::Error },
    #[error("{} ({key}) cannot be read{}", path.display(), denied_user(source))]
    Secret { key: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} (store.secret_path) contains {length} bytes, expected at least 32 random ones, for example from: openssl rand -hex 32",
        path.display()
    )]
    ShortSecret { path: PathBuf, length: usize },
    #[error("the decisions of operators cannot be read")]
    Decisions(#[from] ListFileError),
    #[error("opening the store panicked")]
    Panicked(#[source] JoinError),
}
