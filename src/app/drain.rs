//! Ends running scans when the service stops.

use std::time::Duration;

use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};
use tracing::warn;

use crate::{media::run_directory::RunDirectory, scan::Scanner};

/// Time limit for the sandbox's helpers to clean up after their jobs are cancelled, and for the audit log to be
/// written.
pub(super) const CLEANUP_TIMEOUT: Duration = Duration::from_secs(3);

/// Waits until `end` for the workers to finish, then kills the remaining scans.
pub(super) async fn drain(scanner: &Scanner, mut workers: JoinSet<()>, end: Instant) {
    scanner.close();
    let done = async { while workers.join_next().await.is_some() {} };
    if timeout_at(end, done).await.is_err() {
        warn!("grace period expired, killing scans");
        // The helpers of the sandbox notice the closed sockets, kill the programs and clean up.
        workers.shutdown().await;
    }
}

/// Waits until the helpers have removed the directories of their jobs, at most [`CLEANUP_TIMEOUT`].
pub(super) async fn wait_for_cleanup(directory: &RunDirectory) {
    let end = Instant::now() + CLEANUP_TIMEOUT;
    while !directory.is_empty() && Instant::now() < end {
        sleep(Duration::from_millis(10)).await;
    }
}
