//! Recent changes of a server's version.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Maximum number of versions that one server reports within [`VERSIONS_PERIOD`] without a warning.
pub(super) const MAX_VERSIONS: usize = 10;
const VERSIONS_PERIOD: Duration = Duration::from_secs(60);

/// Recent changes of a server's version.
#[derive(Default, Debug)]
pub(super) struct VersionChanges {
    /// At most [`MAX_VERSIONS`] + 1, the latest last.
    times: VecDeque<Instant>,
    /// Whether [`MAX_VERSIONS`] was exceeded since the last minute without a change.
    pub(super) is_excessive: bool,
}

impl VersionChanges {
    /// Records a change. Returns whether [`MAX_VERSIONS`] is exceeded for the first time since the last minute without
    /// a change.
    pub(super) fn record(&mut self, now: Instant) -> bool {
        self.times.retain(|time| now.duration_since(*time) < VERSIONS_PERIOD);
        if self.times.is_empty() {
            self.is_excessive = false;
        }
        if self.times.len() > MAX_VERSIONS {
            self.times.pop_front();
        }
        self.times.push_back(now);
        let was_excessive = self.is_excessive;
        self.is_excessive |= self.times.len() > MAX_VERSIONS;
        self.is_excessive && !was_excessive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how often the changes at these times, seconds, exceed the maximum.
    fn excesses(times: impl IntoIterator<Item = u64>) -> usize {
        let (start, mut changes) = (Instant::now(), VersionChanges::default());
        let times = times.into_iter().map(|time| start + Duration::from_secs(time));
        times.filter(|time| changes.record(*time)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn warns_once_about_more_than_ten_versions_in_a_minute() {
        assert_eq!(excesses(0..10), 0);
        assert_eq!(excesses(0..11), 1);
        assert_eq!(excesses(0..1000), 1, "the versions go on to change");
        assert_eq!(excesses((0..50).map(|n| n * 7)), 0, "at most nine versions in any minute");
        let later = 100;
        assert_eq!(excesses((0..20).chain(later..later + 20)), 2, "a minute without a change");
        let mut changes = VersionChanges::default();
        for _ in 0..1000 {
            changes.record(Instant::now());
        }
        assert_eq!(changes.times.len(), MAX_VERSIONS + 1, "bounded memory");
    }
}
