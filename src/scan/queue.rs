//! The bounded queue of scan jobs between requests and workers.

use reqwest::header::HeaderValue;

use super::{error::ScanError, job::ScanJob};
use crate::{
    media::Requester,
    tenancy::{
        Tenant, TenantHasher, Tenants,
        fair_queue::{self, FairQueue},
    },
};

pub(crate) use crate::tenancy::fair_queue::Full;

/// A scan job that a worker may start.
pub(super) type AdmittedJob = fair_queue::Admitted<ScanJob>;

/// Jobs that wait for a worker. Cheap to clone; clones share the queue.
#[derive(Clone, Debug)]
pub struct Queue {
    jobs: FairQueue<ScanJob>,
    hasher: TenantHasher,
}

impl Queue {
    /// Creates a queue of at most `capacity` jobs in front of `workers` workers.
    #[must_use]
    pub fn new(capacity: usize, workers: usize) -> Self {
        let is_abandoned = |job: &ScanJob| job.reply.is_closed();
        Self {
            jobs: FairQueue::new(capacity, workers, is_abandoned),
            hasher: TenantHasher::default(),
        }
    }

    /// Enqueues a job without waiting. The job of another token that is evicted for it ends with
    /// [`ScanError::Overloaded`].
    ///
    /// # Errors
    /// [`Full`], as [`FairQueue::submit`].
    pub(crate) fn submit(&self, job: ScanJob) -> Result<(), Full> {
        let fetch = &job.request.fetch;
        let tenants = Tenants {
            server: Tenant::from_host(fetch.media.host()),
            token: self.token_tenant(&fetch.requester),
        };
        if let Some(evicted) = self.jobs.submit(job, tenants)? {
            // Fails when all requesters have left.
            let _ = evicted.reply.send(Err(ScanError::Overloaded));
        }
        Ok(())
    }

    /// Waits for a job that may start. Returns none when the queue is closed and empty.
    pub(super) async fn next(&self) -> Option<AdmittedJob> {
        self.jobs.next().await
    }

    /// Rejects further jobs. Workers still receive the jobs that wait.
    pub fn close(&self) {
        self.jobs.close();
    }

    /// Returns the number of waiting jobs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.jobs.len()
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
        let (newcomer, other) = (self.token_tenant(newcomer), self.token_tenant(other));
        self.jobs.should_bypass(newcomer.as_ref(), other.as_ref())
    }

    fn token_tenant(&self, requester: &Requester) -> Option<Tenant> {
        let token = requester.authorization.as_ref().map(HeaderValue::as_bytes);
        token.map(|token| self.hasher.token(token))
    }
}

#[cfg(test)]
mod tests;
