//! The resident evaluator of one set of engines: started when a file is to be examined, and replaced after a number of files
//! and when it has ended. A reload creates another one; the old one ends when its last job has ended.

use std::{
    ffi::OsString,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use mcs_evaluator::{
    EvaluatorSettings, EvaluatorTask, HashListSet, ObservedFindings, RuleSet, UnpackSettings,
    memory_allowance,
};
use mcs_filetype::MimeRules;
use mcs_sandbox::{
    Command, JobLimits, JobPriority, Resident, ResidentJobError, ResidentLimits, Sandbox,
};
use tokio::{sync::Mutex, time::Instant};
use tracing::{debug, warn};

use super::{bounds::FindingPolicy, error::EngineFailure};
use crate::{
    chain::Chain,
    media::run_directory::RunDirectory,
    scan::settings::{INSPECTION_TIMEOUT, Settings},
};

/// Number of files after which an evaluator is replaced. Children share the layout of its address space until then.
pub const MAX_FILES: u64 = 10_000;

/// Number of failed starts in a row after which the next start waits.
const MAX_FAILED_STARTS: u32 = 3;

/// Time without a start after [`MAX_FAILED_STARTS`].
const BACKOFF: Duration = Duration::from_secs(10);

/// The program and the prepared rules that evaluators are started with. Evaluators read the rules from a sealed memory
/// file, which is empty without rules. It has no path, so that no other user can replace it.
#[derive(Debug)]
pub struct Evaluator {
    program: PathBuf,
    prepared: File,
    has_rules: bool,
    hashes: Option<HashListSet>,
    /// The evaluators of configurations that are in use: engines of equal settings share one, those of the service and of
    /// its canary for example.
    shared: parking_lot::Mutex<Vec<Weak<ResidentEvaluator>>>,
}

impl Evaluator {
    /// Copies the rules to a sealed memory file.
    pub fn prepare(
        program: PathBuf,
        rules: Option<&RuleSet>,
        hashes: Option<&HashListSet>,
    ) -> io::Result<Self> {
        let prepared = rules.map(RuleSet::prepared).unwrap_or_default();
        let prepared = mcs_sandbox::sealed("rules", prepared)?;
        let shared = parking_lot::Mutex::default();
        Ok(Self { program, prepared, has_rules: rules.is_some(), hashes: hashes.cloned(), shared })
    }

    /// Returns the lists of hashes that evaluators load.
    pub(super) fn hashes(&self) -> Option<&HashListSet> {
        self.hashes.as_ref()
    }

    /// Returns whether evaluators load rules.
    pub(super) fn has_rules(&self) -> bool {
        self.has_rules
    }

    /// Returns the evaluator for these settings and at most this number of files at once.
    pub(super) fn resident(
        env: &EvaluatorEnv,
        settings: &Settings,
        jobs: usize,
    ) -> Arc<ResidentEvaluator> {
        let new = ResidentEvaluator::new(env.clone(), settings, jobs);
        let mut shared = env.evaluator.shared.lock();
        shared.retain(|resident| resident.strong_count() > 0);
        let mut existing = shared.iter().filter_map(Weak::upgrade);
        if let Some(existing) = existing.find(|existing| existing.is_same(&new)) {
            return existing;
        }
        let new = Arc::new(new);
        shared.push(Arc::downgrade(&new));
        new
    }

    /// Ends the evaluators when their jobs have ended. No other one is started.
    pub async fn stop(&self) {
        let shared: Vec<_> = self.shared.lock().iter().filter_map(Weak::upgrade).collect();
        for resident in shared {
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
    /// Whether the audit log needs the types of files.
    pub audits_types: bool,
}

/// Returns what does not end an examination.
fn observed_findings(settings: &Settings) -> ObservedFindings {
    let rules = settings.rules();
    let is_observed = |policy| policy == FindingPolicy::Observe;
    ObservedFindings {
        rules: rules.map(|rules| rules.observe.clone()).unwrap_or_default(),
        all_rules: rules.is_some_and(|rules| is_observed(rules.bounds.on_not_clean)),
        hashes: settings.hashes().is_some_and(|hashes| is_observed(hashes.on_not_clean)),
    }
}

/// Starts and replaces the evaluators of one set of engines.
#[derive(Debug)]
pub(super) struct ResidentEvaluator {
    env: EvaluatorEnv,
    args: Vec<OsString>,
    detects_types: bool,
    observes_hashes: bool,
    limits: ResidentLimits,
    /// Limits of a child that unpacks its file, for the rules or the lists of hashes.
    unpacking: JobLimits,
    /// Limits of a child that only inspects.
    inspecting: JobLimits,
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
        let rules = settings.rules();
        let unpack = settings.unpack.as_ref().map(|unpack| &unpack.limits);
        let uses_file_type = rules.is_some_and(|rules| rules.rules.uses_file_type());
        let no_unpacking = UnpackSettings { enabled: false, ..UnpackSettings::default() };
        let inspecting =
            JobLimits { memory: memory_allowance(&no_unpacking), time: INSPECTION_TIMEOUT };
        let unpacking = unpack.map_or(inspecting, |limits| JobLimits {
            memory: memory_allowance(limits),
            time: rules.map_or(INSPECTION_TIMEOUT, |rules| rules.timeout),
        });
        let evaluator_settings = EvaluatorSettings {
            ignored: rules.map(|rules| rules.ignore.clone()).unwrap_or_default(),
            observed: observed_findings(settings),
            unpack: unpack.cloned().unwrap_or(no_unpacking),
            detects_types: settings.mime != MimeRules::All || env.audits_types || uses_file_type,
            sets_file_type: uses_file_type,
            inner_types: settings.inner_types(),
        };
        Self {
            env,
            args: mcs_evaluator::arguments(&evaluator_settings),
            detects_types: evaluator_settings.detects_types,
            observes_hashes: evaluator_settings.observed.hashes,
            limits: ResidentLimits {
                jobs: u32::try_from(jobs).unwrap_or(u32::MAX),
                job_memory: unpacking.memory.max(inspecting.memory),
            },
            unpacking,
            inspecting,
            state: Mutex::default(),
        }
    }

    /// Returns whether both evaluate in the same way.
    fn is_same(&self, other: &Self) -> bool {
        (&self.args, self.limits, self.unpacking) == (&other.args, other.limits, other.unpacking)
    }

    /// Returns whether reports contain the types of files.
    pub(super) fn detects_types(&self) -> bool {
        self.detects_types
    }

    /// Returns whether a blocked hash does not end an examination.
    pub(super) fn observes_hashes(&self) -> bool {
        self.observes_hashes
    }

    async fn stop(&self) {
        *self.state.lock().await = EvaluatorState { is_stopped: true, ..EvaluatorState::default() };
    }

    /// Examines a file, which must be open for reading only, and returns the child's report. If the evaluator ends, another
    /// one examines the file, once: an evaluator does not read files, so its end says nothing about the file.
    /// Cancellation safe: dropping the future kills the child.
    pub(super) async fn run(
        &self,
        media: File,
        task: EvaluatorTask,
        priority: &JobPriority,
    ) -> Result<Vec<u8>, EngineFailure> {
        let is_inspection = task == EvaluatorTask::INSPECT;
        let limits = if is_inspection { self.inspecting } else { self.unpacking };
        let argument = task.argument();
        match self.acquire().await?.evaluate(&media, argument, limits, priority).await {
            Err(ResidentJobError::Ended) => {
                Ok(self.acquire().await?.evaluate(&media, argument, limits, priority).await?)
            }
            result => Ok(result?),
        }
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
                warn!(error = %Chain(&failure), "cannot replace the evaluator");
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
                debug!(duration = ?now.elapsed(), "evaluator started");
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
                    warn!(retry_in = ?BACKOFF, "evaluator cannot be started, backing off");
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
        let hashes = evaluator.hashes.as_ref().map(HashListSet::prepared);
        let data: Vec<_> = [&evaluator.prepared].into_iter().chain(hashes).collect();
        sandbox
            .start_resident(directory, command, &data, self.limits)
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
