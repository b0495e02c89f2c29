//! Identity of the engines in cache keys.

use super::script_run::ScriptIdentity;

/// Identity of the engines at one point in time, for cache keys.
#[derive(Clone, Copy, Debug)]
pub struct EngineIdentity {
    /// Cached verdicts are valid only for an equal fingerprint.
    pub engines_fingerprint: EngineFingerprint,
    /// Cached "clean" verdicts are valid only for equal versions.
    pub versions: Versions,
    pub(super) script: Option<ScriptIdentity>,
}

impl EngineIdentity {
    /// Returns what changes when the engines may find something else in the same file: their settings, rules, lists, script
    /// and versions. `None` while a version is not known.
    #[must_use]
    pub fn state(&self) -> Option<EngineState> {
        self.versions.are_known().then_some(EngineState {
            engines_fingerprint: self.engines_fingerprint,
            versions: self.versions,
        })
    }
}

/// State of engines whose versions are known, equal in all processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EngineState {
    engines_fingerprint: EngineFingerprint,
    versions: Versions,
}

impl EngineState {
    /// Returns the state in a form for records.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (fingerprint, versions) = bytes.split_at_mut(8);
        fingerprint.copy_from_slice(&self.engines_fingerprint.0.to_le_bytes());
        versions.copy_from_slice(&self.versions.to_bytes());
        bytes
    }

    /// Returns a short hash of the state.
    #[must_use]
    pub fn tag(self) -> [u8; 8] {
        (self.engines_fingerprint.0 ^ self.versions.0.rotate_left(1)).to_le_bytes()
    }

    #[cfg(test)]
    pub(crate) const fn for_test(number: u64) -> Self {
        let engines_fingerprint = EngineFingerprint(number);
        Self { engines_fingerprint, versions: Versions::new(number, true) }
    }
}

#[cfg(test)]
impl EngineIdentity {
    pub(in crate::scan) const fn for_test(
        fingerprint: EngineFingerprint,
        versions: Versions,
    ) -> Self {
        Self { engines_fingerprint: fingerprint, versions, script: None }
    }
}

/// Hash of the engines, their settings and the script's content, equal in all processes, and in all releases with the same fingerprint format. The first 64 bits
/// of a SHA-256 suffice: there are few distinct values, and no attacker can choose them. A longer hash would enlarge every
/// cache entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EngineFingerprint(pub u64);

/// Hash of this program's version and the versions that remote engines reported, like [`EngineFingerprint`]. The highest bit
/// is set if all versions are known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Versions(u64);

impl Versions {
    const KNOWN: u64 = 1 << 63;

    /// Creates versions with this hash.
    #[must_use]
    pub const fn new(hash: u64, are_known: bool) -> Self {
        Self(if are_known { hash | Self::KNOWN } else { hash & !Self::KNOWN })
    }

    /// Returns whether all engines have reported their versions, so that equal values mean equal engines.
    #[must_use]
    pub fn are_known(self) -> bool {
        self.0 & Self::KNOWN != 0
    }

    /// Returns the hash for keys of stored verdicts.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        self.0.to_le_bytes()
    }
}
