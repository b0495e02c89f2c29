//! What is done about incidents: their steps.

use super::{entry::Incident, step::StepState};

/// What is done about each incident.
#[derive(Clone, Debug)]
pub(super) struct StepPlan {
    /// Base URL of the homeserver whose media is quarantined.
    pub(super) quarantined_at: Option<String>,
    pub(super) targets: Vec<StepTarget>,
}

impl StepPlan {
    /// Returns whether media of a homeserver is quarantined. `base_url`: that of the homeserver, if it is configured.
    pub(super) fn quarantines(&self, base_url: Option<&str>) -> bool {
        base_url.is_some() && base_url == self.quarantined_at.as_deref()
    }
}

/// Target of notifications.
#[derive(Clone, Debug)]
pub(super) struct StepTarget {
    /// Name in the outbox.
    pub(super) name: String,
    /// Name of the step in the log and in metrics.
    pub(super) kind: &'static str,
    /// Address for operators, without the path of a webhook, which may be a secret.
    pub(super) address: String,
}

/// Step of an incident.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum StepId {
    /// Quarantine of the media with this index.
    Quarantine(usize),
    /// Notification of the target with this index.
    Notify(usize),
}

/// Kind of steps, which one worker does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StepKind {
    Quarantine,
    /// Notifications of the target with this index.
    Notify(usize),
}

impl StepId {
    pub(super) fn kind(self) -> StepKind {
        match self {
            Self::Quarantine(_) => StepKind::Quarantine,
            Self::Notify(target) => StepKind::Notify(target),
        }
    }
}

/// Returns the steps of an incident that are not done.
pub(super) fn steps(
    incident: &Incident,
    plan: &StepPlan,
) -> impl Iterator<Item = (StepId, StepState)> {
    let media = incident.media.iter().enumerate();
    let media = media.filter(move |(_, media)| plan.quarantines(media.base_url.as_deref()));
    let media = media.map(|(index, media)| (StepId::Quarantine(index), media.quarantine));
    let targets = plan.targets.iter().enumerate().map(|(index, target)| {
        let state = incident.targets.get(&target.name).copied().unwrap_or_default();
        (StepId::Notify(index), state)
    });
    media.chain(targets).filter(|(_, state)| !state.is_over)
}

/// Returns the state of a step.
pub(super) fn step_state<'i>(
    incident: &'i mut Incident,
    step: StepId,
    plan: &StepPlan,
) -> Option<&'i mut StepState> {
    match step {
        StepId::Quarantine(index) => Some(&mut incident.media.get_mut(index)?.quarantine),
        StepId::Notify(index) => {
            Some(incident.targets.entry(plan.targets.get(index)?.name.clone()).or_default())
        }
    }
}
