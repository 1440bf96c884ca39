//! What went to and came from each peer in the last minute.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time between two looks at the counts.
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// Looks that are kept: those of the last minute, and one from before.
const KEPT: usize = 7;

/// How old a look may be that still tells of the last minute; a peer that was not configured meanwhile has older ones.
const OLDEST: Duration = Duration::from_secs(75);

/// The counts of a peer at the last few looks.
#[derive(Debug, Default)]
pub(super) struct RecentTraffic(Mutex<VecDeque<Look>>);

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Instant,
    tx_bytes: u64,
    rx_bytes: u64,
}

impl RecentTraffic {
    /// Keeps the bytes sent and received by `at`.
    pub(super) fn record(&self, at: Instant, (tx_bytes, rx_bytes): (u64, u64)) {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.push_back(Look {
            at,
            tx_bytes,
            rx_bytes,
        });
        if looks.len() > KEPT {
            looks.pop_front();
        }
    }

    /// Returns the bytes per second, sent and received, over the last minute or what is known of it.
    pub(super) fn mean(&self, now: Instant, (tx_bytes, rx_bytes): (u64, u64)) -> Option<(f64, f64)> {
        let looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_recent = |look: &&Look| now.saturating_duration_since(look.at) <= OLDEST;
        let first = looks.iter().find(is_recent)?;
        let elapsed = now.saturating_duration_since(first.at).as_secs_f64();
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / elapsed;
        (elapsed > 0.0).then(|| (rate(tx_bytes, first.tx_bytes), rate(rx_bytes, first.rx_bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_that_of_the_last_minute_or_of_what_is_known() {
        let (recent, start) = (RecentTraffic::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(recent.mean(at(0), (0, 0)), None);

        recent.record(at(0), (0, 0));
        assert_eq!(recent.mean(at(0), (5, 5)), None);
        assert_eq!(recent.mean(at(2), (10, 4)), Some((5.0, 2.0)));

        // 100 bytes a second for a minute, then nothing.
        for n in 1..=6 {
            recent.record(at(10 * n), (1000 * n, 0));
        }
        assert_eq!(recent.mean(at(60), (6000, 0)), Some((100.0, 0.0)));
        for n in 7..=12 {
            recent.record(at(10 * n), (6000, 0));
        }
        assert_eq!(recent.mean(at(120), (6000, 0)), Some((0.0, 0.0)));
    }

    #[test]
    fn a_peer_that_comes_back_has_sent_nothing_meanwhile() {
        let (recent, start) = (RecentTraffic::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        recent.record(at(0), (0, 0));

        assert_eq!(recent.mean(at(3600), (9000, 0)), None);
        recent.record(at(3600), (9000, 0));
        assert_eq!(recent.mean(at(3610), (9100, 0)), Some((10.0, 0.0)));
    }
}
