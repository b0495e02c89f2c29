//! Stops the service: announces the stop, and ends running scans.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::service_manager::ServiceManager;
use crate::{media::run_directory::RunDirectory, scan::Scanner};

/// Time limit for running scans and requests after the stop signal.
pub const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Time limit for the sandbox's helpers to clean up after their jobs are cancelled, and for the audit log to be
/// written.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(3);

/// The two stages of a stop.
#[derive(Clone, Debug, Default)]
pub(super) struct StopTokens {
    /// Cancelled at the stop signal: no new work is accepted.
    pub(super) stopping: CancellationToken,
    /// Cancelled at the end of the grace period: remaining work is aborted.
    pub(super) expired: CancellationToken,
}

impl StopTokens {
    /// Waits for `shutdown`, which returns the name of a signal, and cancels the tokens one after the other.
    pub(super) async fn run(
        self,
        shutdown: impl Future<Output = &'static str>,
        manager: ServiceManager,
    ) {
        let signal = shutdown.await;
        manager.notify_stopping();
        info!(
            signal,
            grace_seconds = GRACE_PERIOD.as_secs(),
            "stopping, waiting for running requests and scans; a second signal ends the process immediately"
        );
        self.stopping.cancel();
        sleep(GRACE_PERIOD).await;
        self.expired.cancel();
    }
}

/// Waits for the workers to finish until `expired` is cancelled, then kills the remaining scans.
pub(super) async fn drain(
    scanner: &Scanner,
    mut workers: JoinSet<()>,
    expired: &CancellationToken,
) {
    scanner.close();
    tokio::select! {
        // First, since all workers may be idle when the grace period has expired.
        biased;
        () = async { while workers.join_next().await.is_some() {} } => return,
        () = expired.cancelled() => {}
    }
    warn!("grace period expired, killing scans");
    // The helpers of the sandbox notice the closed sockets, kill the programs and clean up.
    workers.shutdown().await;
}

/// Waits until the helpers have removed the directories of their jobs, at most [`CLEANUP_TIMEOUT`].
pub(super) async fn wait_for_cleanup(directory: &RunDirectory) {
    let end = Instant::now() + CLEANUP_TIMEOUT;
    while !directory.is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}
