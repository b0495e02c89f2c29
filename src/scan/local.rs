//! Scans files of this machine exactly as the service would scan a media: the same sandbox, the same
//! engines, the same lists. For `scan FILE…`, and for the canary.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use mcs_sandbox::Sandbox;

use super::{
    ScanError, Settings, Verdict,
    bench::Bench,
    engines::{Engines, Network, Run},
    filetype::{Detector, MimeRules},
    script::{Removal, Turns},
    worker::blocking,
};
use crate::media::{
    intake::{Intake, IntakeError, Plan},
    spool::Spool,
};

/// Scans local files.
#[derive(Debug)]
pub struct LocalScanner {
    /// `[scan]`
    pub settings: Settings,
    /// Where the script runs.
    pub sandbox: Sandbox,
    /// The engines that are asked over a socket.
    pub network: Arc<Network>,
    /// Where the files' copies lie.
    pub spool: Spool,
    /// Who names types.
    pub detector: Arc<Detector>,
    /// Largest file, bytes: `download.max_size`.
    pub max_size: u64,
}

impl LocalScanner {
    /// The verdict on one file.
    ///
    /// # Errors
    /// [`ScanError::Disk`] where the file cannot be read; else what can befall any scan.
    pub async fn scan(&self, path: &Path) -> Result<Verdict, ScanError> {
        let source = File::open(path).map_err(ScanError::Disk)?;
        let metadata = source.metadata().map_err(ScanError::Disk)?;
        if !metadata.is_file() {
            return Err(ScanError::Disk(io::Error::other("it is not a regular file")));
        }
        self.run(&self.engines(), source, metadata.len(), &self.settings.mime).await
    }

    /// The engines of these settings.
    #[must_use]
    pub fn engines(&self) -> Engines {
        Engines::new(&self.settings, &self.sandbox, &Turns::new(1), &self.network)
    }

    /// These engines' verdict on `length` bytes, whatever their type.
    ///
    /// # Errors
    /// As [`LocalScanner::scan`].
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
            let plaintext = intake.finish()?.plaintext.ok_or_else(nothing)?;
            Ok((detector.detect(&plaintext.file).map_err(IntakeError::Disk)?, plaintext))
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
