//! One run of all engines.

use std::time::Duration;

use super::{file_outcome::FileOutcome, identity::EngineIdentity, script_run::ScriptRun};
use crate::scan::error::ScanError;

/// Result of one run of all engines.
#[derive(Debug)]
pub struct EngineRun {
    /// What the engines found, failures of engines included; an error if the engines were not started.
    pub outcome: Result<FileOutcome, ScanError>,
    /// Each engine's name and result: the name of an outcome, `failed` or `skipped`.
    pub results: Vec<(&'static str, &'static str)>,
    pub(super) script_run: Option<ScriptRun>,
}

impl EngineRun {
    /// Represents a run that did not start.
    #[must_use]
    pub fn prevented(error: ScanError) -> Self {
        Self { outcome: Err(error), results: Vec::new(), script_run: None }
    }

    /// Returns the duration of the script's run; `None` when the script did not run.
    #[must_use]
    pub fn script_duration(&self) -> Option<Duration> {
        self.script_run.as_ref()?.duration
    }

    /// Returns whether the engines that ran are those of `identity`, so that the result may be cached for it.
    #[must_use]
    pub fn matches_identity(&self, identity: &EngineIdentity) -> bool {
        match (&identity.script, &self.script_run) {
            (Some(identity), Some(run)) => run.matches_identity(identity),
            // The file exceeded the script's size bound.
            (_, None) => self.outcome.is_ok(),
            (None, Some(_)) => false,
        }
    }
}
