//! Limit of the notifications of one target: ten a minute, then one summary of all others.

use std::time::Duration;

use tokio::time::Instant;

/// Duration of a window.
const WINDOW: Duration = Duration::from_secs(60);

/// Maximum number of notifications in a window, besides a summary.
const MAX_NOTICES: u32 = 10;

/// Counts the notifications of one target.
#[derive(Debug, Default)]
pub(super) struct NoticeLimit {
    start: Option<Instant>,
    sent: u32,
    /// Whether notifications had to wait for the end of the window.
    is_exceeded: bool,
}

/// What may be sent while something waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NextNotice {
    /// One notification.
    Single,
    /// A summary of all that wait.
    Summary,
    /// Nothing before this time.
    Wait(Instant),
}

impl NoticeLimit {
    /// Returns what may be sent now, and counts it.
    pub(super) fn next(&mut self, now: Instant) -> NextNotice {
        let end = self.start.map(|start| start + WINDOW);
        let end = match end {
            Some(end) if now < end => end,
            _ => {
                self.start = Some(now);
                self.sent = 0;
                if std::mem::take(&mut self.is_exceeded) {
                    return NextNotice::Summary;
                }
                now + WINDOW
            }
        };
        if self.sent < MAX_NOTICES {
            self.sent += 1;
            return NextNotice::Single;
        }
        self.is_exceeded = true;
        NextNotice::Wait(end)
    }
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn ten_notices_are_followed_by_a_summary() {
        let start = Instant::now();
        let mut limit = NoticeLimit::default();
        for window in 0..3 {
            let now = start + WINDOW * window;
            if window > 0 {
                assert_eq!(limit.next(now), NextNotice::Summary);
            }
            for _ in 0..MAX_NOTICES {
                assert_eq!(limit.next(now), NextNotice::Single);
            }
            assert_eq!(limit.next(now), NextNotice::Wait(now + WINDOW));
            assert_eq!(limit.next(now + WINDOW / 2), NextNotice::Wait(now + WINDOW));
        }
    }

    #[test]
    fn quiet_minute_needs_no_summary() {
        let start = Instant::now();
        let mut limit = NoticeLimit::default();
        for _ in 0..MAX_NOTICES {
            assert_eq!(limit.next(start), NextNotice::Single);
        }
        assert_eq!(limit.next(start + WINDOW), NextNotice::Single);
    }
}
