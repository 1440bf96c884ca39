//! Wake-up suppression: whether a worker with nothing to do sleeps until it is woken, or naps for a moment and then looks
//! by itself.
//!
//! A wake-up for each small packet costs more than the packet: the packet's sender is interrupted, and the worker finds
//! no second one. When packets come fast, a nap gathers several of them. A large packet is worth its wake-up.

use std::time::{Duration, Instant};

/// The time over which packets are counted.
const WINDOW: Duration = Duration::from_millis(1);

/// Number of packets in a window from which on naps pay.
const FAST: usize = 12;

/// Mean bytes of a packet up to which it is small.
const SMALL: usize = 4096;

/// Counts what the workers of a thread take, and decides from it.
#[derive(Debug)]
pub struct WakeupSuppression {
    since: Instant,
    n_packets: usize,
    n_bytes: usize,
    naps: bool,
}

impl WakeupSuppression {
    /// Starts counting at `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            n_packets: 0,
            n_bytes: 0,
            naps: false,
        }
    }

    /// Records what was taken in one turn.
    pub fn handle_taken(&mut self, n_packets: usize, n_bytes: usize) {
        self.n_packets += n_packets;
        self.n_bytes += n_bytes;
    }

    /// Says whether to nap at `now`, when there is nothing to take.
    pub fn poll_nap(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.since);
        if elapsed >= WINDOW {
            let fast = self.n_packets as f64 >= FAST as f64 * elapsed.as_secs_f64() / WINDOW.as_secs_f64();
            self.naps = fast && self.n_bytes < SMALL * self.n_packets;
            *self = Self {
                naps: self.naps,
                ..Self::new(now)
            };
        }
        self.naps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether naps are due after 10 ms of packets of `len` bytes, `rate` a millisecond.
    fn naps(rate: usize, len: usize) -> bool {
        let start = Instant::now();
        let mut suppression = WakeupSuppression::new(start);
        for ms in 1..=10 {
            suppression.handle_taken(rate, rate * len);
            suppression.poll_nap(start + Duration::from_millis(ms));
        }
        suppression.poll_nap(start + Duration::from_millis(10))
    }

    #[test]
    fn naps_pay_for_many_small_packets_only() {
        assert!(naps(20, 1200));
        assert!(!naps(1, 1200));
        assert!(!naps(20, 60_000));
    }

    #[test]
    fn they_end_with_the_packets() {
        let start = Instant::now();
        let mut suppression = WakeupSuppression::new(start);
        suppression.handle_taken(1000, 64_000);

        assert!(!suppression.poll_nap(start));
        assert!(suppression.poll_nap(start + WINDOW));
        assert!(suppression.poll_nap(start + WINDOW * 3 / 2));
        assert!(!suppression.poll_nap(start + WINDOW * 2));
    }
}
