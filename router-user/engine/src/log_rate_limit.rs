//! A rate-limited log: lets one of many reports of a kind through.

use std::time::{Duration, Instant};

/// Lets one report through in each interval, and counts the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogRateLimit {
    last: Option<Instant>,
    n_suppressed: u64,
}

impl LogRateLimit {
    /// Says whether a report at `now` goes through, which it does if `interval` has passed since the last one that did.
    /// Returns how many were suppressed in between, or `None` and counts this one as suppressed.
    pub fn due(&mut self, now: Instant, interval: Duration) -> Option<u64> {
        if self.is_recent(now, interval) {
            self.n_suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(self.take_suppressed())
    }

    /// Says whether a report went through within `interval` before `now`.
    pub fn is_recent(&self, now: Instant, interval: Duration) -> bool {
        self.last
            .is_some_and(|last| now.saturating_duration_since(last) < interval)
    }

    /// Returns how many reports were suppressed since the last one that went through, and forgets the number.
    pub fn take_suppressed(&mut self) -> u64 {
        std::mem::take(&mut self.n_suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn one_report_an_interval_says_how_many_were_left_out() {
        let start = Instant::now();
        let mut limit = LogRateLimit::default();
        assert_eq!(limit.due(start, MINUTE), Some(0));
        assert_eq!(limit.due(start + Duration::from_secs(1), MINUTE), None);
        assert_eq!(limit.due(start + Duration::from_secs(59), MINUTE), None);
        assert_eq!(limit.due(start + MINUTE, MINUTE), Some(2));
        assert_eq!(limit.due(start + MINUTE, MINUTE), None);
    }

    #[test]
    fn what_was_told_is_not_told_again() {
        let start = Instant::now();
        let mut limit = LogRateLimit::default();
        limit.due(start, MINUTE);
        limit.due(start, MINUTE);
        assert_eq!(limit.take_suppressed(), 1);
        assert_eq!(limit.due(start + MINUTE, MINUTE), Some(0));
    }
}
