//! Who holds how much of the spool. A server name has a share, and so has a token: a server that
//! drips, or a client that asks for too much, leaves room for the others. The last twentieth of the
//! whole, and one beyond each share, is for small bodies: pictures pass while large videos wait.
//! Bodies that are kept to be served hold at most half: clients that read slowly never stop scanning.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Bodies up to this size, bytes, may use what is kept free of larger ones.
const SMALL: u64 = 1 << 20;

/// One server name's part of the whole.
const SERVERS_SHARE: u64 = 4;

/// One token's part of the whole: less, so that one user alone cannot use up the share of the
/// homeserver that all their neighbours' media come from.
const TOKENS_SHARE: u64 = 8;

#[derive(Debug)]
pub(super) struct Budget {
    whole: Bound,
    server: Bound,
    token: Bound,
    /// For larger bodies that are kept to be served, bytes.
    served: u64,
    hasher: RandomState,
    /// Shared with budgets that differ in their bounds alone.
    held: Arc<Mutex<Held>>,
}

/// Bytes that may be held.
#[derive(Clone, Copy, Debug)]
struct Bound {
    all: u64,
    /// What larger bodies may bring it to.
    large: u64,
}

#[derive(Debug, Default)]
struct Held {
    all: u64,
    served: u64,
    lanes: HashMap<Lane, u64>,
}

/// On whose behalf bytes are held. Tokens by a keyed hash: they are not kept.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Lane {
    Server(Arc<str>),
    Token(u64),
}

/// Whom reservations are counted for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Account {
    budget: Arc<Budget>,
    lanes: Vec<Lane>,
}

/// Bytes of the budget, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Account,
    to_serve: bool,
    bytes: u64,
}

/// The budget, or the account's share of it, is used up for now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolFull;

impl Bound {
    /// `limit` bytes, with room in it for small bodies, as far as `largest` leaves any.
    fn whole(limit: u64, largest: u64) -> Self {
        Self { all: limit, large: (limit - limit / 20).max(largest).min(limit) }
    }

    /// A part of `limit`, or `largest` if that is more, with room beyond it for small bodies.
    fn share(limit: u64, part: u64, largest: u64) -> Self {
        let large = (limit / part).max(largest).min(limit);
        Self { all: large.saturating_add(large / 20).min(limit), large }
    }

    fn of(self, is_small: bool) -> u64 {
        if is_small { self.all } else { self.large }
    }
}

impl Budget {
    /// `limit` bytes in all, for bodies of at most `max_size` bytes.
    pub(super) fn new(limit: u64, max_size: u64) -> Self {
        Self::of(limit, max_size, RandomState::new(), Arc::default())
    }

    /// The same with other bounds: what is held counts in both.
    pub(super) fn with_bounds(&self, limit: u64, max_size: u64) -> Self {
        Self::of(limit, max_size, self.hasher.clone(), Arc::clone(&self.held))
    }

    fn of(limit: u64, max_size: u64, hasher: RandomState, held: Arc<Mutex<Held>>) -> Self {
        // The script's copy and the server's.
        let largest = max_size.saturating_mul(2);
        Self {
            whole: Bound::whole(limit, largest),
            server: Bound::share(limit, SERVERS_SHARE, largest),
            token: Bound::share(limit, TOKENS_SHARE, largest),
            served: (limit / 2).max(max_size).min(limit),
            hasher,
            held,
        }
    }

    pub(super) fn account(self: &Arc<Self>, server: Option<&str>, token: Option<&[u8]>) -> Account {
        let server = server.map(|name| Lane::Server(name.to_ascii_lowercase().into()));
        let token = token.map(|token| Lane::Token(self.hasher.hash_one(token)));
        Account { budget: Arc::clone(self), lanes: server.into_iter().chain(token).collect() }
    }

    pub(super) fn used(&self) -> u64 {
        self.lock().all
    }

    pub(super) fn capacity(&self) -> u64 {
        self.whole.all
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Nothing that could panic runs between two halves of a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bound(&self, lane: &Lane) -> Bound {
        match lane {
            Lane::Server(_) => self.server,
            Lane::Token(_) => self.token,
        }
    }
}

impl Held {
    fn of(&self, lane: &Lane) -> u64 {
        self.lanes.get(lane).copied().unwrap_or(0)
    }

    fn give_back(&mut self, lane: &Lane, bytes: u64) {
        if let Some(held) = self.lanes.get_mut(lane) {
            *held -= bytes;
            if *held == 0 {
                self.lanes.remove(lane);
            }
        }
    }
}

impl Account {
    /// Bytes of the whole budget: what needs more never fits.
    pub(crate) fn capacity(&self) -> u64 {
        self.budget.capacity()
    }

    /// A reservation of nothing, to be grown.
    #[must_use]
    pub fn reservation(&self) -> Reservation {
        Reservation { account: self.clone(), to_serve: false, bytes: 0 }
    }
}

impl Reservation {
    /// Whether it is of at least `bytes`.
    pub(crate) fn holds(&self, bytes: u64) -> bool {
        self.bytes >= bytes
    }

    /// Makes it at least `bytes` in all. On an error it is as it was.
    pub fn grow_to(&mut self, bytes: u64) -> Result<(), SpoolFull> {
        let more = bytes.saturating_sub(self.bytes);
        if more == 0 {
            return Ok(());
        }
        let Account { budget, lanes } = &self.account;
        let mut held = budget.lock();
        let is_small = bytes <= SMALL;
        let fits = |held: u64, bound| held.checked_add(more).is_some_and(|sum| sum <= bound);
        let has_room = fits(held.all, budget.whole.of(is_small))
            && (!self.to_serve || is_small || fits(held.served, budget.served))
            && lanes.iter().all(|lane| fits(held.of(lane), budget.bound(lane).of(is_small)));
        if !has_room {
            return Err(SpoolFull);
        }
        held.all += more;
        if self.to_serve {
            held.served += more;
        }
        for lane in lanes {
            *held.lanes.entry(lane.clone()).or_default() += more;
        }
        self.bytes = bytes;
        Ok(())
    }

    /// From now on it is for a body that is kept to be served. On an error it is as it was.
    pub(crate) fn keep_to_serve(&mut self) -> Result<(), SpoolFull> {
        let budget = &self.account.budget;
        let mut held = budget.lock();
        let served = held.served + self.bytes;
        if self.bytes > SMALL && served > budget.served {
            return Err(SpoolFull);
        }
        held.served = served;
        self.to_serve = true;
        Ok(())
    }

    /// The body is in: from now on its reader alone holds it, where there is a token to know them by,
    /// and no longer the server that it came from.
    pub(crate) fn body_is_in(&mut self) {
        let Account { budget, lanes } = &mut self.account;
        if lanes.iter().any(|lane| matches!(lane, Lane::Token(_))) {
            let mut held = budget.lock();
            let bytes = self.bytes;
            lanes
                .extract_if(.., |lane| matches!(lane, Lane::Server(_)))
                .for_each(|lane| held.give_back(&lane, bytes));
        }
    }

    /// Gives back what is beyond `bytes`.
    pub fn shrink_to(&mut self, bytes: u64) {
        let less = self.bytes.saturating_sub(bytes);
        let Account { budget, lanes } = &self.account;
        let mut held = budget.lock();
        held.all -= less;
        if self.to_serve {
            held.served -= less;
        }
        for lane in lanes {
            held.give_back(lane, less);
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

    /// The default's proportions: 4096 MiB for bodies of at most 256 MiB.
    fn budget() -> Arc<Budget> {
        Arc::new(Budget::new(4096 * MIB, 256 * MIB))
    }

    fn held(account: &Account, bytes: u64) -> Result<Reservation, SpoolFull> {
        let mut reservation = account.reservation();
        reservation.grow_to(bytes).map(|()| reservation)
    }

    /// As many of `bytes` as there is room for.
    fn fill(account: &Account, bytes: u64) -> Vec<Reservation> {
        std::iter::from_fn(|| held(account, bytes).ok()).collect()
    }

    #[test]
    fn reservations_never_exceed_the_budget_and_come_back() {
        let budget = Arc::new(Budget::new(100, 50));
        let account = budget.account(Some("a"), Some(b"t"));
        let mut first = account.reservation();
        let mut second = account.reservation();
        assert_eq!(first.grow_to(60), Ok(()));
        assert_eq!(first.grow_to(50), Ok(()), "as much is held already");
        assert_eq!(second.grow_to(41), Err(SpoolFull));
        assert_eq!(second.grow_to(40), Ok(()));
        assert_eq!(budget.used(), 100);
        first.shrink_to(10);
        assert_eq!(second.grow_to(90), Ok(()));
        second.keep_to_serve().unwrap();
        second.body_is_in();
        drop((first, second));
        let left = budget.lock();
        assert_eq!((left.all, left.served, left.lanes.len()), (0, 0, 0));
        drop(left);
        assert_eq!(account.reservation().grow_to(u64::MAX), Err(SpoolFull));
    }

    #[test]
    fn one_server_name_leaves_room_for_others_whoever_asks() {
        let budget = budget();
        let from =
            |server, token: u8| held(&budget.account(Some(server), Some(&[token])), 256 * MIB);
        let drip: Vec<_> = (0..64).flat_map(|token| from("Drip.example", token)).collect();
        assert_eq!(drip.len(), 4, "a quarter of the whole");
        assert!(from("drip.EXAMPLE", 64).is_err(), "names are compared without case");
        assert!(from("other.example", 64).is_ok());
    }

    #[test]
    fn one_token_leaves_room_for_others_of_the_same_server() {
        let budget = budget();
        let greedy = fill(&budget.account(Some("a.example"), Some(b"greedy")), 200 * MIB);
        assert_eq!(greedy.len(), 2);
        assert!(held(&budget.account(Some("b.example"), Some(b"greedy")), 200 * MIB).is_err());
        assert!(held(&budget.account(Some("a.example"), Some(b"other")), 200 * MIB).is_ok());
    }

    #[test]
    fn small_bodies_pass_where_large_ones_have_filled_the_rest() {
        let budget = budget();
        let from = |n: usize, size| fill(&budget.account(Some(&n.to_string()), None), size);
        let large: Vec<_> = (0..5).flat_map(|n| from(n, MIB + 1)).collect();
        let rest = 4096 * MIB - budget.used();
        assert!(rest >= 4096 * MIB / 20);
        let of_a_full_share = budget.account(Some("0"), None);
        assert_eq!(held(&of_a_full_share, MIB + 1).err(), Some(SpoolFull));
        assert!(held(&of_a_full_share, MIB).is_ok());
        let small: Vec<_> = (0..9).flat_map(|n| from(n, MIB)).collect();
        assert_eq!(small.len() as u64, rest / MIB, "all of it can be used");
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn the_largest_body_always_fits_an_empty_budget_that_holds_it() {
        for limit in [512 * MIB, 600 * MIB, 1024 * MIB, 4096 * MIB, u64::MAX] {
            let account = Arc::new(Budget::new(limit, 256 * MIB)).account(Some("a"), Some(b"t"));
            let mut copies = [account.reservation(), account.reservation()];
            copies[1].keep_to_serve().unwrap();
            for copy in &mut copies {
                assert_eq!(copy.grow_to(256 * MIB), Ok(()), "{limit}");
            }
        }
    }

    #[test]
    fn who_reads_slowly_holds_at_most_half_and_never_a_servers_share() {
        let budget = budget();
        let mut served = Vec::new();
        for reader in 0..100_u8 {
            let account = budget.account(Some("a.example"), Some(&[reader]));
            let mut kept = account.reservation();
            kept.keep_to_serve().unwrap();
            if kept.grow_to(200 * MIB).is_err() {
                break;
            }
            kept.body_is_in();
            served.push(kept);
        }
        assert_eq!(served.len(), 10, "half of 4096 MiB");
        let scanned = budget.account(Some("a.example"), Some(b"another"));
        let mut scanned = held(&scanned, 200 * MIB).expect("scanning goes on");
        assert_eq!(scanned.keep_to_serve(), Err(SpoolFull));
    }

    #[test]
    fn a_reader_without_a_token_is_known_by_the_server_alone() {
        let budget = budget();
        let account = budget.account(Some("a.example"), None);
        let mut kept = fill(&account, 300 * MIB);
        assert_eq!(kept.len(), 3);
        kept.iter_mut().for_each(Reservation::body_is_in);
        assert!(held(&account, 300 * MIB).is_err());
    }
}
