//! Exponential backoff: how long to wait before trying again.

use std::time::Duration;

/// A wait that doubles with each failure up to a limit, and starts over after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl Backoff {
    /// Creates a backoff that waits `first` at first and never longer than `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self {
            first,
            most,
            next: first,
        }
    }

    /// Returns the wait before the next try and doubles the one after it.
    pub fn handle_failure(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.most);
        wait
    }

    /// Starts over after a success.
    pub fn handle_success(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_limit_and_starts_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(50), ms(300));
        let waits: Vec<_> = (0..5).map(|_| backoff.handle_failure()).collect();
        assert_eq!(waits, [ms(50), ms(100), ms(200), ms(300), ms(300)]);
        backoff.handle_success();
        assert_eq!(backoff.handle_failure(), ms(50));
    }
}
