//! What a connection was used for, which shows that the other side is there, and whether the connection is needed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Signs of life of one connection: bytes that came, and room for more bytes to go. The streams of the connection add
/// them, and the driver asks for them when a ping was not answered in time.
#[derive(Debug, Default)]
pub(super) struct SignsOfLife {
    n: AtomicU64,
    /// How many of them were asked for.
    n_seen: AtomicU64,
    /// Writes of packets.
    n_written: AtomicU64,
}

impl SignsOfLife {
    /// Adds a sign.
    pub(super) fn add(&self) {
        self.n.fetch_add(1, Relaxed);
    }

    /// Records that packets were written.
    pub(super) fn add_written(&self) {
        self.n_written.fetch_add(1, Relaxed);
    }

    /// Returns a number that is another one whenever packets have come or gone.
    pub(super) fn n_uses(&self) -> u64 {
        self.n.load(Relaxed).wrapping_add(self.n_written.load(Relaxed))
    }

    /// Says whether there were any since the last time, which only the driver asks.
    pub(super) fn take(&self) -> bool {
        let n = self.n.load(Relaxed);
        self.n_seen.swap(n, Relaxed) != n
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_count_once() {
        let life = SignsOfLife::default();
        assert!(!life.take());

        life.add();
        life.add();

        assert_eq!([life.take(), life.take()], [true, false]);
    }

    #[test]
    fn what_is_written_is_a_use_and_no_sign_of_life() {
        let life = SignsOfLife::default();
        let before = life.n_uses();

        life.add_written();

        assert_ne!(life.n_uses(), before);
        assert!(!life.take());
    }
}
