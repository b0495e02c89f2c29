//! Runs any command on a local file in the service's sandbox and reports its output, exit status, resource usage and
//! the operations that the sandbox denied. For authors of scan scripts.

use std::{ffi::OsString, fs::File, io, path::PathBuf, time::Duration};

use mcs_sandbox::{Command, Denial, Exit, Sandbox};

use super::{error::ScanError, work_dir::MEDIA_NAME};

/// Maximum captured length of each output stream, bytes. Larger than `scan.max_output_size`, because the operator reads
/// the output.
const MAX_OUTPUT: usize = 1 << 20;

/// A command to try.
#[derive(Clone, Debug)]
pub struct Trial {
    /// A path, or a name that is searched in `PATH`.
    pub program: PathBuf,
    /// Arguments before the path of the file.
    pub args: Vec<OsString>,
    /// The file. The path of a copy is the command's last argument.
    pub file: PathBuf,
}

impl Trial {
    /// Runs the command in `sandbox`, in a job below `directory`, for at most `time_limit`.
    ///
    /// # Errors
    /// [`ScanError::Disk`] when the file cannot be copied; [`ScanError::Sandbox`] when the command cannot be started.
    pub async fn run(
        &self,
        sandbox: &Sandbox,
        directory: &std::path::Path,
        time_limit: Duration,
    ) -> Result<(Exit, Vec<Denial>), ScanError> {
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
                job.run_monitored(&command, time_limit, MAX_OUTPUT)
                    .await
                    .map_err(ScanError::Sandbox)
            }
            Err(error) => Err(ScanError::Disk(error)),
        };
        job.close().await.map_err(ScanError::Sandbox)?;
        run
    }
}
