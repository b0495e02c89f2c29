//! The embedded engine: YARA rules on what a media is. They are compiled once; each media is looked at by
//! this program again, as an evaluator in the sandbox, since it reads hostile bytes. What is not one of
//! its two answers, a crash or a signal among it, is a failure.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcs_rules::{CLEAN, NOT_CLEAN, RuleSet};
use mcs_sandbox::{Command, Job, Outcome};

use super::{Bounds, EngineFailure, Finding};
use crate::scan::{
    ScanError,
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

/// What evaluators are started from: this program, and the prepared rules. No path leads to the rules, so no other user can put
/// a file in their place: each evaluator reads them from its standard input, which is a file in memory that cannot be changed.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: File,
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
    /// Copies the rules to a sealed file in memory.
    pub fn prepare(program: PathBuf, rules: &RuleSet) -> io::Result<Self> {
        let prepared = mcs_sandbox::sealed("rules", rules.prepared())?;
        Ok(Self { program, prepared })
    }

    /// Returns the file with the prepared rules.
    #[must_use]
    pub fn prepared(&self) -> &File {
        &self.prepared
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
        let args = mcs_rules::arguments(ignored);
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
        let exit = job
            .run_with_input(&command, self.evaluator.prepared.as_fd(), self.timeout, MAX_OUTPUT)
            .await
            .map_err(ScanError::Sandbox)?;
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
