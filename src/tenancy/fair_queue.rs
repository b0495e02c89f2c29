//! A bounded queue that is fair to tenants; see [`super::schedule`] for the rules. Consumers take jobs that may start.
//! If the queue is full, a new job of a tenant with fewer waiting jobs evicts the newest job of the tenant with the
//! most.
//!
//! Jobs of [`Tenant::Background`] start only while no other job waits, and leave one worker free if there are several.
//! They demote and evict no other job, and are evicted first.

use std::{collections::VecDeque, fmt, pin::pin, sync::Arc};

use tokio::sync::Notify;

use super::{
    Demotable, Tenant, TenantGroup,
    schedule::{JobCounts, RunId, Schedule},
};
use crate::sync::{Mutex, MutexGuard};

/// The queue is full, and its tenants have no more waiting jobs than the job's tenant; or the queue is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// A queue of jobs. Cheap to clone; clones share the queue.
pub(crate) struct FairQueue<T>(Arc<Inner<T>>);

struct Inner<T> {
    capacity: usize,
    /// A tenant with more jobs than this number may be bypassed; see [`FairQueue::should_bypass`].
    bypass_threshold: usize,
    /// Returns whether a job has no requesters left, so that the job need not start.
    is_abandoned: fn(&T) -> bool,
    state: Mutex<QueueState<T>>,
    /// Notified when a waiting job may have become startable. Each notification wakes one consumer. A consumer that
    /// finds a job while other jobs wait wakes the next consumer, because several jobs may have become startable.
    changed: Notify,
}

struct QueueState<T> {
    /// Waiting jobs, in order of arrival.
    waiting: VecDeque<QueuedJob<T>>,
    schedule: Schedule,
    is_closed: bool,
}

struct QueuedJob<T> {
    job: T,
    group: TenantGroup,
    demotable: Demotable,
}

/// A job to start. It counts as running until this value is dropped.
pub(crate) struct Admitted<T> {
    job: Option<T>,
    _slot: BusySlot<T>,
}

struct BusySlot<T> {
    inner: Arc<Inner<T>>,
    run: RunId,
}

/// Next step of a consumer.
enum NextJob<T> {
    Start(Box<Admitted<T>>),
    Wait,
    End,
}

impl<T> FairQueue<T> {
    /// Creates a queue of at most `capacity` waiting jobs (at least one), of which `workers` run at a time, in addition
    /// to as many demoted jobs. So twice as many consumers are needed.
    #[must_use]
    pub(crate) fn new(capacity: usize, workers: usize, is_abandoned: fn(&T) -> bool) -> Self {
        Self(Arc::new(Inner {
            capacity: capacity.max(1),
            bypass_threshold: (workers / 4).max(1),
            is_abandoned,
            state: Mutex::new(QueueState {
                waiting: VecDeque::new(),
                schedule: Schedule::new(workers),
                is_closed: false,
            }),
            changed: Notify::new(),
        }))
    }

    /// Enqueues a job without waiting. Returns the job that was evicted for it, if any. `demotable` states whether the
    /// job may be demoted while it runs.
    ///
    /// # Errors
    /// [`Full`] when neither abandoned jobs nor tenants with more jobs make room, and after [`FairQueue::close`].
    pub(crate) fn submit(
        &self,
        job: T,
        group: TenantGroup,
        demotable: Demotable,
    ) -> Result<Option<T>, Full> {
        let mut state = self.lock();
        if state.is_closed {
            return Err(Full);
        }
        if state.waiting.len() >= self.0.capacity {
            state.drop_abandoned(self.0.is_abandoned);
        }
        let mut evicted = None;
        if state.waiting.len() >= self.0.capacity {
            evicted = Some(state.evict(&group).ok_or(Full)?);
        }
        state.schedule.add_waiting(&group);
        state.waiting.push_back(QueuedJob { job, group, demotable });
        drop(state);
        self.0.changed.notify_one();
        Ok(evicted)
    }

    /// Waits for a job that may start. Returns `None` when the queue is closed and empty.
    ///
    /// Cancellation safe.
    pub(crate) async fn next(&self) -> Option<Admitted<T>> {
        loop {
            // Created before the list is examined, so that no notification in between is lost.
            let changed = pin!(self.0.changed.notified());
            match self.try_next() {
                NextJob::Start(admitted) => return Some(*admitted),
                NextJob::Wait => changed.await,
                NextJob::End => return None,
            }
        }
    }

    /// Rejects further jobs. Consumers still receive the jobs that wait.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.0.changed.notify_waiters();
    }

    /// Returns the number of waiting jobs.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns each tenant that has jobs, with the numbers of its waiting and running jobs.
    #[must_use]
    pub(crate) fn tenants(&self) -> Vec<(Tenant, usize, usize)> {
        let state = self.lock();
        let tenants = state.schedule.tenants();
        tenants.map(|(tenant, counts)| (*tenant, counts.waiting, counts.running)).collect()
    }

    /// Returns whether a requester of `newcomer` should start a separate job instead of joining a job of `other`:
    /// `other` has more jobs than a quarter of the workers, and `newcomer` has fewer than half as many jobs as `other`.
    /// With this factor, the duplicate jobs of all requesters of one file together hardly exceed the jobs of the first
    /// tenant. A background job is always bypassed.
    #[must_use]
    pub(crate) fn should_bypass(&self, newcomer: &TenantGroup, other: &TenantGroup) -> bool {
        if other.is_background() {
            return !newcomer.is_background();
        }
        let state = self.lock();
        let jobs = |group: &TenantGroup| {
            let JobCounts { waiting, running, .. } = if newcomer.tenant == other.tenant {
                state.schedule.group(group)
            } else {
                state.schedule.tenant(group)
            };
            waiting + running
        };
        self.0.bypass_threshold < jobs(other) && 2 * jobs(newcomer) < jobs(other)
    }

    fn try_next(&self) -> NextJob<T> {
        let mut state = self.lock();
        state.drop_abandoned(self.0.is_abandoned);
        let started = state.start_next();
        if state.is_closed && state.waiting.is_empty() {
            // No job will arrive: wakes all consumers so that they end.
            self.0.changed.notify_waiters();
            if started.is_none() {
                return NextJob::End;
            }
        } else if started.is_some() && !state.waiting.is_empty() {
            self.0.changed.notify_one();
        }
        match started {
            Some((job, run)) => {
                let slot = BusySlot { inner: Arc::clone(&self.0), run };
                NextJob::Start(Box::new(Admitted { job: Some(job), _slot: slot }))
            }
            None => NextJob::Wait,
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.0.state.lock()
    }

    #[cfg(test)]
    pub(crate) fn has_no_counts(&self) -> bool {
        self.lock().schedule.is_empty()
    }
}

impl<T> QueueState<T> {
    fn start_next(&mut self) -> Option<(T, RunId)> {
        let index = self.select_next()?;
        let QueuedJob { group, demotable, .. } = self.waiting.get(index)?;
        let (group, demotable) = (*group, demotable.clone());
        let run = self.schedule.start(&group, demotable, Arc::default())?;
        Some((self.waiting.remove(index)?.job, run))
    }

    /// Returns the index of the job that starts next: one that clients wait for, if there is any.
    fn select_next(&self) -> Option<usize> {
        let clients = || {
            let jobs = self.waiting.iter().enumerate();
            jobs.filter(|(_, queued)| !queued.group.is_background())
        };
        if let Some(selected) = self.schedule.select(clients().map(|(_, queued)| &queued.group)) {
            return clients().nth(selected).map(|(index, _)| index);
        }
        // Only background jobs wait.
        (self.schedule.has_spare_slot() && !self.waiting.is_empty()).then_some(0)
    }

    /// Removes a job to make room for a job of `newcomer`: a background job, or the newest job of the tenant with the
    /// most waiting jobs, if that tenant still has at least as many waiting jobs afterwards as the tenant of `newcomer`
    /// has then. The same applies between the groups of one tenant.
    fn evict(&mut self, newcomer: &TenantGroup) -> Option<T> {
        if newcomer.is_background() {
            return None;
        }
        if let Some(index) = self.waiting.iter().rposition(|queued| queued.group.is_background()) {
            return self.remove_waiting(index);
        }
        let waiting = |group: &TenantGroup| {
            (self.schedule.tenant(group).waiting, self.schedule.group(group).waiting)
        };
        let (own_tenant, own_group) = waiting(newcomer);
        let is_candidate = |group: &TenantGroup| {
            let (tenant, within) = waiting(group);
            if group.tenant == newcomer.tenant {
                within > own_group + 1
            } else {
                tenant > own_tenant + 1
            }
        };
        let jobs = self.waiting.iter().enumerate();
        // Of equal elements, `max_by_key` returns the last, which is the newest job.
        let (index, _) = jobs
            .filter(|(_, queued)| is_candidate(&queued.group))
            .max_by_key(|(_, queued)| waiting(&queued.group))?;
        self.remove_waiting(index)
    }

    fn remove_waiting(&mut self, index: usize) -> Option<T> {
        let evicted = self.waiting.remove(index)?;
        self.schedule.remove_waiting(&evicted.group);
        Some(evicted.job)
    }

    fn drop_abandoned(&mut self, is_abandoned: fn(&T) -> bool) {
        let Self { waiting, schedule, .. } = self;
        waiting.retain(|QueuedJob { job, group, .. }| {
            let abandoned = is_abandoned(job);
            if abandoned {
                schedule.remove_waiting(group);
            }
            !abandoned
        });
    }
}

impl<T> Admitted<T> {
    /// Takes the job out. Returns `None` if called again.
    pub(crate) fn take(&mut self) -> Option<T> {
        self.job.take()
    }

    #[cfg(test)]
    pub(crate) fn job(&self) -> Option<&T> {
        self.job.as_ref()
    }
}

impl<T> Drop for BusySlot<T> {
    fn drop(&mut self) {
        let mut state = self.inner.state.lock();
        state.schedule.end(self.run);
        if !state.waiting.is_empty() {
            self.inner.changed.notify_one();
        }
    }
}

impl<T> Clone for FairQueue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for FairQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue").field("capacity", &self.0.capacity).finish_non_exhaustive()
    }
}
