//! List of incidents for operators.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{
    entry::Incident,
    finished::FinishedIncident,
    incident_store::read_shared,
    outbox::Outbox,
    step::StepState,
    step_plan::{StepId, StepPlan},
};

/// State of an incident with steps that are not done.
const WAITING: &str = "waiting";

/// Which incidents are listed.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct IncidentFilter {
    /// Whether only incidents with steps that are not done are listed, or only others.
    pub is_waiting: Option<bool>,
    /// The listed incidents follow this one in the list.
    pub after: Option<IncidentPosition>,
    /// Maximum number.
    pub limit: usize,
}

/// Position in the list: when the malware was found, milliseconds since 1970, and the name of the incident. The latest
/// comes first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct IncidentPosition {
    pub found: u64,
    pub id: String,
}

/// Part of the list.
#[derive(Clone, Debug)]
pub struct IncidentList {
    /// The latest first.
    pub incidents: Vec<IncidentOverview>,
    /// Position of the last listed incident, if others follow.
    pub next: Option<IncidentPosition>,
}

/// An incident and the states of its steps.
#[derive(Clone, Debug)]
pub struct IncidentOverview {
    pub id: String,
    pub found: SystemTime,
    /// SHA-256 of the content, hexadecimal digits.
    pub content: String,
    pub engine: String,
    pub finding: String,
    /// "waiting", "done", "dropped" or "expired".
    pub state: &'static str,
    /// When steps that are not done are given up, if the incident waits.
    pub expires: Option<SystemTime>,
    /// When the incident was finished.
    pub ended: Option<SystemTime>,
    /// URI and homeserver of each media, and its quarantine; `None` if the media is not to be quarantined.
    pub media: Vec<(String, Option<String>, Option<StepOverview>)>,
    pub targets: Vec<TargetOverview>,
}

/// Notification of one target.
#[derive(Clone, Debug)]
pub struct TargetOverview {
    /// "webhook" or "room".
    pub kind: &'static str,
    pub address: String,
    pub step: StepOverview,
}

/// State of one step.
#[derive(Clone, Copy, Debug)]
pub struct StepOverview {
    /// "waiting", "done", "`given_up`", or "dropped" if it is not done any more.
    pub state: &'static str,
    /// Number of tries that failed.
    pub tries: u32,
    /// Time of the next try, if it is known.
    pub next: Option<SystemTime>,
}

impl IncidentPosition {
    fn of_incident(incident: &Incident) -> Self {
        Self { found: incident.found, id: incident.id.clone() }
    }
}

/// An incident with steps that are not done.
pub(super) struct WaitingIncident {
    pub(super) incident: Arc<Incident>,
    /// Seconds since 1970.
    expiry: u64,
    /// When failed steps are tried again, if this process does them.
    due: HashMap<StepId, Instant>,
}

/// Returns the waiting incidents: from memory, or from the shared store if another process does their steps. `None` if the store
/// cannot be read.
pub(super) async fn waiting_incidents(outbox: &Outbox) -> Option<Vec<WaitingIncident>> {
    if let Some(store) = outbox.store().shared()
        && !outbox.is_owned()
    {
        let entries = read_shared(store).await?.into_iter();
        let decoded = entries.filter_map(|entry| {
            let incident = Arc::new(Incident::decode(&entry.value).ok()?);
            Some(WaitingIncident { incident, expiry: entry.expiry, due: HashMap::new() })
        });
        return Some(decoded.collect());
    }
    let mut waiting = Vec::new();
    outbox.for_each_waiting(|incident, expiry, due| {
        let (incident, due) = (Arc::clone(incident), due.clone());
        waiting.push(WaitingIncident { incident, expiry, due });
    });
    Some(waiting)
}

/// Lists incidents of the outbox, and those that this process has finished lately. `None` if the store cannot be read.
pub(super) async fn list(outbox: &Outbox, filter: &IncidentFilter) -> Option<IncidentList> {
    let is_next = |incident: &Incident| {
        filter.after.as_ref().is_none_or(|after| IncidentPosition::of_incident(incident) < *after)
    };
    let mut found = Vec::new();
    if filter.is_waiting != Some(false) {
        for waiting in waiting_incidents(outbox).await? {
            if is_next(&waiting.incident) {
                let position = IncidentPosition::of_incident(&waiting.incident);
                found.push((position, waiting_overview(&waiting, outbox.plan())));
            }
        }
    }
    if filter.is_waiting != Some(true) {
        outbox.for_each_finished(|finished| {
            if is_next(&finished.incident) {
                let position = IncidentPosition::of_incident(&finished.incident);
                found.push((position, ended(finished, outbox.plan())));
            }
        });
    }
    found.sort_by(|(one, _), (other, _)| other.cmp(one));
    let has_more = found.len() > filter.limit;
    found.truncate(filter.limit);
    let next = found.last().filter(|_| has_more).map(|(position, _)| position.clone());
    let incidents = found.into_iter().map(|(_, overview)| overview).collect();
    Some(IncidentList { incidents, next })
}

fn waiting_overview(waiting: &WaitingIncident, plan: &StepPlan) -> IncidentOverview {
    let WaitingIncident { incident, expiry, due } = waiting;
    let (now, time) = (Instant::now(), SystemTime::now());
    let next = |step| {
        let due = due.get(&step).filter(|due| **due > now)?;
        time.checked_add(due.duration_since(now))
    };
    IncidentOverview {
        expires: UNIX_EPOCH.checked_add(Duration::from_secs(*expiry)),
        ..overview(incident, plan, WAITING, next)
    }
}

fn ended(finished: &FinishedIncident, plan: &StepPlan) -> IncidentOverview {
    IncidentOverview {
        ended: Some(from_ms(finished.ended)),
        ..overview(&finished.incident, plan, finished.end.name(), |_| None)
    }
}

fn overview(
    incident: &Incident,
    plan: &StepPlan,
    state: &'static str,
    next: impl Fn(StepId) -> Option<SystemTime>,
) -> IncidentOverview {
    let step = |step, state_of_step: StepState| StepOverview {
        state: match state_of_step {
            StepState { is_given_up: true, .. } => "given_up",
            StepState { is_over: true, .. } => "done",
            StepState { is_over: false, .. } if state == WAITING => WAITING,
            StepState { is_over: false, .. } => "dropped",
        },
        tries: state_of_step.tries,
        next: if state_of_step.is_over { None } else { next(step) },
    };
    let media = incident.media.iter().enumerate().map(|(index, media)| {
        let quarantine = plan
            .quarantines(media.base_url.as_deref())
            .then(|| step(StepId::Quarantine(index), media.quarantine));
        (media.mxc.clone(), media.base_url.clone(), quarantine)
    });
    let targets = plan.targets.iter().enumerate().map(|(index, target)| {
        let state = incident.targets.get(&target.name).copied().unwrap_or_default();
        let step = step(StepId::Notify(index), state);
        TargetOverview { kind: target.kind, address: target.address.clone(), step }
    });
    IncidentOverview {
        id: incident.id.clone(),
        found: from_ms(incident.found),
        content: incident.content.clone(),
        engine: incident.engine.clone(),
        finding: incident.finding.clone(),
        state,
        expires: None,
        ended: None,
        media: media.collect(),
        targets: targets.collect(),
    }
}

fn from_ms(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds)).unwrap_or(UNIX_EPOCH)
}
