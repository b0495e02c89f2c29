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
