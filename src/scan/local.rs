//! Scans local files as the service scans media: the same sandbox, engines and lists. For `scan FILE…` and for the
//! canary.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use mcs_filetype::MimeRules;

use super::{
    context::ScanContext,
    engines::{EngineRun, Engines, RunOutcome},
    error::ScanError,
    task::blocking,
    verdict::Verdict,
};
use crate::{
    identity::denied_user,
    media::{
        FetchError,
        ingest::{Ingest, IngestError, IngestOptions},
    },
    tenancy::TenantGroup,
};

/// Size of the buffer for copying a file, bytes.
const COPY_BUFFER: usize = 256 * 1024;

/// Reason why a local file has no verdict.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    #[error("the file cannot be opened{}", denied_user(.0))]
    Open(#[source] io::Error),
    /// Directories are not searched for files.
    #[error("the path is a directory; pass the paths of its files")]
    Directory,
    /// A FIFO, a socket or a device.
    #[error("not a regular file")]
    NotRegularFile,
    /// The service would reject media of this size as well.
    #[error(
        "the file is larger than {0} bytes (download.max_size, or less if scan.max_spool_size requires it)"
    )]
    TooLarge(u64),
    #[error(transparent)]
    Scan(Arc<ScanError>),
}

impl From<Arc<ScanError>> for LocalError {
    fn from(error: Arc<ScanError>) -> Self {
        match &*error {
            // Has a message of its own, because nothing was downloaded.
            ScanError::Fetch(FetchError::TooLarge { limit }) => Self::TooLarge(*limit),
            _ => Self::Scan(error),
        }
    }
}

impl ScanContext {
    /// Scans one local file.
    ///
    /// # Errors
    /// [`LocalError`]
    pub async fn scan_file(&self, path: &Path) -> Result<Verdict, LocalError> {
        // Without O_NONBLOCK, opening a FIFO would wait for a writer.
        let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
        let source = opened.map_err(LocalError::Open)?;
        let metadata = source.metadata().map_err(LocalError::Open)?;
        if metadata.is_dir() {
            return Err(LocalError::Directory);
        }
        if !metadata.is_file() {
            return Err(LocalError::NotRegularFile);
        }
        Ok(self.scan_source(&self.engines, source, metadata.len(), &self.settings.mime).await?)
    }

    /// Scans `length` bytes of `source` with these engines; the MIME lists do not apply.
    ///
    /// # Errors
    /// [`ScanError`]
    pub async fn scan_with(
        &self,
        engines: &Engines,
        source: impl Read + Send + 'static,
        length: u64,
    ) -> Result<Verdict, Arc<ScanError>> {
        self.scan_source(engines, source, length, &MimeRules::All).await
    }

    async fn scan_source(
        &self,
        engines: &Engines,
        mut source: impl Read + Send + 'static,
        length: u64,
        mime: &MimeRules,
    ) -> Result<Verdict, Arc<ScanError>> {
        let (mut work_dir, file) = self.prepare_work_dir(engines, TenantGroup::default()).await?;
        let options = IngestOptions {
            account: self.spool.unlimited_account(),
            max_size: self.max_size,
            memory_limit: 0,
            keep_large: false,
            decryption: None,
            script_file: Some(file),
        };
        let spool = self.spool.clone();
        let plaintext = blocking(move || {
            let mut ingest = Ingest::new(&spool, options, Some(length))?;
            let mut buffer = vec![0; COPY_BUFFER];
            loop {
                match source.read(&mut buffer).map_err(IngestError::Disk)? {
                    0 => break,
                    n => ingest.write(buffer.get(..n).unwrap_or_default())?,
                }
            }
            let not_found = || IngestError::Disk(io::ErrorKind::NotFound.into());
            ingest.finish()?.plaintext.ok_or_else(not_found)
        })
        .await?;
        let listed = engines.listed(&plaintext.hash);
        work_dir.set_plaintext(plaintext)?;
        let run = match work_dir.sample_access() {
            Some(sample) => Box::pin(engines.scan(sample, mime)).await,
            None => EngineRun::prevented(ScanError::Stopping),
        };
        let verdict = match run.outcome {
            RunOutcome::Scanned(outcome)
                if let Some(listed) = &listed
                    && (*mime == MimeRules::All || outcome.detected.is_some()) =>
            {
                Ok(listed.verdict())
            }
            RunOutcome::Scanned(outcome) => {
                engines.policies().with_paths().decide(&outcome).verdict
            }
            RunOutcome::Forbidden(detected) => Ok(Verdict::TypeForbidden { detected }),
            RunOutcome::Prevented(error) => Err(Arc::new(error)),
        };
        work_dir.clean_up(self.removal_command().as_ref()).await;
        verdict
    }
}
