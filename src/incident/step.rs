//! One step of an incident: its result, and when it is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Delays between tries: five tries take an hour. Later ones follow once an hour.
const DELAYS: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(28),
    Duration::from_secs(9 * 60 + 30),
    Duration::from_secs(50 * 60),
];

const MAX_DELAY: Duration = Duration::from_secs(3600);

/// State of a step.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub(super) struct StepState {
    /// Number of tries that failed.
    pub(super) tries: u32,
    /// Whether the step is over.
    pub(super) is_over: bool,
    /// Whether the step is over without having been done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_given_up: bool,
}

impl StepState {
    /// Takes over a later state of the same step.
    pub(super) fn merge(&mut self, other: Self) {
        self.tries = self.tries.max(other.tries);
        if other.is_over && !self.is_over {
            *self = other;
        }
    }
}

/// Result of trying a step.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum StepResult {
    /// The step is done.
    Done,
    /// There is nothing to do, for this reason.
    NotNeeded(&'static str),
    /// The other side refuses the step for good.
    Refused(&'static str),
    /// The step failed, and is tried again.
    Failed(String),
    /// The other side asks to wait. Does not count as a try.
    Wait(Duration),
}

/// Returns the delay after this number of tries.
pub(super) fn delay_after(tries: u32) -> Duration {
    let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    DELAYS.get(index).copied().unwrap_or(MAX_DELAY)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn five_tries_take_an_hour() {
        let total: Duration = (1..5).map(delay_after).sum();
        assert_eq!(total, Duration::from_secs(3600));
        assert_eq!([delay_after(5), delay_after(u32::MAX)], [MAX_DELAY; 2]);
    }
}
