//! The time of the system, which a simulation replaces.

use std::time::SystemTime;

#[cfg(test)]
thread_local! {
    static SIMULATED: std::cell::RefCell<Option<Box<dyn Fn() -> SystemTime>>> = const { std::cell::RefCell::new(None) };
}

/// Returns the current time.
pub(super) fn now() -> SystemTime {
    #[cfg(test)]
    if let Some(now) = SIMULATED.with_borrow(|now| now.as_ref().map(|now| now())) {
        return now;
    }
    SystemTime::now()
}

/// Replaces the time on this thread. `None`: the time of the system.
#[cfg(test)]
pub(super) fn simulate(now: Option<Box<dyn Fn() -> SystemTime>>) {
    SIMULATED.set(now);
}
