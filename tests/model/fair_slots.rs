//! Callers of several tenants, some of which are cancelled while they wait, and some of which become demotable.

use shuttle::{
    future::{block_on, spawn},
    rand::{Rng, thread_rng},
};

use crate::{
    Gauge, cancel_after,
    tenancy::{Tenant, TenantGroup, fair_slots::FairSlots},
    yield_some,
};

const CALLERS: usize = 6;
const SLOTS: usize = 2;

pub(crate) fn model() {
    block_on(async {
        let slots = FairSlots::new(SLOTS);
        // Demoted operations continue, at most as many as there are slots.
        let (all, fixed) = (Gauge::new(2 * SLOTS), Gauge::new(SLOTS));
        let callers: Vec<_> =
            (0..CALLERS).map(|_| spawn(call(slots.clone(), all.clone(), fixed.clone()))).collect();
        // A caller that is never woken is a deadlock, which the explorer reports.
        for caller in callers {
            caller.await.unwrap();
        }
        // No slot is lost: all are free now.
        let group = TenantGroup::default();
        let mut free = Vec::new();
        for _ in 0..SLOTS {
            free.push(slots.acquire(&group, false).await.unwrap());
        }
    });
}

async fn call(slots: FairSlots, all: Gauge, fixed: Gauge) {
    let tenant = Tenant::Token(thread_rng().gen_range(0..3_u64));
    let group = TenantGroup { tenant, group: thread_rng().gen_range(0..2_u64) };
    let cancelled = thread_rng().gen_bool(0.3);
    let polls = if cancelled { thread_rng().gen_range(0..4) } else { usize::MAX };
    let slot = cancel_after(polls, slots.acquire(&group, false)).await.flatten();
    assert!(cancelled || slot.is_some(), "a caller got no slot");
    let Some(slot) = slot else { return };
    let _all = all.enter();
    let fixed = fixed.enter();
    yield_some(2).await;
    drop(fixed);
    if thread_rng().gen_bool(0.5) {
        slot.allow_demotion();
        yield_some(2).await;
    }
}
