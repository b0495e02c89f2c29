//! What the service manager is told while the service runs: when it is ready, what it is at, and that it lives. It lives if
//! the runtime answers and most workers are in time with their jobs; who hangs is not fed, and restarted.
//!
//! A restart ends every scan that runs and forgets what is in memory, for all. One worker that hangs is less than that: it is
//! told, and alerted of, and the others go on. Half of them are more than one server or one token, which has at most a quarter,
//! can hold, from three workers on: nobody by themselves brings a restart about.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::error;

use crate::{
    scan::{Load, canary::CanaryState},
    service_manager::ServiceManager,
};

/// How often, where no watchdog asks for more.
const BEAT: Duration = Duration::from_secs(10);

/// How much longer the start may take each time that it is asked for.
const START: Duration = BEAT.saturating_mul(6);

/// What is looked at.
pub(crate) struct Supervised {
    /// What there is to do.
    pub(crate) load: Box<dyn Fn() -> Load + Send>,
    pub(crate) canary: watch::Receiver<CanaryState>,
    /// Set when the service stops.
    pub(crate) stopping: watch::Receiver<Option<Instant>>,
}

/// Why the watchdog is not fed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
enum Stuck {
    #[error("half of the workers or more hang: {0}")]
    Workers(usize),
    #[error("no thread is free for what blocks")]
    Threads,
}

/// Tells `manager` until this is dropped. A canary that fails keeps the service starting, for as long as it takes; where it
/// fails later, the status says so.
pub(crate) async fn tell(manager: ServiceManager, mut it: Supervised) {
    let beat = manager.watchdog().map_or(BEAT, |watchdog| BEAT.min(watchdog / 3));
    let mut beats = interval(beat);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut ready, mut said, mut stuck, mut late) = (false, String::new(), None, 0);
    loop {
        tokio::select! {
            _ = beats.tick() => {}
            // Each ends with its sender: then the beats are left.
            Ok(()) = it.canary.changed() => {}
            Ok(()) = it.stopping.changed() => {}
        }
        let load = (it.load)();
        if load.late > std::mem::replace(&mut late, load.late) {
            let (late, workers) = (load.late, load.workers);
            error!(late, workers, "workers are not done with their jobs, long after scan.deadline");
        }
        let before = std::mem::replace(&mut stuck, why_stuck(load, beat).await);
        if let Some(why) = stuck.filter(|_| before != stuck) {
            error!(%why, "the service hangs: the service manager's watchdog is not fed");
        }
        let passed = *it.canary.borrow_and_update() == CanaryState::Passed;
        if passed && !ready {
            ready = true;
            manager.ready();
        }
        if stuck.is_none() {
            manager.alive();
            if !ready {
                manager.extend_timeout(START);
            }
        }
        let is_stopping = it.stopping.borrow_and_update().is_some();
        let status = status(load, &it.canary.borrow(), is_stopping);
        if said != status {
            manager.status(&status);
            said = status;
        }
    }
}

async fn why_stuck(load: Load, patience: Duration) -> Option<Stuck> {
    if load.late > 0 && load.late >= load.workers.div_ceil(2) {
        return Some(Stuck::Workers(load.late));
    }
    let answered = timeout(patience, spawn_blocking(|| {})).await;
    answered.is_err().then_some(Stuck::Threads)
}

fn status(load: Load, canary: &CanaryState, stopping: bool) -> String {
    let Load { busy, workers, waiting, late } = load;
    let mut work = format!("{busy} of {workers} workers busy, {waiting} media waiting");
    if late > 0 {
        work = format!("{work}, {late} workers hang");
    }
    match canary {
        _ if stopping => format!("Stopping; {work}"),
        CanaryState::Awaited => "Starting: the canary's first answer is awaited".to_owned(),
        CanaryState::Passed => format!("Scanning; {work}"),
        CanaryState::Failed(why) => format!("Not ready, nothing is scanned: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { busy: 0, late: 0, workers: 4, waiting: 0 };

    #[tokio::test]
    async fn who_has_half_of_its_workers_late_is_not_alive() {
        let patience = Duration::from_secs(60);
        assert_eq!(why_stuck(IDLE, patience).await, None);
        assert_eq!(why_stuck(Load { busy: 4, ..IDLE }, patience).await, None);
        for (workers, late, stuck) in
            [(4, 1, false), (4, 2, true), (5, 2, false), (5, 3, true), (1, 1, true), (32, 8, false)]
        {
            let load = Load { busy: workers, late, workers, waiting: 9 };
            let expected = stuck.then_some(Stuck::Workers(late));
            assert_eq!(why_stuck(load, patience).await, expected, "{late} of {workers}");
        }
    }

    #[test]
    fn a_runtime_whose_threads_all_hang_is_not_alive() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        runtime.block_on(async {
            let hangs = spawn_blocking(move || released.recv());
            assert_eq!(why_stuck(IDLE, Duration::from_millis(50)).await, Some(Stuck::Threads));
            drop(release);
            assert!(hangs.await.unwrap().is_err());
            assert_eq!(why_stuck(IDLE, Duration::from_secs(60)).await, None);
        });
    }

    #[test]
    fn the_status_says_what_the_service_is_at() {
        let load = Load { busy: 2, waiting: 3, ..IDLE };
        let late = Load { late: 1, ..load };
        assert_eq!(
            status(late, &CanaryState::Passed, false),
            "Scanning; 2 of 4 workers busy, 3 media waiting, 1 workers hang"
        );
        let failed = CanaryState::Failed("no signatures".into());
        for (canary, stopping, said) in [
            (CanaryState::Awaited, false, "Starting: the canary's first answer is awaited"),
            (CanaryState::Passed, false, "Scanning; 2 of 4 workers busy, 3 media waiting"),
            (CanaryState::Passed, true, "Stopping; 2 of 4 workers busy, 3 media waiting"),
            (failed.clone(), false, "Not ready, nothing is scanned: no signatures"),
            (failed, true, "Stopping; 2 of 4 workers busy, 3 media waiting"),
        ] {
            assert_eq!(status(load, &canary, stopping), said);
        }
    }
}
