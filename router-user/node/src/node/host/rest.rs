//! Leaves alone for a while what takes long to read.

use std::time::Instant;

/// How many times as long as it took something is left alone: it takes a third of a percent of a core. A host may have a
/// million routes, and a node tens of thousands.
const FACTOR: u32 = 300;

/// Until when something is left alone; at first it is not.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<Instant>);

impl Rest {
    /// Says whether it is to be read at `now`.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.0.is_none_or(|end| now >= end)
    }

    /// Records that it was read from `begun` to `now`.
    pub(super) fn begin(&mut self, begun: Instant, now: Instant) {
        self.0 = Some(now + now.saturating_duration_since(begun) * FACTOR);
    }

    /// Has it read the next time, however long it took.
    pub(super) fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_took_long_is_left_alone_for_longer() {
        let begun = Instant::now();
        let mut rest = Rest::default();
        assert!(rest.is_over(begun));
        for took in [Duration::from_millis(1), Duration::from_secs(1)] {
            let read = begun + took;
            rest.begin(begun, read);
            assert!(!rest.is_over(read + took * FACTOR - Duration::from_nanos(1)));
            assert!(rest.is_over(read + took * FACTOR));
        }
        rest.end();
        assert!(rest.is_over(begun));
    }
}
