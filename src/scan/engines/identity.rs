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

/// Hash of the engines, their settings and the script's content, equal in all processes and releases. The first 64 bits
/// of a SHA-256 suffice: there are few distinct values, and no attacker can choose them. A longer hash would enlarge every
/// cache entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EngineFingerprint(pub u64);

/// Hash of the versions that remote engines reported, like [`EngineFingerprint`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Versions(pub u64);
