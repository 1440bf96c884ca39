//! A rate in bytes per second that several queues share.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

/// How long the bytes of a rate may have collected unused.
const BURST: Duration = Duration::from_millis(10);

/// The least burst: what makes up for a timer that is late.
const LEAST_BURST: f64 = 4096.0;

/// A token bucket whose unit is a batch: one is let through whole while there is a token, and what it is more than that
/// is owed.
#[derive(Debug)]
pub struct ByteBucket {
    /// Bytes per second; `None` lets everything through.
    rate: Option<NonZeroU32>,
    /// Bytes that may leave at once; owed when negative.
    tokens: f64,
    filled: Instant,
}

impl ByteBucket {
    /// Makes an empty bucket, which fills from `now` on.
    pub fn new(rate: Option<NonZeroU32>, now: Instant) -> Self {
        Self {
            rate,
            tokens: 0.0,
            filled: now,
        }
    }

    /// Returns the bytes per second.
    pub fn rate(&self) -> Option<NonZeroU32> {
        self.rate
    }

    /// Sets the bytes per second from now on. What is owed stays owed.
    pub fn set_rate(&mut self, rate: Option<NonZeroU32>, now: Instant) {
        self.fill(now);
        self.rate = rate;
    }

    /// Returns how long the next batch has to wait, or `None` if it need not.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.fill(now);
        let rate = self.rate?.get();
        (self.tokens < 0.0).then(|| Duration::from_secs_f64(-self.tokens / f64::from(rate)))
    }

    /// Takes a batch of `n_bytes` out.
    pub fn take(&mut self, n_bytes: usize, now: Instant) {
        self.fill(now);
        if self.rate.is_some() {
            self.tokens -= n_bytes as f64;
        }
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.filled = self.filled.max(now);
        match self.rate {
            Some(rate) => {
                let rate = f64::from(rate.get());
                let burst = (rate * BURST.as_secs_f64()).max(LEAST_BURST);
                self.tokens = (self.tokens + rate * elapsed).min(burst);
            }
            None => self.tokens = 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn bucket(rate: u32, now: Instant) -> ByteBucket {
        ByteBucket::new(NonZeroU32::new(rate), now)
    }

    /// How many bytes batches of `n_bytes` carry in 10 s, when each waits as long as it is told and `late` more.
    fn carried(bucket: &mut ByteBucket, n_bytes: usize, late: Duration, start: Instant) -> usize {
        let (mut now, mut n) = (start, 0);
        while now < start + 10_000 * MS {
            match bucket.wait(now) {
                Some(wait) => now += wait + late,
                None => {
                    bucket.take(n_bytes, now);
                    n += n_bytes;
                }
            }
        }
        n
    }

    #[test]
    fn the_rate_is_kept_and_used_whatever_the_size_of_a_batch_and_however_late_a_timer() {
        let start = Instant::now();
        for rate in [100_000, 1_000_000, 100_000_000] {
            for n_bytes in [100, 2000, 65_536] {
                let n = carried(&mut bucket(rate, start), n_bytes, MS, start);

                let share = n as f64 / (f64::from(rate) * 10.0);
                assert!(
                    (0.95..1.07).contains(&share),
                    "{rate} B/s in batches of {n_bytes}: {share}"
                );
            }
        }
    }

    #[test]
    fn idle_time_is_good_for_a_short_burst_only() {
        let start = Instant::now();
        let mut bucket = bucket(1_000_000, start);
        let later = start + 60_000 * MS;

        let n = std::iter::from_fn(|| {
            let free = bucket.wait(later).is_none();
            bucket.take(1000, later);
            free.then_some(1000)
        })
        .sum::<usize>();

        assert_eq!(n, 11_000);
    }

    #[test]
    fn another_rate_counts_at_once_and_without_a_rate_nothing_waits() {
        let start = Instant::now();
        let mut bucket = bucket(1000, start);
        bucket.take(10_000, start);
        assert_eq!(bucket.wait(start), Some(10_000 * MS));

        bucket.set_rate(NonZeroU32::new(10_000), start);
        assert_eq!(bucket.wait(start), Some(1000 * MS));

        bucket.set_rate(None, start);
        assert_eq!(bucket.wait(start), None);
    }
}
