//! CoDel (RFC 8289), the active queue management that lets a queue be long for a moment, but not for long.

use std::time::{Duration, Instant};

/// Waiting time that a queue may keep up for ever (RFC 8289, section 4.3).
const TARGET: Duration = Duration::from_millis(5);

/// How long the waiting time may be above [`TARGET`]: about the longest usual round trip (section 4.2).
const INTERVAL: Duration = Duration::from_millis(100);

/// Part of the waiting time in which nothing has come to a queue that makes it a burst that drains: to drop of it tells
/// nobody anything.
const PAUSE_DIVISOR: u32 = 4;

/// Decides which frames at the head of a queue are dropped: the state machine of RFC 8289, section 5, with the time as an argument.
#[derive(Debug, Default)]
pub(crate) struct Codel {
    /// When the waiting time will have been above [`TARGET`] for [`INTERVAL`].
    first_above: Option<Instant>,
    /// When the next frame is dropped; `None` while no frames are.
    drop_next: Option<Instant>,
    count: u32,
    last_count: u32,
    stopped: Option<Instant>,
}

impl Codel {
    /// Says whether the frame at the head is to be dropped. If so, the caller asks for the frame behind it, too.
    pub(crate) fn handle_head(&mut self, head: Head, now: Instant) -> bool {
        if head.waited < TARGET || head.is_of_few {
            self.first_above = None;
            self.stop();
            return false;
        }
        if now < *self.first_above.get_or_insert(now + INTERVAL) {
            return false;
        }
        if head.pause >= head.waited / PAUSE_DIVISOR {
            self.stop();
            return false;
        }
        match self.drop_next {
            Some(next) if now < next => return false,
            Some(next) => {
                self.count += 1;
                self.drop_next = Some(self.after(next));
            }
            None => {
                // Having dropped lately, it goes on at about the rate it had found (section 5.4).
                let since = self.stopped.map(|next| now.saturating_duration_since(next));
                let delta = self.count - self.last_count;
                let lately = since.is_some_and(|since| since < 16 * INTERVAL);
                self.count = if lately && delta > 1 { delta } else { 1 };
                self.last_count = self.count;
                self.drop_next = Some(self.after(now));
            }
        }
        true
    }

    fn stop(&mut self) {
        if let Some(next) = self.drop_next.take() {
            self.stopped = Some(next);
        }
    }

    /// Returns when the next frame is dropped after the one at `then`. By the control law it comes ever sooner.
    fn after(&self, then: Instant) -> Instant {
        then + INTERVAL.div_f64(f64::from(self.count.max(1)).sqrt())
    }
}

/// The frame at the head of a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    /// How long it has waited.
    pub(crate) waited: Duration,
    /// Whether no more bytes wait than the link takes at once.
    pub(crate) is_of_few: bool,
    /// How long nothing has come to the queue.
    pub(crate) pause: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns when frames had to go of a queue whose head is looked at each millisecond, in milliseconds.
    fn dropped(codel: &mut Codel, start: Instant, n_ms: u32, sojourn: impl Fn(u32) -> Duration) -> Vec<u32> {
        let look = |ms: &u32| codel.handle_head(head(sojourn(*ms)), start + MS * *ms);
        (0..n_ms).filter(look).collect()
    }

    /// The head of a long queue that more comes to.
    fn head(waited: Duration) -> Head {
        Head {
            waited,
            is_of_few: false,
            pause: Duration::ZERO,
        }
    }

    #[test]
    fn short_waits_and_a_wait_of_less_than_an_interval_cost_nothing() {
        let start = Instant::now();
        let burst = |ms| if (10..105).contains(&ms) { 50 * MS } else { MS };

        assert_eq!(dropped(&mut Codel::default(), start, 1000, burst), [0; 0]);
    }

    #[test]
    fn long_waits_cost_ever_more_frames_as_the_control_law_says() {
        let start = Instant::now();

        let dropped = dropped(&mut Codel::default(), start, 400, |_| 50 * MS);

        // 100 ms, and then after 100/sqrt(1), 100/sqrt(2), 100/sqrt(3) and 100/sqrt(4) ms.
        assert_eq!(dropped, [100, 200, 271, 329, 379]);
    }

    #[test]
    fn dropping_ends_with_the_wait_and_goes_on_at_its_rate_when_the_wait_is_soon_back() {
        let start = Instant::now();
        let mut codel = Codel::default();
        let wait = |ms| if (600..610).contains(&ms) { MS } else { 50 * MS };

        let dropped = dropped(&mut codel, start, 1000, wait);

        assert!(!dropped.iter().any(|ms| (600..710).contains(ms)), "{dropped:?}");
        let after: Vec<_> = dropped.iter().filter(|ms| **ms >= 710).collect();
        assert!(*after[1] - *after[0] < 60, "{after:?}");
    }

    #[test]
    fn a_queue_of_few_bytes_loses_nothing_however_slow() {
        let start = Instant::now();
        let mut codel = Codel::default();

        let few = Head {
            is_of_few: true,
            ..head(500 * MS)
        };

        let n_dropped = (0..1000)
            .filter(|ms| codel.handle_head(few, start + MS * *ms))
            .count();

        assert_eq!(n_dropped, 0);
    }

    #[test]
    fn a_burst_that_drains_loses_nothing_and_what_comes_again_to_it_may() {
        let start = Instant::now();
        let mut codel = Codel::default();
        // Something comes all the time until 150 ms, and again from 300 ms on.
        let pause = |ms: u32| {
            if (150..300).contains(&ms) {
                MS * (ms - 150)
            } else {
                MS
            }
        };

        let dropped: Vec<_> = (0..400)
            .filter(|ms| {
                let head = Head {
                    pause: pause(*ms),
                    ..head(50 * MS)
                };
                codel.handle_head(head, start + MS * *ms)
            })
            .collect();

        assert_eq!(dropped, [100, 300]);
    }
}
