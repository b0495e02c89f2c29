//! The bounded queue of scan jobs between requests and workers.

use super::{error::ScanError, job::ScanJob};
use crate::{
    media::Requester,
    tenancy::{
        Tenant,
        fair_queue::{self, FairQueue},
    },
};

pub(crate) use crate::tenancy::fair_queue::Full;

/// A scan job that a worker may start.
pub(super) type AdmittedJob = fair_queue::Admitted<ScanJob>;

/// Jobs that wait for a worker. Cheap to clone; clones share the queue.
#[derive(Clone, Debug)]
pub struct Queue(FairQueue<ScanJob>);

impl Queue {
    /// Creates a queue of at most `capacity` jobs, of which `workers` run at a time, in addition to as many demoted
    /// jobs: a job may be demoted during its download.
    #[must_use]
    pub fn new(capacity: usize, workers: usize) -> Self {
        let is_abandoned = |job: &ScanJob| job.reply.is_closed();
        Self(FairQueue::new(capacity, workers, is_abandoned))
    }

    /// Enqueues a job without waiting. The job of another tenant that is evicted for it ends with
    /// [`ScanError::Overloaded`].
    ///
    /// # Errors
    /// [`Full`], as [`FairQueue::submit`].
    pub(crate) fn submit(&self, job: ScanJob) -> Result<(), Full> {
        let (tenant, demotable) = (job.request.fetch.requester.tenant, job.demotable.clone());
        if let Some(evicted) = self.0.submit(job, tenant, demotable)? {
            // Fails when all requesters have left.
            let _ = evicted.reply.send(Err(ScanError::Overloaded));
        }
        Ok(())
    }

    /// Waits for a job that may start. Returns `None` when the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<AdmittedJob> {
        self.0.next().await
    }

    /// Rejects further jobs. Workers still receive the jobs that wait.
    pub fn close(&self) {
        self.0.close();
    }

    /// Returns the number of waiting jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns each tenant that has jobs, with the numbers of its waiting and running jobs.
    pub(super) fn tenants(&self) -> Vec<(Tenant, usize, usize)> {
        self.0.tenants()
    }

    /// Returns whether no job waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether `newcomer` should start a job of its own instead of waiting for the job of `other`: see
    /// `FairQueue::should_bypass`.
    #[must_use]
    pub fn should_bypass(&self, newcomer: &Requester, other: &Requester) -> bool {
        self.0.should_bypass(&newcomer.tenant, &other.tenant)
    }
}

#[cfg(test)]
mod tests;
