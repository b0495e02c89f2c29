//! Budget of the spool, shared between tenants. Reserved bytes cannot be taken back, so one tenant leaves a fifth of the
//! budget to others. Beyond that, a tenant's share is limited only while another tenant waits for space.
//!
//! The last twentieth of the budget, and an extra twentieth of each share, is reserved for small bodies, so that small
//! pictures are accepted while large videos wait. Bodies that are being served use at most half of the budget, so that
//! clients that read slowly cannot stop scanning.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::tenancy::Tenant;

/// Maximum size of a small body, in bytes.
pub(in crate::media) const SMALL_BODY: u64 = 1 << 20;

/// While another tenant waits for space, a tenant's share is the budget divided by this number.
const WAITING_DIVISOR: u64 = 4;

/// One tenant leaves the budget divided by this number to other tenants.
const RESERVE_DIVISOR: u64 = 5;

/// [`Account::number`] of an account that does not wait.
const NOT_WAITING: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Budget {
    total: SizeLimit,
    /// Limit of one tenant.
    tenant: SizeLimit,
    /// Limit of one tenant while another tenant waits.
    contended: SizeLimit,
    /// Limit for bodies being served that are not small, in bytes.
    served: u64,
    /// Limit of one tenant for bodies being served that are not small, in bytes.
    tenant_served: u64,
    /// Shared with budgets that differ in their limits only.
    state: Arc<BudgetState>,
}

#[derive(Debug, Default)]
struct BudgetState {
    usage: Mutex<BudgetUsage>,
    /// Notified when the reserved bytes change and when a waiter leaves, if there are waiters.
    changed: Notify,
}

/// Limits on reserved bytes.
#[derive(Clone, Copy, Debug)]
struct SizeLimit {
    /// For small bodies.
    small: u64,
    /// For all other bodies.
    large: u64,
}

/// Reserved bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Reserved {
    total: u64,
    /// Part of `total` that belongs to bodies being served.
    served: u64,
}

#[derive(Debug, Default)]
struct BudgetUsage {
    all: Reserved,
    tenants: HashMap<Tenant, Reserved>,
    /// Accounts that wait for space, in order of arrival.
    waiters: VecDeque<SpoolWaiter>,
    next_waiter: u64,
}

/// An account that waits for space.
#[derive(Clone, Copy, Debug)]
struct SpoolWaiter {
    number: u64,
    tenant: Option<Tenant>,
    needed: NeededSpace,
}

/// Space that a job needs at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NeededSpace {
    /// All copies of the body together, in bytes.
    pub(crate) bytes: u64,
    /// Whether the body is small.
    pub(crate) is_small: bool,
}

/// The tenant that the reservations of one job are counted against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<Budget>,
    /// None for an account that may use the whole budget.
    tenant: Option<Tenant>,
    /// Number of the account among the waiters.
    number: Arc<AtomicU64>,
}

/// Reserved bytes of the budget, released on drop.
#[derive(Debug)]
pub struct Reservation {
    account: Account,
    is_served: bool,
    bytes: u64,
}

/// A reservation that exceeds a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpoolFull {
    /// The budget, or the tenant's share of it, is used up.
    Space,
    /// The part for bodies being served is used up. When space becomes free depends on the clients that read them.
    Served,
}

/// Removes an account from the waiters on drop.
struct WaitingAccount<'a>(&'a Account);

impl SizeLimit {
    /// Returns the limit of the whole budget. Space for small bodies is set aside as far as `largest` bytes
    /// still fit.
    fn whole(limit: u64, largest: u64) -> Self {
        Self { small: limit, large: (limit - limit / 20).max(largest).min(limit) }
    }

    /// Returns the limit of a share of `bytes`, but at least `largest`, with an extra twentieth for small bodies.
    fn share(limit: u64, bytes: u64, largest: u64) -> Self {
        let large = bytes.max(largest).min(limit);
        Self { small: large.saturating_add(large / 20).min(limit), large }
    }

    fn get(self, is_small: bool) -> u64 {
        if is_small { self.small } else { self.large }
    }
}

impl Reserved {
    fn add(&mut self, bytes: u64, is_served: bool) {
        self.total += bytes;
        self.served += if is_served { bytes } else { 0 };
    }

    fn remove(&mut self, bytes: u64, is_served: bool) {
        self.total -= bytes;
        self.served -= if is_served { bytes } else { 0 };
    }
}

impl Budget {
    /// Creates a budget of `limit` bytes, for bodies of at most `max_size` bytes.
    pub(super) fn new(limit: u64, max_size: u64) -> Self {
        Self::with_state(limit, max_size, Arc::default())
    }

    /// Returns a budget with other limits and the same usage.
    pub(super) fn with_bounds(&self, limit: u64, max_size: u64) -> Self {
        Self::with_state(limit, max_size, Arc::clone(&self.state))
    }

    fn with_state(limit: u64, max_size: u64, state: Arc<BudgetState>) -> Self {
        // The script's copy and the server's.
        let largest = max_size.saturating_mul(2);
        let without_reserve = |bytes: u64| bytes - bytes / RESERVE_DIVISOR;
        let served = (limit / 2).max(max_size).min(limit);
        Self {
            total: SizeLimit::whole(limit, largest),
            tenant: SizeLimit::share(limit, without_reserve(limit), largest),
            contended: SizeLimit::share(limit, limit / WAITING_DIVISOR, largest),
            served,
            tenant_served: without_reserve(served).max(max_size).min(served),
            state,
        }
    }

    pub(super) fn account(self: &Arc<Self>, tenant: Option<Tenant>) -> Account {
        let number = Arc::new(AtomicU64::new(NOT_WAITING));
        Account { budget: Arc::clone(self), tenant, number }
    }

    pub(super) fn used(&self) -> u64 {
        self.lock().all.total
    }

    pub(super) fn capacity(&self) -> u64 {
        self.total.small
    }

    fn lock(&self) -> MutexGuard<'_, BudgetUsage> {
        self.state.usage.lock()
    }

    /// Returns the limit of a tenant.
    fn tenant_limit(&self, usage: &BudgetUsage, tenant: Tenant) -> SizeLimit {
        let is_contended = usage.waiters.iter().any(|waiter| waiter.tenant != Some(tenant));
        if is_contended { self.contended } else { self.tenant }
    }

    /// Returns whether no waiter precedes this one. Of each tenant, the waiter that arrived first competes; of these,
    /// the one whose tenant has the fewest reserved bytes is first. A tenant whose waiter must wait for space of the
    /// tenant's own share does not delay other tenants.
    fn is_next(&self, usage: &BudgetUsage, number: u64, tenant: Option<Tenant>) -> bool {
        let used = |tenant: Option<Tenant>| tenant.map_or(0, |tenant| usage.get(tenant).total);
        let own = (used(tenant), number);
        let mut first_of_tenant = HashSet::new();
        usage.waiters.iter().all(|waiter| {
            let is_first = first_of_tenant.insert(waiter.tenant);
            if waiter.tenant == tenant {
                return number <= waiter.number;
            }
            !is_first
                || own < (used(waiter.tenant), waiter.number)
                || self.exceeds_share(usage, waiter)
        })
    }

    /// Returns whether a waiter needs more than its tenant's share has left.
    fn exceeds_share(&self, usage: &BudgetUsage, waiter: &SpoolWaiter) -> bool {
        let SpoolWaiter { tenant: Some(tenant), needed, .. } = *waiter else { return false };
        let limit = self.tenant_limit(usage, tenant).get(needed.is_small);
        usage.get(tenant).total.saturating_add(needed.bytes) > limit
    }

    /// Checks whether `more` bytes can be reserved, for a body that is small afterwards or not. A body that already has
    /// space (`is_growth`) is not limited by other tenants that wait: its download cannot wait.
    fn check(
        &self,
        usage: &BudgetUsage,
        tenant: Option<Tenant>,
        more: u64,
        is_small: bool,
        is_growth: bool,
    ) -> Result<(), SpoolFull> {
        let fits = |used: u64, limit| used.checked_add(more).is_some_and(|sum| sum <= limit);
        let has_room = fits(usage.all.total, self.total.get(is_small))
            && tenant.is_none_or(|tenant| {
                let limit = if is_growth { self.tenant } else { self.tenant_limit(usage, tenant) };
                fits(usage.get(tenant).total, limit.get(is_small))
            });
        if has_room { Ok(()) } else { Err(SpoolFull::Space) }
    }

    fn check_served(
        &self,
        usage: &BudgetUsage,
        tenant: Option<Tenant>,
        more: u64,
    ) -> Result<(), SpoolFull> {
        let fits = |used: u64, limit| used.checked_add(more).is_some_and(|sum| sum <= limit);
        let has_room = fits(usage.all.served, self.served)
            && tenant.is_none_or(|tenant| fits(usage.get(tenant).served, self.tenant_served));
        if has_room { Ok(()) } else { Err(SpoolFull::Served) }
    }
}

impl BudgetUsage {
    fn get(&self, tenant: Tenant) -> Reserved {
        self.tenants.get(&tenant).copied().unwrap_or_default()
    }

    fn update(&mut self, tenant: Option<Tenant>, change: impl Fn(&mut Reserved)) {
        change(&mut self.all);
        if let Some(tenant) = tenant {
            let reserved = self.tenants.entry(tenant).or_default();
            change(reserved);
            if *reserved == Reserved::default() {
                self.tenants.remove(&tenant);
            }
        }
    }
}

impl Account {
    /// Returns the size of the whole budget, in bytes. Larger reservations always fail.
    pub(crate) fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// Creates a reservation of zero bytes.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation { account: self.clone(), is_served: false, bytes: 0 }
    }

    /// Calls `reserve` until it does not fail with [`SpoolFull::Space`], each time that all of `needed` is free and this
    /// account is next. `reserve` reserves `needed`, in one or several reservations, and must reserve nothing when it
    /// fails. The check of all of it prevents an endless loop: releasing the first of several reservations wakes all
    /// waiters including this one.
    ///
    /// Cancellation safe, if `reserve` is.
    pub(crate) async fn reserve_when_free<E>(
        &self,
        needed: NeededSpace,
        mut reserve: impl FnMut() -> Result<(), E>,
        is_space: impl Fn(&E) -> bool,
    ) -> Result<(), E> {
        let mut waiting = None;
        loop {
            let changed = pin!(self.budget.state.changed.notified());
            if self.may_reserve(needed) {
                match reserve() {
                    Err(error) if is_space(&error) => {}
                    result => return result,
                }
            }
            if waiting.is_none() {
                waiting = Some(WaitingAccount::new(self, needed));
                // Space may have become free before this account was among the waiters.
                continue;
            }
            changed.await;
        }
    }

    /// Returns whether `needed` is free at this moment, and no waiter precedes this account.
    fn may_reserve(&self, needed: NeededSpace) -> bool {
        let NeededSpace { bytes, is_small } = needed;
        let usage = self.budget.lock();
        let number = self.number.load(Ordering::Relaxed);
        (is_small || self.budget.is_next(&usage, number, self.tenant))
            && self.budget.check(&usage, self.tenant, bytes, is_small, false).is_ok()
    }
}

impl<'a> WaitingAccount<'a> {
    fn new(account: &'a Account, needed: NeededSpace) -> Self {
        let mut usage = account.budget.lock();
        let number = usage.next_waiter;
        usage.next_waiter += 1;
        usage.waiters.push_back(SpoolWaiter { number, tenant: account.tenant, needed });
        account.number.store(number, Ordering::Relaxed);
        Self(account)
    }
}

impl Drop for WaitingAccount<'_> {
    fn drop(&mut self) {
        let number = self.0.number.swap(NOT_WAITING, Ordering::Relaxed);
        self.0.budget.lock().waiters.retain(|waiter| waiter.number != number);
        self.0.budget.state.changed.notify_waiters();
    }
}

impl Reservation {
    /// Returns whether at least `bytes` are reserved.
    pub(crate) fn covers(&self, bytes: u64) -> bool {
        self.bytes >= bytes
    }

    /// Grows the reservation to at least `bytes`.
    ///
    /// # Errors
    /// [`SpoolFull`]; the reservation is unchanged.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), SpoolFull> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let Account { budget, tenant, .. } = &self.account;
        let mut usage = budget.lock();
        let is_small = bytes <= SMALL_BODY;
        budget.check(&usage, *tenant, more, is_small, self.bytes > 0)?;
        if self.is_served && !is_small {
            budget.check_served(&usage, *tenant, more)?;
        }
        usage.update(*tenant, |reserved| reserved.add(more, self.is_served));
        self.bytes = bytes;
        if !usage.waiters.is_empty() {
            // The tenant's waiters may no longer precede those of other tenants.
            budget.state.changed.notify_waiters();
        }
        Ok(())
    }

    /// Counts the reservation as one for a body that is served.
    ///
    /// # Errors
    /// [`SpoolFull`]; the reservation is unchanged.
    pub(crate) fn mark_served(&mut self) -> Result<(), SpoolFull> {
        let Account { budget, tenant, .. } = &self.account;
        let mut usage = budget.lock();
        let bytes = self.bytes;
        if bytes > SMALL_BODY {
            budget.check_served(&usage, *tenant, bytes)?;
        }
        usage.update(*tenant, |reserved| reserved.served += bytes);
        self.is_served = true;
        Ok(())
    }

    /// Releases the bytes beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        let Account { budget, tenant, .. } = &self.account;
        let mut usage = budget.lock();
        usage.update(*tenant, |reserved| reserved.remove(less, self.is_served));
        self.bytes -= less;
        if less > 0 && !usage.waiters.is_empty() {
            budget.state.changed.notify_waiters();
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests;
