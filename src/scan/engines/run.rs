//! One run of all engines.

use std::time::Duration;

use super::{file_outcome::FileOutcome, identity::EngineIdentity, script::ScriptRun};
use crate::scan::error::ScanError;

/// Result of one run of all engines.
#[derive(Debug)]
pub struct EngineRun {
    /// What the engines found, failures of engines included; an error if the engines were not started.
    pub outcome: Result<FileOutcome, ScanError>,
    /// Duration of the script's run; none when the script did not run.
    pub script_duration: Option<Duration>,
    /// Each engine's name and result: the name of an outcome, `failed` or `skipped`.
    pub results: Vec<(&'static str, &'static str)>,
    pub(super) script: Option<ScriptRun>,
    /// Whether the engines were started.
    pub(super) started: bool,
}

impl EngineRun {
    /// Represents a run that did not start.
    #[must_use]
    pub fn prevented(error: ScanError) -> Self {
        Self {
            outcome: Err(error),
            script_duration: None,
            results: Vec::new(),
            script: None,
            started: false,
        }
    }

    /// Returns whether the engines that ran are those of `identity`, so that the result may be cached for it.
    #[must_use]
    pub fn matches_identity(&self, identity: &EngineIdentity) -> bool {
        match (&identity.script, &self.script) {
            (Some(identity), Some(run)) => run.matches_identity(identity),
            // The file exceeded the script's size bound.
            (_, None) => self.started,
            (None, Some(_)) => false,
        }
    }
}
