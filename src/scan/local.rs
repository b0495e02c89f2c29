//! Scans files of this machine exactly as the service would scan a media: the same sandbox, the same
//! script, the same lists. For `scan FILE…`, and for the canary.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use mcs_sandbox::Sandbox;

use super::{
    ScanError, Settings, Verdict,
    filetype::{Detector, MimeRules},
    script::{Script, Turns},
    worker::{MEDIA_NAME, blocking},
};
use crate::media::{
    intake::{Intake, IntakeError, Plan, ScriptFile},
    spool::Spool,
};

/// Scans local files.
#[derive(Debug)]
pub struct LocalScanner {
    /// `[scan]`
    pub settings: Settings,
    /// Where the script runs.
    pub sandbox: Sandbox,
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
        self.run(source, metadata.len(), &self.settings.mime).await
    }

    /// The script's verdict on `length` bytes, whatever their type.
    ///
    /// # Errors
    /// As [`LocalScanner::scan`].
    pub async fn script_alone(
        &self,
        source: impl Read + Send + 'static,
        length: u64,
    ) -> Result<Verdict, ScanError> {
        self.run(source, length, &MimeRules::All).await
    }

    async fn run(
        &self,
        mut source: impl Read + Send + 'static,
        length: u64,
        mime: &MimeRules,
    ) -> Result<Verdict, ScanError> {
        let script = Script::new(&self.settings, &self.sandbox, Turns::new(1));
        let mut job = self
            .sandbox
            .prepare(self.spool.directory(), MEDIA_NAME)
            .await
            .map_err(ScanError::Sandbox)?;
        let plan = Plan {
            account: self.spool.own_account(),
            max_size: self.max_size,
            memory_limit: 0,
            keep_large: false,
            decryption: None,
            script_file: job
                .take_media()
                .map(|file| ScriptFile { file, tamper_proof: job.media_is_tamper_proof() }),
        };
        let (spool, detector) = (self.spool.clone(), Arc::clone(&self.detector));
        let (detected, _plaintext) = blocking(move || {
            let mut intake = Intake::begin(&spool, plan, Some(length))?;
            let mut buffer = vec![0; 256 * 1024];
            loop {
                match source.read(&mut buffer).map_err(IntakeError::Disk)? {
                    0 => break,
                    n => intake.write(buffer.get(..n).unwrap_or_default())?,
                }
            }
            let plaintext = intake.finish()?.plaintext;
            let nothing = || IntakeError::Disk(io::ErrorKind::NotFound.into());
            let file = &plaintext.as_ref().ok_or_else(nothing)?.file;
            Ok((detector.detect(file).map_err(IntakeError::Disk)?, plaintext))
        })
        .await?;
        let verdict = if mime.allows(detected.as_str()) {
            script.judge(&mut job).await.outcome.map(|judgement| judgement.verdict)
        } else {
            Ok(Verdict::TypeForbidden { detected })
        };
        script.remove(&mut job).await;
        job.close().await.map_err(ScanError::Sandbox)?;
        verdict
    }
}
