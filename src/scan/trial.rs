//! Any command on a local file in the service's own sandbox, for a person who writes a scan script:
//! what it printed, how it ended, what it cost, and what it was refused.

use std::{ffi::OsString, fs::File, io, path::PathBuf, time::Duration};

use mcs_sandbox::{Command, Exit, Refused, Sandbox};

use super::{ScanError, worker::MEDIA_NAME};

/// Bytes of each stream that are shown: more than `scan.max_output_size`, a person reads on.
const MAX_OUTPUT: usize = 1 << 20;

/// A command on trial.
#[derive(Clone, Debug)]
pub struct Trial {
    /// A path, or a name that is looked for in `PATH`.
    pub program: PathBuf,
    /// What comes before the file.
    pub args: Vec<OsString>,
    /// A copy of it is given to the command as its last argument.
    pub file: PathBuf,
}

impl Trial {
    /// Runs the command under `sandbox`, in a job in `directory`, for `time_limit`.
    ///
    /// # Errors
    /// [`ScanError::Disk`] where the file cannot be copied; [`ScanError::Sandbox`] where the command
    /// was not started.
    pub async fn run(
        &self,
        sandbox: &Sandbox,
        directory: &std::path::Path,
        time_limit: Duration,
    ) -> Result<(Exit, Vec<Refused>), ScanError> {
        let mut source = File::open(&self.file).map_err(ScanError::Disk)?;
        let mut job = sandbox.prepare(directory, MEDIA_NAME).await.map_err(ScanError::Sandbox)?;
        let copied = match job.take_media() {
            Some(mut media) => io::copy(&mut source, &mut media).map(drop),
            None => Err(io::ErrorKind::NotFound.into()),
        };
        let run = match copied {
            Ok(()) => {
                let mut args = self.args.clone();
                args.push(job.media_path().into());
                let command = Command { program: self.program.clone(), args };
                job.run_watched(&command, time_limit, MAX_OUTPUT).await.map_err(ScanError::Sandbox)
            }
            Err(error) => Err(ScanError::Disk(error)),
        };
        job.close().await.map_err(ScanError::Sandbox)?;
        run
    }
}
