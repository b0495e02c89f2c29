//! A bounded queue that is fair to tenants. Jobs arrive on a bounded channel; consumers move them into one list and
//! take from that list the job whose token occupies the fewest consumers. One server, or one token, holds at most a
//! quarter of the queue and a quarter of the consumers. If the queue or a server's quarter is full, a new job of a
//! token with fewer waiting jobs evicts the newest job of the token with the most.

use std::{collections::VecDeque, fmt, pin::pin, sync::Arc};

use tokio::sync::Notify;

use super::{
    Tenant, Tenants,
    tenant::{JobCounts, TenantCounts},
};
use crate::sync::{Mutex, MutexGuard};

/// Neither the queue nor the quotas of the job's tenants have room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// A queue of jobs. Cheap to clone; clones share the queue.
pub(crate) struct FairQueue<T> {
    inner: Arc<Inner<T>>,
    /// Emptied into the list, under the list's lock, whenever the list is examined.
    sender: async_channel::Sender<QueuedJob<T>>,
    receiver: async_channel::Receiver<QueuedJob<T>>,
}

struct Inner<T> {
    capacity: usize,
    /// Maximum number of waiting jobs of one tenant.
    queue_quota: usize,
    /// Maximum number of consumers that one tenant occupies.
    consumer_quota: usize,
    /// Returns whether a job has no requesters left, so that the job need not start.
    is_abandoned: fn(&T) -> bool,
    state: Mutex<QueueState<T>>,
    /// Notified when a waiting job may have become startable. Each notification wakes one consumer. A consumer that
    /// finds a job while other jobs wait wakes the next consumer: a finished job frees quota of its server and of its
    /// token, so two jobs may start.
    capacity_freed: Notify,
}

struct QueueState<T> {
    /// Waiting jobs, in order of arrival.
    waiting: VecDeque<QueuedJob<T>>,
    counts: TenantCounts,
}

struct QueuedJob<T> {
    job: T,
    tenants: Tenants,
}

/// A job to start. It counts against its tenants' consumer quotas until this value is dropped.
pub(crate) struct Admitted<T> {
    job: Option<T>,
    _slot: BusySlot<T>,
}

struct BusySlot<T> {
    inner: Arc<Inner<T>>,
    tenants: Tenants,
}

/// Next step of a consumer.
enum NextJob<T> {
    Start(Box<Admitted<T>>),
    Wait,
    End,
}

impl<T> FairQueue<T> {
    /// Creates a queue of at most `capacity` jobs (at least one) in front of `consumers` consumers.
    #[must_use]
    pub(crate) fn new(capacity: usize, consumers: usize, is_abandoned: fn(&T) -> bool) -> Self {
        let capacity = capacity.max(1);
        let (sender, receiver) = async_channel::bounded(capacity);
        let inner = Arc::new(Inner {
            capacity,
            queue_quota: (capacity / 4).max(1),
            consumer_quota: (consumers / 4).max(1),
            is_abandoned,
            state: Mutex::new(QueueState {
                waiting: VecDeque::new(),
                counts: TenantCounts::default(),
            }),
            capacity_freed: Notify::new(),
        });
        Self { inner, sender, receiver }
    }

    /// Enqueues a job without waiting. Returns the job of another token that was evicted for it, if any.
    ///
    /// # Errors
    /// [`Full`] when neither abandoned jobs nor tenants with more jobs make room, and after [`FairQueue::close`].
    pub(crate) fn submit(&self, job: T, tenants: Tenants) -> Result<Option<T>, Full> {
        let mut state = self.lock_and_drain();
        if self.sender.is_closed() {
            return Err(Full);
        }
        let mut evicted = None;
        if !self.inner.has_room(&state, &tenants) {
            state.drop_abandoned(self.inner.is_abandoned);
        }
        if !self.inner.has_room(&state, &tenants) {
            evicted = Some(self.inner.evict(&mut state, &tenants).ok_or(Full)?);
        }
        state.counts.update(&tenants, |counts| counts.waiting += 1);
        // The channel was emptied above and every sender holds the lock, so it can only be closed in between. The list
        // takes the job then: it arrived before the close.
        if let Err(closed) = self.sender.try_send(QueuedJob { job, tenants }) {
            state.waiting.push_back(closed.into_inner());
            self.inner.capacity_freed.notify_one();
        }
        Ok(evicted)
    }

    /// Waits for a job that may start. Returns none when the queue is closed and empty.
    ///
    /// Cancellation safe.
    pub(crate) async fn next(&self) -> Option<Admitted<T>> {
        loop {
            // Created before the list is examined, so that no notification in between is lost.
            let mut capacity_freed = pin!(self.inner.capacity_freed.notified());
            match self.try_next() {
                NextJob::Start(admitted) => return Some(*admitted),
                NextJob::Wait => {}
                NextJob::End => return None,
            }
            tokio::select! {
                biased;
                received = self.receiver.recv() => match received {
                    Ok(queued) => self.inner.state.lock().waiting.push_back(queued),
                    // The remaining jobs wait until other jobs of their tenants finish.
                    Err(_closed) => capacity_freed.await,
                },
                () = &mut capacity_freed => {}
            }
        }
    }

    /// Rejects further jobs. Consumers still receive the jobs that wait.
    pub(crate) fn close(&self) {
        self.sender.close();
        self.inner.capacity_freed.notify_waiters();
    }

    /// Returns the number of waiting jobs.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.lock_and_drain().waiting.len()
    }

    /// Returns whether a requester with the token `newcomer` should start a separate job instead of joining a job of
    /// the token `other`: `other` has more jobs than its consumer quota, and `newcomer` has fewer than half as many
    /// jobs as `other`. With this factor, the duplicate jobs of all requesters of one file together hardly exceed
    /// the jobs of the first token.
    #[must_use]
    pub(crate) fn should_bypass(&self, newcomer: Option<&Tenant>, other: Option<&Tenant>) -> bool {
        let state = self.lock_and_drain();
        let jobs = |token| {
            let JobCounts { waiting, busy } = state.counts.get_token(token);
            waiting + busy
        };
        self.inner.consumer_quota < jobs(other) && 2 * jobs(newcomer) < jobs(other)
    }

    fn try_next(&self) -> NextJob<T> {
        let mut state = self.lock_and_drain();
        state.drop_abandoned(self.inner.is_abandoned);
        let found = self.inner.first_startable(&state).and_then(|index| state.remove(index));
        let ended = state.waiting.is_empty() && self.sender.is_closed();
        if ended {
            // No job will arrive: wakes all consumers so that they end.
            self.inner.capacity_freed.notify_waiters();
        } else if found.is_some() && !state.waiting.is_empty() {
            self.inner.capacity_freed.notify_one();
        }
        match found {
            Some(QueuedJob { job, tenants }) => {
                state.counts.update(&tenants, |counts| counts.busy += 1);
                let slot = BusySlot { inner: Arc::clone(&self.inner), tenants };
                NextJob::Start(Box::new(Admitted { job: Some(job), _slot: slot }))
            }
            None if ended => NextJob::End,
            None => NextJob::Wait,
        }
    }

    /// Locks the list and moves all jobs of the channel into it.
    fn lock_and_drain(&self) -> MutexGuard<'_, QueueState<T>> {
        let mut state = self.inner.state.lock();
        while let Ok(queued) = self.receiver.try_recv() {
            state.waiting.push_back(queued);
            // The channel has woken a consumer for this job, which will find the channel empty.
            self.inner.capacity_freed.notify_one();
        }
        state
    }

    #[cfg(test)]
    pub(crate) fn has_no_counts(&self) -> bool {
        self.inner.state.lock().counts.is_empty()
    }
}

impl<T> Inner<T> {
    fn has_room(&self, state: &QueueState<T>, tenants: &Tenants) -> bool {
        state.waiting.len() < self.capacity
            && tenants.iter().all(|tenant| state.counts.get(tenant).waiting < self.queue_quota)
    }

    /// Returns the index of the job to start: of those whose tenants have free quota, the first one of the token that
    /// occupies the fewest consumers.
    fn first_startable(&self, state: &QueueState<T>) -> Option<usize> {
        let may_start = |tenants: &Tenants| {
            tenants.iter().all(|tenant| state.counts.get(tenant).busy < self.consumer_quota)
        };
        let jobs = state.waiting.iter().enumerate();
        jobs.filter(|(_, queued)| may_start(&queued.tenants))
            .min_by_key(|(_, queued)| state.counts.get_token(queued.tenants.token.as_ref()).busy)
            .map(|(index, _)| index)
    }

    /// Removes a job to make room for a job of `tenants`: the newest job of the token with the most waiting jobs, if
    /// that token still has at least as many waiting jobs afterwards as the token of `tenants` has then.
    fn evict(&self, state: &mut QueueState<T>, tenants: &Tenants) -> Option<T> {
        let waiting = |tenants: &Tenants| state.counts.get_token(tenants.token.as_ref()).waiting;
        if waiting(tenants) >= self.queue_quota {
            return None;
        }
        let server_is_full = state.counts.get(&tenants.server).waiting >= self.queue_quota;
        let jobs = state.waiting.iter().enumerate();
        let (index, most) = jobs
            .filter(|(_, queued)| !server_is_full || queued.tenants.server == tenants.server)
            .map(|(index, queued)| (index, waiting(&queued.tenants)))
            // Of equal elements, `max_by_key` returns the last, which is the newest job.
            .max_by_key(|(_, waiting)| *waiting)?;
        if most <= waiting(tenants) + 1 {
            return None;
        }
        state.remove(index).map(|queued| queued.job)
    }
}

impl<T> QueueState<T> {
    fn remove(&mut self, index: usize) -> Option<QueuedJob<T>> {
        let queued = self.waiting.remove(index)?;
        self.counts.update(&queued.tenants, |counts| counts.waiting -= 1);
        Some(queued)
    }

    fn drop_abandoned(&mut self, is_abandoned: fn(&T) -> bool) {
        let Self { waiting, counts } = self;
        waiting.retain(|QueuedJob { job, tenants }| {
            let abandoned = is_abandoned(job);
            if abandoned {
                counts.update(tenants, |counts| counts.waiting -= 1);
            }
            !abandoned
        });
    }
}

impl<T> Admitted<T> {
    /// Takes the job out. Returns none the second time.
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
        state.counts.update(&self.tenants, |counts| counts.busy -= 1);
        if !state.waiting.is_empty() {
            self.inner.capacity_freed.notify_one();
        }
    }
}

impl<T> Clone for FairQueue<T> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            sender: self.sender.clone(),
            receiver: self.receiver.clone(),
        }
    }
}

impl<T> fmt::Debug for FairQueue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue").field("capacity", &self.inner.capacity).finish_non_exhaustive()
    }
}
