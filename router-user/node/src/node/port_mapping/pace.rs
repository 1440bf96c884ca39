//! How often a gateway is asked.

use std::time::Duration;

/// The pause after the first failure, which each further one doubles.
const FIRST_PAUSE: Duration = Duration::from_secs(30);

/// The longest pause: a gateway that forwards nothing, as most do that say so once, is asked a few times an hour.
const MAX_PAUSE: Duration = Duration::from_secs(15 * 60);

/// The shortest time between two renewals, whatever times a gateway gives.
const MIN_RENEWAL: Duration = Duration::from_secs(30);

/// How often a gateway is asked, by what has come of it.
#[derive(Debug, Default)]
pub(super) struct Pace {
    n_failures: u32,
}

impl Pace {
    /// Returns when what is forwarded for `lifetime` is to be asked for again: at half of it.
    pub(super) fn after_success(&mut self, lifetime: Duration) -> Duration {
        self.n_failures = 0;
        (lifetime / 2).max(MIN_RENEWAL)
    }

    /// Returns when a gateway is asked again that has not done what it was asked for.
    pub(super) fn after_failure(&mut self) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.n_failures.min(16));
        self.n_failures = self.n_failures.saturating_add(1);
        pause.min(MAX_PAUSE)
    }

    /// Begins anew, with another gateway or another host before it.
    pub(super) fn restart(&mut self) {
        self.n_failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_forwards_nothing_is_asked_ever_more_rarely() {
        let mut pace = Pace::default();
        let pauses: Vec<_> = (0..8).map(|_| pace.after_failure().as_secs()).collect();
        assert_eq!(pauses, [30, 60, 120, 240, 480, 900, 900, 900]);
        for _ in 0..100 {
            assert_eq!(pace.after_failure(), MAX_PAUSE);
        }

        pace.restart();
        assert_eq!(pace.after_failure(), FIRST_PAUSE);
    }

    #[test]
    fn what_is_forwarded_is_renewed_at_half_its_time_but_not_all_the_time() {
        let mut pace = Pace::default();
        assert_eq!(
            pace.after_success(Duration::from_secs(1800)),
            Duration::from_secs(900)
        );
        assert_eq!(pace.after_success(Duration::ZERO), MIN_RENEWAL);
        pace.after_failure();
        pace.after_success(Duration::from_secs(1800));
        assert_eq!(pace.after_failure(), FIRST_PAUSE, "it has worked in between");
    }
}
