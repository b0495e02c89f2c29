//! One run of all engines.

use std::time::Duration;

use mcs_filetype::MediaType;

use super::{
    file_outcome::FileOutcome, identity::EngineIdentity, script_run::ScriptRun,
    summary::EngineSummary,
};
use crate::scan::error::ScanError;

/// What a run determined.
#[derive(Debug)]
pub enum RunOutcome {
    /// What the engines found, failures of engines and of the inspection included.
    Scanned(Box<FileOutcome>),
    /// The operator's lists do not allow the type. No engine but the rules has received the file.
    Forbidden(MediaType),
    /// The run was not started.
    Prevented(ScanError),
}

/// The result of one engine in a run, under the operator's policies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EngineReport {
    /// The result, with `skipped` in place of one that the policies skip.
    pub summary: EngineSummary,
    /// Whether the engine found something that does not refuse the file, because it is only observed.
    pub is_observed: bool,
}

/// Result of one run of all engines.
#[derive(Debug)]
pub struct EngineRun {
    /// What the run determined.
    pub outcome: RunOutcome,
    /// The result of each engine, and of an inspection that failed.
    pub results: Vec<EngineReport>,
    pub(super) script_run: Option<ScriptRun>,
}

impl EngineRun {
    /// Represents a run that did not start.
    #[must_use]
    pub fn prevented(error: ScanError) -> Self {
        Self { outcome: RunOutcome::Prevented(error), results: Vec::new(), script_run: None }
    }

    /// Represents a run that ended because the lists do not allow the type.
    #[must_use]
    pub(super) fn forbidden(detected: MediaType) -> Self {
        Self { outcome: RunOutcome::Forbidden(detected), results: Vec::new(), script_run: None }
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
            // The file exceeded the script's size bound, or could not be inspected.
            (_, None) => matches!(self.outcome, RunOutcome::Scanned(_)),
            (None, Some(_)) => false,
        }
    }
}
