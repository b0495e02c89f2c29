//! A least rate. Only time spent waiting for the other side counts, and it is judged a window at a
//! time, so that a pause is no reason.

use std::time::Duration;

/// A rate is judged over this much waiting.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// Bytes against time.
#[derive(Debug)]
pub(crate) struct Pace {
    min_rate: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

/// In the window that has just ended, fewer bytes came than were due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooSlow;

impl Pace {
    /// `min_rate` in bytes a second; 0 judges nothing.
    pub(crate) fn new(min_rate: u64, window: Duration) -> Self {
        Self { min_rate, window, waited: Duration::ZERO, bytes: 0 }
    }

    /// A wait that has ended, and the bytes that it was for.
    pub(crate) fn count(&mut self, waited: Duration, bytes: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < self.window {
            return Ok(());
        }
        let due = u128::from(self.min_rate) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < due {
            return Err(TooSlow);
        }
        self.waited = Duration::ZERO;
        self.bytes = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_judged_by_windows_of_waiting() {
        let mut pace = Pace::new(1024, Duration::from_secs(30));
        pace.count(Duration::from_secs(29), 0).unwrap();
        pace.count(Duration::from_secs(1), 30 * 1024).unwrap();
        pace.count(Duration::from_secs(29), 1).unwrap();
        pace.count(Duration::from_secs(1), 1).unwrap_err();
    }
}
