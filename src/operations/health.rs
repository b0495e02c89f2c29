//! Readiness, as `/health/ready` reports it.

use tokio::{sync::watch, time::Instant};

use crate::scan::canary::CanaryState;

/// Readiness of the service.
#[derive(Clone, Debug)]
pub struct Health {
    /// Last result of the canary.
    pub canary: watch::Receiver<CanaryState>,
    /// End of the grace period, set when the service stops.
    pub stopping: watch::Receiver<Option<Instant>>,
}

impl Health {
    /// Returns the reason why the service is not ready, or `None` if it is.
    #[must_use]
    pub fn not_ready_reason(&self) -> Option<String> {
        if self.stopping.borrow().is_some() {
            return Some("the service is stopping".to_owned());
        }
        match &*self.canary.borrow() {
            CanaryState::Passed => None,
            CanaryState::Pending => Some("waiting for the first canary result".to_owned()),
            CanaryState::Failed(reason) => Some(format!("canary failed: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_with_passed_canary_and_not_stopping() {
        let (canary, canary_receiver) = watch::channel(CanaryState::Pending);
        let (stopping, stopping_receiver) = watch::channel(None);
        let health = Health { canary: canary_receiver, stopping: stopping_receiver };
        assert_eq!(health.not_ready_reason().unwrap(), "waiting for the first canary result");
        canary.send_replace(CanaryState::Failed("x".into()));
        assert_eq!(health.not_ready_reason().unwrap(), "canary failed: x");
        canary.send_replace(CanaryState::Passed);
        assert_eq!(health.not_ready_reason(), None);
        stopping.send_replace(Some(Instant::now()));
        assert_eq!(health.not_ready_reason().unwrap(), "the service is stopping");
    }
}
