//! Circuit breaker: takes a failing store out of use, so that scans do not wait for it.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::limits::{MAX_FAILURES, MAX_PAUSE, MIN_PAUSE};

/// Kind of failure that took the store out of use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailureKind {
    /// The server does not reply. A reply of any kind ends this state.
    Unreachable,
    /// The server replies with errors. Only the success of such a command ends this state.
    Refused,
}

/// Change of the state by the result of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum BreakerChange {
    None,
    Opened,
    /// The store is in use again, after this time.
    Closed(Duration),
}

/// State of a store that is out of use.
struct OpenState {
    since: Instant,
    /// Time of the next probe.
    until: Instant,
    pause: Duration,
    is_probing: bool,
    kind: FailureKind,
}

#[derive(Default)]
struct BreakerState {
    /// Number of failures in a row.
    failures: u32,
    open: Option<OpenState>,
}

/// Circuit breaker. After five failures in a row, permits no call for 1 s, then one probe at a time; the pause doubles
/// up to 30 s.
#[derive(Default)]
pub(crate) struct CircuitBreaker {
    state: Mutex<BreakerState>,
    closed: Notify,
}

/// Permission for one call. Without a result, for example of a cancelled call, another call may be the probe.
pub(crate) struct CallPermit<'a> {
    breaker: &'a CircuitBreaker,
    is_probe: bool,
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if self.is_probe
            && let Some(open) = &mut self.breaker.state.lock().open
        {
            open.is_probing = false;
        }
    }
}

impl CircuitBreaker {
    /// Returns the permission for a call, or `None` while the store is out of use.
    pub(crate) fn admit(&self) -> Option<CallPermit<'_>> {
        let mut state = self.state.lock();
        let is_probe = match &mut state.open {
            None => false,
            Some(open) if !open.is_probing && Instant::now() >= open.until => {
                open.is_probing = true;
                true
            }
            Some(_) => return None,
        };
        Some(CallPermit { breaker: self, is_probe })
    }

    /// Returns whether calls are permitted without a probe.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().open.is_none()
    }

    /// Records the success of a call with any permission.
    pub(crate) fn succeed(&self) -> BreakerChange {
        let mut state = self.state.lock();
        state.failures = 0;
        let Some(open) = state.open.take() else { return BreakerChange::None };
        drop(state);
        self.closed.notify_waiters();
        BreakerChange::Closed(open.since.elapsed())
    }

    /// Records that the server has replied to a command of another kind than lookups and writes.
    pub(crate) fn succeed_polling(&self) -> BreakerChange {
        let is_refused = |open: &OpenState| open.kind == FailureKind::Refused;
        if self.state.lock().open.as_ref().is_some_and(is_refused) {
            return BreakerChange::None;
        }
        self.succeed()
    }

    /// Records the failure of a call. `permit` is `None` for a poll, which needs none.
    pub(crate) fn fail(&self, permit: Option<&CallPermit<'_>>, kind: FailureKind) -> BreakerChange {
        let now = Instant::now();
        let mut state = self.state.lock();
        if let Some(open) = &mut state.open {
            // Calls that were sent before the store was taken out of use do not extend the pause.
            if permit.is_some_and(|permit| permit.is_probe) {
                open.pause = (open.pause * 2).min(MAX_PAUSE);
                open.until = now + open.pause;
                open.kind = kind;
            }
            return BreakerChange::None;
        }
        state.failures += 1;
        if state.failures < MAX_FAILURES {
            return BreakerChange::None;
        }
        let until = now + MIN_PAUSE;
        state.open =
            Some(OpenState { since: now, until, pause: MIN_PAUSE, is_probing: false, kind });
        BreakerChange::Opened
    }

    /// Waits until a call is permitted, as a probe or otherwise. Another call may be the probe instead.
    pub(crate) async fn wait_for_use(&self) {
        loop {
            let closed = self.closed.notified();
            let Some(until) = self.state.lock().open.as_ref().map(|open| open.until) else {
                return;
            };
            if Instant::now() >= until {
                return;
            }
            tokio::select! {
                // In order, so that a simulation is repeatable.
                biased;
                () = closed => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }
}
