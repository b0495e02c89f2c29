//! Runs work such that a panic becomes an error of the job.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

use super::error::ScanError;
use crate::media::ingest::IngestError;

/// Converts a panic of `work` to [`ScanError::Panicked`]. State that `work` may have left inconsistent is not used
/// again: the job's directory is only removed.
pub(super) async fn caught<T>(
    work: impl Future<Output = Result<T, ScanError>>,
) -> Result<T, ScanError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or(Err(ScanError::Panicked))
}

/// Runs blocking work, or a long computation, on a thread for blocking work.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IngestError> + Send + 'static,
) -> Result<T, ScanError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(ScanError::from),
        Err(_panicked_or_stopping) => Err(ScanError::Panicked),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panics_become_errors_of_the_job() {
        let panicked = caught::<()>(async { panic!("test") }).await;
        assert!(matches!(panicked, Err(ScanError::Panicked)));
        let panicked = caught(blocking::<()>(|| panic!("test"))).await;
        assert!(matches!(panicked, Err(ScanError::Panicked)));
        assert!(matches!(caught(async { Ok(1) }).await, Ok(1)));
    }
}
