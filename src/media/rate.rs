//! Enforces a minimum transfer rate. Only the time spent waiting for the peer counts, and the rate is measured per
//! window, so that a short pause is not an error.

use std::time::Duration;

/// Length of the window over which the rate is measured. Counts only the time spent waiting for the peer.
pub(crate) const WINDOW: Duration = Duration::from_secs(30);

/// Measures the rate of one transfer.
#[derive(Debug)]
pub(crate) struct MinRate {
    bytes_per_second: u64,
    window: Duration,
    waited: Duration,
    bytes: u64,
}

/// The rate of the last window was below the minimum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TooSlow;

impl MinRate {
    /// Creates a measurement. `min_rate` is in bytes per second; 0 allows any rate.
    pub(crate) fn new(min_rate: u64, window: Duration) -> Self {
        Self { bytes_per_second: min_rate, window, waited: Duration::ZERO, bytes: 0 }
    }

    /// Adds a completed wait and the bytes transferred after it.
    ///
    /// # Errors
    /// [`TooSlow`] at the end of a window with fewer bytes than the minimum rate requires.
    pub(crate) fn record(&mut self, waited: Duration, bytes: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.waited < self.window {
            return Ok(());
        }
        let required = u128::from(self.bytes_per_second) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < required {
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
    fn measures_rate_per_window() {
        let mut rate = MinRate::new(1024, Duration::from_secs(30));
        rate.record(Duration::from_secs(29), 0).unwrap();
        rate.record(Duration::from_secs(1), 30 * 1024).unwrap();
        rate.record(Duration::from_secs(29), 1).unwrap();
        rate.record(Duration::from_secs(1), 1).unwrap_err();
    }
}
