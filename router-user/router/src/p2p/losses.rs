//! How many of the packets that are sent on a connection are lost, as its transport counts them, and whether bytes come.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// The share is that of the packets of one to two times so long.
const SPAN: Duration = Duration::from_secs(60);

/// Fewest packets whose share says anything.
const FEWEST: u64 = 50;

/// What of a connection's packets is lost. The transport counts, and whoever shows it reads.
#[derive(Debug, Default)]
pub(super) struct Losses {
    counted: Mutex<Counted>,
    /// Reads of a socket that gave bytes, though none that a stream may have yet.
    n_reads: AtomicU64,
}

/// Packets of a connection since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Packets {
    /// How many were sent, those that were sent again included.
    pub(super) n_sent: u64,
    /// How many of them were taken for lost.
    pub(super) n_lost: u64,
}

#[derive(Debug, Default)]
struct Counted {
    now: Packets,
    /// What it was at the beginnings of this span and of the one before.
    begun: Packets,
    before: Packets,
    /// When this span began.
    since: Option<Instant>,
}

impl Losses {
    /// Takes in what the transport has counted by `now`, while something is sent.
    pub(super) fn handle_counts(&self, packets: Packets, now: Instant) {
        let mut counted = self.lock();
        let since = *counted.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= SPAN {
            counted.before = counted.begun;
            counted.begun = counted.now;
            counted.since = Some(now);
        }
        counted.now = packets;
    }

    /// Takes note that bytes have come.
    pub(super) fn handle_read(&self) {
        self.n_reads.fetch_add(1, Relaxed);
    }

    /// Returns a number that is another one whenever bytes have come.
    pub(super) fn n_reads(&self) -> u64 {
        self.n_reads.load(Relaxed)
    }

    /// Returns which share of the packets was lost; `None` if there were too few.
    pub(super) fn share(&self) -> Option<f64> {
        let Counted { now, before, .. } = *self.lock();
        let n_sent = now.n_sent.saturating_sub(before.n_sent);
        let n_lost = now.n_lost.saturating_sub(before.n_lost);
        // Some may have been sent before.
        (n_sent >= FEWEST).then(|| (n_lost as f64 / n_sent as f64).min(1.0))
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_last_minute_or_two() {
        let (losses, start) = (Losses::default(), Instant::now());
        let count = |second, n_sent, n_lost| {
            losses.handle_counts(Packets { n_sent, n_lost }, start + Duration::from_secs(second));
            losses.share()
        };

        assert_eq!(losses.share(), None);
        assert_eq!(count(0, 49, 5), None, "they are too few");
        assert_eq!(count(59, 100, 10), Some(0.1));
        assert_eq!(count(61, 200, 10), Some(0.05));
        // The first minute counts no more.
        assert_eq!(count(122, 300, 10), Some(0.0));
        assert_eq!(count(123, 300, 12), Some(0.01));
        assert_eq!(count(200, 330, 400), Some(1.0), "more were lost than sent");
    }
}
