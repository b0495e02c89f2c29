//! The priority of a job's programs, as the server sets it while they run.

use std::sync::Arc;

use tokio::sync::watch;

/// Lowers the CPU priority of a job's programs, also while one is running. Cheap to clone; independent of the borrow of
/// the [`Job`](crate::Job) that a run needs. Outlives the job, after which it has no effect.
///
/// A demoted job runs when a processor is otherwise idle, or with the smallest share that the kernel has. The helper
/// uses the first of these that the machine permits:
///
/// 1. `cpu.idle`, else `cpu.weight` = 1, of the job's control group, if it has the controller `cpu`: cgroups(7).
/// 2. The policy `SCHED_IDLE` for every thread of the job, which new threads and processes inherit and cannot leave. The
///    helper repeats the search for threads while the program runs, since a program may start some during a search.
///    sched(7).
/// 3. A nice value of 19 for every thread of the job. setpriority(2).
#[derive(Clone, Debug)]
pub struct JobPriority {
    demoted: Arc<watch::Sender<bool>>,
}

impl JobPriority {
    /// Returns a control for a job of a [`Resident`](crate::Resident), not demoted. [`Job::priority`](crate::Job::priority)
    /// returns that of another job.
    #[must_use]
    pub fn new() -> Self {
        Self { demoted: Arc::new(watch::Sender::new(false)) }
    }

    /// Demotes the job's running program and all later ones of the job. Returns at once; the helper acts when it
    /// receives the message, normally within milliseconds. There is no way back: the kernel does not let a process
    /// without privileges leave `SCHED_IDLE`. Calls after the first have no effect.
    pub fn demote(&self) {
        self.demoted.send_replace(true);
    }

    /// Whether [`demote`](Self::demote) has been called.
    #[must_use]
    pub fn is_demoted(&self) -> bool {
        *self.demoted.borrow()
    }

    /// Waits for the call of [`demote`](Self::demote). Cancellation safe.
    pub(crate) async fn demotion(&self) {
        let mut demoted = self.demoted.subscribe();
        // An error would mean that the sender is gone, but `self` keeps it.
        let _ = demoted.wait_for(|demoted| *demoted).await;
    }
}

impl Default for JobPriority {
    fn default() -> Self {
        Self::new()
    }
}
