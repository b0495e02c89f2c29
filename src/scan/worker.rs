//! The workers. Each takes one job at a time from the queue and processes it completely.

use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tokio::task::JoinSet;
use tracing::{Instrument, error};

use super::{queue::Queue, removal::REMOVAL_TIME_LIMIT, worker_activity::WorkerActivity};

/// Time that a worker may spend on a job after `scan.deadline`, for caching the body and cleaning up.
const CLEANUP_ALLOWANCE: Duration = Duration::from_secs(60).saturating_add(REMOVAL_TIME_LIMIT);

/// Starts workers for `count` jobs at a time, and for as many demoted jobs. They end when the queue is closed and empty.
///
/// # Panics
/// Outside of a Tokio runtime.
#[must_use]
pub fn start(count: usize, queue: &Queue, activity: &Arc<WorkerActivity>) -> JoinSet<()> {
    let mut workers = JoinSet::new();
    for worker in 0..2 * count {
        let (queue, activity) = (queue.clone(), Arc::clone(activity));
        workers.spawn(async move {
            while let Some(mut admitted) = queue.next().await {
                if let Some(job) = admitted.take() {
                    let span = job.span.clone();
                    // A job whose deadline has passed already takes no time.
                    let due = Instant::now().max(job.deadline) + CLEANUP_ALLOWANCE;
                    let _busy = activity.start(worker, due);
                    // A panic before the reply is caught by the job, which then replies with an error.
                    let work = Arc::clone(&job.work)(job).instrument(span);
                    let work = AssertUnwindSafe(work).catch_unwind();
                    if work.await.is_err() {
                        error!("worker panicked during cleanup");
                    }
                }
            }
        });
    }
    workers
}
