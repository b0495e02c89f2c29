use futures_util::FutureExt;

use super::*;

const MIB: u64 = 1 << 20;

/// The defaults: 4096 MiB for bodies of at most 256 MiB.
fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(4096 * MIB, 256 * MIB))
}

fn account(budget: &Arc<Budget>, token: u64) -> Account {
    budget.account(Some(Tenant::Token(token)))
}

fn reserve(account: &Account, bytes: u64) -> Result<Reservation, SpoolFull> {
    let mut reservation = account.reservation();
    reservation.grow_to(bytes).map(|()| reservation)
}

/// Reserves `bytes` repeatedly until the budget is used up.
fn fill(account: &Account, bytes: u64) -> Vec<Reservation> {
    std::iter::from_fn(|| reserve(account, bytes).ok()).collect()
}

async fn reserve_when_free(account: &Account, bytes: u64) -> Reservation {
    let mut reservation = account.reservation();
    let is_space = |full: &SpoolFull| *full == SpoolFull::Space;
    let reserve = || reservation.grow_to(bytes);
    let needed = NeededSpace { bytes, is_small: bytes <= SMALL_BODY };
    account.reserve_when_free(needed, reserve, is_space).await.unwrap();
    reservation
}

#[test]
fn reservations_stay_within_budget_and_are_released() {
    let budget = Arc::new(Budget::new(100, 50));
    let account = account(&budget, 1);
    let mut first = account.reservation();
    let mut second = account.reservation();
    assert_eq!(first.grow_to(60), Ok(()));
    assert_eq!(first.grow_to(50), Ok(()), "already reserved");
    assert_eq!(second.grow_to(41), Err(SpoolFull::Space));
    assert_eq!(second.grow_to(40), Ok(()));
    assert_eq!(budget.used(), 100);
    first.shrink_to(10);
    assert_eq!(second.grow_to(90), Ok(()));
    second.mark_served().unwrap();
    drop((first, second));
    let usage = budget.lock();
    assert_eq!((usage.all, usage.tenants.len()), (Reserved::default(), 0));
    drop(usage);
    assert_eq!(account.reservation().grow_to(u64::MAX), Err(SpoolFull::Space));
}

#[test]
fn one_tenant_gets_eight_large_downloads_with_two_copies_each() {
    let account = account(&budget(), 1);
    let copies = |_| {
        let mut served = account.reservation();
        served.mark_served()?;
        served.grow_to(200 * MIB)?;
        Ok((reserve(&account, 200 * MIB)?, served))
    };
    let all: Result<Vec<_>, SpoolFull> = (0..8).map(copies).collect();
    assert_eq!(all.unwrap().len(), 8);
}

#[test]
fn one_tenant_leaves_room_for_the_largest_body_of_others() {
    let budget = budget();
    let greedy = fill(&account(&budget, 1), 200 * MIB);
    assert_eq!(greedy.len(), 16, "four fifths of the budget");
    assert!(reserve(&account(&budget, 2), 512 * MIB).is_ok());
}

#[tokio::test]
async fn released_space_goes_to_the_tenant_with_the_fewest_bytes() {
    let budget = budget();
    let (greedy, modest, other) = (account(&budget, 1), account(&budget, 2), account(&budget, 3));
    let mut held = fill(&greedy, 200 * MIB);
    let mut rest = fill(&other, 200 * MIB);
    assert_eq!((held.len(), rest.len()), (16, 3));
    let greedy_waiter = account(&budget, 1);
    let mut again = Box::pin(reserve_when_free(&greedy_waiter, 200 * MIB));
    assert!((&mut again).now_or_never().is_none());
    let mut first = Box::pin(reserve_when_free(&modest, 300 * MIB));
    assert!((&mut first).now_or_never().is_none());
    held.pop();
    assert!((&mut again).now_or_never().is_none(), "the other tenant waits");
    assert!((&mut first).now_or_never().is_none(), "too few bytes");
    assert!(reserve_when_free(&account(&budget, 3), 200 * MIB).now_or_never().is_none());
    held.pop();
    let first = first.now_or_never().expect("the tenant without reservations is first");
    assert!((&mut again).now_or_never().is_none(), "too few bytes");
    rest.clear();
    assert!(again.now_or_never().is_some(), "no other tenant waits");
    drop((first, held));
    assert!(budget.lock().waiters.is_empty());
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn waiter_limited_by_its_own_share_does_not_delay_other_tenants() {
    let budget = budget();
    let held =
        [(1, 800), (2, 900)].map(|(token, size)| reserve(&account(&budget, token), size * MIB));
    let mut rest = reserve(&account(&budget, 3), 2100 * MIB).unwrap();
    let (first, second, other) = (account(&budget, 1), account(&budget, 1), account(&budget, 2));
    // More than a quarter of the budget together with what the tenant holds.
    let mut limited = Box::pin(reserve_when_free(&first, 300 * MIB));
    assert!((&mut limited).now_or_never().is_none());
    let mut behind = Box::pin(reserve_when_free(&second, 50 * MIB));
    assert!((&mut behind).now_or_never().is_none(), "order of arrival within a tenant");
    let mut waiter = Box::pin(reserve_when_free(&other, 100 * MIB));
    assert!((&mut waiter).now_or_never().is_none(), "too few bytes");
    rest.shrink_to(1700 * MIB);
    assert!((&mut limited).now_or_never().is_none(), "the share, while another tenant waits");
    assert!((&mut behind).now_or_never().is_none());
    let waiter = waiter.now_or_never().expect("the tenant with fewer bytes cannot use the space");
    let limited = limited.now_or_never().expect("no other tenant waits");
    let behind = behind.now_or_never().expect("the next of the tenant");
    drop((held, rest, limited, behind, waiter));
    assert_eq!(budget.used(), 0);
}

#[tokio::test]
async fn waiter_is_woken_when_another_tenant_has_used_up_its_share() {
    let budget = budget();
    let mut growing = reserve(&account(&budget, 1), 700 * MIB).unwrap();
    let held = reserve(&account(&budget, 2), 900 * MIB).unwrap();
    let rest = reserve(&account(&budget, 3), 2140 * MIB).unwrap();
    let first = account(&budget, 1);
    let mut waiter = Box::pin(reserve_when_free(&first, 300 * MIB));
    assert!((&mut waiter).now_or_never().is_none(), "too few bytes");
    let other = account(&budget, 2);
    let next = tokio::spawn(async move { reserve_when_free(&other, 100 * MIB).await });
    while budget.lock().waiters.len() < 2 {
        tokio::task::yield_now().await;
    }
    growing.grow_to(740 * MIB).unwrap();
    // The task is polled only if it is woken.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    let next = next.now_or_never().expect("the task was woken").unwrap();
    assert!((&mut waiter).now_or_never().is_none(), "too few bytes");
    drop((growing, held, rest, next));
    assert!(waiter.now_or_never().is_some());
}

#[tokio::test]
async fn share_is_limited_while_another_tenant_waits() {
    let budget = budget();
    let held = fill(&account(&budget, 1), 300 * MIB);
    assert_eq!(held.len(), 10);
    let other = account(&budget, 2);
    let rest = reserve(&other, 600 * MIB).unwrap();
    let third = account(&budget, 3);
    let mut waiter = Box::pin(reserve_when_free(&third, 512 * MIB));
    assert!((&mut waiter).now_or_never().is_none());
    assert_eq!(reserve(&account(&budget, 1), 2 * MIB).err(), Some(SpoolFull::Space));
    assert!(reserve(&account(&budget, 4), 2 * MIB).is_ok(), "a share that is not used up");
    drop(waiter);
    assert!(reserve(&account(&budget, 1), 2 * MIB).is_ok(), "no other tenant waits");
    drop((held, rest));
}

#[test]
fn small_bodies_fit_beside_large_ones() {
    let budget = budget();
    let from = |tenant, size| fill(&account(&budget, tenant), size);
    let large: Vec<_> = (0..5).flat_map(|tenant| from(tenant, MIB + 1)).collect();
    let rest = 4096 * MIB - budget.used();
    assert!(rest >= 4096 * MIB / 20);
    let full_share = account(&budget, 0);
    assert_eq!(reserve(&full_share, MIB + 1).err(), Some(SpoolFull::Space));
    assert!(reserve(&full_share, MIB).is_ok());
    let small: Vec<_> = (0..9).flat_map(|tenant| from(tenant, MIB)).collect();
    assert_eq!(small.len() as u64, rest / MIB, "the whole budget can be used");
    drop((large, small));
    assert_eq!(budget.used(), 0);
}

#[test]
fn largest_body_fits_empty_budget() {
    for limit in [512 * MIB, 600 * MIB, 1024 * MIB, 4096 * MIB, u64::MAX] {
        let account = account(&Arc::new(Budget::new(limit, 256 * MIB)), 1);
        let mut copies = [account.reservation(), account.reservation()];
        copies[1].mark_served().unwrap();
        for copy in &mut copies {
            assert_eq!(copy.grow_to(256 * MIB), Ok(()), "{limit}");
        }
    }
}

#[test]
fn served_bodies_use_at_most_half_and_one_tenant_leaves_a_part() {
    let budget = budget();
    let served = |tenant, size| {
        let mut reservation = account(&budget, tenant).reservation();
        reservation.mark_served()?;
        reservation.grow_to(size).map(|()| reservation)
    };
    let one: Vec<_> = (0..100).map_while(|_| served(1, 200 * MIB).ok()).collect();
    assert_eq!(one.len(), 8, "four fifths of the half");
    let others: Vec<_> = (2..100).map_while(|tenant| served(tenant, 200 * MIB).ok()).collect();
    assert_eq!(one.len() + others.len(), 10, "half of 4096 MiB");
    let mut scanned = reserve(&account(&budget, 200), 200 * MIB).expect("scanning continues");
    assert_eq!(scanned.mark_served(), Err(SpoolFull::Served));
}
