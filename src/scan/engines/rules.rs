//! The embedded engine: YARA rules. The rules are compiled once. An evaluator, a second process of this program,
//! scans each file in the sandbox, because it parses untrusted data. Every exit other than those of its outcomes,
//! including a crash or a signal, is a failure.

pub use crate::config::sections::rules::Settings;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mcs_evaluator::{CLEAN, LIMIT, MALWARE, POLICY, RuleSet};
use mcs_sandbox::{Command, Termination};

use super::{
    error::EngineFailure,
    outcome::{MAX_FIRST_LINE, Outcome},
    sample::ProgramJob,
    slots::ScanSlots,
};
use crate::{scan::error::ScanError, text::single_line};

/// Maximum length of the evaluator's captured output, bytes.
const MAX_OUTPUT: usize = 4096;

/// The program and the prepared rules that evaluators are started with. Evaluators read the rules from standard
/// input, a sealed memory file. It has no path, so that no other user can replace it.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: File,
}

/// The rules engine.
#[derive(Clone, Debug)]
pub struct Rules {
    evaluator: Arc<Evaluator>,
    args: Vec<OsString>,
    timeout: Duration,
    scan_slots: ScanSlots,
}

impl Evaluator {
    /// Copies the rules to a sealed memory file.
    pub fn prepare(program: PathBuf, rules: &RuleSet) -> io::Result<Self> {
        let prepared = mcs_sandbox::sealed("rules", rules.prepared())?;
        Ok(Self { program, prepared })
    }

    /// Returns the file with the prepared rules.
    #[must_use]
    pub fn prepared(&self) -> &File {
        &self.prepared
    }

    /// Returns the path of this program, determined at startup.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }
}

impl Rules {
    /// Creates the engine. `evaluator` must have been prepared from the rules of `settings`.
    #[must_use]
    pub fn new(settings: &Settings, evaluator: Arc<Evaluator>, scan_slots: ScanSlots) -> Self {
        let ignored = settings.ignore.iter().map(String::as_str);
        let args = mcs_evaluator::arguments(ignored);
        Self { evaluator, args, timeout: settings.timeout, scan_slots }
    }

    /// Waits for a scan slot and evaluates the rules on the job's file.
    pub(super) async fn scan(
        &self,
        job: &mut ProgramJob,
    ) -> Result<Result<Outcome, EngineFailure>, ScanError> {
        let ProgramJob { job, tenant } = job;
        let slot = self.scan_slots.acquire(tenant).await.ok_or(ScanError::Stopping)?;
        let mut args = self.args.clone();
        args.push(job.media_path().into());
        let command = Command { program: self.evaluator.program.clone(), args };
        let input = self.evaluator.prepared.as_fd();
        let priority = job.priority();
        let run = job.run_with_input(&command, input, self.timeout, MAX_OUTPUT);
        let exit = slot.run(&priority, run).await.map_err(ScanError::Sandbox)?;
        let line = |output: &[u8]| single_line(&String::from_utf8_lossy(output), MAX_FIRST_LINE);
        let name = line(&exit.stdout);
        Ok(match exit.termination {
            Termination::Exited(CLEAN) => Ok(Outcome::Clean),
            Termination::Exited(MALWARE) if !name.is_empty() => Ok(Outcome::Infected { name }),
            Termination::Exited(POLICY) if !name.is_empty() => Ok(Outcome::Refused { name }),
            Termination::Exited(LIMIT) if !name.is_empty() => Ok(Outcome::Limit { name }),
            Termination::Exited(code) => {
                Err(EngineFailure::Reported(format!("exit code {code}: {}", line(&exit.stderr))))
            }
            Termination::Signaled(signal) => {
                Err(EngineFailure::Reported(format!("signal {signal}")))
            }
            Termination::TimedOut => Err(EngineFailure::TimedOut),
        })
    }
}
