//! Slots that tenants share fairly, for operations that wait for a slot: programs, and authorisation requests. See
//! [`super::schedule`] for the rules.

use std::{collections::VecDeque, fmt, sync::Arc};

use tokio::sync::{Notify, oneshot};

use super::{
    Demotable, TenantGroup,
    schedule::{RunId, Schedule},
};
use crate::sync::Mutex;

/// Slots for operations. Cheap to clone; clones share the slots.
#[derive(Clone)]
pub(crate) struct FairSlots(Arc<Mutex<SlotsState>>);

struct SlotsState {
    schedule: Schedule,
    /// In order of arrival.
    waiters: VecDeque<SlotWaiter>,
    next_waiter: u64,
}

struct SlotWaiter {
    number: u64,
    group: TenantGroup,
    demotable: Demotable,
    demoted: Arc<Notify>,
    granted: oneshot::Sender<RunId>,
}

/// Memory of one waiter at most, bytes: its place in the list, the channel, and what is shared with the operation.
#[cfg(test)]
pub(crate) const WAITER_BYTES: usize = 512;
#[cfg(test)]
const _: () = assert!(2 * size_of::<SlotWaiter>() + size_of::<Notify>() + 256 <= WAITER_BYTES);

/// A slot; released on drop.
pub(crate) struct FairSlot {
    slots: FairSlots,
    run: RunId,
    demotable: Demotable,
    demoted: Arc<Notify>,
}

/// A request for a slot. Dropping it withdraws the request, or releases the slot if it was granted in the meantime.
struct PendingSlot<'a> {
    slots: &'a FairSlots,
    number: u64,
    granted: oneshot::Receiver<RunId>,
}

impl FairSlots {
    /// Allows `slots` operations at a time, in addition to demoted ones.
    #[must_use]
    pub(crate) fn new(slots: usize) -> Self {
        let schedule = Schedule::new(slots);
        Self(Arc::new(Mutex::new(SlotsState {
            schedule,
            waiters: VecDeque::new(),
            next_waiter: 0,
        })))
    }

    /// Changes the number of slots. Operations beyond a lower number finish first.
    pub(crate) fn set_slots(&self, slots: usize) {
        let mut state = self.0.lock();
        state.schedule.set_slots(slots);
        state.dispatch();
    }

    /// Waits for a slot. Always returns one: a request is only removed together with its receiver. `demotable` states
    /// whether the operation may be demoted from its start.
    ///
    /// Cancellation safe.
    pub(crate) async fn acquire(&self, group: &TenantGroup, demotable: bool) -> Option<FairSlot> {
        let (demotable, demoted) = (Demotable::new(demotable), Arc::new(Notify::new()));
        let (sender, granted) = oneshot::channel();
        let number = {
            let mut state = self.0.lock();
            let number = state.next_waiter;
            state.next_waiter += 1;
            state.schedule.add_waiting(group);
            state.waiters.push_back(SlotWaiter {
                number,
                group: *group,
                demotable: demotable.clone(),
                demoted: Arc::clone(&demoted),
                granted: sender,
            });
            state.dispatch();
            number
        };
        let mut pending = PendingSlot { slots: self, number, granted };
        let run = (&mut pending.granted).await.ok()?;
        Some(FairSlot { slots: self.clone(), run, demotable, demoted })
    }

    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.0.lock();
        state.waiters.is_empty() && state.schedule.is_empty()
    }
}

impl SlotsState {
    /// Grants slots to waiters as long as there are any.
    fn dispatch(&mut self) {
        while let Some(index) =
            self.schedule.select(self.waiters.iter().map(|waiter| &waiter.group))
            && let Some(waiter) = self.waiters.get(index)
        {
            let (demotable, demoted) = (waiter.demotable.clone(), Arc::clone(&waiter.demoted));
            let group = waiter.group;
            let Some(run) = self.schedule.start(&group, demotable, demoted) else { return };
            let waiter = self.waiters.remove(index);
            // The receiver exists: `PendingSlot` removes its waiter before it drops the receiver.
            if waiter.is_none_or(|waiter| waiter.granted.send(run).is_err()) {
                self.schedule.end(run);
            }
        }
    }
}

impl Drop for PendingSlot<'_> {
    fn drop(&mut self) {
        let mut state = self.slots.0.lock();
        let position = state.waiters.iter().position(|waiter| waiter.number == self.number);
        if let Some(waiter) = position.and_then(|index| state.waiters.remove(index)) {
            state.schedule.remove_waiting(&waiter.group);
        } else if let Ok(run) = self.granted.try_recv() {
            state.schedule.end(run);
        }
        state.dispatch();
    }
}

impl FairSlot {
    /// Allows the operation to be demoted from now on.
    pub(crate) fn allow_demotion(&self) {
        self.demotable.set(true);
        self.slots.0.lock().dispatch();
    }

    /// Waits until the operation is demoted for the first time.
    ///
    /// Cancellation safe.
    pub(crate) async fn demoted(&self) {
        self.demoted.notified().await;
    }
}

impl Drop for FairSlot {
    fn drop(&mut self) {
        let mut state = self.slots.0.lock();
        state.schedule.end(self.run);
        state.dispatch();
    }
}

impl fmt::Debug for FairSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairSlots").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::tenancy::Tenant;

    fn token(number: u64) -> TenantGroup {
        TenantGroup { tenant: Tenant::Token(number), group: 0 }
    }

    fn acquire_now(slots: &FairSlots, group: &TenantGroup) -> Option<FairSlot> {
        slots.acquire(group, false).now_or_never().flatten()
    }

    #[tokio::test]
    async fn one_tenant_uses_all_slots_until_another_waits() {
        let slots = FairSlots::new(3);
        let mut greedy: Vec<_> = std::iter::from_fn(|| acquire_now(&slots, &token(1))).collect();
        assert_eq!(greedy.len(), 3);
        let own = token(1);
        let mut second = Box::pin(slots.acquire(&own, false));
        assert!((&mut second).now_or_never().is_none());
        let other = token(2);
        let mut victim = Box::pin(slots.acquire(&other, false));
        assert!((&mut victim).now_or_never().is_none());
        greedy.pop();
        // The tenant that has no slot precedes the one that waits longer.
        let victim = victim.now_or_never().flatten().expect("the next free slot");
        assert!((&mut second).now_or_never().is_none());
        drop((victim, greedy));
        drop(second.now_or_never().expect("idle slots"));
        assert!(slots.is_idle());
    }

    #[tokio::test]
    async fn slow_operations_of_the_tenant_with_the_most_are_demoted_for_another_tenant() {
        let slots = FairSlots::new(2);
        let slow =
            [acquire_now(&slots, &token(1)).unwrap(), acquire_now(&slots, &token(1)).unwrap()];
        let (attacker, other) = (token(1), token(2));
        let mut queued: Vec<_> =
            (0..6).map(|_| Box::pin(slots.acquire(&attacker, false))).collect();
        assert!(queued.iter_mut().all(|acquire| acquire.now_or_never().is_none()));
        let mut victim = Box::pin(slots.acquire(&other, false));
        assert!((&mut victim).now_or_never().is_none(), "no operation is slow");
        slow.iter().for_each(FairSlot::allow_demotion);
        let first = victim.now_or_never().flatten().expect("a slow operation is demoted");
        slow[0].demoted().now_or_never().expect("the operation that started first");
        assert!(slow[1].demoted().now_or_never().is_none(), "one demotion is enough");
        drop(first);
        // Without others, the demoted operation counts again before the tenant starts another one.
        assert!(queued.iter_mut().all(|acquire| acquire.now_or_never().is_none()));
        for _ in 0..10 {
            assert!(acquire_now(&slots, &other).is_some(), "each later request is served at once");
            assert!(queued.iter_mut().all(|acquire| acquire.now_or_never().is_none()));
        }
        drop((queued, slow));
        assert!(slots.is_idle());
    }

    #[tokio::test]
    async fn tenant_with_a_demoted_operation_starts_no_other_while_others_wait() {
        let slots = FairSlots::new(1);
        let slow = slots.acquire(&token(1), true).await.unwrap();
        let (attacker, other) = (token(1), token(2));
        let mut queued = Box::pin(slots.acquire(&attacker, false));
        assert!((&mut queued).now_or_never().is_none());
        let running = acquire_now(&slots, &other).expect("the slow operation is demoted");
        let mut next = Box::pin(slots.acquire(&other, false));
        assert!((&mut next).now_or_never().is_none());
        drop(running);
        let next = next.now_or_never().flatten().expect("precedes the tenant with a demotion");
        assert!((&mut queued).now_or_never().is_none());
        drop(next);
        assert!((&mut queued).now_or_never().is_none(), "the demoted operation counts again");
        drop(slow);
        assert!(queued.now_or_never().flatten().is_some());
        assert!(slots.is_idle());
    }

    #[tokio::test]
    async fn at_most_as_many_operations_are_demoted_as_there_are_slots() {
        let slots = FairSlots::new(4);
        let mut held = Vec::new();
        for tenant in 0..100 {
            for _ in 0..4 {
                held.extend(slots.acquire(&token(tenant), true).now_or_never().flatten());
            }
        }
        assert_eq!(held.len(), 8);
        assert_eq!(slots.0.lock().schedule.active(), 4);
        drop(held);
        assert!(slots.is_idle());
    }

    #[tokio::test]
    async fn no_operation_is_demoted_unless_that_lets_a_waiter_start() {
        let slots = FairSlots::new(3);
        let slow = slots.acquire(&token(1), true).await.unwrap();
        let fixed = [acquire_now(&slots, &token(1)), acquire_now(&slots, &token(1))];
        slots.set_slots(2);
        let other = token(2);
        let mut waiter = Box::pin(slots.acquire(&other, false));
        // Three operations run, so that two would have to be demoted.
        assert!((&mut waiter).now_or_never().is_none());
        assert!(slow.demoted().now_or_never().is_none(), "a useless demotion");
        fixed.iter().flatten().next().expect("an operation").allow_demotion();
        assert!(waiter.now_or_never().flatten().is_some());
        slow.demoted().now_or_never().expect("both demotable operations");
    }

    #[tokio::test]
    async fn change_of_the_number_applies_to_waiters() {
        let slots = FairSlots::new(1);
        let first = acquire_now(&slots, &token(1)).unwrap();
        let other = token(2);
        let mut second = Box::pin(slots.acquire(&other, false));
        assert!((&mut second).now_or_never().is_none());
        slots.set_slots(2);
        let second = second.now_or_never().flatten().expect("another slot");
        slots.set_slots(1);
        drop(first);
        assert!(acquire_now(&slots, &token(3)).is_none(), "one operation runs");
        drop(second);
        assert!(acquire_now(&slots, &token(3)).is_some());
    }
}
