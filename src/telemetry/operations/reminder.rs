//! Reminds that the service is not ready.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Health;

/// Interval of the checks of readiness.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Time without readiness before the first reminder.
const FIRST: Duration = Duration::from_secs(60);

/// Time between reminders.
const INTERVAL: Duration = Duration::from_secs(600);

/// Calls `report` with the reason one minute after the service has ceased to be ready, and then every ten minutes. Returns when the
/// service stops.
pub(super) async fn remind(health: Health, mut report: impl FnMut(String)) {
    let mut due = None;
    while !health.stopping.is_cancelled() {
        let now = Instant::now();
        match (health.not_ready_reason(), due) {
            (None, _) => due = None,
            (Some(_), None) => due = Some(now + FIRST),
            (Some(reason), Some(at)) if now >= at => {
                report(reason);
                due = Some(now + INTERVAL);
            }
            (Some(_), Some(_)) => {}
        }
        tokio::select! {
            () = sleep(CHECK_INTERVAL) => {}
            () = health.stopping.cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{media::run_directory::RunDirectory, scan::canary::CanaryState};

    #[tokio::test(start_paused = true)]
    async fn reminders_come_after_a_minute_and_every_ten_minutes() {
        let (canary, receiver) = watch::channel(CanaryState::Failed("broken".into()));
        let temp = tempfile::tempdir().unwrap();
        let run_directory = Arc::new(RunDirectory::create(temp.path(), false).unwrap());
        let stopping = CancellationToken::new();
        let health = Health { canary: receiver, stopping: stopping.clone(), run_directory };
        let reports = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&reports);
        let reminding =
            tokio::spawn(remind(health, move |reason| sink.lock().unwrap().push(reason)));
        let count = async |minutes: u64| {
            // Between two checks.
            sleep(Duration::from_secs(minutes * 60)).await;
            reports.lock().unwrap().len()
        };
        sleep(Duration::from_secs(5)).await;
        assert_eq!(count(0).await, 0);
        assert_eq!(count(1).await, 1);
        assert_eq!(count(9).await, 1);
        assert_eq!(count(1).await, 2);
        assert_eq!(count(10).await, 3);
        canary.send_replace(CanaryState::Passed);
        assert_eq!(count(30).await, 3);
        canary.send_replace(CanaryState::Failed("again".into()));
        assert_eq!(count(1).await, 3);
        assert_eq!(count(1).await, 4);
        assert_eq!(reports.lock().unwrap()[3], "canary failed: again");
        stopping.cancel();
        reminding.await.unwrap();
    }
}
