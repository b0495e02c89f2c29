//! What the service manager is told while the service runs: when it is ready, what it is at, and that it lives. It lives if
//! the runtime answers and no worker is late with its job; who hangs is not fed, and restarted.

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
    #[error("{0} workers are not done with their jobs, long after scan.deadline")]
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
    let (mut ready, mut said, mut stuck) = (false, String::new(), None);
    loop {
        tokio::select! {
            _ = beats.tick() => {}
            // Each ends with its sender: then the beats are left.
            Ok(()) = it.canary.changed() => {}
            Ok(()) = it.stopping.changed() => {}
        }
        let load = (it.load)();
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
    if load.late > 0 {
        return Some(Stuck::Workers(load.late));
    }
    let answered = timeout(patience, spawn_blocking(|| {})).await;
    answered.is_err().then_some(Stuck::Threads)
}

fn status(load: Load, canary: &CanaryState, stopping: bool) -> String {
    let Load { busy, workers, waiting, late: _ } = load;
    let work = format!("{busy} of {workers} workers busy, {waiting} media waiting");
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
    async fn a_late_worker_is_not_alive() {
        let patience = Duration::from_secs(60);
        assert_eq!(why_stuck(IDLE, patience).await, None);
        assert_eq!(why_stuck(Load { busy: 4, ..IDLE }, patience).await, None);
        let late = Load { busy: 4, late: 2, ..IDLE };
        assert_eq!(why_stuck(late, patience).await, Some(Stuck::Workers(2)));
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
