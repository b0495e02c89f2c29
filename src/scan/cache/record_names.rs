//! Keys of records, whose names depend on the secret of the store.

use mcs_store::{RecordKey, RecordKind, StoreSecret, VersionTag};
use sha2::{Digest as _, Sha256};

use super::{
    keys::{ContentKey, MediaKey},
    record_store::OutcomeKeys,
};
use crate::{media::MediaId, scan::engines::Versions};

/// Names of records under one secret.
pub(super) struct RecordNames {
    pub(super) secret: StoreSecret,
    /// Digest of the program.
    pub(super) program: [u8; 32],
}

impl RecordNames {
    /// Returns the key of a media entry.
    pub(super) fn media(&self, key: &MediaKey) -> RecordKey {
        let name = self.secret.name(RecordKind::Media, &[key.digest()]);
        RecordKey { kind: RecordKind::Media, name, version: Some(self.tag(&[])) }
    }

    /// Returns the key of all references to the media entries of a URI.
    pub(super) fn references(&self, mxc: &MediaId) -> RecordKey {
        let kind = RecordKind::Reference;
        let name = self.secret.name(kind, &[mxc.to_string().as_bytes()]);
        RecordKey { kind, name, version: None }
    }

    /// Returns the keys of the records about a content, for engines of these versions.
    pub(super) fn outcome(&self, key: &ContentKey, versions: Versions) -> OutcomeKeys {
        let engines = key.engines_fingerprint.0.to_le_bytes();
        let parts: [&[u8]; 2] = [&key.content, &engines];
        let name = self.secret.name(RecordKind::NotClean, &parts);
        let with_version = |kind, version| RecordKey { kind, name, version };
        let version = Some(self.tag(&versions.to_bytes()));
        OutcomeKeys {
            infected: with_version(RecordKind::NotClean, None),
            finished: with_version(RecordKind::Finished, version),
            forgotten: with_version(RecordKind::Forgotten, None),
        }
    }

    /// Returns the tag of records that depend on the program and on these versions.
    pub(super) fn tag(&self, versions: &[u8]) -> VersionTag {
        let digest: [u8; 32] =
            Sha256::new().chain_update(self.program).chain_update(versions).finalize().into();
        digest.first_chunk().copied().unwrap_or_default()
    }
}
