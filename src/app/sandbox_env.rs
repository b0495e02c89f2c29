//! Environment for programs: prepared from the configuration, and again by a reload.

use std::{path::Path, sync::Arc};

use mcs_sandbox::{Cgroup, Layer, Mode, Policy, Sandbox, SandboxBuilder};
use tracing::{info, warn};

use super::error::StartError;
use crate::{
    chain::Chain,
    config::Config,
    media::{
        run_directory::{self, RunDirectory},
        spool::Spool,
    },
    scan::engines::{self, Engines, Evaluator, EvaluatorEnv, RemoteEngines, slots::ScanSlots},
};

/// Environment for programs: the probed sandbox and the directory of this process.
#[derive(Clone, Debug)]
pub struct SandboxEnv {
    /// Prepares jobs.
    pub sandbox: Sandbox,
    /// Inspects files and evaluates rules in the sandbox.
    pub evaluator: Arc<Evaluator>,
    /// Directory of this process, removed on exit.
    pub directory: Arc<RunDirectory>,
}

impl SandboxEnv {
    /// Prepares the environment of the running service: removes the directories of killed servers, creates the
    /// directory of this process, and probes the sandbox.
    pub async fn for_service(config: &Config) -> Result<Self, StartError> {
        Self::prepare(config, config.sandbox.clone(), None).await
    }

    /// Prepares the environment of a command. The sandbox also has access to `program`.
    pub async fn for_command(config: &Config, program: Option<&Path>) -> Result<Self, StartError> {
        let mut policy = config.sandbox.clone();
        // The command may run while the service runs, or before it in the same unit.
        policy.cgroup = Cgroup::Off("only the running service enters the one delegated to it");
        if let Mode::Strict(required) = &mut policy.mode {
            required.retain(|layer| *layer != Layer::Cgroup);
        }
        Self::prepare(config, policy, program).await
    }

    async fn prepare(
        config: &Config,
        mut policy: Policy,
        program: Option<&Path>,
    ) -> Result<Self, StartError> {
        let temp_directory = config.scan.temp_directory.clone();
        let temp_directory_error =
            |source| StartError::TempDirectory { path: temp_directory.clone(), source };
        for (path, result) in run_directory::sweep(&temp_directory).map_err(temp_directory_error)? {
            match result {
                Ok(()) => info!(path = %path.display(), "removed directory of a killed server"),
                Err(error) => warn!(
                    path = %path.display(),
                    error = %Chain(&error),
                    "cannot remove directory of a killed server"
                ),
            }
        }
        let passable = config.sandbox.user.is_some();
        let directory =
            RunDirectory::create(&temp_directory, passable).map_err(temp_directory_error)?;
        let evaluator = evaluator(config, None)?;
        allow_programs(&mut policy, config, &evaluator);
        policy.paths.read_only.extend(program.map(Path::to_owned));
        let builder = SandboxBuilder::new(policy)?.for_programs(max_programs(config));
        let sandbox = builder.probe(directory.path()).await?;
        Ok(Self { sandbox, evaluator, directory: Arc::new(directory) })
    }

    /// Returns an environment with the same directory and a sandbox for another configuration, and probes that sandbox.
    pub(super) async fn with_policy(&self, config: &Config) -> Result<Self, StartError> {
        let mut policy = config.sandbox.clone();
        let evaluator = evaluator(config, Some(&self.evaluator))?;
        allow_programs(&mut policy, config, &evaluator);
        let directory = self.directory.ensure().map_err(|source| StartError::TempDirectory {
            path: config.scan.temp_directory.clone(),
            source,
        })?;
        let builder = self.sandbox.with_policy(policy)?.for_programs(max_programs(config));
        let sandbox = builder.probe(directory).await?;
        Ok(Self { sandbox, evaluator, directory: Arc::clone(&self.directory) })
    }

    /// Creates the engines of a configuration. Programs run in this sandbox.
    pub(super) fn engines(
        &self,
        config: &Config,
        scan_slots: &ScanSlots,
        remote_engines: &Arc<RemoteEngines>,
    ) -> Result<Engines, engines::EngineSetupError> {
        let evaluator = EvaluatorEnv {
            evaluator: Arc::clone(&self.evaluator),
            sandbox: self.sandbox.clone(),
            directory: Arc::clone(&self.directory),
            max_files: engines::MAX_FILES,
            audits_types: config.audit.path.is_some(),
        };
        Engines::new(&config.scan, &self.sandbox, &evaluator, scan_slots, remote_engines)
    }

    /// Creates the spool in the directory of this process.
    #[must_use]
    pub fn spool(&self, config: &Config) -> Spool {
        let (limit, max_size) = (config.scan.max_spool_size, config.download.max_size);
        Spool::new(Arc::clone(&self.directory), limit, max_size)
    }
}

/// Returns the number of programs at once that limits are fitted to: those in scan slots, as many demoted ones, and the
/// canary's. Not counted are removal commands, which run at most 30 s each, and the second canary of a reload.
fn max_programs(config: &Config) -> usize {
    config.scan.max_scripts.saturating_mul(2).saturating_add(1)
}

/// Allows read access to all configured programs, wherever they are installed.
fn allow_programs(policy: &mut Policy, config: &Config, evaluator: &Evaluator) {
    policy.paths.read_only.push(evaluator.program().to_owned());
    policy.paths.read_only.extend(config.scan.script.clone());
    policy
        .paths
        .read_only
        .extend(config.scan.removal_command.iter().map(|(program, _)| program.clone()));
}

/// Creates the evaluator for a configuration. Uses the program of `previous` if present: the file of the running
/// program may have been replaced or removed since the start.
fn evaluator(config: &Config, previous: Option<&Evaluator>) -> Result<Arc<Evaluator>, StartError> {
    let rules = config.scan.rules().map(|rules| &rules.rules);
    let hashes = config.scan.hashes().map(|hashes| &hashes.lists.set);
    let program = match previous {
        Some(previous) => previous.program().to_owned(),
        None => std::env::current_exe().map_err(StartError::Evaluator)?,
    };
    let evaluator = Evaluator::prepare(program, rules, hashes).map_err(StartError::Evaluator)?;
    Ok(Arc::new(evaluator))
}
