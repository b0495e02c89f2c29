//! The removal command, which runs on a file before its directory is removed.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use mcs_sandbox::{Job, Termination};

use super::{engines::script::command, settings::Settings};
use crate::chain::Chain;

/// Time limit of the removal command.
pub(super) const REMOVAL_TIME_LIMIT: Duration = Duration::from_secs(30);

/// `scan.removal_command`.
#[derive(Debug)]
pub struct RemovalCommand {
    program: PathBuf,
    args: Vec<OsString>,
}

impl RemovalCommand {
    /// Returns the command, if one is configured.
    #[must_use]
    pub fn from_settings(settings: &Settings) -> Option<Self> {
        let (program, args) = settings.removal_command.clone()?;
        Some(Self { program, args })
    }

    /// Runs the command on the job's file. Its result is only logged, because the job's directory is removed
    /// afterwards in any case.
    pub async fn run(&self, job: &mut Job) {
        let command = command(&self.program, &self.args, job.media_path());
        match job.run(&command, REMOVAL_TIME_LIMIT, 4096).await {
            Ok(exit) if matches!(exit.termination, Termination::Exited(0)) => {}
            Ok(exit) => tracing::warn!(
                outcome = ?exit.termination,
                stderr = ?String::from_utf8_lossy(&exit.stderr),
                "scan.removal_command failed; the directory is removed anyway"
            ),
            Err(error) => tracing::warn!(
                error = %Chain(&error),
                "scan.removal_command could not start; the directory is removed anyway"
            ),
        }
    }
}
