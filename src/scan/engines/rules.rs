//! The embedded engine: YARA rules on what a media is. They are compiled once; each media is looked at by
//! this program again, as an evaluator in the sandbox, since it reads hostile bytes. What is not one of
//! its two answers, a crash or a signal among it, is a failure.

use std::{
    ffi::OsString,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcs_rules::{CLEAN, NOT_CLEAN, RuleSet};
use mcs_sandbox::{Command, Job, Outcome};

use super::{Bounds, EngineFailure, Finding};
use crate::scan::{
    ScanError,
    run_directory::RunDirectory,
    script::{MAX_FIRST_LINE, Turns, one_line},
};

/// Bytes of names, and of reasons, that are kept.
const MAX_OUTPUT: usize = 4096;

/// `[rules]`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Files and directories of rules.
    pub paths: Vec<PathBuf>,
    /// Names of rules that refuse nothing.
    pub ignore: Vec<String>,
    /// What was read there.
    pub rules: RuleSet,
    /// For one media.
    pub timeout: Duration,
    /// Which media, and what a failure means.
    pub bounds: Bounds,
}

/// What evaluators are started from: this program, and a file of prepared rules. That lies in a directory
/// of its own, which goes with this: in the sandbox the jobs' own is covered.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: PathBuf,
    _directory: RunDirectory,
}

/// The engine.
#[derive(Clone, Debug)]
pub struct Rules {
    evaluator: Arc<Evaluator>,
    args: Vec<OsString>,
    timeout: Duration,
    turns: Turns,
}

impl Evaluator {
    /// Writes the rules to a file below `temp_directory`, `passable` where programs run as another user.
    pub fn prepare(
        temp_directory: &Path,
        passable: bool,
        program: PathBuf,
        rules: &RuleSet,
    ) -> io::Result<Self> {
        let directory = RunDirectory::make(temp_directory, passable)?;
        let prepared = directory.path().join("rules");
        fs::write(&prepared, rules.prepared())?;
        // Whatever the umask is.
        fs::set_permissions(&prepared, Permissions::from_mode(0o644))?;
        Ok(Self { program, prepared, _directory: directory })
    }

    /// What programs in the sandbox have to see.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        [&self.program, &self.prepared].into_iter().cloned()
    }

    /// This program, as it was found at the start.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Rules {
    /// The engine of these settings, whose rules this evaluator has.
    #[must_use]
    pub fn new(settings: &Settings, evaluator: Arc<Evaluator>, turns: Turns) -> Self {
        let ignored = settings.ignore.iter().map(String::as_str);
        let args = mcs_rules::arguments(&evaluator.prepared, ignored);
        Self { evaluator, args, timeout: settings.timeout, turns }
    }

    /// Evaluates the rules on the job's media, when a script's turn comes.
    pub(super) async fn scan(
        &self,
        job: &mut Job,
    ) -> Result<Result<Finding, EngineFailure>, ScanError> {
        let Some(_turn) = self.turns.take().await else { return Err(ScanError::Stopping) };
        let mut args = self.args.clone();
        args.push(job.media_path().into());
        let command = Command { program: self.evaluator.program.clone(), args };
        let exit = job.run(&command, self.timeout, MAX_OUTPUT).await.map_err(ScanError::Sandbox)?;
        let said = |output: &[u8]| one_line(&String::from_utf8_lossy(output), MAX_FIRST_LINE);
        Ok(match exit.outcome {
            Outcome::Exited(CLEAN) => Ok(Finding::Clean),
            Outcome::Exited(NOT_CLEAN) if !said(&exit.stdout).is_empty() => {
                Ok(Finding::NotClean { name: said(&exit.stdout) })
            }
            Outcome::Exited(code) => {
                Err(EngineFailure::Said(format!("exit code {code}: {}", said(&exit.stderr))))
            }
            Outcome::Signaled(signal) => Err(EngineFailure::Said(format!("signal {signal}"))),
            Outcome::TimedOut => Err(EngineFailure::TimedOut),
        })
    }
}
