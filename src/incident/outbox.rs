//! The outbox in memory: incidents with steps that are not done yet. Each change of an incident is requested from the store
//! while the incident is locked, so that the store has the changes in their order.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mcs_store::{OutboxEntry, RecordName};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, warn};

use super::{
    entry::Incident,
    finished::{FinishedIncident, FinishedIncidents, IncidentEnd},
    incident_store::IncidentStore,
    known_incidents::{KnownIncident, KnownIncidents},
    step::{StepState, delay_after},
    step_plan::{StepId, StepKind, StepPlan, step_state, steps},
};

/// A step that is due.
#[derive(Clone, Debug)]
pub(super) struct DueStep {
    pub(super) number: u64,
    pub(super) step: StepId,
    pub(super) tries: u32,
    pub(super) incident: Arc<Incident>,
}

/// What a worker does next.
#[derive(Clone, Debug)]
pub(super) enum NextStep {
    /// The due steps: fewer tries first, then the oldest.
    Due(DueStep),
    /// No step is due before this time.
    At(Instant),
    /// No step is left.
    None,
}

/// How a step has ended, or was tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StepEnd {
    Done,
    /// The step is not tried again.
    GivenUp,
    /// The step is tried again later.
    Failed,
}

/// The outbox. Cheap to clone; clones share it.
#[derive(Clone)]
pub(super) struct Outbox(Arc<SharedOutbox>);

struct SharedOutbox {
    store: IncidentStore,
    plan: StepPlan,
    /// How long an incident is not created again.
    keep: Duration,
    pending: Mutex<PendingIncidents>,
    finished: Mutex<FinishedIncidents>,
    /// What this process has done, if the store is shared.
    known: Mutex<KnownIncidents>,
    /// Until when this process owns a shared outbox.
    owned_until: Mutex<Option<Instant>>,
    /// Whether an entry of another version of the program was logged.
    has_rejected: AtomicBool,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct PendingIncidents {
    /// By number, in the order of their creation.
    incidents: BTreeMap<u64, PendingIncident>,
    /// Names of these incidents, and of finished ones that the store still has.
    names: HashSet<RecordName>,
    next_number: u64,
}

struct PendingIncident {
    name: RecordName,
    expiry: u64,
    incident: Arc<Incident>,
    /// When failed steps are tried again.
    due: HashMap<StepId, Instant>,
}

impl Outbox {
    pub(super) fn new(store: IncidentStore, plan: StepPlan, keep: Duration) -> Self {
        Self(Arc::new(SharedOutbox {
            store,
            plan,
            keep,
            pending: Mutex::default(),
            finished: Mutex::default(),
            known: Mutex::default(),
            owned_until: Mutex::default(),
            has_rejected: AtomicBool::default(),
            changed: watch::Sender::default(),
        }))
    }

    pub(super) fn store(&self) -> &IncidentStore {
        &self.0.store
    }

    /// Returns whether this process does the steps. With a shared store, one process at a time does.
    pub(super) fn is_owned(&self) -> bool {
        let is_owned = |until: Option<Instant>| until.is_some_and(|until| Instant::now() < until);
        self.0.store.shared().is_none() || is_owned(*self.0.owned_until.lock())
    }

    /// Sets until when this process owns a shared outbox. After a time without ownership, the incidents in memory may be
    /// outdated: they are removed, and read again.
    pub(super) fn set_owned(&self, until: Option<Instant>) {
        if until.is_some() && !self.is_owned() {
            let mut pending = self.0.pending.lock();
            let (mut known, incidents) =
                (self.0.known.lock(), std::mem::take(&mut pending.incidents));
            for PendingIncident { name, incident, .. } in incidents.into_values() {
                known.add(name, KnownIncident { incident, is_finished: false });
            }
            pending.names.clear();
        }
        *self.0.owned_until.lock() = until;
        self.0.changed.send_replace(());
    }

    /// Returns whether an entry is in memory, or was a moment ago.
    pub(super) fn has(&self, name: RecordName) -> bool {
        self.0.pending.lock().names.contains(&name)
    }

    /// Adds an entry of the store, unless it is there already. Returns its number if other media must be added and the
    /// incident be reported before its steps.
    pub(super) fn insert(&self, entry: &OutboxEntry) -> Option<(u64, Arc<Incident>)> {
        let mut incident = match Incident::decode(&entry.value) {
            Ok(incident) => incident,
            Err(error) => {
                self.reject(entry.name, &error);
                return None;
            }
        };
        if self.add_known(entry.name, &mut incident) {
            debug!(incident = incident.id, "an incident that was finished before is not repeated");
            tokio::spawn(self.0.store.remove(entry.name));
            return None;
        }
        let incident = Arc::new(incident);
        let mut pending = self.0.pending.lock();
        if !pending.names.insert(entry.name) {
            return None;
        }
        let number = pending.next_number;
        pending.next_number += 1;
        let added = PendingIncident {
            name: entry.name,
            expiry: entry.expiry,
            incident: Arc::clone(&incident),
            due: HashMap::new(),
        };
        pending.incidents.insert(number, added);
        if incident.is_announced {
            // Its last step may have been removed from the configuration.
            self.save(&mut pending, number);
            return None;
        }
        Some((number, incident))
    }

    /// Removes an entry of another version of the program from a file. In a shared store, a replica of that version does its steps
    /// after this one, for example during an upgrade.
    fn reject(&self, name: RecordName, error: &serde_json::Error) {
        if self.0.store.shared().is_none() {
            warn!(%error, "an incident of another version of the program is dropped");
            tokio::spawn(self.0.store.remove(name));
        } else if !self.0.has_rejected.swap(true, Ordering::Relaxed) {
            warn!(%error, "incidents of another version of the program wait for a replica of that version");
        }
    }

    /// Adds what this process has done of an incident. Returns whether the incident was finished.
    fn add_known(&self, name: RecordName, incident: &mut Incident) -> bool {
        let keep = u64::try_from(self.0.keep.as_millis()).unwrap_or(u64::MAX);
        let known = self.0.known.lock();
        let Some(known) = known.get(name, now_ms().saturating_sub(keep)) else { return false };
        incident.merge(&known.incident);
        known.is_finished
    }

    /// Requests all incidents from the store again, under its current secret.
    pub(super) fn save_all(&self) {
        let mut pending = self.0.pending.lock();
        let numbers: Vec<_> = pending.incidents.keys().copied().collect();
        for number in numbers {
            self.save(&mut pending, number);
        }
    }

    /// Changes an incident. Removes it if no step is left.
    fn change(&self, number: u64, change: impl FnOnce(&mut PendingIncident, &StepPlan)) {
        let mut pending = self.0.pending.lock();
        if let Some(incident) = pending.incidents.get_mut(&number) {
            change(incident, &self.0.plan);
            self.save(&mut pending, number);
        }
    }

    /// Requests the present state of an incident from the store. Without ownership, the state remains in memory only: another
    /// process may have done more since.
    fn save(&self, pending: &mut PendingIncidents, number: u64) {
        if !self.is_owned() {
            return;
        }
        let Some(changed) = pending.incidents.get(&number) else { return };
        let (name, plan) = (changed.name, &self.0.plan);
        if changed.incident.is_announced && steps(&changed.incident, plan).next().is_none() {
            self.end(pending, number, IncidentEnd::Done);
        } else {
            self.0.store.update(name, changed.expiry, &changed.incident.encode());
        }
        self.0.changed.send_replace(());
    }

    /// Removes an entry from the store. Until that is done, the entry must not be read again: its steps would be repeated.
    fn remove_stored(&self, name: RecordName) {
        let (outbox, removed) = (self.clone(), self.0.store.remove(name));
        tokio::spawn(async move {
            removed.await;
            outbox.0.pending.lock().names.remove(&name);
        });
    }

    /// Completes an incident with other media, so that its steps begin.
    pub(super) fn announce(&self, number: u64, incident: Incident) {
        self.change(number, |pending, _| {
            pending.incident = Arc::new(Incident { is_announced: true, ..incident });
        });
    }

    /// Records the result of a step.
    pub(super) fn record(&self, number: u64, step: StepId, end: StepEnd) {
        self.change(number, |pending, plan| {
            let incident = Arc::make_mut(&mut pending.incident);
            let Some(state) = step_state(incident, step, plan) else { return };
            match end {
                StepEnd::Done | StepEnd::GivenUp => {
                    state.is_over = true;
                    state.is_given_up = end == StepEnd::GivenUp;
                }
                StepEnd::Failed => {
                    state.tries = state.tries.saturating_add(1);
                    pending.due.insert(step, Instant::now() + delay_after(state.tries));
                }
            }
        });
    }

    /// Removes an incident whose steps are not done any more.
    pub(super) fn remove(&self, number: u64, end: IncidentEnd) {
        let mut pending = self.0.pending.lock();
        if self.end(&mut pending, number, end).is_some() {
            self.0.changed.send_replace(());
        }
    }

    /// Removes an incident, and lists it as finished. Returns the incident.
    fn end(
        &self,
        pending: &mut PendingIncidents,
        number: u64,
        end: IncidentEnd,
    ) -> Option<Arc<Incident>> {
        let PendingIncident { name, incident, .. } = pending.incidents.remove(&number)?;
        if self.0.store.shared().is_some() {
            let (mut known, incident) = (self.0.known.lock(), Arc::clone(&incident));
            match end {
                IncidentEnd::Done | IncidentEnd::Expired => {
                    known.add(name, KnownIncident { incident, is_finished: true });
                }
                IncidentEnd::Dropped => known.remove(name),
            }
        }
        self.remove_stored(name);
        self.0.finished.lock().add(Arc::clone(&incident), end, now_ms());
        Some(incident)
    }

    /// Drops the incidents that are too old. Returns the kinds of the steps that were not done.
    pub(super) fn remove_expired(&self) -> Vec<StepKind> {
        let now = now_ms() / 1000;
        let mut pending = self.0.pending.lock();
        let expired = pending.incidents.iter().filter(|(_, pending)| pending.expiry <= now);
        let numbers: Vec<_> = expired.map(|(number, _)| *number).collect();
        let mut lost = Vec::new();
        for number in numbers {
            let Some(removed) = self.end(&mut pending, number, IncidentEnd::Expired) else {
                continue;
            };
            lost.extend(steps(&removed, &self.0.plan).map(|(step, _)| step.kind()));
        }
        lost
    }

    /// Returns whether the store still has an incident; it has none after all verdicts were removed, because they were wrong.
    /// Drops an incident that the store does not have. `None` if the store cannot be read.
    pub(super) async fn is_stored(&self, number: u64) -> Option<bool> {
        let name = self.0.pending.lock().incidents.get(&number).map(|pending| pending.name);
        let Some(name) = name else { return Some(false) };
        let is_stored = self.0.store.has_entry(name).await?;
        if !is_stored {
            debug!("the store has an incident no more");
            self.remove(number, IncidentEnd::Dropped);
        }
        Some(is_stored)
    }

    /// Waits until a step of a kind is due. `changes`: a receiver of [`subscribe`](Self::subscribe).
    pub(super) async fn due_step(
        &self,
        kind: StepKind,
        changes: &mut watch::Receiver<()>,
    ) -> DueStep {
        loop {
            changes.mark_unchanged();
            match self.next(kind) {
                NextStep::Due(due) => return due,
                NextStep::At(time) => wait_for_change(changes, Some(time)).await,
                NextStep::None => wait_for_change(changes, None).await,
            }
        }
    }

    /// Returns what a worker does next.
    pub(super) fn next(&self, kind: StepKind) -> NextStep {
        if !self.is_owned() {
            return NextStep::None;
        }
        let now = Instant::now();
        let pending = self.0.pending.lock();
        let (mut best, mut earliest): (Option<DueStep>, Option<Instant>) = (None, None);
        for (number, pending) in &pending.incidents {
            for (step, state) in pending.steps(&self.0.plan, kind) {
                match pending.due.get(&step) {
                    Some(due) if *due > now => {
                        earliest = Some(earliest.map_or(*due, |earliest| earliest.min(*due)));
                    }
                    _ if best.as_ref().is_none_or(|best| state.tries < best.tries) => {
                        let (number, tries) = (*number, state.tries);
                        let incident = Arc::clone(&pending.incident);
                        best = Some(DueStep { number, step, tries, incident });
                    }
                    _ => {}
                }
            }
        }
        match (best, earliest) {
            (Some(due), _) => NextStep::Due(due),
            (None, Some(due)) => NextStep::At(due),
            (None, None) => NextStep::None,
        }
    }

    /// Returns all steps of a kind that are not done, the oldest first.
    pub(super) fn all(&self, kind: StepKind) -> Vec<DueStep> {
        let pending = self.0.pending.lock();
        let steps = pending.incidents.iter().flat_map(|(number, pending)| {
            pending.steps(&self.0.plan, kind).map(|(step, state)| DueStep {
                number: *number,
                step,
                tries: state.tries,
                incident: Arc::clone(&pending.incident),
            })
        });
        steps.collect()
    }

    /// Returns the plan.
    pub(super) fn plan(&self) -> &StepPlan {
        &self.0.plan
    }

    /// Returns the number of waiting incidents in memory, and when the malware of the oldest one was found, milliseconds since
    /// 1970.
    pub(super) fn length_and_oldest(&self) -> (u64, Option<u64>) {
        let pending = self.0.pending.lock();
        let oldest = pending.incidents.values().map(|pending| pending.incident.found).min();
        (pending.incidents.len() as u64, oldest)
    }

    /// Passes each waiting incident with its expiry, seconds since 1970, and when its failed steps are tried again.
    pub(super) fn for_each_waiting(
        &self,
        mut each: impl FnMut(&Arc<Incident>, u64, &HashMap<StepId, Instant>),
    ) {
        let pending = self.0.pending.lock();
        for PendingIncident { incident, expiry, due, .. } in pending.incidents.values() {
            each(incident, *expiry, due);
        }
    }

    /// Passes each of the latest finished incidents.
    pub(super) fn for_each_finished(&self, each: impl FnMut(&FinishedIncident)) {
        self.0.finished.lock().latest().for_each(each);
    }

    /// Returns a receiver of changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }
}

/// Waits for a change of the outbox, at most until a time.
async fn wait_for_change(changes: &mut watch::Receiver<()>, until: Option<Instant>) {
    let elapsed = async {
        match until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // Fails only without an outbox, whose workers end then.
        _ = changes.changed() => {}
        () = elapsed => {}
    }
}

impl PendingIncident {
    /// Returns the steps of a kind that are not done. An incident has none before other media was added.
    fn steps(&self, plan: &StepPlan, kind: StepKind) -> impl Iterator<Item = (StepId, StepState)> {
        let is_announced = self.incident.is_announced;
        steps(&self.incident, plan).filter(move |(step, _)| is_announced && step.kind() == kind)
    }
}

/// Returns the time, milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}
