//! Budget of the spool, with a share for each server name and each access token, so that a slow server or a client with
//! many requests leaves space for others.
//!
//! The last twentieth of the budget, and an extra twentieth of each share, is reserved for small bodies, so that small
//! pictures are accepted while large videos wait. Bodies that are being served use at most half of the budget, so that
//! clients that read slowly cannot stop scanning.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::tenancy::{Tenant, TenantHasher};

/// Maximum size of a small body, in bytes.
const SMALL: u64 = 1 << 20;

/// One server name's share is the budget divided by this number.
const SERVER_DIVISOR: u64 = 4;

/// One token's share is the budget divided by this number: a single user cannot use up the share of a server name.
const TOKEN_DIVISOR: u64 = 8;

#[derive(Debug)]
pub(super) struct Budget {
    total: SizeLimit,
    server: SizeLimit,
    token: SizeLimit,
    /// Limit for bodies being served that are not small, in bytes.
    served: u64,
    hasher: TenantHasher,
    /// Shared with budgets that differ in their limits only.
    usage: Arc<Mutex<BudgetUsage>>,
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
#[derive(Debug, Default)]
struct BudgetUsage {
    total: u64,
    /// Part of `total` that belongs to bodies being served.
    served: u64,
    tenants: HashMap<Tenant, u64>,
}

/// Tenants that reservations are counted against. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<Budget>,
    tenants: Vec<Tenant>,
}

/// Reserved bytes of the budget, released on drop.
#[derive(Debug)]
pub struct Reservation {
    account: Account,
    is_served: bool,
    bytes: u64,
}

/// The budget, or the account's share of it, is used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolFull;

impl SizeLimit {
    /// Returns the limit of the whole budget. Space for small bodies is set aside as far as `largest` bytes
    /// still fit.
    fn whole(limit: u64, largest: u64) -> Self {
        Self { small: limit, large: (limit - limit / 20).max(largest).min(limit) }
    }

    /// Returns the limit of a share: `limit / divisor`, but at least `largest`, with an extra twentieth for small
    /// bodies.
    fn share(limit: u64, divisor: u64, largest: u64) -> Self {
        let large = (limit / divisor).max(largest).min(limit);
        Self { small: large.saturating_add(large / 20).min(limit), large }
    }

    fn get(self, is_small: bool) -> u64 {
        if is_small { self.small } else { self.large }
    }
}

impl Budget {
    /// Creates a budget of `limit` bytes, for bodies of at most `max_size` bytes.
    pub(super) fn new(limit: u64, max_size: u64) -> Self {
        Self::with_usage(limit, max_size, TenantHasher::default(), Arc::default())
    }

    /// Returns a budget with other limits and the same usage.
    pub(super) fn with_bounds(&self, limit: u64, max_size: u64) -> Self {
        Self::with_usage(limit, max_size, self.hasher.clone(), Arc::clone(&self.usage))
    }

    fn with_usage(
        limit: u64,
        max_size: u64,
        hasher: TenantHasher,
        usage: Arc<Mutex<BudgetUsage>>,
    ) -> Self {
        // The script's copy and the server's.
        let largest = max_size.saturating_mul(2);
        Self {
            total: SizeLimit::whole(limit, largest),
            server: SizeLimit::share(limit, SERVER_DIVISOR, largest),
            token: SizeLimit::share(limit, TOKEN_DIVISOR, largest),
            served: (limit / 2).max(max_size).min(limit),
            hasher,
            usage,
        }
    }

    pub(super) fn account(self: &Arc<Self>, server: Option<&str>, token: Option<&[u8]>) -> Account {
        let server = server.map(Tenant::from_host);
        let token = token.map(|token| self.hasher.token(token));
        Account { budget: Arc::clone(self), tenants: server.into_iter().chain(token).collect() }
    }

    pub(super) fn used(&self) -> u64 {
        self.lock().total
    }

    pub(super) fn capacity(&self) -> u64 {
        self.total.small
    }

    fn lock(&self) -> MutexGuard<'_, BudgetUsage> {
        self.usage.lock()
    }

    fn tenant_limit(&self, tenant: &Tenant) -> SizeLimit {
        match tenant {
            Tenant::Server(_) => self.server,
            Tenant::Token(_) => self.token,
        }
    }
}

impl BudgetUsage {
    fn get(&self, tenant: &Tenant) -> u64 {
        self.tenants.get(tenant).copied().unwrap_or(0)
    }

    fn release(&mut self, tenant: &Tenant, bytes: u64) {
        if let Some(reserved) = self.tenants.get_mut(tenant) {
            *reserved -= bytes;
            if *reserved == 0 {
                self.tenants.remove(tenant);
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
        let Account { budget, tenants } = &self.account;
        let mut usage = budget.lock();
        let is_small = bytes <= SMALL;
        let fits = |used: u64, limit| used.checked_add(more).is_some_and(|sum| sum <= limit);
        let has_room = fits(usage.total, budget.total.get(is_small))
            && (!self.is_served || is_small || fits(usage.served, budget.served))
            && tenants
                .iter()
                .all(|tenant| fits(usage.get(tenant), budget.tenant_limit(tenant).get(is_small)));
        if !has_room {
            return Err(SpoolFull);
        }
        usage.total += more;
        if self.is_served {
            usage.served += more;
        }
        for tenant in tenants {
            *usage.tenants.entry(tenant.clone()).or_default() += more;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Counts the reservation as one for a body that is served.
    ///
    /// # Errors
    /// [`SpoolFull`]; the reservation is unchanged.
    pub(crate) fn mark_served(&mut self) -> Result<(), SpoolFull> {
        let budget = &self.account.budget;
        let mut usage = budget.lock();
        let served = usage.served + self.bytes;
        if self.bytes > SMALL && served > budget.served {
            return Err(SpoolFull);
        }
        usage.served = served;
        self.is_served = true;
        Ok(())
    }

    /// Stops counting the reservation against the server that sent the body, if it is counted against a token. Called
    /// when the body is complete: from then on, the reader determines how long it is kept.
    pub(crate) fn release_server_share(&mut self) {
        let Account { budget, tenants } = &mut self.account;
        if tenants.iter().any(|tenant| matches!(tenant, Tenant::Token(_))) {
            let mut usage = budget.lock();
            let bytes = self.bytes;
            tenants
                .extract_if(.., |tenant| matches!(tenant, Tenant::Server(_)))
                .for_each(|tenant| usage.release(&tenant, bytes));
        }
    }

    /// Releases the bytes beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        let Account { budget, tenants } = &self.account;
        let mut usage = budget.lock();
        usage.total -= less;
        if self.is_served {
            usage.served -= less;
        }
        for tenant in tenants {
            usage.release(tenant, less);
        }
        self.bytes -= less;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The defaults: 4096 MiB for bodies of at most 256 MiB.
    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(4096 * MIB, 256 * MIB))
    }

    fn reserve(account: &Account, bytes: u64) -> Result<Reservation, SpoolFull> {
        let mut reservation = account.reservation();
        reservation.grow_to(bytes).map(|()| reservation)
    }

    /// Reserves `bytes` repeatedly until the budget is used up.
    fn fill(account: &Account, bytes: u64) -> Vec<Reservation> {
        std::iter::from_fn(|| reserve(account, bytes).ok()).collect()
    }

    #[test]
    fn reservations_stay_within_budget_and_are_released() {
        let budget = Arc::new(Budget::new(100, 50));
        let account = budget.account(Some("a"), Some(b"t"));
        let mut first = account.reservation();
        let mut second = account.reservation();
        assert_eq!(first.grow_to(60), Ok(()));
        assert_eq!(first.grow_to(50), Ok(()), "already reserved");
        assert_eq!(second.grow_to(41), Err(SpoolFull));
        assert_eq!(second.grow_to(40), Ok(()));
        assert_eq!(budget.used(), 100);
        first.shrink_to(10);
        assert_eq!(second.grow_to(90), Ok(()));
        second.mark_served().unwrap();
        second.release_server_share();
        drop((first, second));
        let usage = budget.lock();
        assert_eq!((usage.total, usage.served, usage.tenants.len()), (0, 0, 0));
        drop(usage);
        assert_eq!(account.reservation().grow_to(u64::MAX), Err(SpoolFull));
    }

    #[test]
    fn one_server_name_leaves_room_for_others() {
        let budget = budget();
        let from =
            |server, token: u8| reserve(&budget.account(Some(server), Some(&[token])), 256 * MIB);
        let slow: Vec<_> = (0..64).flat_map(|token| from("Slow.example", token)).collect();
        assert_eq!(slow.len(), 4, "a quarter of the budget");
        assert!(from("slow.EXAMPLE", 64).is_err(), "server names are compared case-insensitively");
        assert!(from("other.example", 64).is_ok());
    }

    #[test]
    fn one_token_leaves_room_for_others_of_same_server() {
        let budget = budget();
        let greedy = fill(&budget.account(Some("a.example"), Some(b"greedy")), 200 * MIB);
        assert_eq!(greedy.len(), 2);
        assert!(reserve(&budget.account(Some("b.example"), Some(b"greedy")), 200 * MIB).is_err());
        assert!(reserve(&budget.account(Some("a.example"), Some(b"other")), 200 * MIB).is_ok());
    }

    #[test]
    fn small_bodies_fit_beside_large_ones() {
        let budget = budget();
        let from = |n: usize, size| fill(&budget.account(Some(&n.to_string()), None), size);
        let large: Vec<_> = (0..5).flat_map(|n| from(n, MIB + 1)).collect();
        let rest = 4096 * MIB - budget.used();
        assert!(rest >= 4096 * MIB / 20);
        let full_share = budget.account(Some("0"), None);
        assert_eq!(reserve(&full_share, MIB + 1).err(), Some(SpoolFull));
        assert!(reserve(&full_share, MIB).is_ok());
        let small: Vec<_> = (0..9).flat_map(|n| from(n, MIB)).collect();
        assert_eq!(small.len() as u64, rest / MIB, "the whole budget can be used");
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn largest_body_fits_empty_budget() {
        for limit in [512 * MIB, 600 * MIB, 1024 * MIB, 4096 * MIB, u64::MAX] {
            let account = Arc::new(Budget::new(limit, 256 * MIB)).account(Some("a"), Some(b"t"));
            let mut copies = [account.reservation(), account.reservation()];
            copies[1].mark_served().unwrap();
            for copy in &mut copies {
                assert_eq!(copy.grow_to(256 * MIB), Ok(()), "{limit}");
            }
        }
    }

    #[test]
    fn served_bodies_use_at_most_half_and_no_server_share() {
        let budget = budget();
        let mut served = Vec::new();
        for reader in 0..100_u8 {
            let account = budget.account(Some("a.example"), Some(&[reader]));
            let mut reservation = account.reservation();
            reservation.mark_served().unwrap();
            if reservation.grow_to(200 * MIB).is_err() {
                break;
            }
            reservation.release_server_share();
            served.push(reservation);
        }
        assert_eq!(served.len(), 10, "half of 4096 MiB");
        let account = budget.account(Some("a.example"), Some(b"another"));
        let mut scanned = reserve(&account, 200 * MIB).expect("scanning continues");
        assert_eq!(scanned.mark_served(), Err(SpoolFull));
    }

    #[test]
    fn reservation_without_token_stays_in_server_share() {
        let budget = budget();
        let account = budget.account(Some("a.example"), None);
        let mut reservations = fill(&account, 300 * MIB);
        assert_eq!(reservations.len(), 3);
        reservations.iter_mut().for_each(Reservation::release_server_share);
        assert!(reserve(&account, 300 * MIB).is_err());
    }
}
