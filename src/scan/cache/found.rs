//! What was found in the store.

use std::time::Duration;

use mcs_store::VersionTag;

use crate::scan::{
    cached_media::CachedMedia,
    engines::{FileOutcome, Versions},
};

/// A valid stored outcome.
pub(super) struct FoundOutcome {
    pub(super) outcome: FileOutcome,
    pub(super) age: Duration,
    /// The present versions, if the engines of the scan had them.
    pub(super) versions: Option<Versions>,
    /// The program and the engines of the scan.
    pub(super) scanned_by: Option<VersionTag>,
    /// Whether the outcome is stored as an infection, which is valid for all versions.
    pub(super) is_infection: bool,
    /// Whether a former secret protects the record.
    pub(super) is_former: bool,
}

/// A stored media entry.
pub(super) struct FoundMedia {
    pub(super) media: CachedMedia,
    pub(super) age: Duration,
    /// The stored form, if a former secret protects it.
    pub(super) former: Option<Vec<u8>>,
}
