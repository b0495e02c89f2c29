//! What a scan of one file needs.

use mcs_sandbox::Sandbox;

use super::{
    engines::Engines, error::ScanError, removal::RemovalCommand, settings::Settings,
    work_dir::WorkDir,
};
use crate::{
    media::{ingest::ScriptFile, spool::Spool},
    tenancy::TenantGroup,
};

/// What a scan of one file needs. The service, the canary and `scan FILE…` have one each.
#[derive(Debug)]
pub struct ScanContext {
    /// `[scan]`
    pub settings: Settings,
    /// Runs programs.
    pub sandbox: Sandbox,
    /// The engines that these settings configure.
    pub engines: Engines,
    /// Stores the files of jobs and large bodies.
    pub spool: Spool,
    /// `download.max_size`, bytes.
    pub max_size: u64,
}

impl ScanContext {
    /// Creates a working directory for a scan with these engines, and an empty file in it for the plaintext.
    pub(super) async fn prepare_work_dir(
        &self,
        engines: &Engines,
        tenant: TenantGroup,
    ) -> Result<(WorkDir, ScriptFile), ScanError> {
        let needs_job = engines.needs_job() || self.settings.removal_command.is_some();
        let sandbox = needs_job.then_some(&self.sandbox);
        WorkDir::prepare(sandbox, &self.spool, tenant).await
    }

    /// Returns the command that runs before a working directory is removed.
    pub(super) fn removal_command(&self) -> Option<RemovalCommand> {
        RemovalCommand::from_settings(&self.settings)
    }
}
