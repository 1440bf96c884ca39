//! What shows that the other side of a connection is there, besides the answers to pings.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Signs of life of one connection: bytes that came, and room for more bytes to go. The streams of the connection add
/// them, and the driver asks for them when a ping was not answered in time.
#[derive(Debug, Default)]
pub(super) struct SignsOfLife {
    n: AtomicU64,
    /// How many of them were asked for.
    n_seen: AtomicU64,
}

impl SignsOfLife {
    /// Adds a sign.
    pub(super) fn add(&self) {
        self.n.fetch_add(1, Relaxed);
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
}
