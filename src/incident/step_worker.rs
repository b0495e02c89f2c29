//! What the workers have in common: whether a step is wanted, and the consequences of its result.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::{debug, error, info, warn};

use super::{
    finished::IncidentEnd,
    outbox::{DueStep, Outbox, StepEnd},
    step::StepResult,
};
use crate::{media::parse_hex, metrics::Metrics};

/// Pause before the store is read again.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Returns whether an operator allows the content with this SHA-256.
pub type AllowedContents = Arc<dyn Fn(&[u8; 32]) -> bool + Send + Sync>;

/// Common part of the workers.
#[derive(Clone)]
pub(super) struct StepWorker {
    pub(super) outbox: Outbox,
    /// Name of the steps in the log and in metrics.
    pub(super) name: &'static str,
    pub(super) is_allowed: AllowedContents,
    pub(super) metrics: Arc<Metrics>,
    /// Whether the last step failed. Only transitions are logged.
    pub(super) is_failing: bool,
}

impl StepWorker {
    /// Returns whether a step is to be done. Drops an incident about a content that an operator allows, or that the store
    /// has no more.
    pub(super) async fn is_wanted(&self, due: &DueStep) -> bool {
        if !self.outbox.is_owned() {
            return false;
        }
        let content = parse_hex(&due.incident.content);
        if content.is_some_and(|content| (self.is_allowed)(&content)) {
            info!(
                incident = due.incident.id,
                "an operator allows the content, dropping the incident"
            );
            self.outbox.remove(due.number, IncidentEnd::Dropped);
            return false;
        }
        if let Some(is_stored) = self.outbox.is_stored(due.number).await {
            return is_stored;
        }
        debug!("the outbox cannot be read");
        sleep(READ_PAUSE).await;
        false
    }

    /// Records the result of steps that were done together. Waits if the other side asks for that.
    pub(super) async fn finish(&mut self, steps: &[DueStep], result: StepResult, max_tries: u32) {
        let name = self.name;
        match result {
            StepResult::Done | StepResult::NotNeeded(_) => {
                self.end_all(steps, StepEnd::Done);
                if std::mem::take(&mut self.is_failing) {
                    info!(step = name, "steps of incidents succeed again");
                }
            }
            StepResult::Refused(cause) => {
                error!(step = name, cause, "a step of an incident is refused for good");
                self.end_all(steps, StepEnd::GivenUp);
            }
            StepResult::Failed(cause) => {
                self.metrics.incidents.record_step(name, "failed");
                if !std::mem::replace(&mut self.is_failing, true) {
                    warn!(step = name, cause, "a step of an incident failed, trying again later");
                }
                for due in steps {
                    if due.tries.saturating_add(1) < max_tries {
                        self.outbox.record(due.number, due.step, StepEnd::Failed);
                    } else {
                        let incident = &due.incident.id;
                        error!(step = name, incident, cause, "a step of an incident was given up");
                        self.end_all(std::slice::from_ref(due), StepEnd::GivenUp);
                    }
                }
            }
            StepResult::Wait(delay) => {
                debug!(step = name, delay_seconds = delay.as_secs(), "asked to wait");
                sleep(delay).await;
            }
        }
    }

    fn end_all(&self, steps: &[DueStep], end: StepEnd) {
        let result = if end == StepEnd::GivenUp { "given_up" } else { "done" };
        for due in steps {
            debug!(step = self.name, result, incident = due.incident.id, "step done");
            self.metrics.incidents.record_step(self.name, result);
            self.outbox.record(due.number, due.step, end);
        }
    }
}
