//! A token bucket; time is an argument.

use std::time::{Duration, Instant};

/// Lets `rate_per_second` events pass on average and `burst` of them at once.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Time one token takes to come back.
    interval: Duration,
    /// Time a whole burst takes to come back.
    depth: Duration,
    /// Time at which the bucket is full again; it holds `(now + depth - full_at) / interval` tokens.
    full_at: Instant,
}

impl TokenBucket {
    /// Makes a bucket that is full at `now`. A rate or burst of 0 counts as 1.
    pub fn new(rate_per_second: u32, burst: u32, now: Instant) -> Self {
        let interval = Duration::from_secs(1) / rate_per_second.max(1);
        Self {
            interval,
            depth: interval.saturating_mul(burst.max(1)),
            full_at: now,
        }
    }

    /// Takes a token if there is one. A clock that goes back takes nothing from the bucket.
    pub fn take(&mut self, now: Instant) -> bool {
        let after = self.full_at.max(now) + self.interval;
        let fits = after.saturating_duration_since(now) <= self.depth;
        if fits {
            self.full_at = after;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_bucket_passes_one_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 5, start);

        let n_passed = (0..20).filter(|_| bucket.take(start)).count();

        assert_eq!(n_passed, 5);
    }

    #[test]
    fn an_empty_bucket_passes_one_event_per_interval() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10, 1, start);
        assert!(bucket.take(start));

        let passed: Vec<bool> = [99, 100, 150, 200]
            .map(|ms| bucket.take(start + Duration::from_millis(ms)))
            .to_vec();

        assert_eq!(passed, [false, true, false, true]);
    }

    #[test]
    fn a_long_pause_gives_no_more_than_a_burst() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1000, 3, start);
        let later = start + Duration::from_secs(3600);

        let n_passed = (0..10).filter(|_| bucket.take(later)).count();

        assert_eq!(n_passed, 3);
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_its_share_and_a_burst(
            rate in 1_u32..10_000,
            burst in 1_u32..100,
            gaps_us in proptest::collection::vec(0_u64..100_000, 1..300),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::new(rate, burst, start);
            let (mut now, mut n_passed) = (start, 0_u64);
            for gap in gaps_us {
                now += Duration::from_micros(gap);
                n_passed += u64::from(bucket.take(now));
                // The interval is rounded down to a nanosecond, so the rate may be off by one part in 100,000.
                let share = now.duration_since(start).as_secs_f64() * f64::from(rate) * 1.000_02;
                prop_assert!(n_passed <= share as u64 + u64::from(burst));
            }
        }
    }
}
