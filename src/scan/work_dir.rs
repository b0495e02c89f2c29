//! A media's place while it is judged: the file that it is written to, the directory that programs find
//! it in, where any of them looks at it, and its share of the disk.

use std::fs::File;

use mcs_sandbox::{Job, Sandbox};
use tracing::warn;

use super::{
    ScanError,
    engines::{Exposed, Specimen},
    script::Removal,
    worker::{MEDIA_NAME, blocking},
};
use crate::{
    chain::Chain,
    media::{
        intake::{IntakeError, Plaintext, ScriptFile},
        spool::{Reservation, Spool},
    },
};

/// See the module.
pub(super) struct Bench {
    /// None where no program is run on it.
    job: Option<Job>,
    tamper_proof: bool,
    specimen: Option<Specimen>,
    reservation: Option<Reservation>,
}

impl Bench {
    /// One with an empty file: in a job of `sandbox`, or without a name where no program is to find it.
    pub(super) async fn prepare(
        sandbox: Option<&Sandbox>,
        spool: &Spool,
    ) -> Result<(Self, ScriptFile), ScanError> {
        let Some(sandbox) = sandbox else {
            let spool = spool.clone();
            let file = blocking(move || spool.nameless_file().map_err(IntakeError::Disk)).await?;
            return Ok(Self::of(None, file, true));
        };
        let prepared = sandbox.prepare(spool.directory(), MEDIA_NAME).await;
        let mut job = prepared.map_err(ScanError::Sandbox)?;
        let tamper_proof = job.media_is_tamper_proof();
        let file = job.take_media();
        let file = file.ok_or_else(|| ScanError::Disk(std::io::ErrorKind::NotFound.into()))?;
        Ok(Self::of(Some(job), file, tamper_proof))
    }

    fn of(job: Option<Job>, file: File, tamper_proof: bool) -> (Self, ScriptFile) {
        let this = Self { job, tamper_proof, specimen: None, reservation: None };
        (this, ScriptFile { file, tamper_proof })
    }

    /// The media is in its file, whole.
    pub(super) fn hold(&mut self, plaintext: Plaintext) -> Result<(), ScanError> {
        self.reservation = plaintext.reservation;
        self.specimen = Some(Specimen::of(&plaintext.file).map_err(ScanError::Disk)?);
        Ok(())
    }

    /// For the engines; none before the media is in.
    pub(super) fn expose(&mut self) -> Option<Exposed<'_>> {
        let Self { job, tamper_proof, specimen, .. } = self;
        Some(Exposed {
            specimen: specimen.as_ref()?,
            job: job.as_mut(),
            tamper_proof: *tamper_proof,
        })
    }

    /// Runs the removal command and removes everything. None of it changes an answer.
    pub(super) async fn clear(self, removal: Option<&Removal>) {
        let Some(mut job) = self.job else { return };
        if let Some(removal) = removal {
            removal.run(&mut job).await;
        }
        if let Err(error) = job.close().await {
            warn!(error = %Chain(&error), "a job's directory could not be removed");
        }
    }
}
