//! Counts of the latest minutes.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Maximum number of minutes that are kept.
const MAX_MINUTES: usize = 120;

const MINUTE: Duration = Duration::from_secs(60);

/// Number of ranges of durations.
const RANGES: usize = 42;

/// Durations, counted in ranges whose upper bounds grow by a factor of √2 from 1 ms to 25 min.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DurationCounts([u32; RANGES]);

impl Default for DurationCounts {
    fn default() -> Self {
        Self([0; RANGES])
    }
}

impl DurationCounts {
    pub(super) fn add(&mut self, duration: Duration) {
        let range = (0..RANGES - 1).find(|range| duration <= bound(*range)).unwrap_or(RANGES - 1);
        if let Some(count) = self.0.get_mut(range) {
            *count = count.saturating_add(1);
        }
    }

    /// Returns the upper bound of the range that contains the duration which `percent` % of the durations do not exceed;
    /// `None` without durations.
    #[must_use]
    pub fn quantile(&self, percent: u32) -> Option<Duration> {
        let total: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let rank = (total * u64::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        let range = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        });
        range.map(bound)
    }
}

/// Returns the upper bound of a range.
fn bound(range: usize) -> Duration {
    let millis = 1_u64 << (range / 2).min(40);
    let bound = Duration::from_millis(millis);
    if range.is_multiple_of(2) { bound } else { bound.mul_f64(std::f64::consts::SQRT_2) }
}

/// Counts of one minute.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MinuteCounts {
    /// Clean results of jobs.
    pub clean: u32,
    /// Refused media, answers from memory included.
    pub not_clean: u32,
    /// Jobs without a verdict.
    pub failed: u32,
    /// Clean answers from memory.
    pub from_memory: u32,
    /// Durations of the jobs.
    pub durations: DurationCounts,
    /// Maximum number of waiting jobs among the samples.
    pub max_waiting: usize,
    /// Maximum number of busy workers among the samples.
    pub max_busy: usize,
}

impl MinuteCounts {
    /// Counts a result. `is_clean`: `None` without a verdict. `duration`: of the job, if there was one.
    pub(super) fn count(&mut self, is_clean: Option<bool>, duration: Option<Duration>) {
        let count = match is_clean {
            Some(true) => &mut self.clean,
            Some(false) => &mut self.not_clean,
            None => &mut self.failed,
        };
        *count = count.saturating_add(1);
        if let Some(duration) = duration {
            self.durations.add(duration);
        }
    }

    pub(super) fn sample(&mut self, waiting: usize, busy: usize) {
        self.max_waiting = self.max_waiting.max(waiting);
        self.max_busy = self.max_busy.max(busy);
    }
}

/// The latest minutes, at least one.
#[derive(Debug)]
pub(super) struct Minutes {
    /// Start of the last minute.
    since: Instant,
    earlier: VecDeque<MinuteCounts>,
    last: MinuteCounts,
}

impl Minutes {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, earlier: VecDeque::new(), last: MinuteCounts::default() }
    }

    /// Returns the counts of the current minute.
    pub(super) fn current(&mut self, now: Instant) -> &mut MinuteCounts {
        let elapsed = now.saturating_duration_since(self.since);
        let passed = elapsed.as_secs() / MINUTE.as_secs();
        // More minutes than are kept, for example after a suspension of the machine, are all empty.
        for _ in 0..passed.min(MAX_MINUTES as u64) {
            if self.earlier.len() == MAX_MINUTES - 1 {
                self.earlier.pop_front();
            }
            self.earlier.push_back(std::mem::take(&mut self.last));
        }
        self.since += Duration::from_secs(passed * MINUTE.as_secs());
        &mut self.last
    }

    pub(super) fn list(&mut self, now: Instant) -> Vec<MinuteCounts> {
        let last = *self.current(now);
        self.earlier.iter().copied().chain([last]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_are_separate_and_bounded() {
        let start = Instant::now();
        let mut minutes = Minutes::new(start);
        minutes.current(start).clean = 1;
        minutes.current(start + Duration::from_secs(59)).clean += 1;
        minutes.current(start + MINUTE).clean = 7;
        minutes.current(start + 3 * MINUTE).failed = 1;
        let list = minutes.list(start + 3 * MINUTE);
        assert_eq!(list.iter().map(|minute| minute.clean).collect::<Vec<_>>(), [2, 7, 0, 0]);
        assert_eq!(list[3].failed, 1);
        assert_eq!(minutes.list(start + 100 * MINUTE)[1].clean, 7);
        let list = minutes.list(start + 1000 * MINUTE);
        assert_eq!(list.len(), MAX_MINUTES);
        assert_eq!(list.iter().map(|minute| minute.clean).sum::<u32>(), 0);
    }

    #[test]
    fn load_of_a_minute_is_the_highest_sample() {
        let mut counts = MinuteCounts::default();
        for (waiting, busy) in [(3, 2), (1, 4)] {
            counts.sample(waiting, busy);
        }
        assert_eq!((counts.max_waiting, counts.max_busy), (3, 4));
    }

    #[test]
    fn quantiles_are_bounds_of_ranges() {
        let mut counts = DurationCounts::default();
        assert_eq!(counts.quantile(50), None);
        for millis in 1..=100 {
            counts.add(Duration::from_millis(millis));
        }
        let quantile = |percent| counts.quantile(percent).unwrap().as_millis();
        assert_eq!((quantile(0), quantile(50), quantile(95), quantile(100)), (1, 64, 128, 128));
        counts.add(Duration::from_secs(86_400));
        assert_eq!(quantile_of(&counts, 100), bound(RANGES - 1));
    }

    fn quantile_of(counts: &DurationCounts, percent: u32) -> Duration {
        counts.quantile(percent).unwrap()
    }
}
