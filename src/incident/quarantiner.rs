//! Has the media of incidents quarantined, one after the other.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::info;

use super::{
    event::{IncidentEvent, IncidentObserver, IncidentState},
    quarantine::QuarantineClient,
    step::StepResult,
    step_plan::{StepId, StepKind},
    step_worker::StepWorker,
};

/// Quarantines media until dropped. `rate`: maximum number of media a second.
pub(super) async fn run(
    mut worker: StepWorker,
    client: QuarantineClient,
    rate: u32,
    observer: IncidentObserver,
) {
    let mut changes = worker.outbox.subscribe();
    let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let due = worker.outbox.due_step(StepKind::Quarantine, &mut changes).await;
        if !worker.is_wanted(&due).await {
            continue;
        }
        ticks.tick().await;
        let StepId::Quarantine(index) = due.step else { continue };
        let Some(media) = due.incident.media.get(index) else { continue };
        let result = client.quarantine(&media.mxc).await;
        let state = match &result {
            StepResult::Done => Some(IncidentState::Quarantined(&media.mxc)),
            StepResult::NotNeeded(cause) | StepResult::Refused(cause) => {
                info!(mxc = media.mxc, cause, "infected media is not quarantined");
                Some(IncidentState::NotQuarantined(&media.mxc))
            }
            StepResult::Failed(_) | StepResult::Wait(_) => None,
        };
        if let Some(state) = state {
            observer(&IncidentEvent { incident: &due.incident, state });
        }
        worker.finish(std::slice::from_ref(&due), result, u32::MAX).await;
    }
}
