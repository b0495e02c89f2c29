//! A run of the script, and the script's identity: which script ran.

use std::time::Duration;

use mcs_sandbox::FileState;

/// Digest of everything that the script's verdicts depend on: path, arguments and content of the script, the meaning of
/// exit codes, and the sandbox. A cached verdict is valid only for an equal fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ScriptFingerprint(pub(super) [u8; 32]);

impl ScriptFingerprint {
    pub(super) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A script's fingerprint, and the state of the file that it was computed from.
#[derive(Clone, Copy, Debug)]
pub struct ScriptIdentity {
    /// Identifies the script in cache keys.
    pub fingerprint: ScriptFingerprint,
    pub(super) file_state: FileState,
}

/// One run of the script.
#[derive(Clone, Copy, Debug)]
pub struct ScriptRun {
    /// Duration of the run; `None` if the script did not run.
    pub duration: Option<Duration>,
    /// State of the script's file. After a completed run: `None` if the states before and after the run differ, because
    /// either version may have run. After a run that did not complete: the state afterwards.
    pub(super) file_state: Option<FileState>,
}

impl ScriptRun {
    /// Returns whether this was a run of the script with this identity.
    #[must_use]
    pub fn matches_identity(&self, identity: &ScriptIdentity) -> bool {
        self.file_state == Some(identity.file_state)
    }
}
