//! Concurrency limit for programs in the sandbox.

use std::{pin::pin, sync::Arc, time::Duration};

use mcs_sandbox::JobPriority;
use parking_lot::Mutex;
use tokio::time::sleep;

use crate::tenancy::{
    TenantGroup,
    fair_slots::{FairSlot, FairSlots},
};

/// Scan slots: the places for programs that run in the sandbox concurrently, shared fairly by tenants. Kept across
/// reloads. Cheap to clone; clones share the slots.
///
/// A program that has run longer than `slow_after` is demoted while another tenant waits, so at most twice as many
/// programs run as there are slots.
#[derive(Clone, Debug)]
pub struct ScanSlots {
    slots: FairSlots,
    slow_after: Arc<Mutex<Duration>>,
}

/// The slot of one program; released on drop.
pub(super) struct ScanSlot {
    slot: FairSlot,
    slow_after: Duration,
}

impl ScanSlots {
    /// Allows `count` programs to run concurrently, and demotes programs that have run longer than `slow_after`.
    #[must_use]
    pub fn new(count: usize, slow_after: Duration) -> Self {
        Self { slots: FairSlots::new(count), slow_after: Arc::new(Mutex::new(slow_after)) }
    }

    /// Changes the number of slots, and the limit for programs that start from now on. Programs beyond a lower number
    /// finish first.
    pub fn change(&self, count: usize, slow_after: Duration) {
        *self.slow_after.lock() = slow_after;
        self.slots.set_slots(count);
    }

    /// Waits for a slot for a program of this tenant. Always returns one.
    pub(super) async fn acquire(&self, tenant: &TenantGroup) -> Option<ScanSlot> {
        let slot = self.slots.acquire(tenant, false).await?;
        Some(ScanSlot { slot, slow_after: *self.slow_after.lock() })
    }
}

impl ScanSlot {
    /// Waits for the end of the program. When the program is slow, it may be demoted: it then no longer counts towards
    /// the slots, and has the lowest priority until its end.
    pub(super) async fn run<T>(
        &self,
        priority: &JobPriority,
        program: impl Future<Output = T>,
    ) -> T {
        let mut program = pin!(program);
        tokio::select! {
            biased;
            ended = &mut program => return ended,
            () = sleep(self.slow_after) => self.slot.allow_demotion(),
        }
        tokio::select! {
            biased;
            ended = &mut program => return ended,
            () = self.slot.demoted() => priority.demote(),
        }
        program.await
    }
}
