//! How much of a queue is written to its stream at a time: what the stream takes in a moment.
//!
//! What is being written cannot be passed. On a slow path a whole batch would hold the others up for half a second.

use std::time::{Duration, Instant};

use super::batch::BATCH_BYTES;

/// How long writing may take.
const MOMENT: Duration = Duration::from_millis(10);

/// The least portion: a packet, or several small ones.
const LEAST: usize = 2048;

/// The first portion of a stream.
const FIRST: usize = 16 * 1024;

/// The portion of one stream, which follows the rate at which the stream takes what a queue always has.
#[derive(Debug)]
pub(crate) struct Portion {
    bytes: usize,
    /// Since when the queue always had something, and how many bytes were taken since.
    busy: Option<(Instant, usize)>,
}

impl Default for Portion {
    fn default() -> Self {
        Self {
            bytes: FIRST,
            busy: None,
        }
    }
}

impl Portion {
    /// Returns how many bytes are written at a time.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes note that the stream has taken everything that was taken out of the queue.
    pub(crate) fn handle_written(&mut self, now: Instant) {
        let (since, n_bytes) = *self.busy.get_or_insert((now, 0));
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= MOMENT {
            let per_moment = n_bytes as f64 * MOMENT.div_duration_f64(elapsed);
            self.bytes = (per_moment as usize).clamp(LEAST, BATCH_BYTES);
            self.busy = Some((now, 0));
        }
    }

    /// Takes note of bytes that were taken out of the queue.
    pub(crate) fn handle_taken(&mut self, n_bytes: usize) {
        if let Some((_, n)) = &mut self.busy {
            *n += n_bytes;
        }
    }

    /// Takes note that the queue has nothing: how long that is so says nothing of the stream.
    pub(crate) fn handle_empty(&mut self) {
        self.busy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The portion of a stream that takes `rate` bytes per second out of a queue that always has something.
    fn settled(portion: &mut Portion, rate: f64, start: Instant) -> usize {
        let mut now = start;
        for _ in 0..10_000 {
            portion.handle_written(now);
            portion.handle_taken(portion.bytes());
            now += Duration::from_secs_f64(portion.bytes() as f64 / rate);
        }
        portion.bytes()
    }

    #[test]
    fn it_is_what_the_stream_takes_in_a_moment_within_bounds() {
        let start = Instant::now();
        let settled = |rate| settled(&mut Portion::default(), rate, start);

        assert_eq!(settled(32_000.0), LEAST);
        assert!((9_000..=16_000).contains(&settled(1_250_000.0)));
        assert_eq!(settled(1e9), BATCH_BYTES);
    }

    #[test]
    fn it_recovers_when_the_stream_becomes_fast() {
        let start = Instant::now();
        let mut portion = Portion::default();
        settled(&mut portion, 32_000.0, start);

        assert_eq!(settled(&mut portion, 1e9, start + 10_000_000 * MS), BATCH_BYTES);
    }

    #[test]
    fn a_queue_that_is_mostly_empty_says_nothing_of_its_stream() {
        let start = Instant::now();
        let mut portion = Portion::default();

        for n in 0..1000 {
            portion.handle_written(start + 20 * MS * n);
            portion.handle_taken(100);
            portion.handle_written(start + 20 * MS * n + MS);
            portion.handle_empty();
        }

        assert_eq!(portion.bytes(), FIRST);
    }
}
