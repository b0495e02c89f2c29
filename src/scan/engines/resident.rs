//! The resident evaluator of one set of rules: started when a file is to be evaluated, and replaced after a number of files
//! and when it has ended. A reload creates another one; the old one ends when its last job has ended.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use mcs_evaluator::{RuleSet, memory_allowance};
use mcs_sandbox::{
    Command, JobLimits, JobPriority, Resident, ResidentJobError, ResidentLimits, Sandbox,
};
use tokio::{sync::Mutex, time::Instant};
use tracing::{debug, warn};

use super::error::EngineFailure;
use crate::{chain::Chain, config::sections::rules::Settings, media::run_directory::RunDirectory};

/// Number of files after which an evaluator is replaced. Children share the layout of its address space until then.
pub const MAX_FILES: u64 = 10_000;

/// Number of failed starts in a row after which the next start waits.
const MAX_FAILED_STARTS: u32 = 3;

/// Time without a start after [`MAX_FAILED_STARTS`].
const BACKOFF: Duration = Duration::from_secs(10);

/// The program and the prepared rules that evaluators are started with. Evaluators read the rules from a sealed memory
/// file. It has no path, so that no other user can replace it.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: File,
    /// The evaluator that the engines of the latest configuration share: those of the service and of its canary.
    shared: parking_lot::Mutex<Weak<ResidentEvaluator>>,
}

impl Evaluator {
    /// Copies the rules to a sealed memory file.
    pub fn prepare(program: PathBuf, rules: &RuleSet) -> io::Result<Self> {
        let prepared = mcs_sandbox::sealed("rules", rules.prepared())?;
        Ok(Self { program, prepared, shared: parking_lot::Mutex::default() })
    }

    /// Returns the evaluator for these settings and at most this number of files at once.
    pub(super) fn resident(
        env: &EvaluatorEnv,
        settings: &Settings,
        jobs: usize,
    ) -> Arc<ResidentEvaluator> {
        let new = ResidentEvaluator::new(env.clone(), settings, jobs);
        let mut shared = env.evaluator.shared.lock();
        if let Some(existing) = shared.upgrade().filter(|existing| existing.is_same(&new)) {
            return existing;
        }
        let new = Arc::new(new);
        *shared = Arc::downgrade(&new);
        new
    }

    /// Ends the evaluator when its jobs have ended. No other one is started.
    pub async fn stop(&self) {
        let shared = self.shared.lock().upgrade();
        if let Some(resident) = shared {
            resident.stop().await;
        }
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

/// What an evaluator needs from its environment.
#[derive(Clone, Debug)]
pub struct EvaluatorEnv {
    /// The program and the rules.
    pub evaluator: Arc<Evaluator>,
    /// Evaluators run in it.
    pub sandbox: Sandbox,
    /// The directory for the evaluator's own directory.
    pub directory: Arc<RunDirectory>,
    /// Number of files after which an evaluator is replaced, [`MAX_FILES`] except in tests.
    pub max_files: u64,
}

/// Starts and replaces the evaluators of one set of rules.
#[derive(Debug)]
pub(super) struct ResidentEvaluator {
    env: EvaluatorEnv,
    args: Vec<OsString>,
    limits: ResidentLimits,
    time_limit: Duration,
    /// Locked during a start, so that one start serves all waiting jobs.
    state: Mutex<EvaluatorState>,
}

#[derive(Default, Debug)]
struct EvaluatorState {
    current: Option<Arc<Resident>>,
    /// Number of files that `current` was used for.
    files: u64,
    failed_starts: u32,
    /// No start before this time.
    retry_at: Option<Instant>,
    is_stopped: bool,
}

impl ResidentEvaluator {
    /// Creates an evaluator for at most this number of files at once. Nothing is started yet.
    pub(super) fn new(env: EvaluatorEnv, settings: &Settings, jobs: usize) -> Self {
        let ignored = settings.ignore.iter().map(String::as_str);
        let limits = &settings.unpack.limits;
        Self {
            env,
            args: mcs_evaluator::arguments(ignored, limits),
            limits: ResidentLimits {
                jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
                job_memory: memory_allowance(limits),
            },
            time_limit: settings.timeout,
            state: Mutex::default(),
        }
    }

    /// Returns whether both evaluate in the same way.
    fn is_same(&self, other: &Self) -> bool {
        (&self.args, self.limits, self.time_limit) == (&other.args, other.limits, other.time_limit)
    }

    async fn stop(&self) {
        *self.state.lock().await = EvaluatorState { is_stopped: true, ..EvaluatorState::default() };
    }

    /// Evaluates a file, which must be open for reading only, and returns the evaluator's answer. A job whose evaluator
    /// ends fails; the next one starts another evaluator. Cancellation safe: dropping the future kills the child.
    pub(super) async fn evaluate(
        &self,
        media: File,
        priority: &JobPriority,
    ) -> Result<Vec<u8>, EngineFailure> {
        let resident = self.acquire().await?;
        let limits = JobLimits { memory: self.limits.job_memory, time: self.time_limit };
        Ok(resident.evaluate(media, limits, priority).await?)
    }

    /// Returns an evaluator for one file.
    async fn acquire(&self) -> Result<Arc<Resident>, EngineFailure> {
        let mut state = self.state.lock().await;
        let usable = state.current.clone().filter(|resident| !resident.has_ended());
        if let Some(resident) = usable.as_ref().filter(|_| state.files < self.env.max_files) {
            state.files += 1;
            return Ok(Arc::clone(resident));
        }
        match (self.start(&mut state).await, usable) {
            (Ok(resident), _) => Ok(resident),
            // Evaluates with the old one until a start succeeds.
            (Err(failure), Some(resident)) => {
                warn!(error = %Chain(&failure), "cannot replace the rule evaluator");
                Ok(resident)
            }
            (Err(failure), None) => Err(failure),
        }
    }

    async fn start(&self, state: &mut EvaluatorState) -> Result<Arc<Resident>, EngineFailure> {
        let now = Instant::now();
        if state.is_stopped {
            return Err(EngineFailure::NotStarted(io::Error::other("the service is stopping")));
        }
        if state.retry_at.is_some_and(|retry_at| now < retry_at) {
            return Err(EngineFailure::NotStarted(io::Error::other(
                "several starts have failed, the next one is tried later",
            )));
        }
        match self.start_resident().await {
            Ok(resident) => {
                debug!(duration = ?now.elapsed(), "rule evaluator started");
                let resident = Arc::new(resident);
                // Drops the previous one, which ends when the jobs that use it have ended.
                *state = EvaluatorState {
                    current: Some(Arc::clone(&resident)),
                    files: 1,
                    ..EvaluatorState::default()
                };
                Ok(resident)
            }
            Err(error) => {
                let failure = EngineFailure::NotStarted(error);
                // A lack of descriptors or processes ends at any time.
                state.failed_starts += u32::from(!failure.is_overload());
                if state.failed_starts >= MAX_FAILED_STARTS {
                    warn!(retry_in = ?BACKOFF, "rule evaluator cannot be started, backing off");
                    state.retry_at = Some(Instant::now() + BACKOFF);
                }
                Err(failure)
            }
        }
    }

    async fn start_resident(&self) -> io::Result<Resident> {
        let EvaluatorEnv { evaluator, sandbox, directory, .. } = &self.env;
        let command = Command { program: evaluator.program.clone(), args: self.args.clone() };
        let directory = directory.ensure()?;
        sandbox
            .start_resident(directory, command, &evaluator.prepared, self.limits)
            .await
            .map_err(io::Error::other)
    }
}

impl From<ResidentJobError> for EngineFailure {
    fn from(error: ResidentJobError) -> Self {
        match error {
            ResidentJobError::Ended => Self::ConnectionLost(None),
            ResidentJobError::NotStarted(error) | ResidentJobError::Pipe(error) => {
                Self::NotStarted(error)
            }
            ResidentJobError::TimedOut => Self::TimedOut,
            ResidentJobError::Failed(_) => Self::Reported(error.to_string()),
            ResidentJobError::Record(_) => Self::BadResponse(error.to_string()),
        }
    }
}
