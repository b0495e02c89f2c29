//! Verifies limits of the operating system at startup. Reports the name of a limit that is too low, so that the service
//! does not fail later under load.

use std::{io, sync::Mutex, thread, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that each worker needs at most: the connection to the homeserver, the files of the job, the helper's
/// socket, the script's pipes, and the connections to engines.
const DESCRIPTORS_PER_WORKER: usize = 16;

/// Descriptors for everything else: listeners, the log, the runtime, the operations listener and its connections.
const OTHER_DESCRIPTORS: usize = 128;

/// Time for which the runtime keeps an idle thread for blocking work. Longer than the interval at which supervision
/// uses such a thread, so that at least one idle thread always exists: if Tokio cannot create a thread, it uses the
/// existing ones, and panics if no such thread exists.
pub const BLOCKING_THREAD_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A limit that is too low.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error(
        "the limit of open files is {limit}, but web.max_connections = {max_connections} and scan.workers = {workers} \
         need {needed}: raise it (LimitNOFILE= of the unit, ulimit -Hn), or lower web.max_connections"
    )]
    Descriptors { limit: u64, needed: u64, max_connections: usize, workers: usize },
    #[error(
        "cannot start {needed} threads: raise the limit of processes (TasksMax= of the unit, ulimit -u, pids.max of the \
         container)"
    )]
    Threads { needed: usize, source: io::Error },
}

/// Raises the soft limit of open files to the hard limit, for connections, jobs and their pipes. The soft limit is
/// often 1024, for programs that use select(2); this program does not.
///
/// # Errors
/// The limit does not suffice.
pub fn raise_descriptor_limit(max_connections: usize, workers: usize) -> Result<(), LimitError> {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    let mut limit = hard;
    if soft < hard
        && let Err(errno) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        tracing::warn!(%errno, soft, hard, "cannot raise the limit of open files");
        limit = soft;
    }
    let needed = workers.saturating_mul(DESCRIPTORS_PER_WORKER) + OTHER_DESCRIPTORS;
    let needed = needed.saturating_add(max_connections) as u64;
    if limit < needed {
        return Err(LimitError::Descriptors { limit, needed, max_connections, workers });
    }
    Ok(())
}

/// Verifies that this number of threads can run at the same time in addition to the existing ones. The runtime panics
/// if it cannot start its threads.
///
/// # Errors
/// A thread cannot be created; the error is that of `pthread_create(3)`.
pub fn check_threads(count: usize) -> Result<(), LimitError> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        // All threads wait until each has been started.
        let _closed = gate.lock();
        (0..count)
            .try_for_each(|_| {
                let wait = || drop(gate.lock());
                thread::Builder::new().spawn_scoped(scope, wait).map(drop)
            })
            .map_err(|source| LimitError::Threads { needed: count, source })
    })
}
