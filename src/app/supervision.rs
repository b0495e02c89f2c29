//! Reports readiness, status and liveness to the service manager. The service is live while the runtime responds and
//! fewer than half of the workers are overdue; otherwise watchdog pings stop, and the service manager restarts it.
//!
//! A restart aborts all running scans and clears all caches, so a single stuck worker causes only a log entry and a
//! metric. Clients cannot make a worker overdue: jobs end at `scan.deadline`, so an overdue worker is a fault of this
//! process.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::{limits::BLOCKING_THREAD_KEEP_ALIVE, service_manager::ServiceManager};
use crate::scan::{WorkerLoad, canary::CanaryState};

/// Interval between reports, unless the watchdog requires a shorter one.
const HEARTBEAT: Duration = Duration::from_secs(10);

const _: () = assert!(BLOCKING_THREAD_KEEP_ALIVE.as_secs() > 2 * HEARTBEAT.as_secs());

/// Extension of the start timeout with each report.
const START_EXTENSION: Duration = HEARTBEAT.saturating_mul(6);

/// State that the supervision observes.
pub(crate) struct ObservedState {
    /// Returns the current load of the workers.
    pub(crate) load: Box<dyn Fn() -> WorkerLoad + Send>,
    pub(crate) canary: watch::Receiver<CanaryState>,
    /// Cancelled when the service stops.
    pub(crate) stopping: CancellationToken,
}

/// Reason for withholding watchdog pings.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum StuckReason {
    #[error("{0} workers are overdue, at least half of them")]
    Workers(usize),
    #[error("no free blocking thread")]
    Threads,
}

/// Reports to `manager` until dropped. The service counts as starting until the canary first passes, without a time
/// limit; later failures of the canary appear in the status.
pub(crate) async fn run(manager: ServiceManager, mut observed: ObservedState) {
    let period =
        manager.watchdog_timeout().map_or(HEARTBEAT, |watchdog| HEARTBEAT.min(watchdog / 3));
    let mut heartbeat = interval(period);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ready, mut last_status, mut stuck, mut overdue) = (false, String::new(), None, 0);
    let mut is_stopping = false;
    loop {
        tokio::select! {
            _ = heartbeat.tick() => {}
            // A branch is disabled when its sender is dropped; the heartbeat remains.
            Ok(()) = observed.canary.changed() => {}
            () = observed.stopping.cancelled(), if !is_stopping => {}
        }
        is_stopping = observed.stopping.is_cancelled();
        let load = (observed.load)();
        if load.overdue > std::mem::replace(&mut overdue, load.overdue) {
            let (overdue, workers) = (load.overdue, load.workers);
            error!(overdue, workers, "workers are still busy long after scan.deadline");
        }
        let before = std::mem::replace(&mut stuck, stuck_reason(load, period).await);
        if let Some(reason) = stuck.filter(|_| before != stuck) {
            error!(%reason, "service is stuck, watchdog ping withheld");
        }
        let passed = *observed.canary.borrow_and_update() == CanaryState::Passed;
        if passed && !ready {
            ready = true;
            manager.notify_ready();
        }
        if stuck.is_none() {
            manager.ping_watchdog();
            if !ready {
                manager.extend_timeout(START_EXTENSION);
            }
        }
        let status = status(load, &observed.canary.borrow(), is_stopping);
        if last_status != status {
            manager.set_status(&status);
            last_status = status;
        }
    }
}

/// Checks the workers, and that a blocking thread starts within `limit`.
async fn stuck_reason(load: WorkerLoad, limit: Duration) -> Option<StuckReason> {
    if load.overdue > 0 && load.overdue >= load.workers.div_ceil(2) {
        return Some(StuckReason::Workers(load.overdue));
    }
    let result = timeout(limit, spawn_blocking(|| {})).await;
    result.is_err().then_some(StuckReason::Threads)
}

fn status(load: WorkerLoad, canary: &CanaryState, stopping: bool) -> String {
    let WorkerLoad { busy, workers, waiting, overdue } = load;
    let mut work = format!("{busy} of {workers} workers busy, {waiting} media waiting");
    if overdue > 0 {
        work = format!("{work}, {overdue} workers overdue");
    }
    match canary {
        _ if stopping => format!("Stopping; {work}"),
        CanaryState::Pending => "Waiting for the result of the canary".to_owned(),
        CanaryState::Passed => format!("Scanning; {work}"),
        CanaryState::Failed(reason) => format!("Not ready, scans are rejected: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: WorkerLoad = WorkerLoad { busy: 0, overdue: 0, workers: 4, waiting: 0 };

    #[tokio::test]
    async fn is_stuck_when_half_of_the_workers_are_overdue() {
        let limit = Duration::from_secs(60);
        assert_eq!(stuck_reason(IDLE, limit).await, None);
        assert_eq!(stuck_reason(WorkerLoad { busy: 4, ..IDLE }, limit).await, None);
        for (workers, overdue, stuck) in
            [(4, 1, false), (4, 2, true), (5, 2, false), (5, 3, true), (1, 1, true), (32, 8, false)]
        {
            let load = WorkerLoad { busy: workers, overdue, workers, waiting: 9 };
            let expected = stuck.then_some(StuckReason::Workers(overdue));
            assert_eq!(stuck_reason(load, limit).await, expected, "{overdue} of {workers}");
        }
    }

    #[test]
    fn is_stuck_when_no_blocking_thread_is_free() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let blocked = spawn_blocking(move || released.recv());
            assert_eq!(
                stuck_reason(IDLE, Duration::from_millis(50)).await,
                Some(StuckReason::Threads)
            );
            drop(release);
            assert!(blocked.await.unwrap().is_err());
            assert_eq!(stuck_reason(IDLE, Duration::from_secs(60)).await, None);
        });
    }

    #[test]
    fn status_describes_state_and_load() {
        let load = WorkerLoad { busy: 2, waiting: 3, ..IDLE };
        let overdue = WorkerLoad { overdue: 1, ..load };
        assert_eq!(
            status(overdue, &CanaryState::Passed, false),
            "Scanning; 2 of 4 workers busy, 3 media waiting, 1 workers overdue"
        );
        let failed = CanaryState::Failed("no signatures".into());
        for (canary, stopping, expected) in [
            (CanaryState::Pending, false, "Waiting for the result of the canary"),
            (CanaryState::Passed, false, "Scanning; 2 of 4 workers busy, 3 media waiting"),
            (CanaryState::Passed, true, "Stopping; 2 of 4 workers busy, 3 media waiting"),
            (failed.clone(), false, "Not ready, scans are rejected: no signatures"),
            (failed, true, "Stopping; 2 of 4 workers busy, 3 media waiting"),
        ] {
            assert_eq!(status(load, &canary, stopping), expected);
        }
    }
}
