//! Decides which waiting job starts next, and which running job gives up its slot for that. Without I/O and without
//! waiting, so that the queue and the slots share the rules.
//!
//! - The next job is of the tenant with the fewest running jobs; of these, of the tenant that was served longest ago.
//!   The same applies between the groups of one tenant, and within a group the order of arrival.
//! - One tenant may use all slots while no other tenant waits.
//! - If all slots are in use, and the tenant of the next job has fewer running jobs than another tenant, a demotable
//!   job of the tenant with the most running jobs is demoted: the job continues, but no longer counts towards the
//!   slots. At most as many jobs as there are slots are demoted at a time, and at most half of them for tenants that
//!   have a running job already, so that a tenant without one still gets a slot.
//! - A tenant with a demoted job starts no job while others wait. While no others wait, the demoted job counts again
//!   before another job of the tenant starts, so no tenant has more running jobs than there are slots.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use super::{Tenant, TenantGroup};

/// Whether a running job may be demoted. Shared between the job and the schedule. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Demotable(Arc<AtomicBool>);

impl Demotable {
    #[must_use]
    pub(crate) fn new(demotable: bool) -> Self {
        Self(Arc::new(AtomicBool::new(demotable)))
    }

    pub(crate) fn set(&self, demotable: bool) {
        self.0.store(demotable, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Identifies a running job. Later jobs have larger numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct RunId(u64);

/// Jobs of one tenant, or of one group.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct JobCounts {
    pub(super) waiting: usize,
    /// Includes demoted jobs.
    pub(super) running: usize,
    demoted: usize,
    /// Twice the number of the latest job that started. Before the first one, one less than twice the number of the job
    /// that had started last when the first job of this entry arrived.
    last_started: u64,
}

#[derive(Debug)]
struct Running {
    group: TenantGroup,
    demotable: Demotable,
    is_demoted: bool,
    /// Notified at the first demotion.
    demoted: Arc<Notify>,
}

/// Memory of the counts of one tenant or group at most, bytes. A hash table has up to 16/7 places for each entry.
#[cfg(test)]
pub(crate) const COUNTS_BYTES: usize = 160;
#[cfg(test)]
const _: () = assert!((size_of::<(TenantGroup, JobCounts)>() + 1) * 16 / 7 <= COUNTS_BYTES);

/// See the module. A tenant without jobs takes no memory.
#[derive(Debug)]
pub(super) struct Schedule {
    slots: usize,
    tenants: HashMap<Tenant, JobCounts>,
    groups: HashMap<TenantGroup, JobCounts>,
    running: BTreeMap<RunId, Running>,
    /// Running jobs that count towards the slots. Exceeds `slots` while jobs finish after a reduction, and when a
    /// demoted job stops being demotable.
    active: usize,
    demoted: usize,
    next_run: u64,
}

impl Schedule {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            tenants: HashMap::new(),
            groups: HashMap::new(),
            running: BTreeMap::new(),
            active: 0,
            demoted: 0,
            next_run: 1,
        }
    }

    /// Changes the number of slots. Jobs beyond a lower number finish first.
    pub(super) fn set_slots(&mut self, slots: usize) {
        self.slots = slots;
    }

    pub(super) fn tenant(&self, group: &TenantGroup) -> JobCounts {
        self.tenants.get(&group.tenant).copied().unwrap_or_default()
    }

    /// Returns the counts of each tenant that has jobs.
    pub(super) fn tenants(&self) -> impl Iterator<Item = (&Tenant, &JobCounts)> {
        self.tenants.iter()
    }

    pub(super) fn group(&self, group: &TenantGroup) -> JobCounts {
        self.groups.get(group).copied().unwrap_or_default()
    }

    pub(super) fn add_waiting(&mut self, group: &TenantGroup) {
        // A tenant that arrives precedes only the tenant served last: otherwise a sequence of tenants with one job each
        // would always precede those that already wait.
        let last_started = (2 * (self.next_run - 1)).saturating_sub(1);
        let arrived = JobCounts { last_started, ..JobCounts::default() };
        self.tenants.entry(group.tenant).or_insert(arrived);
        self.groups.entry(*group).or_insert(arrived);
        self.update(group, |counts| counts.waiting += 1);
    }

    pub(super) fn remove_waiting(&mut self, group: &TenantGroup) {
        self.update(group, |counts| counts.waiting -= 1);
    }

    /// Returns the index of the waiting job that starts next, if any starts.
    pub(super) fn select<'a>(
        &self,
        waiting: impl Iterator<Item = &'a TenantGroup>,
    ) -> Option<usize> {
        let priority = |group: &TenantGroup| {
            let key = |counts: JobCounts| (counts.demoted > 0, counts.running, counts.last_started);
            (key(self.tenant(group)), key(self.group(group)))
        };
        // Of equal elements, `min_by_key` returns the first, which has waited longest.
        waiting.enumerate().min_by_key(|(_, group)| priority(group)).map(|(index, _)| index)
    }

    /// Starts the selected job, if a slot is free or a running job can be demoted. The job no longer counts as waiting
    /// then.
    pub(super) fn start(
        &mut self,
        group: &TenantGroup,
        demotable: Demotable,
        demoted: Arc<Notify>,
    ) -> Option<RunId> {
        self.recount();
        while self.active < self.slots
            && let Some(run) = self.next_promotion(group)
        {
            self.set_demoted(run, false);
        }
        // More than one if there are more running jobs than slots.
        let needed = (self.active + 1).saturating_sub(self.slots);
        for run in self.select_demotions(group, needed)? {
            self.set_demoted(run, true);
        }
        let run = RunId(self.next_run);
        self.next_run += 1;
        self.update(group, |counts| {
            counts.waiting -= 1;
            counts.running += 1;
            counts.last_started = 2 * run.0;
        });
        self.active += 1;
        let running = Running { group: *group, demotable, is_demoted: false, demoted };
        self.running.insert(run, running);
        Some(run)
    }

    /// Returns whether a job can start without demoting another one, and leave a slot free if there are several.
    pub(super) fn has_spare_slot(&self) -> bool {
        self.active < self.slots.saturating_sub(1).max(1)
    }

    pub(super) fn end(&mut self, run: RunId) {
        if self.running.get(&run).is_some_and(|running| running.is_demoted) {
            self.set_demoted(run, false);
        }
        if let Some(running) = self.running.remove(&run) {
            self.active -= 1;
            self.update(&running.group, |counts| counts.running -= 1);
        }
    }

    /// Returns the number of running jobs that count towards the slots.
    #[cfg(test)]
    pub(super) fn active(&self) -> usize {
        self.active
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.tenants.is_empty() && self.groups.is_empty() && self.running.is_empty()
    }

    /// Counts demoted jobs again that can no longer be demoted.
    fn recount(&mut self) {
        let is_due = |running: &Running| running.is_demoted && !running.demotable.get();
        let due = self.running.iter().filter(|(_, running)| is_due(running));
        let due: Vec<_> = due.map(|(run, _)| *run).collect();
        for run in due {
            self.set_demoted(run, false);
        }
    }

    /// Returns the demoted job that counts again before a job of `group` starts.
    fn next_promotion(&self, group: &TenantGroup) -> Option<RunId> {
        let (tenant, own) = (self.tenant(group), self.group(group));
        let is_candidate = |running: &Running| {
            running.is_demoted
                && running.group.tenant == group.tenant
                && (running.group == *group || (own.demoted == 0 && tenant.running >= self.slots))
        };
        self.running.iter().find(|(_, running)| is_candidate(running)).map(|(run, _)| *run)
    }

    /// Returns the jobs to demote so that a job of `group` can start; `None` if fewer than `needed` can be demoted.
    fn select_demotions(&self, group: &TenantGroup, needed: usize) -> Option<Vec<RunId>> {
        if needed == 0 {
            return Some(Vec::new());
        }
        let (tenant, own) = (self.tenant(group), self.group(group));
        let quota = if tenant.running == 0 { self.slots } else { self.slots.div_ceil(2) };
        if self.demoted + needed > quota {
            return None;
        }
        let is_candidate = |running: &Running| {
            let exceeds = if running.group.tenant == group.tenant {
                self.group(&running.group).running > own.running
            } else {
                self.tenant(&running.group).running > tenant.running
            };
            exceeds && !running.is_demoted && running.demotable.get()
        };
        let excess = |running: &Running| {
            (self.tenant(&running.group).running, self.group(&running.group).running)
        };
        let candidates = self.running.iter().filter(|(_, running)| is_candidate(running));
        let mut candidates: Vec<_> =
            candidates.map(|(run, running)| (Reverse(excess(running)), *run)).collect();
        candidates.sort_unstable();
        let selected = candidates.get(..needed)?;
        Some(selected.iter().map(|(_, run)| *run).collect())
    }

    fn set_demoted(&mut self, run: RunId, demoted: bool) {
        let Some(running) = self.running.get_mut(&run) else { return };
        running.is_demoted = demoted;
        let group = running.group;
        if demoted {
            running.demoted.notify_one();
            self.active -= 1;
            self.demoted += 1;
            self.update(&group, |counts| counts.demoted += 1);
        } else {
            self.active += 1;
            self.demoted -= 1;
            self.update(&group, |counts| counts.demoted -= 1);
        }
    }

    fn update(&mut self, group: &TenantGroup, change: impl Fn(&mut JobCounts)) {
        update_entry(&mut self.tenants, group.tenant, &change);
        update_entry(&mut self.groups, *group, &change);
    }
}

fn update_entry<K: Eq + Hash + Copy>(
    counts: &mut HashMap<K, JobCounts>,
    key: K,
    change: impl Fn(&mut JobCounts),
) {
    let entry = counts.entry(key).or_default();
    change(entry);
    if entry.waiting == 0 && entry.running == 0 {
        counts.remove(&key);
    }
}
