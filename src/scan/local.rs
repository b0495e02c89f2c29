//! Scans files of this machine exactly as the service would scan a media: the same sandbox, the same
//! engines, the same lists. For `scan FILE…`, and for the canary.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use mcs_sandbox::Sandbox;

use super::{
    ScanError, Settings, Verdict,
    bench::Bench,
    engines::{Engines, Run},
    filetype::{Detector, MimeRules},
    script::Removal,
    worker::{blocking, finish},
};
use crate::{
    identity::by,
    media::{
        FetchError,
        intake::{Intake, IntakeError, Plan},
        spool::Spool,
    },
};

/// Scans local files.
#[derive(Debug)]
pub struct LocalScanner {
    /// `[scan]`
    pub settings: Settings,
    /// Where the script runs.
    pub sandbox: Sandbox,
    /// The engines of these settings.
    pub engines: Engines,
    /// Where the files' copies lie.
    pub spool: Spool,
    /// Who names types.
    pub detector: Arc<Detector>,
    /// Largest file, bytes: `download.max_size`.
    pub max_size: u64,
}

/// Why there is no verdict on a file.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// It is not there, or not for this user.
    #[error("it cannot be opened{}", by(.0))]
    Open(#[source] io::Error),
    /// Nothing in it is looked for.
    #[error("it is a directory: name the files in it")]
    Directory,
    /// A FIFO, a socket, a device.
    #[error("it is not a regular file")]
    NoFile,
    /// A file larger than the service takes.
    #[error(
        "it is larger than {0} bytes (download.max_size, or what scan.max_spool_size leaves of it)"
    )]
    TooLarge(u64),
    /// As in the service.
    #[error(transparent)]
    Scan(ScanError),
}

impl From<ScanError> for LocalError {
    fn from(error: ScanError) -> Self {
        match error {
            // Nobody has fetched it.
            ScanError::Fetch(FetchError::TooLarge { limit }) => Self::TooLarge(limit),
            error => Self::Scan(error),
        }
    }
}

impl LocalScanner {
    /// The verdict on one file.
    ///
    /// # Errors
    /// The file's own, or what can befall any scan.
    pub async fn scan(&self, path: &Path) -> Result<Verdict, LocalError> {
        // Without O_NONBLOCK a FIFO would wait for somebody who writes.
        let opened = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
        let source = opened.map_err(LocalError::Open)?;
        let metadata = source.metadata().map_err(LocalError::Open)?;
        if metadata.is_dir() {
            return Err(LocalError::Directory);
        }
        if !metadata.is_file() {
            return Err(LocalError::NoFile);
        }
        Ok(self.run(&self.engines, source, metadata.len(), &self.settings.mime).await?)
    }

    /// These engines' verdict on `length` bytes, whatever their type.
    ///
    /// # Errors
    /// What can befall any scan.
    pub async fn ask(
        &self,
        engines: &Engines,
        source: impl Read + Send + 'static,
        length: u64,
    ) -> Result<Verdict, ScanError> {
        self.run(engines, source, length, &MimeRules::All).await
    }

    async fn run(
        &self,
        engines: &Engines,
        mut source: impl Read + Send + 'static,
        length: u64,
        mime: &MimeRules,
    ) -> Result<Verdict, ScanError> {
        let removal = Removal::of(&self.settings);
        let for_programs = engines.need_sandbox() || removal.is_some();
        let sandbox = for_programs.then_some(&self.sandbox);
        let (mut bench, file) = Bench::prepare(sandbox, &self.spool).await?;
        let plan = Plan {
            account: self.spool.own_account(),
            max_size: self.max_size,
            memory_limit: 0,
            keep_large: false,
            decryption: None,
            script_file: Some(file),
        };
        let (spool, detector) = (self.spool.clone(), Arc::clone(&self.detector));
        let (detected, plaintext) = blocking(move || {
            let mut intake = Intake::begin(&spool, plan, Some(length))?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match source.read(&mut buffer).map_err(IntakeError::Disk)? {
                    0 => break,
                    n => intake.write(buffer.get(..n).unwrap_or_default())?,
                }
            }
            let nothing = || IntakeError::Disk(io::ErrorKind::NotFound.into());
            let (taken, detected) = finish(intake, &detector)?;
            detected.zip(taken.plaintext).ok_or_else(nothing)
        })
        .await?;
        let verdict = if mime.allows(detected.as_str()) {
            bench.hold(plaintext)?;
            let run = match bench.expose() {
                Some(media) => Box::pin(engines.judge(media)).await,
                None => Run::prevented(ScanError::Stopping),
            };
            run.outcome.map(|judgement| judgement.verdict)
        } else {
            Ok(Verdict::TypeForbidden { detected })
        };
        bench.clear(removal.as_ref()).await;
        verdict
    }
}
