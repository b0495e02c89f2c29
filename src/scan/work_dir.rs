//! The working directory of a job: the file that the plaintext is written to, the sandbox job in whose directory
//! programs find it, and the reserved disk space.

use std::fs::File;

use mcs_sandbox::{Job, Sandbox};
use tracing::warn;

use super::{
    engines::{Sample, SampleAccess},
    error::ScanError,
    removal::RemovalCommand,
    task::blocking,
};
use crate::{
    chain::Chain,
    media::{
        ingest::{IngestError, Plaintext, ScriptFile},
        spool::{Reservation, Spool},
    },
    tenancy::TenantGroup,
};

/// Name of the file in the job's directory. Safe in shell scripts, and the same for all media.
pub(super) const MEDIA_NAME: &str = "media";

/// The working directory of a job.
pub(super) struct WorkDir {
    /// Absent when no script examines the file.
    job: Option<Job>,
    tenant: TenantGroup,
    tamper_proof: bool,
    sample: Option<Sample>,
    reservation: Option<Reservation>,
}

impl WorkDir {
    /// Creates an empty file for a plaintext, charged to `tenant`: in a job of `sandbox`, or unnamed if no script
    /// reads the file: the rules read a descriptor.
    pub(super) async fn prepare(
        sandbox: Option<&Sandbox>,
        spool: &Spool,
        tenant: TenantGroup,
    ) -> Result<(Self, ScriptFile), ScanError> {
        let Some(sandbox) = sandbox else {
            let spool = spool.clone();
            let file =
                blocking(move || spool.create_unnamed_file().map_err(IngestError::Disk)).await?;
            return Ok(Self::new(None, tenant, file, true));
        };
        let directory = spool.directory().map_err(ScanError::Disk)?;
        let prepared = sandbox.prepare(directory, MEDIA_NAME).await;
        let mut job = prepared.map_err(ScanError::Sandbox)?;
        let tamper_proof = job.media_is_tamper_proof();
        let file = job.take_media();
        let file = file.ok_or_else(|| ScanError::Disk(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self::new(Some(job), tenant, file, tamper_proof))
    }

    fn new(
        job: Option<Job>,
        tenant: TenantGroup,
        file: File,
        tamper_proof: bool,
    ) -> (Self, ScriptFile) {
        let work_dir = Self { job, tenant, tamper_proof, sample: None, reservation: None };
        (work_dir, ScriptFile { file, tamper_proof })
    }

    /// Records that the plaintext is complete.
    pub(super) fn set_plaintext(&mut self, plaintext: Plaintext) -> Result<(), ScanError> {
        self.reservation = plaintext.reservation;
        self.sample = Some(Sample::from_file(&plaintext.file).map_err(ScanError::Disk)?);
        Ok(())
    }

    /// Returns the engines' access to the plaintext; `None` before the plaintext is complete.
    pub(super) fn sample_access(&mut self) -> Option<SampleAccess<'_>> {
        let Self { job, tenant, tamper_proof, sample, .. } = self;
        Some(SampleAccess {
            sample: sample.as_ref()?,
            tenant: *tenant,
            job: job.as_mut(),
            tamper_proof: *tamper_proof,
        })
    }

    /// Runs the removal command and removes the directory. A failure is logged and does not change the job's outcome.
    pub(super) async fn clean_up(self, removal_command: Option<&RemovalCommand>) {
        let Some(mut job) = self.job else { return };
        if let Some(removal_command) = removal_command {
            removal_command.run(&mut job).await;
        }
        if let Err(error) = job.close().await {
            warn!(error = %Chain(&error), "cannot remove the directory of a job");
        }
    }
}
