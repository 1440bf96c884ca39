//! How many bytes may wait in a socket unsent: what it sends in a moment.
//!
//! What waits in a socket is past the outbox, where nothing passes it and nobody drops it. So no more may wait there
//! than keeps the socket busy until it is looked at again.

use std::time::{Duration, Instant};

/// How long it takes to send what may wait. A timer is good for about 1 ms.
const MOMENT: Duration = Duration::from_millis(10);

/// The least limit: two packets and what is around them.
const LEAST: usize = 4 * 1024;

/// The limit of a socket of which nothing is known: one large batch.
const FIRST: usize = 64 * 1024;

/// How long nobody looks at a socket at most.
const LONGEST_WAIT: Duration = Duration::from_millis(50);

/// The limit of the unsent bytes of one socket, which follows the rate at which the socket sends.
///
/// The rate is measured only while something waits: then it is the path's. The limit doubles when all of it was sent
/// between two looks, so that it costs no throughput when the path becomes faster.
#[derive(Clone, Debug)]
pub struct UnsentLimit {
    limit: usize,
    /// Bytes per second, as last measured.
    rate: Option<f64>,
    /// How many bytes had been sent when nothing waited, or the limit was set.
    n_sent: u64,
    /// Since when something waits, and how many bytes had been sent then.
    waiting_since: Option<(Instant, u64)>,
}

impl Default for UnsentLimit {
    fn default() -> Self {
        Self {
            limit: FIRST,
            rate: None,
            n_sent: 0,
            waiting_since: None,
        }
    }
}

impl UnsentLimit {
    /// The largest limit: what 800 Mbit/s send in a moment. Above it the socket's own limits are good enough.
    pub const MOST: usize = 1024 * 1024;

    /// Returns the limit of a socket that was seen to be fast.
    pub fn unbounded() -> Self {
        Self {
            limit: Self::MOST,
            ..Self::default()
        }
    }

    /// Returns how many bytes may wait.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes note that of `n_written` bytes that the socket has ever got, `n_unsent` wait.
    pub fn handle_look(&mut self, n_written: u64, n_unsent: usize, now: Instant) {
        let n_sent = n_written.saturating_sub(n_unsent as u64);
        if n_unsent < LEAST / 4 {
            // Only what was used says that more could be.
            // A writer looks before each of its writes, which are no larger than the first limit.
            if n_sent.saturating_sub(self.n_sent) >= self.limit.min(FIRST) as u64 / 2 {
                self.limit = (self.limit * 2).min(Self::MOST);
            }
            (self.n_sent, self.waiting_since) = (n_sent, None);
            return;
        }
        let (since, n_before) = *self.waiting_since.get_or_insert((now, n_sent));
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= MOMENT {
            let rate = n_sent.saturating_sub(n_before) as f64 / elapsed.as_secs_f64();
            self.limit = ((rate * MOMENT.as_secs_f64()) as usize).clamp(LEAST, Self::MOST);
            (self.rate, self.n_sent, self.waiting_since) = (Some(rate), n_sent, Some((now, n_sent)));
        }
    }

    /// Returns when to look again at a socket in which `n_unsent` bytes wait: about when half the limit does.
    pub fn next_look(&self, n_unsent: usize) -> Duration {
        let surplus = n_unsent.saturating_sub(self.limit / 2) as f64;
        match self.rate {
            Some(rate) if rate > 0.0 => {
                Duration::from_secs_f64((surplus / rate).min(LONGEST_WAIT.as_secs_f64()))
            }
            Some(_) => LONGEST_WAIT,
            None => MOMENT,
        }
        .max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A socket on a path that takes `rate` bytes per second, filled up to the limit at every look.
    struct Socket {
        limit: UnsentLimit,
        n_written: u64,
        n_unsent: usize,
        now: Instant,
    }

    impl Socket {
        fn new() -> Self {
            Self {
                limit: UnsentLimit::default(),
                n_written: 0,
                n_unsent: 0,
                now: Instant::now(),
            }
        }

        /// Looks, writes what it may, and lets the path take what it takes until the next look.
        fn look(&mut self, rate: f64) {
            self.limit.handle_look(self.n_written, self.n_unsent, self.now);
            let n = self.limit.limit().saturating_sub(self.n_unsent);
            self.n_written += n as u64;
            self.n_unsent += n;
            let wait = self.limit.next_look(self.n_unsent);
            self.now += wait;
            let taken = (rate * wait.as_secs_f64()) as usize;
            self.n_unsent = self.n_unsent.saturating_sub(taken);
        }
    }

    #[test]
    fn what_waits_is_sent_in_a_moment_at_any_rate() {
        for (kbit, at_most) in [(256, LEAST), (1000, LEAST), (10_000, 16_000), (100_000, 200_000)] {
            let mut socket = Socket::new();
            for _ in 0..200 {
                socket.look(f64::from(kbit) * 125.0);
            }
            let limit = socket.limit.limit();
            assert!((LEAST..=at_most).contains(&limit), "{kbit} kbit/s: {limit}");
        }
    }

    #[test]
    fn the_path_is_never_left_idle() {
        for kbit in [256, 1000, 10_000, 100_000, 500_000] {
            let rate = f64::from(kbit) * 125.0;
            let mut socket = Socket::new();
            (0..200).for_each(|_| socket.look(rate));
            let (n_before, then) = (socket.n_written - socket.n_unsent as u64, socket.now);

            (0..500).for_each(|_| socket.look(rate));

            let n_sent = (socket.n_written - socket.n_unsent as u64 - n_before) as f64;
            let share = n_sent / (rate * (socket.now - then).as_secs_f64());
            assert!(share > 0.95, "{kbit} kbit/s: {share}");
        }
    }

    #[test]
    fn a_path_that_becomes_fast_gets_all_after_a_few_looks() {
        let mut socket = Socket::new();
        (0..200).for_each(|_| socket.look(125_000.0));
        assert_eq!(socket.limit.limit(), LEAST);

        (0..9).for_each(|_| socket.look(1e9));

        assert_eq!(socket.limit.limit(), UnsentLimit::MOST);
    }

    #[test]
    fn a_path_that_is_hardly_used_says_nothing_of_its_rate() {
        let mut limit = UnsentLimit::default();
        let start = Instant::now();

        for n in 0..1000_u32 {
            limit.handle_look(u64::from(n) * 100, 0, start + MS * n);
        }

        assert_eq!(limit.limit(), FIRST);
    }

    #[test]
    fn a_path_that_stands_still_keeps_the_least_limit_and_is_looked_at_again() {
        let mut socket = Socket::new();

        (0..100).for_each(|_| socket.look(0.0));

        assert_eq!(socket.limit.limit(), LEAST);
        assert_eq!(socket.limit.next_look(FIRST), LONGEST_WAIT);
    }
}
