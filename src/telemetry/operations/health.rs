//! Readiness, as `/health/ready` reports it.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::Chain, media::run_directory::RunDirectory, scan::canary::CanaryState,
    text::escape_untrusted,
};

/// Readiness of the service.
#[derive(Clone, Debug)]
pub struct Health {
    /// Last result of the canary.
    pub canary: watch::Receiver<CanaryState>,
    /// Cancelled when the service stops.
    pub stopping: CancellationToken,
    /// Needed by every scan.
    pub run_directory: Arc<RunDirectory>,
}

impl Health {
    /// Returns the reason why the service is not ready, or `None` if it is.
    #[must_use]
    pub fn not_ready_reason(&self) -> Option<String> {
        if self.stopping.is_cancelled() {
            return Some("the service is stopping".to_owned());
        }
        // Now, not at the next run of the canary.
        if let Err(error) = self.run_directory.ensure() {
            let error = Chain(&error);
            return Some(escape_untrusted(format_args!(
                "the temporary directory cannot be used: {error}"
            )));
        }
        match &*self.canary.borrow() {
            CanaryState::Passed => None,
            CanaryState::Pending => Some("waiting for the result of the canary".to_owned()),
            CanaryState::Failed(reason) => {
                Some(escape_untrusted(format_args!("canary failed: {reason}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_passed_canary_and_not_stopping() {
        let (canary, canary_receiver) = watch::channel(CanaryState::Pending);
        let stopping = CancellationToken::new();
        let temp = tempfile::tempdir().unwrap();
        let run_directory = Arc::new(RunDirectory::create(temp.path(), false).unwrap());
        let path = run_directory.path().to_owned();
        let health = Health { canary: canary_receiver, stopping: stopping.clone(), run_directory };
        assert_eq!(health.not_ready_reason().unwrap(), "waiting for the result of the canary");
        canary.send_replace(CanaryState::Failed("x".into()));
        assert_eq!(health.not_ready_reason().unwrap(), "canary failed: x");
        canary.send_replace(CanaryState::Failed("x\u{202e}".into()));
        assert_eq!(health.not_ready_reason().unwrap(), "canary failed: x\\u{202e}");
        canary.send_replace(CanaryState::Passed);
        assert_eq!(health.not_ready_reason(), None);
        std::fs::remove_dir(&path).unwrap();
        assert_eq!(health.not_ready_reason(), None);
        std::fs::remove_dir(&path).unwrap();
        std::fs::write(&path, "another file").unwrap();
        let reason = health.not_ready_reason().unwrap();
        assert!(reason.starts_with("the temporary directory cannot be used: "), "{reason}");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(health.not_ready_reason(), None);
        stopping.cancel();
        assert_eq!(health.not_ready_reason().unwrap(), "the service is stopping");
    }
}
