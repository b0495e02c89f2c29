//! A semaphore that limits each tenant to a share of the permits, so that slow operations of one tenant do not delay
//! others.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Tenant;
use crate::sync::Mutex;

/// Limits the permits that one tenant holds to `share`.
pub(crate) struct FairSemaphore {
    permits: Arc<Semaphore>,
    share: usize,
    /// Tenants that hold a permit or wait for one.
    tenants: Mutex<HashMap<Tenant, Arc<Semaphore>>>,
}

/// A permit; released on drop.
pub(crate) struct FairPermit<'a> {
    semaphore: &'a FairSemaphore,
    tenants: Vec<Tenant>,
    permits: Vec<OwnedSemaphorePermit>,
}

impl FairSemaphore {
    pub(crate) fn new(permits: usize, share: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(permits)), share, tenants: Mutex::default() }
    }

    /// Waits for a permit of each tenant's share in turn, then for one of all permits. A caller that waits holds
    /// permits of the earlier tenants' shares only, so callers list the tenant with the fewest other users first.
    /// Callers are served in order of arrival. All callers list the kinds of their tenants in the same order, so that
    /// two callers cannot wait for each other.
    ///
    /// Cancellation safe.
    pub(crate) async fn acquire(
        &self,
        tenants: impl IntoIterator<Item = Tenant>,
    ) -> FairPermit<'_> {
        let mut permit = FairPermit { semaphore: self, tenants: Vec::new(), permits: Vec::new() };
        for tenant in tenants {
            permit.tenants.push(tenant.clone());
            let new_share = || Arc::new(Semaphore::new(self.share));
            let share = Arc::clone(self.tenants.lock().entry(tenant).or_insert_with(new_share));
            // Acquiring fails only for a closed semaphore; none is ever closed.
            permit.permits.extend(share.acquire_owned().await);
        }
        permit.permits.extend(Arc::clone(&self.permits).acquire_owned().await);
        permit
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        self.tenants.lock().is_empty()
    }
}

impl Drop for FairPermit<'_> {
    fn drop(&mut self) {
        let mut tenants = self.semaphore.tenants.lock();
        // Released under the lock: of two permits that are dropped concurrently, the second sees the map's reference
        // alone and removes the entry.
        self.permits.clear();
        for tenant in &self.tenants {
            if tenants.get(tenant).is_some_and(|share| Arc::strong_count(share) == 1) {
                tenants.remove(tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn tenants<const N: usize>(numbers: [u64; N]) -> [Tenant; N] {
        numbers.map(Tenant::Token)
    }

    #[tokio::test]
    async fn caller_that_waits_for_its_first_share_holds_no_permit_of_the_second() {
        let semaphore = FairSemaphore::new(8, 2);
        let _held = [semaphore.acquire(tenants([1])).await, semaphore.acquire(tenants([1])).await];
        let mut waiting: Vec<_> =
            (0..4).map(|_| Box::pin(semaphore.acquire(tenants([1, 7])))).collect();
        assert!(waiting.iter_mut().all(|caller| caller.now_or_never().is_none()));
        assert!(semaphore.acquire(tenants([2, 7])).now_or_never().is_some());
    }

    #[tokio::test]
    async fn full_share_delays_no_other_tenant_and_no_entry_remains() {
        let semaphore = FairSemaphore::new(3, 2);
        let acquire = |numbers| semaphore.acquire(numbers).now_or_never();
        let first = semaphore.acquire(tenants([1])).await;
        let second = semaphore.acquire(tenants([1, 7])).await;
        assert!(acquire(tenants([1]).to_vec()).is_none(), "the share of tenant 1 is used up");
        assert!(acquire(tenants([7, 1]).to_vec()).is_none(), "one of two shares is not enough");
        let third = semaphore.acquire(tenants([2, 7])).await;
        assert!(acquire(tenants([3]).to_vec()).is_none(), "all permits are held");
        drop(first);
        let fourth = acquire(tenants([1]).to_vec()).expect("a permit was released");
        drop((second, third, fourth));
        assert!(semaphore.is_idle());
    }
}
