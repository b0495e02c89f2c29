//! Preparation of this process for a command.

use std::{env, io, num::NonZero, path::PathBuf, thread};

use nix::sys::{
    prctl,
    stat::{Mode, umask},
};
use tokio::runtime::{self, Runtime};

use super::{arguments::Cli, error::CommandError};
use crate::{
    app::{
        StartError,
        limits::{BLOCKING_THREAD_KEEP_ALIVE, check_threads},
    },
    config::{Config, Warning},
    telemetry::log::{self, LevelHandle},
};

/// Maximum number of threads for blocking work: files and name lookups. With those of the runtime, of the log and of helpers
/// fewer than the tasks that the sandbox leaves to the service, on machines with up to a hundred processors.
const MAX_BLOCKING_THREADS: usize = 384;
const _: () = assert!((MAX_BLOCKING_THREADS as u64) < mcs_sandbox::RESERVED_TASKS);

/// Restricts access to this process, and its use of memory.
pub(super) fn restrict_process() -> Result<(), CommandError> {
    // Prevents core dumps, and tracing by other processes of the same user, before keys or tokens are in memory.
    // PR_SET_DUMPABLE(2const).
    prctl::set_dumpable(false).map_err(io::Error::from)?;
    // Files of the service are private unless it sets their mode explicitly. Without this, a umask that denies access to
    // the owner would lock an unprivileged service out of its own directories. umask(2).
    umask(Mode::from_bits_truncate(0o077));
    // One arena for each runtime thread and each busy blocking thread; more would not reduce contention.
    mcs_sandbox::limit_malloc_arenas(2 * processors());
    Ok(())
}

/// Configuration of a command.
pub(super) struct LoadedConfig {
    /// The file that was read, if any.
    pub(super) file: Option<PathBuf>,
    pub(super) config: Config,
    pub(super) warnings: Vec<Warning>,
    /// Level of the log, which `[log]` sets.
    pub(super) level: LevelHandle,
}

impl LoadedConfig {
    /// Loads the configuration and initializes the log.
    pub(super) fn load(cli: &Cli) -> Result<Self, CommandError> {
        let file = cli.config_file();
        let (config, warnings) = match Config::load(file.as_deref(), env::vars_os()) {
            Ok(loaded) => loaded,
            Err(errors) => return Err(CommandError::Config { file, errors }),
        };
        // The runtime's own threads, one for blocking work and one for the log or the audit log.
        check_threads(processors() + 2).map_err(StartError::from)?;
        let level = log::init(&config.log, cli.terminal().stderr.is_enabled());
        Ok(Self { file, config, warnings, level })
    }
}

/// Starts the runtime. From then on this process has several threads.
pub(super) fn start_runtime() -> io::Result<Runtime> {
    let mut runtime = runtime::Builder::new_multi_thread();
    // Set explicitly: otherwise Tokio reads TOKIO_WORKER_THREADS and panics if it is invalid.
    runtime.worker_threads(processors()).max_blocking_threads(MAX_BLOCKING_THREADS);
    runtime.thread_keep_alive(BLOCKING_THREAD_KEEP_ALIVE).enable_all().build()
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}
